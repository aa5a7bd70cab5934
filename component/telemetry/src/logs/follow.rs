//! Following a service's logs: what is there, then what is written, of instances there are and will be.
//!
//! Owns one task per follow. It waits for inotify, reads on a thread that may block, and waits for its reader
//! when the channel is full: then the files keep what is not read yet, and only rotation bounds that. It ends
//! when the [`Follow`] is dropped (waiting may be dropped anywhere) or when its files cannot be read.

use super::backwards::Search;
use super::cursor::{Cursor, Turn};
use super::filter::Filter;
use super::watch::{self, Place, Seen, Watch};
use super::{QueryError, SEARCH_BYTES_MAX, chains, merge};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::unix::AsyncFd;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use wire::api::LogLine;
use world::task::Task;

/// Lines on their way to a reader: a screen or four, so that a slow one does not stop the other half of work.
pub const FOLLOW_LINES: usize = 256;

/// Lines of a service as they are written. Dropped, the following ends.
#[derive(Debug)]
pub struct Follow {
    lines: mpsc::Receiver<LogLine>,
    _task: Task,
}

impl Follow {
    /// The next line; waits for it. `None` when the files cannot be read any more.
    pub async fn next(&mut self) -> Option<LogLine> {
        self.lines.recv().await
    }

    /// [`Follow::next`] for a stream.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<LogLine>> {
        self.lines.poll_recv(context)
    }
}

pub(super) fn start(place: Place, filter: Filter, permit: OwnedSemaphorePermit) -> Result<Follow, QueryError> {
    let failed = |source| QueryError::Watch { path: place.root.clone(), source };
    let events = Arc::new(watch::descriptor().map_err(failed)?);
    // The watch stands before this returns: whatever is written from here on is seen.
    let mut watch = Watch::new(place.clone());
    std::fs::create_dir_all(&place.root).map_err(failed)?;
    let new = watch.look(&events)?;
    #[expect(
        deprecated,
        reason = "its unsafe successor asks for a descriptor that stays open and the same: an OwnedFd is"
    )]
    let ready = AsyncFd::new(events.clone()).map_err(failed)?;
    let (sender, lines) = mpsc::channel(FOLLOW_LINES);
    let follower = Follower { place, filter, events, watch, cursors: BTreeMap::new() };
    let task = world::task::spawn("logs follow", async move {
        let _permit = permit;
        if let Err(error) = run(follower, new, ready, sender).await {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, source, "following logs ended");
        }
    });
    Ok(Follow { lines, _task: task })
}

struct Follower {
    place: Place,
    filter: Filter,
    events: Arc<OwnedFd>,
    watch: Watch,
    cursors: BTreeMap<String, Cursor>,
}

async fn run(
    follower: Follower,
    new: Vec<String>,
    ready: AsyncFd<Arc<OwnedFd>>,
    sender: mpsc::Sender<LogLine>,
) -> Result<(), QueryError> {
    let (mut follower, mut lines) = on_disk(follower, move |follower| follower.begin(new)).await?;
    // What was written between the watch and the first look has its event waiting.
    let mut seen = Seen { anything: true, ..Seen::default() };
    loop {
        let mut more = true;
        while more {
            for line in lines {
                if sender.send(line).await.is_err() {
                    return Ok(());
                }
            }
            let read;
            (follower, read) = on_disk(follower, move |follower| follower.turn(seen)).await?;
            (lines, seen) = read;
            more = !lines.is_empty() || !seen.changed.is_empty();
        }
        lines = Vec::new();
        seen = wait(&mut follower, &ready).await?;
    }
}

/// Runs `work` where it may block. Lost with the runtime only.
async fn on_disk<T: Send + 'static>(
    mut follower: Follower,
    work: impl FnOnce(&mut Follower) -> Result<T, QueryError> + Send + 'static,
) -> Result<(Follower, T), QueryError> {
    let run = tokio::task::spawn_blocking(move || {
        let done = work(&mut follower)?;
        Ok((follower, done))
    });
    run.await.unwrap_or(Err(QueryError::GivenUp))
}

async fn wait(follower: &mut Follower, ready: &AsyncFd<Arc<OwnedFd>>) -> Result<Seen, QueryError> {
    let root = follower.place.root.clone();
    let failed = |source| QueryError::Watch { path: root.clone(), source };
    loop {
        let mut guard = ready.readable().await.map_err(failed)?;
        if let Ok(seen) = guard.try_io(|events| follower.watch.take(events.get_ref())) {
            return seen.map_err(failed);
        }
    }
}

impl Follower {
    /// The lines that are there already; leaves a cursor behind the last of each instance of `watched`.
    fn begin(&mut self, watched: Vec<String>) -> Result<Vec<LogLine>, QueryError> {
        let dir = self.place.service_dir();
        let now_ms = world::clock::unix_ms();
        let mut chains = chains(&dir, &watched)?;
        for chain in &mut chains {
            let cursor = Cursor::behind(&dir, chain, now_ms)
                .map_err(|source| QueryError::Read { path: dir.join(&chain.instance), source })?;
            self.cursors.insert(chain.instance.clone(), cursor);
        }
        let search = Search { bytes_left: SEARCH_BYTES_MAX, given_up: Arc::default() };
        merge::newest(chains, &self.filter, search)
    }

    /// Reads a piece of every instance that changed. What comes back is what was found, and which instances
    /// have more to read.
    fn turn(&mut self, seen: Seen) -> Result<(Vec<LogLine>, Seen), QueryError> {
        let dir = self.place.service_dir();
        let mut changed = seen.changed;
        if seen.anything {
            let now_ms = world::clock::unix_ms();
            for instance in self.watch.look(&self.events)? {
                // One whose folder went and came back has a cursor, which finds the new files by itself.
                let cursor = || Cursor::new(&dir, &instance, now_ms);
                self.cursors.entry(instance.clone()).or_insert_with(cursor);
            }
            changed.extend(self.cursors.keys().cloned());
        }
        let mut found = Vec::new();
        let mut next = Seen::default();
        for instance in changed {
            let Some(cursor) = self.cursors.get_mut(&instance) else { continue };
            let failed = |source| QueryError::Read { path: dir.join(&instance), source };
            let Turn { lines, more, gone } = cursor.turn().map_err(failed)?;
            found.extend(lines);
            if gone {
                self.cursors.remove(&instance);
                self.watch.forget(&instance);
            } else if more {
                next.changed.insert(instance);
            }
        }
        found.sort_by_key(|(key, _)| *key);
        let wanted = found.into_iter().map(|(_, line)| line);
        let lines = wanted.filter(|line| self.filter.covers(line.time_ms) && self.filter.wants(&line.line));
        Ok((lines.collect(), next))
    }
}
