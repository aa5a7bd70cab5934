//! A group of nobody: commands are applied where they are proposed, nothing is kept. For tests and for trying out.

use crate::Keyspace;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use storage::replicated::{Machine, ProposeError, Proposer, Waiting};

#[derive(Debug)]
pub(crate) struct Alone {
    keyspace: Arc<Keyspace>,
    index: AtomicU64,
    /// Machines are promised one command at a time.
    turn: Mutex<()>,
}

impl Alone {
    pub(crate) fn new(keyspace: Arc<Keyspace>) -> Self {
        Self { keyspace, index: AtomicU64::new(0), turn: Mutex::new(()) }
    }
}

impl Proposer for Alone {
    fn propose(&self, command: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>> {
        Box::pin(async move {
            let _turn = self.turn.lock().expect("applying a command never panics");
            let index = self.index.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(self.keyspace.apply(index, &command))
        })
    }

    fn propose_leading(&self, _term: u64, command: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>> {
        self.propose(command)
    }

    fn ask(&self, question: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, ProposeError>> {
        Box::pin(async move { Ok(self.keyspace.answer(&question)) })
    }

    fn barrier(&self) -> Waiting<'_, Result<(), ProposeError>> {
        Box::pin(async { Ok(()) })
    }

    fn leading(&self) -> Option<u64> {
        Some(1)
    }
}
