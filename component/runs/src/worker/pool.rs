//! Boxes that wait for a program: building one takes longer than many a program does. One that is as new after a program
//! waits for the next.

use crate::order::Boxes;
use sandbox::{BoxSpec, Parked, SpawnerClient, StartError};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Kinds of boxes that are kept ready: the languages of a lesson, with the limits of its exercises.
const KINDS_MAX: usize = 4;
/// Of each kind. One takes 0.75 MB, and another is built while it is used.
const READY: usize = 2;
/// Of each kind that wait when many have come back, and for how long.
pub(super) const READY_MAX: usize = 8;
const CALM: Duration = Duration::from_secs(10);

pub(super) struct Pool {
    spawner: SpawnerClient,
    /// The kind used last comes last.
    kinds: Mutex<VecDeque<Kind>>,
}

struct Kind {
    spec: BoxSpec,
    /// The newest, which is used next, comes last.
    ready: Vec<Ready>,
    building: usize,
}

struct Ready {
    since: Instant,
    source: Source,
    parked: Parked,
}

/// Where a program's box is from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Built,
    Ahead,
    Again,
}

impl Source {
    pub(super) fn count(self, boxes: &mut Boxes) {
        *match self {
            Source::Built => &mut boxes.built,
            Source::Ahead => &mut boxes.ahead,
            Source::Again => &mut boxes.again,
        } += 1;
    }
}

impl Pool {
    pub(super) fn new(spawner: SpawnerClient) -> Pool {
        Pool { spawner, kinds: Mutex::new(VecDeque::new()) }
    }

    /// A box of this kind: one that waits, or a new one.
    pub(super) async fn take(&self, spec: &BoxSpec) -> Result<(Parked, Source), StartError> {
        let waiting = self.kind(spec).back_mut().and_then(|kind| kind.ready.pop());
        Ok(match waiting {
            Some(Ready { source, parked, .. }) => (parked, source),
            None => (self.spawner.park(spec).await?, Source::Built),
        })
    }

    /// Builds what was taken anew, without anybody waiting for it.
    pub(super) fn refill(self: &Arc<Self>, spec: &BoxSpec, parked: &Arc<super::Shared>) {
        {
            let mut kinds = self.kind(spec);
            let Some(kind) = kinds.back_mut() else { return };
            if kind.ready.len() + kind.building >= READY {
                return;
            }
            kind.building += 1;
        }
        let (pool, spec, shared) = (Arc::clone(self), spec.clone(), Arc::clone(parked));
        let build = async move {
            let built = pool.spawner.park(&spec).await;
            let mut kinds = pool.kinds();
            if let Some(kind) = kinds.iter_mut().find(|kind| kind.spec == spec) {
                kind.building -= 1;
                match built {
                    Ok(parked) => {
                        kind.ready.push(Ready { since: world::clock::monotonic(), source: Source::Ahead, parked })
                    }
                    // Whoever needs one next is told the reason.
                    Err(error) => tracing::debug!(%error, "cannot build a box ahead"),
                }
            }
            count(&kinds, &shared);
        };
        // Ends when the box is built.
        world::task::spawn("a box ahead", build).detach();
    }

    /// A box that is as new after a program, or that there is none any more.
    pub(super) fn give_back(&self, spec: &BoxSpec, parked: Option<Parked>, shared: &super::Shared) {
        let Some(parked) = parked else {
            shared.boxes().given_up += 1;
            return;
        };
        let mut kinds = self.kinds();
        if let Some(kind) = kinds.iter_mut().find(|kind| kind.spec == *spec)
            && kind.ready.len() < READY_MAX
        {
            kind.ready.push(Ready { since: world::clock::monotonic(), source: Source::Again, parked });
        }
        count(&kinds, shared);
    }

    /// Lets go of boxes that a busy time left, for as long as the process lives.
    pub(super) async fn trim(self: Arc<Self>, shared: Arc<super::Shared>) {
        loop {
            tokio::time::sleep(CALM).await;
            let mut kinds = self.kinds();
            let now = world::clock::monotonic();
            for kind in kinds.iter_mut() {
                let old = kind.ready.iter().take_while(|ready| now.duration_since(ready.since) > CALM).count();
                kind.ready.drain(..old.min(kind.ready.len().saturating_sub(READY)));
            }
            count(&kinds, &shared);
        }
    }

    fn kinds(&self) -> MutexGuard<'_, VecDeque<Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this kind the last, and forgets the one longest unused for it if need be.
    fn kind(&self, spec: &BoxSpec) -> MutexGuard<'_, VecDeque<Kind>> {
        let mut kinds = self.kinds();
        let known = kinds.iter().position(|kind| kind.spec == *spec).and_then(|index| kinds.remove(index));
        let kind = known.unwrap_or_else(|| Kind { spec: spec.clone(), ready: Vec::new(), building: 0 });
        if kinds.len() >= KINDS_MAX {
            kinds.pop_front();
        }
        kinds.push_back(kind);
        kinds
    }
}

fn count(kinds: &VecDeque<Kind>, shared: &super::Shared) {
    let ready: usize = kinds.iter().map(|kind| kind.ready.len()).sum();
    shared.boxes().ready = u32::try_from(ready).unwrap_or(u32::MAX);
}
