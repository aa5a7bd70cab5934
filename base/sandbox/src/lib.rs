//! Boxes: namespaces, root file system, init, seccomp, landlock, rlimits, cgroups, and the shim that keeps a
//! service's box alive without the agent.
//!
//! Processes, from the outside in: the *agent* (this crate's [`client`], async) asks the *spawner* (forked before
//! the runtime exists, single-threaded) for a box. A service's box gets a *shim*, its own session, which outlives
//! agent and spawner; a parked box belongs to the spawner and dies with it. Inside each box *init* is process 1.
//!
//! Promises: a box leaves no process, mount or control group behind; nothing a program in a box does makes a
//! process outside it wait for ever; every refusal says which step failed on which object.
//! Knows no image, stack or network policy.

mod build;
mod capabilities;
mod cgroup;
mod channel;
pub mod client;
mod clock;
mod failure;
mod init;
mod names;
mod networks;
mod proc;
mod protocol;
mod seccomp;
mod shim;
mod spawner;
pub mod spec;
mod sys;

pub use capabilities::{Capabilities, capabilities};
pub use client::{
    Channel, ConnectError, Found, Parked, RequestError, RunError, Running, Shim, SpawnerClient, StartError, Then,
    forget,
};
pub use protocol::{
    Collect, Collected, ExecResult, ExitRecord, NetworkReport, Outcome, Placed, RunLimits, SocketKind, Usage, Verdict,
};
pub use spawner::Spawner;
pub use spec::{BoxSpec, Command, File, Ids, Limits, Mount, MountSource, Network, Root, ShimStart, Trust, User};
pub use sys::watch;
