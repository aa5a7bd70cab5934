//! The registry: which series exist. Owns the lock, which is taken to make, forget and read a series, never
//! to count. Collectors run outside it, so that they may use the meter themselves.

use crate::instrument::{Counter, Gauge, Histogram};
use crate::sample::{Kind, Labels, Refused, Sample, Samples, Value, well_formed};
use crate::text;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Most series a meter keeps, and most that its collectors may add at one reading. A machine with fifty
/// services needs about two thousand; ten thousand cost some 3 MB, and whoever reads them still finds sense.
pub const SERIES_MAX: usize = 10_000;

const REFUSED_NAME: &str = "bramble_meter_series_refused_total";
const REFUSED_HELP: &str = "Series not kept: too many, a name that is not one, or two kinds under one name.";

type Collect = dyn Fn(&mut Samples) + Send + Sync;

/// Hands out instruments and reads them. Clones share everything.
#[derive(Clone, Default)]
pub struct Meter {
    shared: Arc<Mutex<Registry>>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("series", &lock(&self.shared).count).finish_non_exhaustive()
    }
}

struct Registry {
    families: BTreeMap<&'static str, Family>,
    count: usize,
    count_max: usize,
    collectors: BTreeMap<u64, Arc<Collect>>,
    collector_next: u64,
    refused: Refused,
}

struct Family {
    help: &'static str,
    kind: Kind,
    series: BTreeMap<Labels, Instrument>,
}

#[derive(Clone)]
enum Instrument {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            families: BTreeMap::new(),
            count: 0,
            count_max: SERIES_MAX,
            collectors: BTreeMap::new(),
            collector_next: 0,
            refused: Refused::default(),
        }
    }
}

/// A collector's place in the meter; dropped, it is asked no more.
#[must_use = "a dropped registration ends its collector"]
pub struct Registration {
    shared: Weak<Mutex<Registry>>,
    id: u64,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let collector = lock(&shared).collectors.remove(&self.id);
        // Outside the lock: what it owns may hold an instrument or a registration.
        drop(collector);
    }
}

impl Meter {
    pub fn new() -> Meter {
        Meter::default()
    }

    /// A meter with room for `series_max` series instead of [`SERIES_MAX`].
    pub fn bounded(series_max: usize) -> Meter {
        let meter = Meter::new();
        lock(&meter.shared).count_max = series_max;
        meter
    }

    /// The counter of this name and these labels. A series that cannot be kept (see
    /// `bramble_meter_series_refused_total`) still gives a handle that counts; only nobody reads it.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        let made = Counter::default();
        match self.instrument(name, help, labels, Instrument::Counter(made.clone())) {
            Instrument::Counter(counter) => counter,
            Instrument::Gauge(_) | Instrument::Histogram(_) => made,
        }
    }

    /// The gauge of this name and these labels; starts at zero.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        let made = Gauge::default();
        match self.instrument(name, help, labels, Instrument::Gauge(made.clone())) {
            Instrument::Gauge(gauge) => gauge,
            Instrument::Counter(_) | Instrument::Histogram(_) => made,
        }
    }

    /// The histogram of this name and these labels. `bounds` rise; those of the first call for a series hold.
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        bounds: &'static [f64],
    ) -> Histogram {
        debug_assert!(bounds.is_sorted(), "bucket bounds rise");
        let made = Histogram::new(bounds);
        match self.instrument(name, help, labels, Instrument::Histogram(made.clone())) {
            Instrument::Histogram(histogram) => histogram,
            Instrument::Counter(_) | Instrument::Gauge(_) => made,
        }
    }

    /// Asks `collect` at every reading, for as long as the registration is held. It runs on the reader's
    /// thread and must not block.
    pub fn collector(&self, collect: impl Fn(&mut Samples) + Send + Sync + 'static) -> Registration {
        let mut registry = lock(&self.shared);
        let id = registry.collector_next;
        registry.collector_next += 1;
        registry.collectors.insert(id, Arc::new(collect));
        Registration { shared: Arc::downgrade(&self.shared), id }
    }

    /// Drops every series whose `label` is `value`: the thing it counted is gone. Handles still held count
    /// on unread; asking for the series again starts a new one from zero.
    pub fn forget(&self, label: &str, value: &str) {
        let mut registry = lock(&self.shared);
        let mut gone = 0;
        for family in registry.families.values_mut() {
            let before = family.series.len();
            family
                .series
                .retain(|labels, _| !labels.iter().any(|(name, kept)| *name == label && kept.as_ref() == value));
            gone += before - family.series.len();
        }
        registry.families.retain(|_, family| !family.series.is_empty());
        registry.count -= gone;
    }

    /// Every series as it is now, sorted by name, then labels; no two alike.
    pub fn samples(&self) -> Vec<Sample> {
        let (mut samples, collectors, room) = {
            let registry = lock(&self.shared);
            let collectors: Vec<_> = registry.collectors.values().cloned().collect();
            (registry.read(), collectors, registry.count_max)
        };
        let mut collected = Samples { found: Vec::new(), room, refused: Refused::default() };
        for collect in collectors {
            collect(&mut collected);
        }
        let mut refused = collected.refused;
        samples.append(&mut collected.found);
        refused.conflict += settle(&mut samples);
        let total = {
            let mut registry = lock(&self.shared);
            registry.refused.bound += refused.bound;
            registry.refused.name += refused.name;
            registry.refused.conflict += refused.conflict;
            registry.refused
        };
        push_refused(&mut samples, total);
        samples
    }

    /// All of it in Prometheus' text format 0.0.4, content type `text/plain; version=0.0.4`.
    pub fn encode(&self) -> String {
        text::encode(&self.samples(), text::Format::Plain)
    }

    /// All of it as OpenMetrics 1.0 has it, with exemplars, content type `application/openmetrics-text;
    /// version=1.0.0; charset=utf-8`.
    pub fn encode_open(&self) -> String {
        text::encode(&self.samples(), text::Format::Open)
    }

    fn instrument(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        made: Instrument,
    ) -> Instrument {
        let kind = made.kind();
        let mut registry = lock(&self.shared);
        let Some(labels) = well_formed(name, labels, kind) else {
            registry.refused.name += 1;
            return made;
        };
        let full = registry.count >= registry.count_max;
        if let Some(family) = registry.families.get(name) {
            if family.kind != kind {
                registry.refused.conflict += 1;
                return made;
            }
            if let Some(kept) = family.series.get(&labels) {
                return kept.clone();
            }
        }
        if full {
            registry.refused.bound += 1;
            return made;
        }
        registry.count += 1;
        let family = registry.families.entry(name).or_insert_with(|| Family { help, kind, series: BTreeMap::new() });
        family.series.insert(labels, made.clone());
        made
    }
}

impl Registry {
    fn read(&self) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(self.count + 3);
        for (name, family) in &self.families {
            for (labels, instrument) in &family.series {
                let value = instrument.read();
                samples.push(Sample { name, help: family.help, labels: labels.clone(), value, from_zero: true });
            }
        }
        samples
    }
}

impl Instrument {
    fn kind(&self) -> Kind {
        match self {
            Instrument::Counter(_) => Kind::Counter,
            Instrument::Gauge(_) => Kind::Gauge,
            Instrument::Histogram(_) => Kind::Histogram,
        }
    }

    fn read(&self) -> Value {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "exact below 2^53; readers take differences of floats")]
            Instrument::Counter(counter) => Value::Counter(counter.value() as f64),
            Instrument::Gauge(gauge) => Value::Gauge(gauge.value()),
            Instrument::Histogram(histogram) => histogram.read(),
        }
    }
}

/// Sorts, and keeps the first of each series and the first kind of each name. Returns how many went.
fn settle(samples: &mut Vec<Sample>) -> u64 {
    // Stable: what the registry holds stands before what collectors said.
    samples.sort_by(|a, b| a.name.cmp(b.name));
    let before = samples.len();
    let mut family: Option<(&'static str, Kind)> = None;
    let mut seen: HashSet<Labels> = HashSet::new();
    samples.retain(|sample| {
        let kind = match family {
            Some((name, kind)) if name == sample.name => kind,
            Some(_) | None => {
                family = Some((sample.name, sample.kind()));
                seen.clear();
                sample.kind()
            }
        };
        kind == sample.kind() && sample.name != REFUSED_NAME && seen.insert(sample.labels.clone())
    });
    samples.sort_by(|a, b| a.name.cmp(b.name).then_with(|| a.labels.cmp(&b.labels)));
    (before - samples.len()) as u64
}

fn push_refused(samples: &mut Vec<Sample>, refused: Refused) {
    let at = samples.partition_point(|sample| sample.name < REFUSED_NAME);
    let reasons = [("bound", refused.bound), ("conflict", refused.conflict), ("name", refused.name)];
    let own = reasons.map(|(reason, count)| {
        #[expect(clippy::cast_precision_loss, reason = "a count of mistakes stays far below 2^53")]
        let value = Value::Counter(count as f64);
        let labels: Labels = Arc::new([("reason", Arc::from(reason))]);
        Sample { name: REFUSED_NAME, help: REFUSED_HELP, labels, value, from_zero: true }
    });
    samples.splice(at..at, own);
}

/// A panic while the lock is held cannot leave the registry half changed in a way that matters: go on.
fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}
