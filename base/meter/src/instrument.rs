//! The three instruments. Owns the atomics; a handle is an `Arc`, so cloning is cheap and a handle keeps
//! working (unread) after its series is forgotten. What only grows is counted by each core for itself and added up when
//! it is read. Knows no name and no label.

use crate::sample::{Example, TRACE_BYTES_MAX, Value};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bucket bounds for latencies: half a millisecond, where a local hop ends, to a minute, where people have
/// left; each about twice the one before, so a quantile is off by a factor of two at worst.
pub const LATENCY_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Bucket bounds for sizes: a packet to a gibibyte, in steps of eight.
pub const SIZE_BYTES: &[f64] =
    &[512.0, 4_096.0, 32_768.0, 262_144.0, 2_097_152.0, 16_777_216.0, 134_217_728.0, 1_073_741_824.0];

/// Threads that count for themselves; more share. A power of two.
const SHARES_MAX: usize = 16;

/// A line of the cache: cores that count do not take it from each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

/// How many count for themselves on this machine.
fn shares() -> usize {
    static SHARES: OnceLock<usize> = OnceLock::new();
    *SHARES.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        cores.next_power_of_two().min(SHARES_MAX)
    })
}

/// This thread's share.
fn share() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that ends may still count.
    THREAD.try_with(|thread| *thread).unwrap_or(0) & (shares() - 1)
}

/// Something that only grows. It wraps after 2^64, which a counter of bytes at 100 Gbit/s reaches in 46 years.
#[derive(Debug, Clone)]
pub struct Counter(Arc<[Line]>);

impl Default for Counter {
    fn default() -> Counter {
        Counter((0..shares()).map(|_| Line::default()).collect())
    }
}

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, amount: u64) {
        self.0[share()].0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.iter().fold(0, |sum, line| sum.wrapping_add(line.0.load(Ordering::Relaxed)))
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

/// One more in a [`Gauge`], for as long as it is held.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    pub fn new(gauge: &Gauge) -> Held {
        gauge.add(1.0);
        Held(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// How often values fell where.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// Made for those who count.
    shares: Box<[OnceLock<Share>]>,
    /// One for each count, once somebody gives the first: most histograms never have any.
    examples: OnceLock<Box<[Mutex<Option<Example>>]>>,
}

#[derive(Debug)]
struct Share {
    /// One per bound and one for what is above all of them. Not cumulative, so that an observation writes one.
    counts: Box<[AtomicU64]>,
    sum: Line,
}

impl Share {
    fn new(bounds: &[f64]) -> Share {
        Share { counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: Line::default() }
    }
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Histogram {
        let shares = (0..shares()).map(|_| OnceLock::new()).collect();
        Histogram(Arc::new(Buckets { bounds, shares, examples: OnceLock::new() }))
    }

    /// Counts one value. NaN is no value and is not counted: it would make the sum useless for ever.
    pub fn observe(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let at = self.0.bounds.partition_point(|bound| *bound < value);
        let share = self.0.shares[share()].get_or_init(|| Share::new(self.0.bounds));
        share.counts[at].fetch_add(1, Ordering::Relaxed);
        add_float(&share.sum.0, value);
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
        let examples = self.0.examples.get_or_init(|| (0..=self.0.bounds.len()).map(|_| Mutex::new(None)).collect());
        let example = Example { trace: trace.to_owned(), value, time_ms: now_ms };
        *examples[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(example);
    }

    pub fn bounds(&self) -> &'static [f64] {
        self.0.bounds
    }

    pub(crate) fn read(&self) -> Value {
        let mut counts = vec![0_u64; self.0.bounds.len() + 1];
        let mut sum = 0.0;
        for share in self.0.shares.iter().filter_map(OnceLock::get) {
            counts.iter_mut().zip(&share.counts).for_each(|(all, one)| *all += one.load(Ordering::Relaxed));
            sum += f64::from_bits(share.sum.0.load(Ordering::Relaxed));
        }
        Value::Histogram {
            bounds: self.0.bounds,
            counts,
            sum,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_adds_up() {
        const THREADS: usize = 2 * SHARES_MAX + 1;
        let (counter, histogram) = (Counter::default(), Histogram::new(&[1.0, 2.0]));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    (0..100).for_each(|_| counter.inc());
                    [0.5, 1.5, 8.0].iter().for_each(|value| histogram.observe(*value));
                });
            }
        });
        let each = u64::try_from(THREADS).expect("few");
        assert_eq!(counter.value(), 100 * each);
        let Value::Histogram { counts, sum, .. } = histogram.read() else { panic!("a histogram") };
        assert_eq!(counts, [each; 3]);
        assert!((sum - 10.0 * each as f64).abs() < 1e-6, "{sum}");
    }
}
