//! Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>), and OpenMetrics 1.0
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), which has exemplars. Pure: samples in, text out.

use crate::sample::{Example, Kind, Sample, Value};
use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Open,
}

/// What the names of OpenMetrics' counters end with, but not those of their families.
const TOTAL: &str = "_total";

/// Writes `samples`, which stand sorted by name. Names and label names are well formed already.
pub(crate) fn encode(samples: &[Sample], format: Format) -> String {
    let mut out = String::with_capacity(samples.len() * 96);
    let mut family = "";
    for sample in samples {
        if sample.name != family {
            family = sample.name;
            head(&mut out, sample, format);
        }
        match &sample.value {
            Value::Counter(value) | Value::Gauge(value) => {
                line(&mut out, sample, "", None, *value);
                out.push('\n');
            }
            Value::Histogram { .. } => histogram(&mut out, sample, format),
        }
    }
    if format == Format::Open {
        out.push_str("# EOF\n");
    }
    out
}

fn head(out: &mut String, sample: &Sample, format: Format) {
    let open = format == Format::Open;
    let (name, kind) = match sample.kind() {
        Kind::Counter if open => match sample.name.strip_suffix(TOTAL) {
            Some(name) => (name, "counter"),
            None => (sample.name, "unknown"),
        },
        Kind::Counter => (sample.name, "counter"),
        Kind::Gauge => (sample.name, "gauge"),
        Kind::Histogram => (sample.name, "histogram"),
    };
    out.push_str("# HELP ");
    out.push_str(name);
    out.push(' ');
    escape(out, sample.help, open);
    out.push_str("\n# TYPE ");
    out.push_str(name);
    out.push(' ');
    out.push_str(kind);
    out.push('\n');
}

#[expect(clippy::cast_precision_loss, reason = "the formats have floats only; exact below 2^53")]
fn histogram(out: &mut String, sample: &Sample, format: Format) {
    let Value::Histogram { bounds, counts, sum, examples } = &sample.value else { return };
    let mut total = 0;
    for (at, count) in counts.iter().enumerate() {
        total += count;
        let bound = bounds.get(at).copied().unwrap_or(f64::INFINITY);
        line(out, sample, "_bucket", Some((bound, format)), total as f64);
        if let (Format::Open, Some(Some(example))) = (format, examples.get(at)) {
            exemplar(out, example);
        }
        out.push('\n');
    }
    line(out, sample, "_sum", None, *sum);
    out.push('\n');
    line(out, sample, "_count", None, total as f64);
    out.push('\n');
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds stay exact for 285,000 years")]
fn exemplar(out: &mut String, example: &Example) {
    out.push_str(" # {trace_id=\"");
    escape(out, &example.trace, true);
    out.push_str("\"} ");
    number(out, example.value);
    out.push(' ');
    number(out, example.time_ms as f64 / 1_000.0);
}

fn line(out: &mut String, sample: &Sample, suffix: &str, le: Option<(f64, Format)>, value: f64) {
    out.push_str(sample.name);
    out.push_str(suffix);
    let mut open = false;
    for (name, label) in sample.labels.iter() {
        out.push(if open { ',' } else { '{' });
        open = true;
        out.push_str(name);
        out.push_str("=\"");
        escape(out, label, true);
        out.push('"');
    }
    if let Some((le, format)) = le {
        out.push(if open { ',' } else { '{' });
        open = true;
        out.push_str("le=\"");
        number(out, le);
        if format == Format::Open && le.is_finite() && le.fract() == 0.0 {
            out.push_str(".0");
        }
        out.push('"');
    }
    if open {
        out.push('}');
    }
    out.push(' ');
    number(out, value);
}

fn number(out: &mut String, value: f64) {
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        write!(out, "{value}").expect("a String takes everything that is written to it");
    }
}

fn escape(out: &mut String, text: &str, quote: bool) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quote => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}
