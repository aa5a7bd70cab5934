//! Who is alive, and who has which role. Pure: no clock, no randomness, no IO.
//!
//! Owns the gossip between machines ([`alive`]) and the decisions about roles ([`roles`]). What is decided here is written
//! down by `control`; how datagrams travel and are sealed is for whoever carries them.

pub mod alive;
pub mod roles;
