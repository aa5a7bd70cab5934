//! Programs that mean harm, run as strangers' code is: in a parked box, at [`sandbox::Trust::Untrusted`]. Each ends
//! with a verdict known beforehand, and leaves no process, namespace, mount, control group, descriptor or file behind.
//!
//! Every test runs as whoever started it and, when that is root, once more as an ordinary user nobody else is. The
//! programs are in `programs/*.c`, compiled by gcc when the first test runs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod again;
mod compare;
mod ends;
mod files;
mod kernel;
mod left;
mod memory;
mod processes;
mod programs;
mod streams;
mod world;
