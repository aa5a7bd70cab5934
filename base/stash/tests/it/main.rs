//! The stash from outside: what is put is found, what is forgotten is not, and a disk that is not as it should be is dropped.

use bytes::Bytes;
use meter::Meter;
use stash::{Kept, Lasting, Settings, Stash};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq)]
struct Note(Bytes);

impl Kept for Note {
    fn head(&self) -> Vec<u8> {
        b"note".to_vec()
    }

    fn body(&self) -> &Bytes {
        &self.0
    }

    fn read(head: &[u8], body: Bytes) -> Option<Self> {
        (head == b"note").then_some(Note(body))
    }

    fn size_bytes(&self) -> usize {
        self.0.len() + 4
    }
}

fn note(text: &str) -> Note {
    Note(Bytes::copy_from_slice(text.as_bytes()))
}

const DISK_BYTES: usize = 64 << 20;

fn settings(disk: Option<&Path>) -> Settings {
    let disk = disk.map(|path| (path.to_owned(), DISK_BYTES));
    Settings { memory_bytes_max: 1 << 20, disk, value_bytes_max: 64 << 10 }
}

async fn open(settings: Settings, meter: &Meter) -> Stash<Note> {
    let stash = Stash::open(settings, meter);
    stash.opened().await;
    stash
}

async fn on_disk(path: &Path) -> Stash<Note> {
    open(settings(Some(path)), &Meter::new()).await
}

fn put(stash: &Stash<Note>, key: &str, text: &str, labels: &[&str]) {
    assert!(stash.put(key.to_owned(), note(text), stash.sequence(), labels, Lasting::Disk));
}

#[tokio::test]
async fn what_is_put_is_found_until_it_is_forgotten() {
    let stash = open(settings(None), &Meter::new()).await;
    put(&stash, "a", "one", &["host x"]);
    put(&stash, "b", "two", &["host y"]);
    assert_eq!((stash.at_hand("a"), stash.find("b").await), (Some(note("one")), Some(note("two"))));
    assert_eq!((stash.find("c").await, stash.may_have("c"), stash.may_have("a")), (None, false, true));
    let asked = stash.sequence();
    stash.forget(Some("host x"), true).await.unwrap();
    assert_eq!((stash.at_hand("a"), stash.find("a").await), (None, None));
    assert_eq!(stash.at_hand("b"), Some(note("two")));
    assert!(!stash.put("a".to_owned(), note("late"), asked, &["host x"], Lasting::Disk), "asked for before");
    put(&stash, "a", "new", &["host x"]);
    assert_eq!(stash.at_hand("a"), Some(note("new")));
    stash.forget(None, false).await.unwrap();
    assert_eq!((stash.at_hand("a"), stash.at_hand("b")), (None, None));
}

#[tokio::test]
async fn memory_and_values_have_bounds() {
    let meter = Meter::new();
    let stash = open(settings(None), &meter).await;
    let large = "x".repeat(60 << 10);
    for number in 0..100 {
        put(&stash, &number.to_string(), &large, &[]);
    }
    let usage = stash.usage();
    assert!(usage.memory_bytes <= usage.memory_bytes_max && usage.evicted >= 80, "{usage:?}");
    let larger = note(&"x".repeat(64 << 10));
    assert!(!stash.put("l".to_owned(), larger, stash.sequence(), &[], Lasting::Disk));
    assert!(meter.encode().contains("bramble_cache_evictions_total"));
}

#[tokio::test]
async fn the_disk_outlives_the_process_and_so_does_what_was_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let stash = on_disk(folder.path()).await;
    for key in ["a", "b", "c", "d"] {
        put(&stash, key, &format!("value {key}"), &[&format!("label {key}")]);
    }
    stash.forget(Some("label b"), true).await.unwrap();
    let short = stash.put("d".to_owned(), note("brief"), stash.sequence(), &[], Lasting::Memory);
    assert!(short && stash.usage().disk_bytes_max == DISK_BYTES as u64);
    stash.close().await;
    drop(stash);
    let stash = on_disk(folder.path()).await;
    assert_eq!(stash.at_hand("a"), None, "memory is empty");
    assert_eq!(stash.find("a").await, Some(note("value a")));
    assert_eq!(stash.find("b").await, None);
    stash.forget(None, true).await.unwrap();
    put(&stash, "e", "value e", &[]);
    stash.close().await;
    drop(stash);
    let stash = on_disk(folder.path()).await;
    assert_eq!((stash.find("c").await, stash.find("e").await), (None, Some(note("value e"))));
}

#[tokio::test]
async fn what_is_forgotten_while_the_disk_is_looked_through_stays_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let stash = on_disk(folder.path()).await;
    put(&stash, "a", "one", &["host x"]);
    stash.close().await;
    drop(stash);
    let stash: Stash<Note> = Stash::open(settings(Some(folder.path())), &Meter::new());
    assert!(stash.may_have("a"), "nobody knows yet");
    stash.forget(Some("host x"), false).await.unwrap();
    stash.opened().await;
    assert_eq!(stash.find("a").await, None);
}

#[tokio::test]
async fn two_that_want_the_same_folder_have_it_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let first = on_disk(&path).await;
    put(&first, "a", "one", &[]);
    let second: Stash<Note> = Stash::open(settings(Some(&path)), &Meter::new());
    assert!(!second.put("b".to_owned(), note("two"), second.sequence(), &[], Lasting::Disk), "not yet");
    first.close().await;
    second.opened().await;
    assert_eq!(second.find("a").await, Some(note("one")));
    assert!(!second.usage().disk_lost);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("data")).expect("the folder of the data");
    entries.map(|entry| entry.expect("an entry of it").path()).collect()
}

#[tokio::test]
async fn damaged_values_are_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let stash = on_disk(folder.path()).await;
    let keys: Vec<String> = (0..50).map(|number| format!("key {number}")).collect();
    for key in &keys {
        put(&stash, key, &format!("value of {key}: {}", "text ".repeat(2_000)), &[]);
    }
    stash.close().await;
    drop(stash);
    // Every byte that says `text` is changed where it stands.
    let mut damaged = 0;
    for path in files(folder.path()) {
        let mut bytes = std::fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(4_096 * 3) {
            if bytes[at..].starts_with(b"ext ") || bytes[at] == b't' || bytes[at] == b'x' {
                bytes[at] ^= 0x55;
                damaged += 1;
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(damaged > 5, "{damaged}");
    let stash = on_disk(folder.path()).await;
    let mut found = 0;
    for key in &keys {
        if let Some(value) = stash.find(key).await {
            assert_eq!(value, note(&format!("value of {key}: {}", "text ".repeat(2_000))));
            found += 1;
        }
    }
    assert!(found < keys.len(), "{found}");
}

#[tokio::test]
async fn a_folder_of_nonsense_or_of_another_size_is_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let stash = on_disk(folder.path()).await;
    put(&stash, "a", "one", &[]);
    stash.close().await;
    drop(stash);
    for path in files(folder.path()) {
        std::fs::write(&path, "nonsense".repeat(9_999)).unwrap();
    }
    let stash = on_disk(folder.path()).await;
    assert_eq!(stash.find("a").await, None);
    put(&stash, "a", "two", &[]);
    stash.close().await;
    drop(stash);
    std::fs::write(folder.path().join("stranger"), "x").unwrap();
    let larger = Settings { disk: Some((folder.path().to_owned(), DISK_BYTES * 2)), ..settings(None) };
    let stash = open(larger, &Meter::new()).await;
    assert_eq!(stash.find("a").await, None);
    assert!(!folder.path().join("stranger").exists());
    assert!(!stash.usage().disk_lost);
}

#[tokio::test]
async fn a_disk_that_cannot_be_used_leaves_memory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let meter = Meter::new();
    let stash = open(settings(Some(&file)), &meter).await;
    put(&stash, "a", "one", &[]);
    assert_eq!(stash.find("a").await, Some(note("one")));
    assert!(stash.usage().disk_lost && stash.usage().disk_bytes_max == 0);
    let text = meter.encode();
    assert!(text.contains("bramble_cache_disk_lost 1"), "{text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a folder", "what is not ours stays");
}
