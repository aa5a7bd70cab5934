//! The three instruments. Owns the atomics; a handle is an `Arc`, so cloning is cheap and a handle keeps
//! working (unread) after its series is forgotten. Knows no name and no label.

use crate::sample::{Example, TRACE_BYTES_MAX, Value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bucket bounds for latencies: half a millisecond, where a local hop ends, to a minute, where people have
/// left; each about twice the one before, so a quantile is off by a factor of two at worst.
pub const LATENCY_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Bucket bounds for sizes: a packet to a gibibyte, in steps of eight.
pub const SIZE_BYTES: &[f64] =
    &[512.0, 4_096.0, 32_768.0, 262_144.0, 2_097_152.0, 16_777_216.0, 134_217_728.0, 1_073_741_824.0];

/// Something that only grows. It wraps after 2^64, which a counter of bytes at 100 Gbit/s reaches in 46 years.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds; a negative amount takes away.
    pub fn add(&self, amount: f64) {
        add_float(&self.0, amount);
    }

    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// How often values fell where.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// One per bound and one for what is above all of them. Not cumulative, so that an observation writes one.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// One for each count, once somebody gives the first: most histograms never have any.
    examples: OnceLock<Box<[Mutex<Option<Example>>]>>,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram(Arc::new(Buckets { bounds, counts, sum: AtomicU64::new(0), examples: OnceLock::new() }))
    }

    /// Counts one value. NaN is no value and is not counted: it would make the sum useless for ever.
    pub fn observe(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let at = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[at].fetch_add(1, Ordering::Relaxed);
        add_float(&self.0.sum, value);
    }

    /// Counts one duration, in seconds.
    pub fn observe_duration(&self, duration: std::time::Duration) {
        self.observe(duration.as_secs_f64());
    }

    /// Keeps the trace of one of the values counted, as an example of those near it, in place of the one before. Takes
    /// a lock, so it is for the few that somebody can look up.
    pub fn exemplify(&self, value: f64, trace: &str, now_ms: u64) {
        if value.is_nan() || trace.len() > TRACE_BYTES_MAX {
            return;
        }
        let at = self.0.bounds.partition_point(|bound| *bound < value);
        let examples = self.0.examples.get_or_init(|| self.0.counts.iter().map(|_| Mutex::new(None)).collect());
        let example = Example { trace: trace.to_owned(), value, time_ms: now_ms };
        *examples[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(example);
    }

    pub fn bounds(&self) -> &'static [f64] {
        self.0.bounds
    }

    pub(crate) fn read(&self) -> Value {
        Value::Histogram {
            bounds: self.0.bounds,
            counts: self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: f64::from_bits(self.0.sum.load(Ordering::Relaxed)),
            examples: self.0.examples.get().map_or_else(Vec::new, |examples| {
                examples.iter().map(|one| one.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
            }),
        }
    }
}

fn add_float(cell: &AtomicU64, amount: f64) {
    let mut seen = cell.load(Ordering::Relaxed);
    loop {
        let sum = (f64::from_bits(seen) + amount).to_bits();
        match cell.compare_exchange_weak(seen, sum, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}
