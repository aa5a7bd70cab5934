//! The log against a model, a power cut at every operation, rot at every byte, and a full disk.

use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage::log::{Batch, Log, LogError, Options, Recovery};
use world::disk::{Disk, Real, Simulated};

/// Small, so that short histories go through many segments.
const OPTIONS: Options = Options { segment_bytes: 1024 };

/// What a log should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    purged: u64,
    entries: Vec<Vec<u8>>,
    note: Vec<u8>,
}

impl Model {
    fn write(&mut self, batch: &Batch) {
        if let Some(from) = batch.cut_from {
            self.entries.truncate(usize::try_from(from.saturating_sub(self.purged + 1)).unwrap());
        }
        if let Some(to) = batch.purge_to.filter(|to| *to > self.purged) {
            let gone = usize::try_from(to - self.purged).unwrap().min(self.entries.len());
            self.entries.drain(..gone);
            self.purged = to;
        }
        if let Some(note) = &batch.note {
            self.note.clone_from(note);
        }
        self.entries.extend(batch.entries.iter().cloned());
    }

    fn of(log: &Log) -> Self {
        let reader = log.reader();
        let entries = (reader.first()..reader.next()).map(|index| reader.read(index).unwrap()).collect();
        Self { purged: reader.first() - 1, entries, note: reader.note() }
    }
}

fn directory() -> PathBuf {
    PathBuf::from("/group/log")
}

/// As whoever keeps a log writes it.
fn write(log: &mut Log, batch: &Batch) -> Result<(), LogError> {
    let written = log.write(batch);
    log.tend();
    written
}

fn open(disk: &Simulated) -> Result<(Log, Recovery), LogError> {
    Log::open(Arc::new(disk.clone()), &directory(), OPTIONS)
}

fn entries(from: u8, count: u8) -> Vec<Vec<u8>> {
    (from..from + count).map(|n| vec![n; 50 + usize::from(n)]).collect()
}

/// Appends, cuts, purges, notes and a batch larger than a segment.
fn history() -> Vec<Batch> {
    let append = |from, count| Batch { entries: entries(from, count), ..Batch::default() };
    vec![
        Batch { note: Some(b"vote 1".to_vec()), ..Batch::default() },
        append(1, 3),
        append(4, 2),
        Batch { cut_from: Some(4), entries: entries(40, 4), ..Batch::default() },
        append(50, 5),
        Batch { note: Some(b"vote 2".to_vec()), ..Batch::default() },
        Batch { purge_to: Some(6), ..Batch::default() },
        append(60, 6),
        Batch { entries: vec![vec![9; 3000]], ..Batch::default() },
        append(70, 3),
        Batch { purge_to: Some(15), note: Some(b"vote 3".to_vec()), entries: entries(80, 2), ..Batch::default() },
        Batch { purge_to: Some(100), ..Batch::default() },
        append(90, 4),
    ]
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let dry = Simulated::new(0);
    let (mut log, _) = open(&dry).unwrap();
    history().iter().for_each(|batch| write(&mut log, batch).unwrap());
    let operations = dry.operations();
    for seed in 0..8 {
        for cut_after in 0..operations {
            check_power_cut(seed, cut_after);
        }
    }
}

fn check_power_cut(seed: u64, cut_after: u64) {
    let disk = Simulated::new(seed);
    disk.lose_power_after(cut_after);
    let mut acknowledged = Model::default();
    let mut attempted = Model::default();
    if let Ok((mut log, _)) = open(&disk) {
        for batch in history() {
            attempted.write(&batch);
            if write(&mut log, &batch).is_err() {
                break;
            }
            acknowledged.write(&batch);
        }
    }
    // Twice, since the repair itself may be cut short too.
    disk.power_cut();
    disk.lose_power_after(seed);
    drop(open(&disk));
    disk.power_cut();
    let (mut log, _) = open(&disk).unwrap_or_else(|error| panic!("seed {seed}, cut after {cut_after}: {error}"));
    let found = Model::of(&log);
    assert!(
        found == acknowledged || found == attempted,
        "seed {seed}, cut after {cut_after}: {found:?} is neither {acknowledged:?} nor {attempted:?}"
    );
    let more = Batch { entries: entries(200, 3), ..Batch::default() };
    write(&mut log, &more).unwrap();
    let mut expected = found;
    expected.write(&more);
    drop(log);
    assert_eq!(Model::of(&open(&disk).unwrap().0), expected, "seed {seed}, cut after {cut_after}");
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let disk = Simulated::new(1);
    let (mut log, _) = open(&disk).unwrap();
    let mut model = Model::default();
    let mut before_last = Model::default();
    for batch in &history()[..9] {
        before_last = model.clone();
        write(&mut log, batch).unwrap();
        model.write(batch);
    }
    drop(log);
    let names = disk.list(&directory()).unwrap();
    let segments = names.iter().filter(|name| name.ends_with(".log")).map(|name| directory().join(name));
    let segments = segments.collect::<Vec<_>>();
    assert!(segments.len() > 1);
    for (position, path) in segments.iter().enumerate() {
        let length = disk.open(path).unwrap().len().unwrap();
        for offset in 0..length {
            disk.flip_bit(path, offset, 3);
            match open(&disk) {
                Err(LogError::Corrupt { path: named, .. }) => assert_eq!(&named, path),
                Err(other) => panic!("{other}"),
                // The last batch of all looks like one that was being written.
                Ok((log, recovery)) => {
                    assert_eq!(position + 1, segments.len(), "byte {offset} of {path:?}");
                    assert!(recovery.torn.is_some());
                    assert_eq!(Model::of(&log), before_last);
                    return;
                }
            }
            disk.flip_bit(path, offset, 3);
        }
    }
    panic!("the last segment was never reached");
}

#[test]
fn rot_under_an_open_log_is_found_when_read() {
    let disk = Simulated::new(1);
    let (mut log, _) = open(&disk).unwrap();
    log.write(&Batch { entries: entries(1, 2), ..Batch::default() }).unwrap();
    let path = directory().join("0000000000000001.log");
    disk.flip_bit(&path, 150, 0);
    let reader = log.reader();
    let broken = (1..3).filter(|index| matches!(reader.read(*index), Err(LogError::Corrupt { .. }))).count();
    assert_eq!(broken, 1);
}

#[test]
fn a_full_disk_refuses_without_harm_and_room_lets_it_go_on() {
    for capacity in (0..6000).step_by(100) {
        let disk = Simulated::new(capacity);
        disk.set_capacity(Some(capacity));
        let mut model = Model::default();
        let (mut log, _) = open(&disk).unwrap();
        for number in 0..60 {
            let batch = Batch { entries: entries(number, 2), ..Batch::default() };
            match write(&mut log, &batch) {
                Ok(()) => model.write(&batch),
                Err(LogError::DiskFull { .. }) => {
                    assert_eq!(Model::of(&log), model);
                    disk.set_capacity(None);
                    write(&mut log, &batch).unwrap();
                    model.write(&batch);
                    disk.set_capacity(Some(disk.taken_bytes() + 700));
                }
                Err(other) => panic!("{other}"),
            }
        }
        drop(log);
        disk.power_cut();
        disk.set_capacity(None);
        assert_eq!(Model::of(&open(&disk).unwrap().0), model);
    }
}

#[test]
fn room_that_was_promised_is_there() {
    let disk = Simulated::new(0);
    let (mut log, _) = open(&disk).unwrap();
    for number in 0..100u8 {
        let batch = Batch { entries: vec![vec![number; 200]], ..Batch::default() };
        disk.set_capacity(Some(disk.taken_bytes()));
        let promised = log.room_bytes() >= batch.size_bytes() as u64;
        match write(&mut log, &batch) {
            Ok(()) => {}
            Err(LogError::DiskFull { .. }) if !promised => {}
            Err(other) => panic!("{other}"),
        }
        disk.set_capacity(None);
        log.tend();
    }
}

#[test]
fn purging_gives_the_room_back() {
    let disk = Simulated::new(0);
    let (mut log, _) = open(&disk).unwrap();
    for number in 0..2000u64 {
        let purge_to = number.checked_sub(20);
        write(&mut log, &Batch { purge_to, entries: vec![vec![7; 100]], ..Batch::default() }).unwrap();
        assert!(disk.taken_bytes() < 6 * OPTIONS.segment_bytes, "{} bytes", disk.taken_bytes());
    }
}

#[test]
fn the_last_entries_are_counted_by_their_bytes() {
    let disk = Simulated::new(0);
    let (mut log, _) = open(&disk).unwrap();
    assert_eq!(log.reader().first_of_last(1_000), 1);
    write(&mut log, &Batch { entries: vec![vec![7; 100]; 10], ..Batch::default() }).unwrap();
    let first = [0, 99, 100, 450, 1_000, 1_001, u64::MAX].map(|bytes| log.reader().first_of_last(bytes));
    assert_eq!(first, [11, 11, 10, 7, 1, 1, 1]);
    write(&mut log, &Batch { purge_to: Some(8), ..Batch::default() }).unwrap();
    assert_eq!(log.reader().first_of_last(1_000), 9);
}

#[test]
fn one_batch_is_one_sync() {
    let disk = Simulated::new(0);
    let (mut log, _) = Log::open(Arc::new(disk.clone()), &directory(), Options::default()).unwrap();
    log.write(&Batch { entries: entries(0, 1), ..Batch::default() }).unwrap();
    let before = disk.syncs();
    log.write(&Batch { entries: entries(1, 100), note: Some(b"n".to_vec()), ..Batch::default() }).unwrap();
    assert_eq!(disk.syncs(), before + 1);
}

#[test]
fn most_writes_leave_the_file_as_long_as_it_is() {
    let disk = Simulated::new(0);
    let (mut log, _) = Log::open(Arc::new(disk.clone()), &directory(), Options::default()).unwrap();
    let path = directory().join("0000000000000001.log");
    let mut lengths = std::collections::BTreeSet::new();
    let mut model = Model::default();
    for number in 0..2_000u64 {
        let batch = Batch { entries: vec![vec![u8::try_from(number % 251).unwrap(); 1_000]], ..Batch::default() };
        write(&mut log, &batch).unwrap();
        model.write(&batch);
        lengths.insert(disk.open(&path).unwrap().len().unwrap());
    }
    assert!((3..=5).contains(&lengths.len()), "two megabytes in steps of half a megabyte: {lengths:?}");
    drop(log);
    disk.power_cut();
    let (log, recovery) = Log::open(Arc::new(disk), &directory(), Options::default()).unwrap();
    assert_eq!(recovery.torn, None, "the zeros where the next batch goes are no batch");
    assert_eq!(Model::of(&log), model);
}

#[test]
fn a_log_is_opened_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let first = Log::open(Arc::new(Real), &path, OPTIONS).unwrap();
    assert!(matches!(Log::open(Arc::new(Real), &path, OPTIONS), Err(LogError::Locked { .. })));
    drop(first);
    Log::open(Arc::new(Real), &path, OPTIONS).unwrap();
}

#[test]
fn the_first_format_is_still_read() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/log-1");
    for entry in std::fs::read_dir(&fixture).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    let (log, recovery) = Log::open(Arc::new(Real), directory.path(), OPTIONS).unwrap();
    assert_eq!(recovery.torn, None);
    let mut expected = Model::default();
    history()[..10].iter().for_each(|batch| expected.write(batch));
    assert_eq!(Model::of(&log), expected);
}

#[test]
#[ignore = "writes the fixture of the current format, once per version"]
fn write_the_fixture() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/log-1");
    let (mut log, _) = Log::open(Arc::new(Real), &fixture, OPTIONS).unwrap();
    history()[..10].iter().for_each(|batch| write(&mut log, batch).unwrap());
}

fn batches() -> impl Strategy<Value = Vec<(u8, u8, u8, bool, bool)>> {
    prop::collection::vec((0..8u8, 0..30u8, any::<u8>(), any::<bool>(), any::<bool>()), 1..40)
}

proptest! {
    #[test]
    fn any_history_reads_back_as_the_model_says(script in batches(), seed in any::<u64>()) {
        let disk = Simulated::new(seed);
        let (mut log, _) = open(&disk).unwrap();
        let mut model = Model::default();
        for (count, back, byte, cuts, purges) in script {
            let next = model.purged + model.entries.len() as u64 + 1;
            let batch = Batch {
                cut_from: (cuts).then(|| next.saturating_sub(u64::from(back)).max(model.purged + 1)),
                purge_to: (purges && !cuts).then(|| (model.purged + u64::from(back)).min(next + 3)),
                note: (byte % 5 == 0).then(|| vec![byte; 8]),
                entries: (0..count).map(|n| vec![byte ^ n; usize::from(byte)]).collect(),
            };
            write(&mut log, &batch).unwrap();
            model.write(&batch);
            if byte % 7 == 0 {
                drop(log);
                disk.power_cut();
                log = open(&disk).unwrap().0;
            }
            prop_assert_eq!(&Model::of(&log), &model);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), keep in 0..200usize) {
        let disk = Simulated::new(0);
        let (mut log, _) = open(&disk).unwrap();
        log.write(&Batch { entries: entries(1, 3), ..Batch::default() }).unwrap();
        drop(log);
        let file = disk.open(&directory().join("0000000000000001.log")).unwrap();
        file.write_at(keep as u64, &bytes).unwrap();
        drop(open(&disk));
    }
}
