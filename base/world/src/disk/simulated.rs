//! A disk in memory that can lose power, fill up and rot, from a seed: the same seed loses the same bytes.
//!
//! What a power cut may do is what disks and file systems do: bytes written but not synced are there, or torn, or
//! zero, or gone, sector by sector; names not synced are there or not. What was synced stays.

use super::{Disk, File};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Clones are the same disk.
#[derive(Debug, Clone)]
pub struct Simulated {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: u64,
    /// Counts power cuts: a handle from before the last one is dead.
    boot: u64,
    names: BTreeMap<PathBuf, u64>,
    names_durable: BTreeMap<PathBuf, u64>,
    directories: BTreeSet<PathBuf>,
    contents: BTreeMap<u64, Content>,
    next_content: u64,
    capacity_bytes: Option<u64>,
    reserves: bool,
    /// How many more changing operations succeed before the power is cut.
    operations_left: Option<u64>,
    operations: u64,
    syncs: u64,
    powered: bool,
    locks: BTreeMap<u64, u64>,
}

#[derive(Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// How the length changed since the last sync, each as (least, greatest) a power cut may leave: a truncation is
    /// one step of the file system, a growing write gets there sector by sector.
    lengths: Vec<(usize, usize)>,
    /// Where `now` may differ from `durable`, so that a sync costs what was written and not the whole file.
    unsynced: Vec<(usize, usize)>,
    reserved_bytes: u64,
}

impl Content {
    fn taken_bytes(&self) -> u64 {
        self.reserved_bytes.max(self.now.len() as u64)
    }

    fn resize(&mut self, length: usize) {
        let before = self.now.len();
        self.unsynced.push((before.min(length), before.max(length)));
        self.now.resize(length, 0);
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for (start, end) in self.unsynced.drain(..) {
            let (start, end) = (start.min(self.now.len()), end.min(self.now.len()));
            self.durable[start..end].copy_from_slice(&self.now[start..end]);
        }
        self.lengths.clear();
    }
}

impl Simulated {
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: seed,
            boot: 0,
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            directories: BTreeSet::new(),
            contents: BTreeMap::new(),
            next_content: 0,
            capacity_bytes: None,
            reserves: true,
            operations_left: None,
            operations: 0,
            syncs: 0,
            powered: true,
            locks: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the simulated disk never panics while it is locked")
    }

    /// Cuts the power and turns it on again: handles from before are dead, and what was not synced is lost in
    /// part or whole.
    pub fn power_cut(&self) {
        self.state().power_cut();
    }

    /// Ends the process that uses the disk: its handles are dead and its locks are gone, but the power stays on, and with it what
    /// was written and not synced. After [`Simulated::lose_power_after`] came true it is [`Simulated::power_cut`] that is meant.
    pub fn kill(&self) {
        let mut state = self.state();
        state.boot += 1;
        state.powered = true;
        state.operations_left = None;
        state.locks.clear();
    }

    /// Lets `operations` more changing operations succeed; from then on every one fails, as for a machine whose power
    /// is gone, until [`Simulated::power_cut`] brings it back.
    pub fn lose_power_after(&self, operations: u64) {
        self.state().operations_left = Some(operations);
    }

    /// Changing operations so far: writes, syncs, renames and the like.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Content syncs so far.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Bounds what the disk holds; `None`: no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// Makes reserving do nothing, as on a file system that cannot.
    pub fn cannot_reserve(&self) {
        self.state().reserves = false;
    }

    /// Bytes taken by files, reservations included.
    pub fn taken_bytes(&self) -> u64 {
        self.state().taken_bytes()
    }

    /// Flips one bit of a file, durably: rot.
    ///
    /// # Panics
    /// When there is no such bit.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        let mut state = self.state();
        let content = state.content(path).expect("the file to damage exists");
        let offset = usize::try_from(offset).expect("a file in memory is addressable");
        content.now[offset] ^= 1 << (bit & 7);
        content.durable = content.now.clone();
    }

    /// Cuts a file, durably.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn cut(&self, path: &Path, length: u64) {
        let mut state = self.state();
        let content = state.content(path).expect("the file to damage exists");
        content.now.truncate(usize::try_from(length).expect("a file in memory is addressable"));
        content.durable = content.now.clone();
    }
}

impl State {
    /// splitmix64 (Steele, Lea, Flood 2014): small, and good enough to choose what is lost.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn content(&mut self, path: &Path) -> Option<&mut Content> {
        let id = self.names.get(path)?;
        self.contents.get_mut(id)
    }

    fn taken_bytes(&self) -> u64 {
        self.names.values().filter_map(|id| self.contents.get(id)).map(Content::taken_bytes).sum()
    }

    /// Every changing operation asks first.
    fn operate(&mut self) -> io::Result<()> {
        self.alive()?;
        if let Some(left) = &mut self.operations_left {
            if *left == 0 {
                self.powered = false;
                return Err(powerless());
            }
            *left -= 1;
        }
        self.operations += 1;
        Ok(())
    }

    fn alive(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(powerless()) }
    }

    /// Takes room for a content to grow to `wanted` bytes and returns how far it may.
    fn room(&self, id: u64, wanted: u64) -> u64 {
        let Some(capacity) = self.capacity_bytes else { return wanted };
        let own = self.contents.get(&id).map_or(0, Content::taken_bytes);
        let others = self.taken_bytes().saturating_sub(own);
        wanted.min(capacity.saturating_sub(others).max(own))
    }

    fn power_cut(&mut self) {
        self.boot += 1;
        self.powered = true;
        self.operations_left = None;
        self.locks.clear();
        let changed = self
            .names
            .iter()
            .map(|(path, id)| (path.clone(), Some(*id)))
            .chain(
                self.names_durable
                    .keys()
                    .filter(|path| !self.names.contains_key(*path))
                    .map(|path| (path.clone(), None)),
            )
            .filter(|(path, id)| self.names_durable.get(path).copied() != *id)
            .collect::<Vec<_>>();
        let mut names = self.names_durable.clone();
        for (path, id) in changed {
            if self.draw() & 1 == 0 {
                continue;
            }
            match id {
                Some(id) => names.insert(path, id),
                None => names.remove(&path),
            };
        }
        self.names = names.clone();
        self.names_durable = names;
        let ids = self.contents.keys().copied().collect::<Vec<_>>();
        for id in ids {
            if !self.names.values().any(|named| *named == id) {
                self.contents.remove(&id);
                continue;
            }
            self.tear(id);
        }
    }

    /// Decides sector by sector what is left of the bytes that were not synced.
    fn tear(&mut self, id: u64) {
        let Some(mut content) = self.contents.remove(&id) else { return };
        if content.now != content.durable {
            let length = self.torn_length(&content);
            let mut left = content.durable.clone();
            left.resize(length, 0);
            for start in (0..length).step_by(SECTOR_BYTES) {
                let end = (start + SECTOR_BYTES).min(length);
                let written = content.now.get(start..end.min(content.now.len())).unwrap_or_default();
                if self.draw() & 1 == 0 {
                    left[start..start + written.len()].copy_from_slice(written);
                }
            }
            content.now = left.clone();
            content.durable = left;
        }
        content.lengths.clear();
        content.unsynced.clear();
        self.contents.insert(id, content);
    }

    fn torn_length(&mut self, content: &Content) -> usize {
        let chosen = usize::try_from(self.draw() % (content.lengths.len() as u64 + 1)).unwrap_or(0);
        let Some((least, greatest)) = chosen.checked_sub(1).and_then(|chosen| content.lengths.get(chosen)) else {
            return content.durable.len();
        };
        let sectors = (greatest - least) / SECTOR_BYTES;
        let grown = usize::try_from(self.draw() % (sectors as u64 + 2)).unwrap_or(0);
        // The last choice is that all of it got there.
        if grown > sectors { *greatest } else { (least + grown * SECTOR_BYTES) / SECTOR_BYTES * SECTOR_BYTES }
            .clamp(*least, *greatest)
    }
}

fn powerless() -> io::Error {
    io::Error::other("the simulated power is off")
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl Disk for Simulated {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        static HANDLES: AtomicU64 = AtomicU64::new(0);
        let mut state = self.state();
        state.alive()?;
        let id = match state.names.get(path) {
            Some(id) => *id,
            None => {
                state.operate()?;
                let id = state.next_content;
                state.next_content += 1;
                state.contents.insert(id, Content::default());
                state.names.insert(path.to_owned(), id);
                id
            }
        };
        let handle = HANDLES.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(SimulatedFile { disk: self.clone(), id, boot: state.boot, handle }))
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        state.directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        let id = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.names_durable.retain(|path, _| path.parent() != Some(directory));
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(directory));
        let inside = inside.map(|(path, id)| (path.clone(), *id)).collect::<Vec<_>>();
        state.names_durable.extend(inside);
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: Simulated,
    id: u64,
    boot: u64,
    handle: u64,
}

impl SimulatedFile {
    fn with<T>(&self, changes: bool, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.boot != self.boot {
            return Err(powerless());
        }
        if changes {
            state.operate()?
        } else {
            state.alive()?
        }
        act(&mut state)
    }

    fn with_content<T>(&self, changes: bool, act: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let id = self.id;
        self.with(changes, |state| act(state.contents.entry(id).or_default()))
    }
}

impl File for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        self.with_content(false, |content| Ok(content.now.len() as u64))
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with_content(false, |content| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let found = content.now.get(start..start.saturating_add(out.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(found);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let id = self.id;
        self.with(true, |state| {
            let end = offset + bytes.len() as u64;
            let allowed = state.room(id, end);
            let written = &bytes[..bytes.len() - usize::try_from(end - allowed).unwrap_or(0).min(bytes.len())];
            let content = state.contents.entry(id).or_default();
            let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            if content.now.len() < start + written.len() {
                content.lengths.push((content.now.len(), start + written.len()));
                content.resize(start + written.len());
            }
            content.unsynced.push((start, start + written.len()));
            content.now[start..start + written.len()].copy_from_slice(written);
            if written.len() < bytes.len() { Err(full()) } else { Ok(()) }
        })
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let id = self.id;
        self.with(true, |state| {
            if state.room(id, length) < length {
                return Err(full());
            }
            let content = state.contents.entry(id).or_default();
            let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
            content.lengths.push((length, length));
            content.resize(length);
            Ok(())
        })
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        let id = self.id;
        self.with(true, |state| {
            if !state.reserves {
                return Ok(());
            }
            if state.room(id, length) < length {
                return Err(full());
            }
            let content = state.contents.entry(id).or_default();
            content.reserved_bytes = content.reserved_bytes.max(length);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let id = self.id;
        self.with(true, |state| {
            state.syncs += 1;
            let content = state.contents.entry(id).or_default();
            content.sync();
            Ok(())
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        let (id, handle) = (self.id, self.handle);
        self.with(false, |state| Ok(*state.locks.entry(id).or_insert(handle) == handle))
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.boot == self.boot && state.locks.get(&self.id) == Some(&self.handle) {
            state.locks.remove(&self.id);
        }
    }
}
