//! Who is alive, and who has which role. Pure: no clock, no randomness, no IO.
//!
//! Owns the gossip between machines ([`alive`]), the decisions about roles ([`roles`]), and the count of when an instance of a
//! lost machine is sure to have stopped ([`fencing`]). What is decided here is written down by `control`; how datagrams travel and
//! are sealed is for whoever carries them.

pub mod alive;
pub mod fencing;
pub mod roles;
