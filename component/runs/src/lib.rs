//! Code of strangers, run in boxes on machines that may vanish.
//!
//! Owns languages ([`language`]) and the root file systems their runs have ([`roots`]), a machine's workers ([`workers`] keeps
//! them, [`worker`] is one), and the desk where runs are asked for ([`desk`]). What a program reads and writes goes in
//! numbered blocks that are kept until they have arrived ([`outgoing`], [`incoming`]), over [`link`].
//!
//! Promises: what a program writes arrives as it was written, once, whatever connection breaks meanwhile; each run has exactly one
//! verdict; nobody's code sees this machine's files; a run whose watcher left is killed at once unless that was not wanted.
//! Never knows who somebody is, nor how the API is spoken.

pub mod book;
pub mod desk;
pub mod files;
pub mod front;
pub mod house;
pub mod incoming;
pub mod language;
pub mod ledger;
pub mod link;
pub mod meters;
pub mod order;
pub mod outgoing;
pub mod pressure;
pub mod roots;
pub mod session;
pub mod talk;
pub mod worker;
pub mod workers;
