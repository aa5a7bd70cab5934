//! A state that many read and one changes: the lock around [`State`], and the bell that tells watches of a new
//! revision. Shared by the durable and the soft space.

use crate::state::{Limits, State};
use std::sync::{RwLock, RwLockReadGuard};
use world::bell::{Bell, Listener};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) revision: u64,
    pub(crate) closed: bool,
}

#[derive(Debug)]
pub(crate) struct Board {
    state: RwLock<State>,
    progress: Bell<Progress>,
}

impl Board {
    pub(crate) fn new(limits: Limits) -> Self {
        Self::holding(State::new(limits))
    }

    pub(crate) fn holding(state: State) -> Self {
        let progress = Bell::new(Progress { revision: state.revision, closed: false });
        Self { state: RwLock::new(state), progress }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("changing the state never panics")
    }

    /// Changes the state, then rings if the revision moved.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, revision) = {
            let mut state = self.state.write().expect("changing the state never panics");
            let result = change(&mut state);
            (result, state.revision)
        };
        self.progress.change(|progress| {
            let moved = progress.revision < revision;
            progress.revision = progress.revision.max(revision);
            moved
        });
        result
    }

    pub(crate) fn listen(&self) -> Listener<Progress> {
        self.progress.listen()
    }

    /// Watches and others that wait for a revision.
    pub(crate) fn watches(&self) -> usize {
        self.progress.listeners()
    }

    pub(crate) fn close(&self) {
        self.progress.change(|progress| {
            progress.closed = true;
            true
        });
    }
}
