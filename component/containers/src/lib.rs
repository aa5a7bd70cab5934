//! A machine's agent: makes the instances of this node so.
//!
//! Owns, per instance, one task ([`life`]) that brings it from nothing to serving and back: image, box, health,
//! restarts; and the door: names and sockets between its box and the rest. Promises: an instance outlives the agent
//! and is found again; what no record names is stopped; a status tells a person what is going on.
//! Never knows why an instance is wanted or who asks for it.

mod agent;
mod blueprint;
mod boxes;
mod dial;
mod door;
mod erase;
mod error;
mod health;
mod lease;
mod life;
mod pinned;
mod restart;
mod shared;
mod usage;

pub use agent::{Agent, Parts, held};
pub use boxes::{Boxes, Elsewhere};
pub use error::{BuildError, StartupError};
pub use lease::{Lease, Leases};
pub use shared::Hooks;
