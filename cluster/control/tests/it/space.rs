//! One space in memory: transactions, watches, leases.

use control::{Compare, Event, Soft, Space, SpaceError, Txn, WatchError};
use std::time::Duration;

async fn put(space: &Space, key: &str, value: &str) -> u64 {
    space.commit(Txn::new().put(key, value.as_bytes())).await.expect("a put is accepted").revision
}

#[tokio::test]
async fn a_transaction_is_one_revision_and_counts_versions() {
    let space = Space::ephemeral();
    let first = space.commit(Txn::new().put("a", *b"1").put("b", *b"1")).await.unwrap();
    assert!(first.succeeded);
    let second = put(&space, "a", "2").await;
    assert_eq!(second, first.revision + 1);
    let a = space.get("a").await.unwrap().unwrap();
    assert_eq!((a.create_revision, a.mod_revision, a.version), (first.revision, second, 2));
    let listing = space.list("").await.unwrap();
    assert_eq!(listing.revision, second);
    assert_eq!(listing.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn only_one_of_many_compare_and_swaps_wins() {
    let space = Space::ephemeral();
    let mut racers = tokio::task::JoinSet::new();
    for racer in 0..16u8 {
        let space = space.clone();
        racers.spawn(async move {
            let txn = Txn::new().when(Compare::absent("lock")).put("lock", vec![racer]).otherwise_get("lock");
            space.commit(txn).await.map(|committed| (racer, committed))
        });
    }
    let outcomes = racers.join_all().await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    let winners = outcomes.iter().filter(|(_, committed)| committed.succeeded).collect::<Vec<_>>();
    assert_eq!(winners.len(), 1);
    let holder = winners[0].0;
    for (_, committed) in outcomes.iter().filter(|(_, committed)| !committed.succeeded) {
        assert_eq!(committed.entry().map(|entry| entry.value.to_vec()), Some(vec![holder]));
    }
}

#[tokio::test]
async fn a_watch_gives_the_history_then_what_comes() {
    let space = Space::ephemeral();
    let first = put(&space, "x/1", "old").await;
    put(&space, "y/1", "other").await;
    let mut watch = space.watch("x/", first);
    let third = space.commit(Txn::new().delete("x/1")).await.unwrap().revision;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(watch.next().await.unwrap());
    }
    let told = seen.iter().map(|event: &Event| (event.key.as_str(), event.value.is_some(), event.revision));
    assert_eq!(told.collect::<Vec<_>>(), [("x/1", true, first), ("x/1", false, third)]);
    space.close();
    assert_eq!(watch.next().await, Err(WatchError::Closed));
}

#[tokio::test]
async fn a_lease_takes_its_keys_along_unless_renewed() {
    let space = Space::ephemeral();
    let lease = space.grant(10_000).await.unwrap();
    space.commit(Txn::new().put_leased("held", *b"1", lease)).await.unwrap();
    let now = world::clock::monotonic();
    assert_eq!(space.expire_leases(now + Duration::from_secs(9)).await.unwrap(), 0);
    assert_eq!(space.renew(lease).await.unwrap(), 10_000);
    assert_eq!(space.expire_leases(now + Duration::from_secs(60)).await.unwrap(), 1);
    assert_eq!(space.get("held").await.unwrap(), None);
    assert!(matches!(space.renew(lease).await, Err(SpaceError::LeaseNotFound { .. })));
}

#[tokio::test]
async fn the_soft_space_wakes_only_for_news() {
    let soft = Soft::new();
    let first = soft.put("status/1", *b"up").unwrap();
    assert_eq!(soft.put("status/1", *b"up").unwrap(), first);
    let mut watch = soft.watch("status/", first);
    assert_eq!(watch.next().await.unwrap().len(), 1);
    let gone = soft.delete("status/1");
    assert_eq!(watch.next().await.unwrap()[0].revision, gone);
}

#[tokio::test]
async fn bounds_are_kept() {
    let space = Space::ephemeral();
    let long = "k".repeat(control::KEY_BYTES_MAX + 1);
    assert!(matches!(space.commit(Txn::new().put(long, *b"")).await, Err(SpaceError::KeyTooLong { .. })));
    let large = vec![0; control::VALUE_BYTES_MAX + 1];
    assert!(matches!(space.commit(Txn::new().put("a", large)).await, Err(SpaceError::ValueTooLarge { .. })));
    let many = (0..=control::OPERATIONS_MAX).fold(Txn::new(), |txn, n| txn.put(n.to_string(), *b""));
    assert!(matches!(space.commit(many).await, Err(SpaceError::TooManyOperations { .. })));
    let twice = Txn::new().put("a", *b"1").delete("a");
    assert!(matches!(space.commit(twice).await, Err(SpaceError::DuplicateKey { .. })));
    assert_eq!(space.revision(), 1);
}
