//! One stream: its ring of points, and what must be remembered to turn the next sample into a point.

use super::{POINTS, QUANTILES};
use meter::Value;

/// Points by slot; NaN where there was none. What is not finite is no point: JSON cannot say it.
#[derive(Debug)]
pub(crate) struct Ring(Box<[f32]>);

impl Ring {
    fn new() -> Ring {
        Ring(vec![f32::NAN; POINTS].into())
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough for a graph, at half the memory")]
    fn set(&mut self, slot: usize, value: f64) {
        self.0[slot] = value as f32;
    }

    pub(super) fn get(&self, slot: usize) -> Option<f64> {
        let value = self.0[slot];
        value.is_finite().then(|| f64::from(value))
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    /// The tick it was last there.
    pub(super) seen: u64,
    pub(super) track: Track,
}

#[derive(Debug)]
pub(super) enum Track {
    Counter { last: f64, growth: Ring },
    Gauge { values: Ring },
    Histogram { bounds: &'static [f64], last: Vec<u64>, growth: Ring, quantiles: [Ring; QUANTILES.len()] },
}

impl Track {
    pub(super) fn new(value: &Value) -> Track {
        match value {
            Value::Counter(_) => Track::Counter { last: 0.0, growth: Ring::new() },
            Value::Gauge(_) => Track::Gauge { values: Ring::new() },
            Value::Histogram { bounds, counts, .. } => Track::Histogram {
                bounds,
                last: vec![0; counts.len()],
                growth: Ring::new(),
                quantiles: std::array::from_fn(|_| Ring::new()),
            },
        }
    }

    /// How many rings it holds.
    pub(super) fn cost(&self) -> usize {
        match self {
            Track::Counter { .. } | Track::Gauge { .. } => 1,
            Track::Histogram { quantiles, .. } => 1 + quantiles.len(),
        }
    }

    pub(super) fn fits(&self, value: &Value) -> bool {
        match (self, value) {
            (Track::Counter { .. }, Value::Counter(_)) | (Track::Gauge { .. }, Value::Gauge(_)) => true,
            (Track::Histogram { last, .. }, Value::Histogram { counts, .. }) => last.len() == counts.len(),
            (Track::Counter { .. } | Track::Gauge { .. } | Track::Histogram { .. }, _) => false,
        }
    }

    /// The first sample, or the first after a gap: growth is known only of what began at zero.
    pub(super) fn begin(&mut self, slot: usize, value: &Value, from_zero: bool) {
        match (&mut *self, value) {
            (Track::Counter { last, .. }, Value::Counter(now)) => *last = if from_zero { 0.0 } else { *now },
            (Track::Histogram { last, .. }, Value::Histogram { counts, .. }) => {
                *last = if from_zero { vec![0; counts.len()] } else { counts.clone() };
            }
            (Track::Counter { .. } | Track::Gauge { .. } | Track::Histogram { .. }, _) => {}
        }
        self.step(slot, value);
        let is_gauge = matches!(self, Track::Gauge { .. });
        if !from_zero && !is_gauge {
            self.skip(slot);
        }
    }

    /// The next sample. One below the last means that whatever counts started again from zero.
    pub(super) fn step(&mut self, slot: usize, value: &Value) {
        match (self, value) {
            (Track::Counter { last, growth }, Value::Counter(now)) => {
                growth.set(slot, if *now < *last { *now } else { now - *last });
                *last = *now;
            }
            (Track::Gauge { values }, Value::Gauge(now)) => values.set(slot, *now),
            (Track::Histogram { bounds, last, growth, quantiles }, Value::Histogram { counts, .. }) => {
                let again = counts.iter().zip(&*last).any(|(now, before)| now < before);
                if again {
                    last.fill(0);
                }
                let grown: Vec<u64> = counts.iter().zip(&*last).map(|(now, before)| now - before).collect();
                #[expect(clippy::cast_precision_loss, reason = "observations of five seconds")]
                growth.set(slot, grown.iter().sum::<u64>() as f64);
                for ((_, share), ring) in QUANTILES.iter().zip(quantiles) {
                    ring.set(slot, quantile(bounds, &grown, *share).unwrap_or(f64::NAN));
                }
                last.clone_from(counts);
            }
            (Track::Counter { .. } | Track::Gauge { .. } | Track::Histogram { .. }, _) => {}
        }
    }

    /// Nothing was there at this slot.
    pub(super) fn skip(&mut self, slot: usize) {
        match self {
            Track::Counter { growth, .. } => growth.set(slot, f64::NAN),
            Track::Gauge { values } => values.set(slot, f64::NAN),
            Track::Histogram { growth, quantiles, .. } => {
                growth.set(slot, f64::NAN);
                for ring in quantiles {
                    ring.set(slot, f64::NAN);
                }
            }
        }
    }
}

/// The value that `share` of the observations stay below, taken to lie evenly within each bucket; what is
/// above the last bound counts as that bound. `None` without observations.
#[expect(clippy::cast_precision_loss, reason = "observations of five seconds")]
pub(super) fn quantile(bounds: &[f64], counts: &[u64], share: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = share * total as f64;
    let mut below = 0.0;
    for (at, count) in counts.iter().enumerate() {
        let count = *count as f64;
        let Some(upper) = bounds.get(at) else { break };
        if count > 0.0 && below + count >= rank {
            let lower = if at == 0 { upper.min(0.0) } else { bounds[at - 1] };
            return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
        }
        below += count;
    }
    bounds.last().copied()
}
