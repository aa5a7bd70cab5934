//! The key-value store under power cuts, rot and a full disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage::kv::{Change, Kv, KvError, Sync, Table};
use world::disk::{Disk, Real, Simulated};

const KEYS: Table = Table("keys");
const MARKS: Table = Table("marks");

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn path() -> PathBuf {
    PathBuf::from("/group/state.redb")
}

fn open(disk: &Simulated) -> Result<Kv, KvError> {
    Kv::open(Arc::new(disk.clone()), &path())
}

fn put(key: u8, value: u8) -> Change {
    Change::Put { table: KEYS, key: vec![key], value: vec![value; 300] }
}

fn content(kv: &Kv) -> Content {
    kv.all(KEYS).unwrap().into_iter().collect()
}

/// Each step's number is written with it: what is found must be one step's whole content.
fn step(number: u8) -> Vec<Change> {
    let mut changes = (0..20u8).map(|key| put(key.wrapping_mul(number), number)).collect::<Vec<_>>();
    changes.push(Change::Delete { table: KEYS, key: vec![number] });
    if number % 4 == 3 {
        changes.push(Change::DeleteBefore { table: KEYS, end: vec![number * 3] });
    }
    changes.push(Change::Put { table: MARKS, key: b"step".to_vec(), value: vec![number] });
    changes
}

#[test]
fn a_power_cut_at_any_operation_leaves_a_whole_state() {
    let dry = Simulated::new(0);
    let kv = open(&dry).unwrap();
    let mut states = vec![Content::new()];
    for number in 1..=6 {
        kv.write(&step(number), Sync::Now).unwrap();
        states.push(content(&kv));
    }
    drop(kv);
    for cut_after in 0..dry.operations() {
        let disk = Simulated::new(cut_after);
        disk.lose_power_after(cut_after);
        let mut acknowledged = 0;
        if let Ok(kv) = open(&disk) {
            while acknowledged < 6 && kv.write(&step(acknowledged + 1), Sync::Now).is_ok() {
                acknowledged += 1;
            }
        }
        disk.power_cut();
        let kv = open(&disk).unwrap_or_else(|error| panic!("cut after {cut_after}: {error}"));
        let found = kv.get(MARKS, b"step").unwrap().map_or(0, |mark| mark[0]);
        assert!(found == acknowledged || found == acknowledged + 1, "cut after {cut_after}: {found}, {acknowledged}");
        assert_eq!(content(&kv), states[usize::from(found)], "cut after {cut_after}");
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let disk = Simulated::new(0);
    let kv = open(&disk).unwrap();
    kv.write(&[put(1, 1)], Sync::Now).unwrap();
    disk.set_capacity(Some(disk.taken_bytes()));
    let mut written = 1;
    let refused = loop {
        let large = Change::Put { table: KEYS, key: vec![written + 1], value: vec![written + 1; 200_000] };
        match kv.write(&[large], Sync::Now) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, KvError::DiskFull { .. }), "{refused}");
    assert_eq!(content(&kv).len(), usize::from(written));
    disk.set_capacity(None);
    kv.write(&[put(200, 1)], Sync::Now).unwrap();
    drop(kv);
    disk.power_cut();
    assert_eq!(content(&open(&disk).unwrap()).len(), usize::from(written) + 1);
}

#[test]
fn rot_never_reads_as_content() {
    let disk = Simulated::new(0);
    let kv = open(&disk).unwrap();
    (1..=6).for_each(|number| kv.write(&step(number), Sync::Now).unwrap());
    let expected = content(&kv);
    drop(kv);
    let length = disk.open(&path()).unwrap().len().unwrap();
    let mut found = 0;
    for offset in (0..length).step_by(509) {
        let copy = Simulated::new(0);
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        disk.open(&path()).unwrap().read_at(0, &mut bytes).unwrap();
        copy.open(&path()).unwrap().write_at(0, &bytes).unwrap();
        copy.flip_bit(&path(), offset, 5);
        match open(&copy).and_then(|kv| kv.all(KEYS)) {
            Ok(pairs) => assert_eq!(pairs.into_iter().collect::<Content>(), expected, "byte {offset}"),
            Err(_) => found += 1,
        }
    }
    assert!(found > 0);
}

#[test]
fn a_store_is_opened_once_and_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let kv = Kv::open(Arc::new(Real), &path).unwrap();
    kv.write(&[put(1, 1)], Sync::Later).unwrap();
    kv.write(&[put(2, 2)], Sync::Now).unwrap();
    assert!(matches!(Kv::open(Arc::new(Real), Path::new(&path)), Err(KvError::Locked { .. })));
    drop(kv);
    let kv = Kv::open(Arc::new(Real), &path).unwrap();
    assert_eq!(content(&kv).len(), 2);
    kv.write(&[Change::Clear { table: KEYS }], Sync::Now).unwrap();
    assert_eq!(content(&kv).len(), 0);
}
