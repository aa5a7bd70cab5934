//! Replicated groups: several machines, or one, that agree on a sequence of commands. On openraft, whose only user
//! this is.
//!
//! Promises: a command is acknowledged when it is on the disks of a majority and applied; what was acknowledged
//! survives any crash; a group of one is the same code as a group of five; ticks and heartbeats write nothing.
//! Never knows what the commands mean ([`storage::replicated::Machine`] does) nor how bytes reach other members
//! ([`Network`] does).

mod batcher;
mod checkpoints;
mod election;
mod entry;
mod forced;
mod forwarder;
mod group;
mod lane;
mod log_store;
mod machine_store;
mod message;
mod meters;
mod network;
mod notes;
mod options;
mod runtime;
mod switchboard;
mod types;

pub use forced::{RestoreError, restore};
pub use group::{Group, MembersError, OpenError, Overview};
pub use machine_store::CHECKPOINT_COMMANDS;
pub use network::{Network, Nowhere, SendError};
pub use options::{Options, Start, Timing};
pub use switchboard::Switchboard;
