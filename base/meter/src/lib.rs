//! Counters, gauges, histograms and the Prometheus text.
//!
//! Owns the numbers a process keeps about itself. A component asks a [`Meter`] for an instrument once, keeps
//! the handle, and counts without a lock; what is cheaper to look up than to keep up to date comes from a
//! [`Meter::collector`] at the moment somebody reads.
//!
//! Promises: the same name and labels give the same series; the number of series is bounded, and what was
//! refused is counted; the text is valid whatever the label values are. Knows no component, no clock and
//! no history: `telemetry` samples it.

mod instrument;
mod meter;
mod sample;
mod text;

pub use instrument::{Counter, Gauge, Held, Histogram, LATENCY_SECONDS, SIZE_BYTES};
pub use meter::{Meter, Registration, SERIES_MAX};
pub use sample::{Example, Kind, LABEL_BYTES_MAX, Labels, Sample, Samples, Value};
