//! Ranges, and transactions of more than puts: what programs made for etcd ask for.

use control::{
    Compare, Leasing, Nested, Operation, Outcome, Range, RangeError, Relation, Space, SpaceError, Target, Txn,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn range(start: &str, end: &str) -> Range {
    Range { start: start.to_owned(), end: end.to_owned() }
}

fn replace(key: &str, value: Option<&str>, lease: Leasing) -> Operation {
    let value = value.map(|value| Arc::from(value.as_bytes()));
    Operation::Replace { key: key.to_owned(), value, lease, tell: true }
}

fn set(key: &str, value: &str) -> Operation {
    replace(key, Some(value), Leasing::Set(None))
}

fn keys(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Ranged { entries, .. } | Outcome::Changed { before: entries, .. } => {
            entries.iter().map(|entry| entry.key.clone()).collect()
        }
        Outcome::Nested(_) => Vec::new(),
    }
}

#[tokio::test]
async fn ranges_are_read_and_deleted_within_a_transaction() {
    let space = Space::ephemeral();
    space.commit(Txn::new().put("a", *b"1").put("b", *b"1").put("c", *b"1")).await.unwrap();
    let txn = Txn::new()
        .and(Operation::Range { range: range("a", "z"), limit: 2 })
        .and(Operation::DeleteRange { range: range("a", "c"), tell: true })
        .and(set("d", "1"))
        .and(Operation::Range { range: range("a", "z"), limit: usize::MAX });
    let outcomes = space.commit(txn).await.unwrap().outcomes;
    assert_eq!(outcomes.iter().map(keys).collect::<Vec<_>>(), [vec!["a", "b"], vec!["a", "b"], vec![], vec!["c", "d"]]);
    assert!(matches!(outcomes[0], Outcome::Ranged { count: 3, .. }), "how many there are besides");
    assert!(matches!(outcomes[1], Outcome::Changed { count: 2, .. }));
}

#[tokio::test]
async fn what_is_not_given_is_kept_and_has_to_be_there() {
    let space = Space::ephemeral();
    let lease = space.grant(60_000).await.unwrap();
    let missing = space.commit(Txn::new().and(set("b", "1")).and(replace("a", None, Leasing::Set(None)))).await;
    assert!(matches!(missing, Err(SpaceError::KeyNotFound)), "{missing:?}");
    assert!(space.get("b").await.unwrap().is_none(), "whole or not at all");
    space.commit(Txn::new().and(replace("a", Some("1"), Leasing::Set(Some(lease))))).await.unwrap();
    space.commit(Txn::new().and(replace("a", Some("2"), Leasing::Keep))).await.unwrap();
    let kept = space.get("a").await.unwrap().unwrap();
    assert_eq!((kept.value.as_ref(), kept.lease, kept.version), (b"2".as_slice(), Some(lease), 2));
    space.commit(Txn::new().and(replace("a", None, Leasing::Set(None)))).await.unwrap();
    let kept = space.get("a").await.unwrap().unwrap();
    assert_eq!((kept.value.as_ref(), kept.lease), (b"2".as_slice(), None));
    let left = space.time_left(lease).await.unwrap();
    assert!(left.ttl_ms == 60_000 && left.left_ms <= 60_000 && left.left_ms > 50_000, "{left:?}");
}

#[tokio::test]
async fn what_is_nested_is_decided_before_anything_changes() {
    let space = Space::ephemeral();
    let nested = Nested {
        compares: vec![Compare::absent("a")],
        success: vec![Operation::Range { range: Range::key("a"), limit: 1 }],
        failure: vec![set("never", "1")],
    };
    let txn = Txn::new().and(set("a", "1")).and(Operation::Nested(Box::new(nested.clone())));
    let outcomes = space.commit(txn).await.unwrap().outcomes;
    let Outcome::Nested(inner) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(inner.succeeded, "the key was absent when the whole began");
    assert_eq!(keys(&inner.outcomes[0]), ["a"], "and is there when the range is read");
    let twice = Txn::new().and(set("never", "2")).and(Operation::Nested(Box::new(nested)));
    assert!(matches!(space.commit(twice).await, Err(SpaceError::DuplicateKey { .. })));
    let deep = (0..20).fold(Nested::default(), |inner, _| Nested {
        success: vec![Operation::Nested(Box::new(inner))],
        ..Nested::default()
    });
    let deep = space.commit(Txn::new().and(Operation::Nested(Box::new(deep)))).await;
    assert!(matches!(deep, Err(SpaceError::TooManyOperations { .. })), "{deep:?}");
}

#[tokio::test]
async fn a_compare_holds_over_a_range_or_as_for_nothing() {
    let space = Space::ephemeral();
    space.commit(Txn::new().put("a/1", *b"x").put("a/2", *b"x")).await.unwrap();
    space.commit(Txn::new().put("a/2", *b"y")).await.unwrap();
    let over = |start: &str, end: &str, relation, target| Compare {
        key: start.to_owned(),
        end: Some(end.to_owned()),
        relation,
        target,
    };
    for (compare, holds) in [
        (over("a/", "a0", Relation::Greater, Target::Version(0)), true),
        (over("a/", "a0", Relation::Equal, Target::Version(1)), false),
        (over("b/", "b0", Relation::Equal, Target::Version(0)), true),
        (over("b/", "b0", Relation::NotEqual, Target::Value(Arc::from(*b"x"))), false),
    ] {
        let looked = space.look(Txn::new().when(compare.clone())).await.unwrap();
        assert_eq!(looked.succeeded, holds, "{compare:?}");
    }
    assert!(space.look(Txn::new().put("a/1", *b"z")).await.is_err(), "looking changes nothing");
}

#[tokio::test]
async fn ranges_of_one_transaction_hold_so_many_keys_together_and_no_more() {
    const KEYS: usize = 8_192;
    let space = Space::ephemeral();
    for start in (0..KEYS).step_by(128) {
        let txn = (start..start + 128).fold(Txn::new(), |txn, key| txn.put(format!("k{key:04}"), *b""));
        space.commit(txn).await.unwrap();
    }
    let all = || range("k", "l");
    let count = || Operation::Range { range: all(), limit: 0 };
    let compare =
        Compare { key: all().start, end: Some(all().end), relation: Relation::Greater, target: Target::Version(0) };
    let within = |nested: Nested| Operation::Nested(Box::new(nested));
    let times = control::RANGED_KEYS_MAX / KEYS;
    let as_many = (1..times).fold(Txn::new().when(compare.clone()), |txn, _| txn.and(count()));
    let outcomes = space.look(as_many.clone()).await.unwrap().outcomes;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Ranged { count: 8_192, .. })));
    space.commit(as_many.clone()).await.expect("as many as there may be");
    for one_more in [
        count(),
        Operation::DeleteRange { range: Range::key("k0000"), tell: false },
        within(Nested { compares: vec![compare], ..Nested::default() }),
        within(Nested { failure: vec![count()], ..Nested::default() }),
    ] {
        let many = as_many.clone().otherwise(one_more);
        let refused = (space.look(many.clone()).await, space.commit(many).await);
        let (Err(SpaceError::TooManyKeys { .. }), Err(SpaceError::TooManyKeys { .. })) = refused else {
            panic!("{refused:?}")
        };
    }
    space
        .commit(Txn::new().and(Operation::DeleteRange { range: all(), tell: false }))
        .await
        .expect("one range may be all");
}

#[tokio::test]
async fn a_missing_lease_is_told_before_an_answer_that_is_too_large() {
    let space = Space::ephemeral();
    for key in 0..4 {
        space.commit(Txn::new().put(format!("k{key}"), vec![0; control::VALUE_BYTES_MAX])).await.unwrap();
    }
    let large = Txn::new().and(Operation::Range { range: range("k", "l"), limit: usize::MAX });
    assert!(matches!(space.commit(large.clone()).await, Err(SpaceError::AnswerTooLarge { .. })));
    let missing = space.commit(large.put_leased("a", *b"", 7)).await;
    assert!(matches!(missing, Err(SpaceError::LeaseNotFound { id: 7 })), "{missing:?}");
}

#[tokio::test]
async fn what_others_keep_is_apart_and_bounded() {
    let space = Space::ephemeral();
    let mut own = space.watch_own(space.revision() + 1);
    space.commit(Txn::new().put("etcd/x", *b"1")).await.unwrap();
    let revision = space.commit(Txn::new().put("mine", *b"1")).await.unwrap().revision;
    space.commit(Txn::new().put("etcd/y", *b"1")).await.unwrap();
    let seen: Vec<String> = own.next().await.unwrap().into_iter().map(|event| event.key).collect();
    assert_eq!((seen, space.revision_own()), (vec!["mine".to_owned()], revision));
    assert_eq!(space.list_own_local().entries.len(), 1);
    let value = vec![b'x'; control::VALUE_BYTES_MAX];
    let full = loop {
        let key = format!("etcd/{}", world::random::word(8));
        if let Err(error) = space.commit(Txn::new().put(key, value.clone())).await {
            break error;
        }
    };
    assert!(matches!(full, SpaceError::SpaceFull { .. }), "{full:?}");
    let (bytes, bytes_max) = space.clients_bytes();
    assert!(bytes <= bytes_max && bytes > bytes_max - 2 * control::VALUE_BYTES_MAX);
    space.commit(Txn::new().put("mine/too", value)).await.expect("there is room for what is Bramble's own");
    space.commit(Txn::new().and(Operation::DeleteRange { range: range("etcd/", "etcd0"), tell: false })).await.unwrap();
    assert_eq!(space.clients_bytes().0, 0);
}

#[tokio::test]
async fn what_is_not_read_of_the_past_need_not_be_known() {
    let space = Space::ephemeral();
    space.commit(Txn::new().put("a", *b"old").put("b", *b"old")).await.unwrap();
    let mut number = 0u32;
    while space.compacted() < 3 {
        number += 1;
        let txn = (0..100).fold(Txn::new(), |txn, key| txn.put(format!("other/{key}"), number.to_le_bytes()));
        space.commit(txn).await.unwrap();
    }
    let revision = space.revision();
    space.commit(Txn::new().put("b", *b"new")).await.unwrap();
    let read = |limit| space.range_local(&range("a", "c"), limit, Some(revision));
    assert_eq!(read(2), Err(RangeError::Compacted), "what was in b is gone");
    assert_eq!(read(1).map(|found| (found.entries.len(), found.count)), Ok((1, 2)), "that it was there is not");
}

#[tokio::test]
async fn a_watch_tells_what_was_before() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn world::disk::Disk> = Arc::new(world::disk::Real);
    let machine = crate::replicated::alone(Arc::clone(&disk), directory.path()).await;
    let first = machine.space.commit(Txn::new().put("k", *b"1")).await.unwrap().revision;
    machine.space.commit(Txn::new().put("other", *b"1").put("k", *b"2")).await.unwrap();
    machine.space.commit(Txn::new().delete("k")).await.unwrap();
    machine.space.commit(Txn::new().put("k", *b"3")).await.unwrap();
    let expected = [None, Some(b"1".to_vec()), Some(b"2".to_vec()), None];
    assert_eq!(before(&machine.space, first).await, expected);
    machine.close().await;
    crate::replicated::released(disk.as_ref(), directory.path()).await;
    let machine = crate::replicated::alone(disk, directory.path()).await;
    assert_eq!(before(&machine.space, first).await, expected, "after a restart too");
    machine.close().await;
}

async fn before(space: &Space, from: u64) -> Vec<Option<Vec<u8>>> {
    let changes = space.watch("k", from).next_with_before().await.unwrap();
    changes.into_iter().map(|(_, before)| before.map(|entry| entry.value.to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What was there after each revision is what a range as of that revision says.
    #[test]
    fn the_past_is_as_it_was(steps in proptest::collection::vec((0..3u8, 0..6u8, 0..6u8), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let space = Space::ephemeral();
            let mut model: BTreeMap<String, u64> = BTreeMap::new();
            let mut past = BTreeMap::new();
            for (kind, one, other) in steps {
                let (a, b) = (format!("k{one}"), format!("k{other}"));
                let operation = match kind {
                    0 | 1 => set(&a, &b),
                    _ => Operation::DeleteRange { range: range(&a, &b), tell: false },
                };
                let revision = space.commit(Txn::new().and(operation)).await.unwrap().revision;
                match kind {
                    0 | 1 => drop(model.insert(a, revision)),
                    _ => model.retain(|key, _| !range(&a, &b).contains(key)),
                }
                past.insert(revision, model.clone());
            }
            for (revision, model) in past {
                let found = space.range_local(&range("k", "l"), usize::MAX, Some(revision)).unwrap();
                let found: BTreeMap<String, u64> =
                    found.entries.into_iter().map(|entry| (entry.key, entry.mod_revision)).collect();
                assert_eq!(found, model, "as of {revision}");
                let some = space.range_local(&range("k", "l"), 2, Some(revision)).unwrap();
                let names: Vec<String> = some.entries.into_iter().map(|entry| entry.key).collect();
                assert_eq!(names, model.keys().take(2).cloned().collect::<Vec<_>>(), "in order, as of {revision}");
                assert_eq!(some.count, model.len() as u64, "all are counted");
            }
            let future = space.range_local(&range("k", "l"), 1, Some(space.revision() + 1));
            assert_eq!(future, Err(RangeError::Future));
            assert_eq!(space.range_local(&range("k", "l"), 1, Some(0)), Err(RangeError::Compacted));
        });
    }
}
