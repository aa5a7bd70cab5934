//! Members within one process, connected by calls: for tests and simulated clusters. Lines between members can be cut
//! and mended.

use crate::Group;
use crate::network::{Network, SendError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use storage::replicated::Waiting;

/// Clones are the same switchboard.
#[derive(Clone, Default)]
pub struct Switchboard {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<u64, Group>,
    cut: BTreeSet<(u64, u64)>,
}

impl Switchboard {
    pub fn new() -> Self {
        Self::default()
    }

    /// The network as member `from` sees it.
    pub fn line(&self, from: u64) -> Arc<dyn Network> {
        Arc::new(Line { board: self.clone(), from })
    }

    /// Lets messages reach `group` as `member`.
    pub fn connect(&self, member: u64, group: Group) {
        self.state().members.insert(member, group);
    }

    /// No message reaches `member` any more, until it is connected again.
    pub fn disconnect(&self, member: u64) {
        self.state().members.remove(&member);
    }

    /// Cuts `member` off from all others, in both directions.
    pub fn isolate(&self, member: u64) {
        let mut state = self.state();
        let others = state.members.keys().copied().filter(|other| *other != member).collect::<Vec<_>>();
        state.cut.extend(others.into_iter().flat_map(|other| [(member, other), (other, member)]));
    }

    /// Mends every line.
    pub fn mend(&self) {
        self.state().cut.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("changing the lines never panics")
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.state().cut.contains(&(from, to))
    }
}

struct Line {
    board: Switchboard,
    from: u64,
}

impl Network for Line {
    fn send(&self, to: u64, message: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, SendError>> {
        Box::pin(async move {
            let group = self.board.state().members.get(&to).cloned();
            let group =
                group.filter(|_| !self.board.is_cut(self.from, to)).ok_or(SendError::Unreachable { member: to })?;
            let answer = group.handle(&message).await;
            if self.board.is_cut(to, self.from) { Err(SendError::Unanswered { member: to }) } else { Ok(answer) }
        })
    }
}
