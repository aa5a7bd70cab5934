//! Whole nodes for tests and benchmarks: the real binary, started, used, broken and looked at from outside.
//!
//! Knows the command line, the API and the file layout a user sees; no crate of the product. Promises that a
//! dropped [`Node`] leaves no process behind.

pub mod arrivals;
pub mod console;
pub mod cores;
pub mod http;
pub mod ill;
pub mod image;
pub mod leaving;
pub mod load;
pub mod machines;
pub mod mixed;
pub mod network;
pub mod node;
pub mod pebble;
pub mod process;
pub mod program;
pub mod registry;
pub mod run;
pub mod wait;

pub use machines::Machines;
pub use node::{Node, Settings};
