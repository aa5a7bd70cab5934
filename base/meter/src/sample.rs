//! One reading of a series, and what a collector writes its readings to. Plain data.

use std::sync::Arc;

/// Longest label value kept. Longer ones are cut: they come from names people choose, and each is held for
/// as long as its series lives.
pub const LABEL_BYTES_MAX: usize = 512;

/// Longest trace id of an example: what an exemplar's labels may have in all, less the name of the one there is
/// (OpenMetrics 1.0, "Exemplars").
pub(crate) const TRACE_BYTES_MAX: usize = 128 - "trace_id".len();

/// One of the values a histogram counted, with the trace that tells why it is what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub trace: String,
    pub value: f64,
    pub time_ms: u64,
}

/// Label names and values, sorted by name.
pub type Labels = Arc<[(&'static str, Arc<str>)]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What a series said when it was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Counter(f64),
    Gauge(f64),
    /// `counts` has one entry per bound and a last one for values above all bounds; they are not cumulative.
    Histogram {
        bounds: &'static [f64],
        counts: Vec<u64>,
        sum: f64,
        /// Empty, or for each count the newest that there is.
        examples: Vec<Option<Example>>,
    },
}

impl Value {
    pub fn kind(&self) -> Kind {
        match self {
            Value::Counter(_) => Kind::Counter,
            Value::Gauge(_) => Kind::Gauge,
            Value::Histogram { .. } => Kind::Histogram,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: Labels,
    pub value: Value,
    /// Whether it began at zero when it first appeared, as the meter's own series do; what a collector
    /// reports may count something older than this process, so its first value is no growth.
    pub from_zero: bool,
}

impl Sample {
    pub fn kind(&self) -> Kind {
        self.value.kind()
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_ref())
    }
}

/// Where a collector puts what it found. Bounded by what the meter has room for.
#[derive(Debug)]
pub struct Samples {
    pub(crate) found: Vec<Sample>,
    pub(crate) room: usize,
    pub(crate) refused: Refused,
}

/// How many series were turned away, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) bound: u64,
    pub(crate) name: u64,
    pub(crate) conflict: u64,
}

impl Samples {
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)], value: f64) {
        self.push(name, help, labels, Value::Counter(value));
    }

    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)], value: f64) {
        self.push(name, help, labels, Value::Gauge(value));
    }

    fn push(&mut self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)], value: Value) {
        if self.found.len() >= self.room {
            self.refused.bound += 1;
            return;
        }
        match well_formed(name, labels, value.kind()) {
            Some(labels) => self.found.push(Sample { name, help, labels, value, from_zero: false }),
            None => self.refused.name += 1,
        }
    }
}

/// The labels as kept, or `None` when a name is not one Prometheus reads.
pub(crate) fn well_formed(name: &str, labels: &[(&'static str, &str)], kind: Kind) -> Option<Labels> {
    if !is_name(name, true) {
        return None;
    }
    let mut kept = Vec::with_capacity(labels.len());
    for (label, value) in labels {
        let reserved = label.starts_with("__") || (kind == Kind::Histogram && *label == "le");
        if reserved || !is_name(label, false) {
            return None;
        }
        kept.push((*label, Arc::<str>::from(cut(value))));
    }
    kept.sort_by_key(|(label, _)| *label);
    let twice = kept.windows(2).any(|pair| pair[0].0 == pair[1].0);
    (!twice).then(|| kept.into())
}

fn is_name(name: &str, colon: bool) -> bool {
    let fits = |(at, byte): (usize, u8)| {
        byte.is_ascii_alphabetic() || byte == b'_' || (colon && byte == b':') || (at > 0 && byte.is_ascii_digit())
    };
    !name.is_empty() && name.bytes().enumerate().all(fits)
}

fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(LABEL_BYTES_MAX)]
}
