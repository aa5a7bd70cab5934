//! The last hour of every series, in memory.
//!
//! Owns a ring of [`POINTS`] values per stream and one clock for all of them. A counter keeps how much it
//! grew between two samples (whole numbers up to 2^24 stay exact in an f32, which rates would not), and
//! becomes a rate when it is read; a histogram keeps its growth and three quantiles of it.
//!
//! Memory: a stream is 2,880 bytes of points and some 500 of key, table and book-keeping, all of it taken at
//! its first sample, so [`STREAMS_MAX`] streams stay under 10 MB. Promises that the bound holds and counts what it turned away. Reads no clock:
//! whoever records says what time it is.

mod stream;

use meter::{Labels, Sample};
use std::collections::{BTreeMap, HashMap};
use stream::{Ring, Stream, Track};

/// Points kept per stream: an hour at one every five seconds.
pub const POINTS: usize = 720;

/// Most streams kept; a counter or gauge is one, a histogram four.
pub const STREAMS_MAX: usize = 2_500;

/// Most points one question is answered with, all series together: 2 MB here, some 5 MB as JSON, and still
/// the full hour of a hundred series. Graphs have fewer pixels.
pub const ANSWER_POINTS_MAX: usize = 100_000;

/// The quantiles kept of a histogram, by the label that names them.
pub const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// The series of one process.
#[derive(Debug)]
pub struct Store {
    /// Samples taken so far; the next one goes to the slot of this number.
    ticks: u64,
    /// When each slot was recorded, and how many seconds after the one before.
    times: Vec<u64>,
    spans: Vec<f32>,
    families: BTreeMap<&'static str, HashMap<Labels, Stream>>,
    streams: usize,
    streams_max: usize,
    refused: u64,
}

/// One stream as a reader sees it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    labels: &'a Labels,
    quantile: Option<&'static str>,
    ring: &'a Ring,
    /// Its points are growth, to be read as a rate.
    growth: bool,
}

impl View<'_> {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        match self.quantile {
            Some(quantile) if name == "quantile" => Some(quantile),
            Some(_) | None => self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_ref()),
        }
    }

    fn owned_labels(&self) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<_, _> =
            self.labels.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
        if let Some(quantile) = self.quantile {
            labels.insert("quantile".to_owned(), quantile.to_owned());
        }
        labels
    }
}

impl Default for Store {
    fn default() -> Self {
        Store::bounded(STREAMS_MAX)
    }
}

impl Store {
    pub fn new() -> Store {
        Store::default()
    }

    pub fn bounded(streams_max: usize) -> Store {
        Store {
            ticks: 0,
            times: vec![0; POINTS],
            spans: vec![0.0; POINTS],
            families: BTreeMap::new(),
            streams: 0,
            streams_max,
            refused: 0,
        }
    }

    /// Takes one sample of everything, `elapsed_ms` after the one before on a clock that never jumps.
    pub fn record(&mut self, now_ms: u64, elapsed_ms: u64, samples: &[Sample]) {
        let tick = self.ticks;
        let slot = slot(tick);
        self.times[slot] = now_ms;
        #[expect(clippy::cast_precision_loss, reason = "a span is seconds, an hour at most")]
        let span = elapsed_ms as f32 / 1_000.0;
        self.spans[slot] = span;
        for sample in samples {
            self.put(tick, sample);
        }
        let mut streams = 0;
        for family in self.families.values_mut() {
            family.retain(|_, stream| {
                if stream.seen != tick {
                    stream.track.skip(slot);
                }
                let keep = tick - stream.seen < POINTS as u64;
                streams += if keep { stream.track.cost() } else { 0 };
                keep
            });
        }
        self.families.retain(|_, family| !family.is_empty());
        self.streams = streams;
        self.ticks += 1;
    }

    fn put(&mut self, tick: u64, sample: &Sample) {
        let slot = slot(tick);
        let family = self.families.entry(sample.name).or_default();
        let Some(stream) = family.get_mut(&sample.labels) else {
            let mut track = Track::new(&sample.value);
            if self.streams + track.cost() > self.streams_max {
                self.refused += 1;
                return;
            }
            self.streams += track.cost();
            // What was there before the first tick grew before anybody looked.
            track.begin(slot, &sample.value, sample.from_zero && tick > 0);
            family.insert(sample.labels.clone(), Stream { seen: tick, track });
            return;
        };
        if !stream.track.fits(&sample.value) {
            self.streams -= stream.track.cost();
            let mut track = Track::new(&sample.value);
            self.streams += track.cost();
            track.begin(slot, &sample.value, sample.from_zero);
            *stream = Stream { seen: tick, track };
        } else if stream.seen + 1 == tick {
            stream.seen = tick;
            stream.track.step(slot, &sample.value);
        } else {
            // Gone and back: one of the meter's own is a new one from zero.
            stream.seen = tick;
            stream.track.begin(slot, &sample.value, sample.from_zero);
        }
    }

    /// The series called `name` whose labels hold all of `filters`, with their points from `since_ms` on.
    ///
    /// Counters come as rates per second. A histogram `x` comes as `x` with a label `quantile` (`p50`,
    /// `p95`, `p99`), and the rate of its observations as `x_count`. An answer of more than
    /// [`ANSWER_POINTS_MAX`] points is thinned: each is then the mean of several.
    pub fn query(&self, name: &str, filters: &[(String, String)], since_ms: u64) -> Vec<wire::api::Series> {
        let wanted = |view: View<'_>| filters.iter().all(|(label, value)| view.label(label) == Some(value));
        let mut matching = 0;
        self.each(name, &mut |view| matching += usize::from(wanted(view)));
        let slots = self.slots().filter(|slot| self.times[*slot] >= since_ms).count();
        let stride = (matching * slots).div_ceil(ANSWER_POINTS_MAX).max(1);
        let mut found = Vec::new();
        self.each(name, &mut |view| {
            if wanted(view) {
                let points = self.points(view, since_ms, stride);
                if !points.is_empty() {
                    found.push(wire::api::Series { name: name.to_owned(), labels: view.owned_labels(), points });
                }
            }
        });
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        found
    }

    /// Names that can be asked for.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (name, family) in &self.families {
            names.push((*name).to_owned());
            if family.values().any(|stream| matches!(stream.track, Track::Histogram { .. })) {
                names.push(format!("{name}_count"));
            }
        }
        names
    }

    /// Streams kept now.
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// Samples turned away since the start because the store was full.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Shows every stream that goes by `name`.
    pub(crate) fn each(&self, name: &str, show: &mut dyn FnMut(View<'_>)) {
        for (labels, stream) in self.families.get(name).into_iter().flatten() {
            let plain = |ring, growth| View { labels, quantile: None, ring, growth };
            match &stream.track {
                Track::Counter { growth, .. } => show(plain(growth, true)),
                Track::Gauge { values } => show(plain(values, false)),
                Track::Histogram { quantiles, .. } => {
                    for ((quantile, _), ring) in QUANTILES.iter().zip(quantiles) {
                        show(View { labels, quantile: Some(quantile), ring, growth: false });
                    }
                }
            }
        }
        let Some(counted) = name.strip_suffix("_count") else { return };
        for (labels, stream) in self.families.get(counted).into_iter().flatten() {
            match &stream.track {
                Track::Histogram { growth, .. } => {
                    show(View { labels, quantile: None, ring: growth, growth: true });
                }
                Track::Counter { .. } | Track::Gauge { .. } => {}
            }
        }
    }

    /// The newest value of the last `within_ms`.
    pub(crate) fn latest(&self, view: View<'_>, within_ms: u64) -> Option<f64> {
        self.newest_first(within_ms).find_map(|slot| view.ring.get(slot))
    }

    /// How much a counter grew in the last `over_ms`.
    pub(crate) fn growth(&self, view: View<'_>, over_ms: u64) -> f64 {
        self.newest_first(over_ms).filter_map(|slot| view.ring.get(slot)).sum()
    }

    fn slots(&self) -> impl DoubleEndedIterator<Item = usize> {
        (self.ticks.saturating_sub(POINTS as u64)..self.ticks).map(slot)
    }

    /// Slots of the last so much time, by the clock that never jumps.
    fn newest_first(&self, within_ms: u64) -> impl Iterator<Item = usize> {
        #[expect(clippy::cast_precision_loss, reason = "an hour at most")]
        let within = within_ms as f64 / 1_000.0;
        let mut age = 0.0;
        self.slots().rev().take_while(move |slot| {
            let near = age < within;
            age += f64::from(self.spans[*slot]);
            near
        })
    }

    /// The points of a stream since then, `stride` of them as one: their mean, at the time of the last.
    fn points(&self, view: View<'_>, since_ms: u64, stride: usize) -> Vec<(u64, f64)> {
        let slots: Vec<usize> = self.slots().filter(|slot| self.times[*slot] >= since_ms).collect();
        let mut points = Vec::with_capacity(slots.len() / stride + 1);
        for slots in slots.rchunks(stride).rev() {
            let (mut time_ms, mut sum, mut weight) = (0, 0.0, 0.0);
            for slot in slots {
                let Some(value) = view.ring.get(*slot) else { continue };
                time_ms = self.times[*slot];
                sum += value;
                weight += if view.growth { f64::from(self.spans[*slot]) } else { 1.0 };
            }
            // Two samples at one instant say nothing about speed.
            if weight > 0.0 {
                points.push((time_ms, sum / weight));
            }
        }
        points
    }
}

fn slot(tick: u64) -> usize {
    usize::try_from(tick % POINTS as u64).expect("a slot number is below POINTS")
}
