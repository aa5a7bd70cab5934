//! The gossip between machines, as they live through it.

mod faults;
mod format;
mod rules;
mod simulation;
mod verdicts;
