//! The state of record: the versioned key space (revisions, watches, leases, compare-and-swap) and the soft space
//! for what machines report.
//!
//! Promises: what [`Space::commit`] acknowledged is there after any crash; a watch gives each change once and in
//! order; one transaction is one revision. Never knows how members agree ([`storage::replicated::Proposer`] does)
//! nor what a stack is made of at run time.

mod alone;
pub mod backup;
mod board;
mod codec;
mod command;
pub mod difference;
mod entry;
mod error;
mod keyspace;
mod leases;
mod meters;
mod nested;
pub mod planner;
mod range;
mod saved;
mod soft;
mod space;
pub mod stacks;
mod state;
mod txn;
pub mod view;
mod watch;

pub use entry::{Entry, Event, Listing};
pub use error::{SpaceError, WatchError};
pub use keyspace::Keyspace;
pub use range::{Range, RangeError, Ranged};
pub use saved::LoadError;
pub use soft::Soft;
pub use space::{ANSWER_BYTES_MAX, LEASE_MS_MAX, LEASE_MS_MIN, READ_BYTES_MAX, Space, TimeLeft};
pub use txn::{
    Committed, Compare, KEY_BYTES_MAX, Leasing, Nested, OPERATIONS_MAX, Operation, Outcome, RANGED_KEYS_MAX, Relation,
    TRANSACTION_BYTES_MAX, Target, Txn, VALUE_BYTES_MAX,
};
pub use watch::Watch;

/// What is kept for others, under names of theirs: below this prefix, where nothing of Bramble's own is, and within bounds
/// of its own.
pub const CLIENTS: &str = "etcd/";
