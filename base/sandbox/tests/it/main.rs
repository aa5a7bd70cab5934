//! Boxes for real: what the agent asks for is what runs. Every test runs twice, as root and as an ordinary user.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod limits;
mod network;
mod parked;
mod service;
mod world;
