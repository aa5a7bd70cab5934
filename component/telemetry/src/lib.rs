//! Series, logs, alerts.

pub mod logs;
mod machine;
pub mod series;

pub use machine::{Machine, ProcessUsage, Reading};
