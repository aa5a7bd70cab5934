//! Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Pure: samples in, text out.

use crate::sample::{Kind, Sample, Value};
use std::fmt::Write;

/// Writes `samples`, which stand sorted by name. Names and label names are well formed already.
pub(crate) fn encode(samples: &[Sample]) -> String {
    let mut out = String::with_capacity(samples.len() * 96);
    let mut family = "";
    for sample in samples {
        if sample.name != family {
            family = sample.name;
            head(&mut out, sample);
        }
        match &sample.value {
            Value::Counter(value) | Value::Gauge(value) => line(&mut out, sample, "", None, *value),
            Value::Histogram { bounds, counts, sum } => histogram(&mut out, sample, bounds, counts, *sum),
        }
    }
    out
}

fn head(out: &mut String, sample: &Sample) {
    let kind = match sample.kind() {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    out.push_str("# HELP ");
    out.push_str(sample.name);
    out.push(' ');
    escape(out, sample.help, false);
    out.push_str("\n# TYPE ");
    out.push_str(sample.name);
    out.push(' ');
    out.push_str(kind);
    out.push('\n');
}

#[expect(clippy::cast_precision_loss, reason = "the format has floats only; exact below 2^53")]
fn histogram(out: &mut String, sample: &Sample, bounds: &[f64], counts: &[u64], sum: f64) {
    let mut total = 0;
    for (at, count) in counts.iter().enumerate() {
        total += count;
        let bound = bounds.get(at).copied().unwrap_or(f64::INFINITY);
        line(out, sample, "_bucket", Some(bound), total as f64);
    }
    line(out, sample, "_sum", None, sum);
    line(out, sample, "_count", None, total as f64);
}

fn line(out: &mut String, sample: &Sample, suffix: &str, le: Option<f64>, value: f64) {
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
    if let Some(le) = le {
        out.push(if open { ',' } else { '{' });
        open = true;
        out.push_str("le=\"");
        number(out, le);
        out.push('"');
    }
    if open {
        out.push('}');
    }
    out.push(' ');
    number(out, value);
    out.push('\n');
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
