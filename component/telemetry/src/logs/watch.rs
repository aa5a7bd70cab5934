//! The folders of one service's logs, watched through inotify. Owns which watch stands for what. Level by
//! level: whatever an event says, the folders are looked at again, so one that was lost costs nothing.

use super::{QueryError, instances, name};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Room for some hundred events; what does not fit is read at the next call.
const EVENTS_BYTES: usize = 4 << 10;

/// Whose logs are followed.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) stack: String,
    pub(super) service: String,
    pub(super) only: Option<String>,
}

impl Place {
    pub(super) fn service_dir(&self) -> PathBuf {
        self.root.join(&self.stack).join(&self.service)
    }
}

#[derive(Debug)]
pub(super) struct Watch {
    place: Place,
    instances: HashMap<i32, String>,
    known: BTreeSet<String>,
}

/// What happened since the last look.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Instances whose files changed.
    pub(super) changed: BTreeSet<String>,
    /// Folders came or went, or the kernel lost count: look at everything.
    pub(super) anything: bool,
}

/// The descriptor events come from, to be waited for by whoever owns the watch.
pub(super) fn descriptor() -> std::io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)
}

impl Watch {
    pub(super) fn new(place: Place) -> Watch {
        Watch { place, instances: HashMap::new(), known: BTreeSet::new() }
    }

    /// Watches what there is of the way down to the instances, and tells the instances that are new.
    ///
    /// Each folder is watched before it is listed, so that nothing comes to be in between unseen.
    pub(super) fn look(&mut self, events: &OwnedFd) -> Result<Vec<String>, QueryError> {
        let came = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let service = self.place.service_dir();
        for dir in [&self.place.root, &self.place.root.join(&self.place.stack), &service] {
            if add(events, dir, came)?.is_none() {
                return Ok(Vec::new());
            }
        }
        let written = came | WatchFlags::MODIFY | WatchFlags::DELETE_SELF;
        let mut new = Vec::new();
        for instance in instances(&service)? {
            let wanted = self.place.only.as_ref().is_none_or(|only| *only == instance);
            if !wanted || self.known.contains(&instance) {
                continue;
            }
            let Some(watch) = add(events, &service.join(name(&instance)?), written)? else { continue };
            self.instances.insert(watch, instance.clone());
            self.known.insert(instance.clone());
            new.push(instance);
        }
        Ok(new)
    }

    /// An instance whose folder is gone; if it comes back it is a new one.
    pub(super) fn forget(&mut self, instance: &str) {
        self.known.remove(instance);
        self.instances.retain(|_, known| known != instance);
    }

    /// Takes the events that wait; none is [`std::io::ErrorKind::WouldBlock`].
    pub(super) fn take(&mut self, events: &OwnedFd) -> std::io::Result<Seen> {
        let mut seen = Seen::default();
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut reader = inotify::Reader::new(events, &mut buffer);
        let mut any = false;
        loop {
            if any && reader.is_buffer_empty() {
                return Ok(seen);
            }
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            any = true;
            let (watch, what) = (event.wd(), event.events());
            match self.instances.get(&watch) {
                Some(instance) => {
                    seen.changed.insert(instance.clone());
                }
                None => seen.anything = true,
            }
            if what.contains(ReadFlags::IGNORED) {
                // The folder is gone and the watch with it. One of the same name may be there already: it
                // needs a watch of its own.
                seen.anything = true;
                if let Some(instance) = self.instances.remove(&watch) {
                    self.known.remove(&instance);
                }
            }
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                seen.anything = true;
            }
        }
    }
}

/// The watch, or `None` when there is no such folder.
fn add(events: &OwnedFd, dir: &Path, flags: WatchFlags) -> Result<Option<i32>, QueryError> {
    match inotify::add_watch(events, dir, flags) {
        Ok(watch) => Ok(Some(watch)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(QueryError::Watch { path: dir.to_owned(), source: error.into() }),
    }
}
