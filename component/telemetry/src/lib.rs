//! Series, logs, requests, alerts.
//!
//! Owns what this machine knows about itself over time: an hour of every series of the meter, the logs of
//! instances, what requests were ([`requests`]), and the alerts that follow from the series. One task samples, judges and prunes; it ends when
//! [`Telemetry`] is dropped, and dropped within a step it loses nothing but that step.
//!
//! Promises bounded memory ([`series`]) and bounded logs ([`logs`]), and never writes to a disk except for
//! notes and pruning. Knows no component: what it shows are names and labels others chose.

pub mod alerts;
mod boards;
pub mod logs;
mod machine;
pub mod requests;
mod sampler;
pub mod series;
mod unit;

pub use boards::{Board, Line, Panel, boards};
pub use machine::{Machine, ProcessUsage, Reading};
pub use sampler::{SAMPLE_EVERY, Settings, Telemetry};
pub use unit::Unit;
