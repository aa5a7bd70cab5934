//! What a component and a scraper see of a meter.

use meter::{Meter, SIZE_BYTES, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

mod text;

fn value(meter: &Meter, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let found = meter
        .samples()
        .into_iter()
        .find(|sample| sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == Some(value)))?;
    match found.value {
        Value::Counter(value) | Value::Gauge(value) => Some(value),
        Value::Histogram { counts, .. } => Some(counts.iter().sum::<u64>() as f64),
    }
}

fn refused(meter: &Meter, reason: &str) -> f64 {
    value(meter, "bramble_meter_series_refused_total", &[("reason", reason)]).expect("is always there")
}

#[test]
fn the_same_name_and_labels_give_the_same_series() {
    let meter = Meter::new();
    meter.counter("a_total", "A.", &[("x", "1"), ("y", "2")]).inc();
    meter.clone().counter("a_total", "A.", &[("y", "2"), ("x", "1")]).add(2);
    meter.counter("a_total", "A.", &[("x", "1"), ("y", "3")]).inc();
    assert_eq!(value(&meter, "a_total", &[("x", "1"), ("y", "2")]), Some(3.0));
    assert_eq!(value(&meter, "a_total", &[("y", "3")]), Some(1.0));
}

#[test]
fn a_gauge_goes_up_and_down() {
    let meter = Meter::new();
    let gauge = meter.gauge("g", "G.", &[]);
    gauge.set(2.5);
    gauge.add(-4.0);
    assert_eq!(gauge.value(), -1.5);
    assert_eq!(value(&meter, "g", &[]), Some(-1.5));
}

#[test]
fn nothing_is_lost_when_many_threads_count() {
    let meter = Meter::new();
    let histogram = meter.histogram("h", "H.", &[], SIZE_BYTES);
    let counter = meter.counter("c_total", "C.", &[]);
    let gauge = meter.gauge("g", "G.", &[]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    histogram.observe(1.0);
                    counter.inc();
                    gauge.add(1.0);
                }
            });
        }
    });
    assert_eq!(counter.value(), 4_000);
    assert_eq!(gauge.value(), 4_000.0);
    let sample = meter.samples().into_iter().find(|sample| sample.name == "h").expect("was made");
    let Value::Histogram { counts, sum, .. } = sample.value else { panic!("is a histogram") };
    assert_eq!((counts[0], sum), (4_000, 4_000.0));
}

#[test]
fn a_value_falls_into_the_first_bucket_that_holds_it() {
    let meter = Meter::new();
    let histogram = meter.histogram("h", "H.", &[], &[1.0, 2.0]);
    for value in [-1.0, 1.0, 1.5, 2.0, 2.1, f64::INFINITY, f64::NAN] {
        histogram.observe(value);
    }
    let sample = meter.samples().remove(3);
    assert_eq!(sample.name, "h");
    let Value::Histogram { counts, .. } = sample.value else { panic!("is a histogram") };
    assert_eq!(counts, [2, 2, 2]);
}

#[test]
fn a_full_meter_refuses_new_series_and_says_so() {
    let meter = Meter::bounded(2);
    let first = meter.counter("a_total", "A.", &[("n", "1")]);
    meter.gauge("b", "B.", &[]);
    let refused_one = meter.counter("a_total", "A.", &[("n", "2")]);
    refused_one.inc();
    first.inc();
    meter.counter("a_total", "A.", &[("n", "1")]).inc();
    assert_eq!(first.value(), 2);
    assert_eq!(value(&meter, "a_total", &[("n", "2")]), None);
    assert_eq!(refused(&meter, "bound"), 1.0);
}

#[test]
fn a_forgotten_series_makes_room_and_starts_again_from_zero() {
    let meter = Meter::bounded(3);
    let old = meter.counter("a_total", "A.", &[("instance", "x"), ("code", "200")]);
    old.add(7);
    meter.gauge("b", "B.", &[("instance", "x")]);
    meter.gauge("b", "B.", &[("instance", "y")]).set(1.0);
    meter.forget("instance", "x");
    assert_eq!(value(&meter, "a_total", &[]), None);
    assert_eq!(value(&meter, "b", &[("instance", "y")]), Some(1.0));
    old.inc();
    let new = meter.counter("a_total", "A.", &[("instance", "x"), ("code", "200")]);
    assert_eq!((new.value(), old.value()), (0, 8));
    meter.gauge("c", "C.", &[]);
    assert_eq!(refused(&meter, "bound"), 0.0);
}

#[test]
fn two_kinds_under_one_name_are_refused() {
    let meter = Meter::new();
    meter.counter("a", "A.", &[]).inc();
    meter.gauge("a", "A.", &[("x", "1")]).set(5.0);
    assert_eq!(refused(&meter, "conflict"), 1.0);
    assert_eq!(meter.samples().iter().filter(|sample| sample.name == "a").count(), 1);
}

#[test]
fn names_prometheus_cannot_read_are_refused() {
    let bad: [(&'static str, &'static [(&'static str, &str)]); 6] = [
        ("", &[]),
        ("1a", &[]),
        ("a-b", &[]),
        ("a", &[("b c", "")]),
        ("a", &[("__name", "")]),
        ("a", &[("b", "1"), ("b", "2")]),
    ];
    let meter = Meter::new();
    for (name, labels) in bad {
        meter.counter(name, "Bad.", labels).inc();
    }
    meter.histogram("h", "H.", &[("le", "1")], &[1.0]);
    assert_eq!(refused(&meter, "name"), 7.0);
    assert_eq!(meter.samples().len(), 3);
}

#[test]
fn a_collector_is_asked_at_every_reading_until_its_registration_is_dropped() {
    let meter = Meter::new();
    let asked = Arc::new(AtomicU64::new(0));
    let registration = meter.collector({
        let asked = asked.clone();
        let meter = meter.clone();
        move |samples| {
            meter.counter("own_total", "A collector may use the meter.", &[]).inc();
            let times = asked.fetch_add(1, Ordering::Relaxed) + 1;
            samples.gauge("asked", "Times asked.", &[("by", "test")], times as f64);
            samples.counter("asked_total", "Times asked.", &[], times as f64);
        }
    });
    assert_eq!(value(&meter, "asked", &[("by", "test")]), Some(1.0));
    assert_eq!(value(&meter, "asked_total", &[]), Some(2.0));
    drop(registration);
    assert_eq!(value(&meter, "asked", &[]), None);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn what_collectors_say_twice_or_too_much_is_refused() {
    let meter = Meter::bounded(4);
    meter.gauge("a", "A.", &[]).set(1.0);
    let _held = meter.collector(|samples| {
        samples.gauge("a", "A.", &[], 2.0);
        samples.counter("a", "A.", &[("x", "1")], 3.0);
        samples.gauge("b-c", "Bad.", &[], 4.0);
        samples.gauge("d", "D.", &[], 5.0);
        samples.gauge("d", "D.", &[], 6.0);
        samples.gauge("e", "E.", &[], 7.0);
    });
    assert_eq!(value(&meter, "a", &[]), Some(1.0));
    assert_eq!(value(&meter, "d", &[]), Some(5.0));
    assert_eq!(value(&meter, "e", &[]), None);
    assert!(refused(&meter, "bound") > 0.0 && refused(&meter, "name") > 0.0 && refused(&meter, "conflict") > 0.0);
}
