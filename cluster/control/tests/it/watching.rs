//! Watches: old and live ones see the same, none loses or repeats, slow ones are told.

use control::{Event, Soft, Space, Txn, WatchError};
use proptest::prelude::*;

/// (kind, key, value)
type Step = (u8, u8, u8);

fn txn((kind, key, value): Step) -> Txn {
    let name = |key: u8| format!("{}/{}", ["a", "b", "ab"][usize::from(key % 3)], key % 7);
    match kind % 4 {
        0 | 1 => Txn::new().put(name(key), vec![value]),
        2 => Txn::new().delete(name(key)),
        _ => Txn::new().put("a/all", vec![value]).put("b/all", vec![value]).delete(format!("a/{}", key % 7)),
    }
}

/// Everything a watch gives up to `revision`.
async fn seen(space: &Space, prefix: &str, from: u64, revision: u64) -> Vec<Event> {
    let mut watch = space.watch(prefix, from);
    let end = space.commit(Txn::new().put(format!("{prefix}end"), *b"")).await.unwrap().revision;
    let mut events = Vec::new();
    while watch.position() <= end {
        events.extend(watch.next().await.unwrap());
    }
    events.retain(|event| event.revision <= revision);
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn an_old_watch_sees_what_a_live_one_saw(
        steps in prop::collection::vec(any::<Step>(), 1..60),
        start in 0..60usize,
        prefix in prop::sample::select(vec!["", "a/", "b/", "a", "c"]),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let space = Space::ephemeral();
            let mut live = None;
            let mut from = 2;
            for (number, step) in steps.iter().enumerate() {
                if number == start.min(steps.len() - 1) {
                    from = space.revision() + 1;
                    live = Some(space.watch(prefix, 0));
                }
                space.commit(txn(*step)).await.unwrap();
            }
            let revision = space.revision();
            let old = seen(&space, prefix, from, revision).await;
            let mut live = live.unwrap();
            let mut lived = Vec::new();
            while live.position() <= revision {
                lived.extend(live.next().await.unwrap());
            }
            lived.retain(|event| event.revision <= revision);
            prop_assert_eq!(&old, &lived);
            prop_assert!(old.windows(2).all(|pair| pair[0].revision <= pair[1].revision));
            // What the events say is what is there.
            let listing = space.list(prefix).await.unwrap();
            for event in seen(&space, prefix, 2, revision).await {
                let entry = listing.entries.iter().find(|entry| entry.key == event.key);
                if entry.is_some_and(|entry| entry.mod_revision == event.revision) {
                    prop_assert_eq!(entry.map(|entry| &entry.value), event.value.as_ref());
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_watch_loses_or_repeats_under_many_writers() {
    const WRITERS: u64 = 8;
    const WRITES: u64 = 100;
    let space = Space::ephemeral();
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let space = space.clone();
        watchers.spawn(async move {
            let mut watch = space.watch("w/", 2);
            let mut seen = Vec::new();
            while seen.len() < (WRITERS * WRITES) as usize {
                seen.extend(watch.next().await.unwrap());
            }
            seen
        });
    }
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let space = space.clone();
        writers.spawn(async move {
            for number in 0..WRITES {
                space.commit(Txn::new().put(format!("w/{writer}"), number.to_le_bytes())).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    for seen in watchers.join_all().await {
        let revisions = seen.iter().map(|event| event.revision).collect::<Vec<_>>();
        assert_eq!(revisions, (2..WRITERS * WRITES + 2).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn who_falls_behind_or_asks_for_too_old_is_told() {
    let soft = Soft::new();
    let mut slow = soft.watch("", 0);
    soft.put("k", *b"first").unwrap();
    slow.next().await.unwrap();
    for number in 0..10_000u64 {
        soft.put("k", number.to_le_bytes()).unwrap();
    }
    assert_eq!(slow.next().await, Err(WatchError::Lagged));
    let at = match soft.watch("", 2).next().await {
        Err(WatchError::Compacted { at }) => at,
        other => panic!("{other:?}"),
    };
    assert_eq!(soft.watch("", at).next().await.unwrap()[0].revision, at);
    soft.close();
    assert_eq!(soft.watch("", 0).next().await, Err(WatchError::Closed));
}
