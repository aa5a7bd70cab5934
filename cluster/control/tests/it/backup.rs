//! Backups: what was written comes back, and nothing but a whole file does.

use control::backup::{BackupError, Head, REVISIONS_LEFT_OUT, Restored, check};
use control::{Compare, Keyspace, Space, Txn, WatchError};
use std::path::Path;
use std::sync::Arc;
use storage::replicated::Machine;
use world::disk::Simulated;

/// One that the first version of the format wrote.
const FIXTURE_1: &[u8] = include_bytes!("fixtures/backup-1");

fn about() -> Head {
    Head {
        cluster: "blue".to_owned(),
        machine: "m1".to_owned(),
        hostname: "attic".to_owned(),
        program: "0.1.0".to_owned(),
        taken_ms: 1_800_000_000_000,
        term: 7,
        ..Head::default()
    }
}

async fn written() -> Space {
    let space = Space::ephemeral();
    let lease = space.grant(60_000).await.unwrap();
    space.commit(Txn::new().put("stack/shop", *b"{}").put("token/t", *b"used up")).await.unwrap();
    space.commit(Txn::new().put("stack/shop", *b"{\"revision\":2}").put("gone", *b"x")).await.unwrap();
    space.commit(Txn::new().delete("gone").put_leased("seat", *b"mine", lease)).await.unwrap();
    space
}

fn file(space: &Space) -> Vec<u8> {
    space.backup_local(about()).flatten().collect()
}

#[tokio::test]
async fn what_was_written_comes_back_as_it_was() {
    let space = written().await;
    let backup = space.backup(about()).await.unwrap();
    assert_eq!((backup.head().keys, backup.head().revision), (3, space.revision()));
    let bytes: Vec<u8> = backup.flatten().collect();
    let mut restored = Restored::read(bytes.as_slice()).unwrap();
    assert_eq!(restored.contents(), &check(bytes.as_slice()).unwrap());
    assert_eq!(restored.contents().stacks, ["shop"]);
    assert_eq!((restored.contents().size_bytes, restored.contents().leases), (bytes.len() as u64, 1));
    assert_eq!(restored.list("").entries, space.list("").await.unwrap().entries);
    // As the only member of a new group has it.
    restored.commit(Txn::new().delete_prefix("token/")).unwrap();
    let disk = Simulated::new(1);
    let keyspace = Keyspace::open(Arc::new(disk.clone()), Path::new("/state")).unwrap();
    keyspace.restore(b"mark", &restored.snapshot()).unwrap();
    drop(keyspace);
    let keyspace = Keyspace::open(Arc::new(disk), Path::new("/state")).unwrap();
    assert_eq!(keyspace.saved().as_deref(), Some(b"mark".as_slice()));
    let again = Space::unreplicated(keyspace);
    assert_eq!(again.get("stack/shop").await.unwrap(), space.get("stack/shop").await.unwrap());
    assert_eq!(again.get("token/t").await.unwrap(), None);
    let seat = again.get("seat").await.unwrap().unwrap();
    assert_eq!(again.renew(seat.lease.unwrap()).await.unwrap(), 60_000);
}

#[tokio::test]
async fn revisions_of_the_time_that_is_lost_are_never_used_again() {
    let space = written().await;
    let bytes = file(&space);
    let kept = space.revision();
    let restored = Restored::read(bytes.as_slice()).unwrap();
    let keyspace = Keyspace::ephemeral();
    keyspace.restore(b"", &restored.snapshot()).unwrap();
    let again = Space::unreplicated(keyspace);
    assert_eq!(again.revision(), kept + REVISIONS_LEFT_OUT);
    for seen in [1, kept, kept + 1, kept + 5_000, kept + REVISIONS_LEFT_OUT] {
        let first = again.watch("", seen).next().await;
        assert_eq!(first, Err(WatchError::Compacted { at: kept + REVISIONS_LEFT_OUT + 1 }), "{seen}");
    }
    // Whoever read a key after the backup does not swap what came back instead.
    let stale = Txn::new().when(Compare::mod_revision("stack/shop", kept + 1)).put("stack/shop", *b"late");
    assert!(!again.commit(stale).await.unwrap().succeeded);
    let from = again.revision() + 1;
    assert!(again.commit(Txn::new().put("stack/shop", *b"new")).await.unwrap().revision >= from);
    assert_eq!(again.watch("", from).next().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_with_any_byte_changed_or_missing_is_refused() {
    let bytes = file(&written().await);
    check(bytes.as_slice()).unwrap();
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80, 0xff] {
            let mut wrong = bytes.clone();
            wrong[at] ^= bit;
            assert!(check(wrong.as_slice()).is_err(), "byte {at} ^ {bit:#x}");
            assert!(Restored::read(wrong.as_slice()).is_err(), "byte {at} ^ {bit:#x}");
        }
        let cut = check(&bytes[..at]);
        assert!(matches!(cut, Err(BackupError::CutOff { .. } | BackupError::Foreign)), "cut at {at}: {cut:?}");
    }
    let longer = [bytes.as_slice(), b"x"].concat();
    assert!(matches!(check(longer.as_slice()), Err(BackupError::Damaged { .. })));
    let twice = [bytes.as_slice(), bytes.as_slice()].concat();
    assert!(matches!(check(twice.as_slice()), Err(BackupError::Damaged { .. })));
}

#[tokio::test]
async fn each_reason_is_told_from_the_others() {
    let bytes = file(&written().await);
    let newer = [&bytes[..8], &2_u32.to_le_bytes(), &bytes[12..]].concat();
    assert!(matches!(check(newer.as_slice()), Err(BackupError::Newer { found: 2 })));
    assert!(matches!(check(b"PK\x03\x04 something else".as_slice()), Err(BackupError::Foreign)));
    assert!(matches!(check(b"".as_slice()), Err(BackupError::Foreign)));
    // A length nobody wrote reserves nothing.
    let endless = [&bytes[..13], &u32::MAX.to_le_bytes(), &bytes[17..]].concat();
    assert!(matches!(check(endless.as_slice()), Err(BackupError::Damaged { from: 12, .. })));
}

#[tokio::test]
async fn a_large_space_is_written_in_blocks_while_it_changes() {
    let space = Space::ephemeral();
    for number in 0..40 {
        space.commit(Txn::new().put(format!("key/{number:03}"), vec![7_u8; 50_000])).await.unwrap();
    }
    let mut backup = space.backup(about()).await.unwrap();
    let mut bytes: Vec<u8> = backup.next().unwrap();
    for number in 0..40 {
        space.commit(Txn::new().put(format!("key/{number:03}"), *b"changed")).await.unwrap();
    }
    for block in backup {
        assert!(block.len() < 400_000, "{}", block.len());
        bytes.extend(block);
    }
    let restored = Restored::read(bytes.as_slice()).unwrap();
    let entries = restored.list("key/").entries;
    assert_eq!(entries.len(), 40);
    assert!(entries.iter().all(|entry| entry.value.len() == 50_000), "all of one moment");
}

#[test]
fn what_the_first_version_wrote_is_read() {
    let contents = check(FIXTURE_1).expect("a backup is read for ever");
    assert_eq!((contents.head.cluster.as_str(), contents.head.term, contents.head.keys), ("blue", 7, 3));
    assert_eq!(contents.stacks, ["shop"]);
}

/// Writes the fixture of a new version of the format: `cargo test -p control -- --ignored fixture_is_written`.
#[tokio::test]
#[ignore = "writes into the tree"]
async fn fixture_is_written() {
    std::fs::write("tests/it/fixtures/backup-1", file(&written().await)).unwrap();
}
