//! Series as they are sampled and asked for.

use meter::{LATENCY_SECONDS, Meter};
use telemetry::series::{ANSWER_POINTS_MAX, POINTS, STREAMS_MAX, Store};

const STEP_MS: u64 = 5_000;

/// A store that is fed from a meter, on a clock the test turns.
struct Bed {
    meter: Meter,
    store: Store,
    now_ms: u64,
}

impl Bed {
    fn new() -> Bed {
        Bed { meter: Meter::new(), store: Store::new(), now_ms: 1_000_000 }
    }

    fn tick(&mut self) {
        self.now_ms += STEP_MS;
        self.store.record(self.now_ms, STEP_MS, &self.meter.samples());
    }

    fn values(&self, name: &str, filters: &[(&str, &str)]) -> Vec<f64> {
        let filters: Vec<_> = filters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut series = self.store.query(name, &filters, 0);
        assert!(series.len() <= 1, "one series: {series:?}");
        series.pop().map(|series| series.points.into_iter().map(|(_, value)| value).collect()).unwrap_or_default()
    }
}

#[test]
fn a_counter_comes_as_a_rate_per_second() {
    let mut bed = Bed::new();
    let counter = bed.meter.counter("c_total", "C.", &[]);
    counter.add(1_000);
    bed.tick();
    assert_eq!(bed.values("c_total", &[]), [] as [f64; 0]);
    counter.add(50);
    bed.tick();
    bed.tick();
    assert_eq!(bed.values("c_total", &[]), [10.0, 0.0]);
}

#[test]
fn a_counter_born_later_loses_nothing_of_its_first_growth() {
    let mut bed = Bed::new();
    bed.tick();
    bed.meter.counter("c_total", "C.", &[("code", "500")]).add(5);
    bed.tick();
    assert_eq!(bed.values("c_total", &[]), [1.0]);
}

#[test]
fn what_a_collector_reports_first_is_no_growth() {
    let mut bed = Bed::new();
    bed.tick();
    let _held = bed.meter.collector(|samples| samples.counter("c_total", "C.", &[], 1e9));
    bed.tick();
    bed.tick();
    assert_eq!(bed.values("c_total", &[]), [0.0]);
}

#[test]
fn a_counter_that_starts_again_is_no_negative_rate() {
    let mut bed = Bed::new();
    bed.tick();
    bed.meter.counter("c_total", "C.", &[("i", "x")]).add(100);
    bed.tick();
    bed.meter.forget("i", "x");
    bed.meter.counter("c_total", "C.", &[("i", "x")]).add(10);
    bed.tick();
    assert_eq!(bed.values("c_total", &[]), [20.0, 2.0]);
}

#[test]
fn a_series_that_was_away_has_no_points_there() {
    let mut bed = Bed::new();
    let gauge = |bed: &Bed, value: f64| bed.meter.gauge("g", "G.", &[("i", "x")]).set(value);
    gauge(&bed, 1.0);
    bed.tick();
    bed.meter.forget("i", "x");
    bed.tick();
    gauge(&bed, 3.0);
    bed.tick();
    let series = bed.store.query("g", &[], 0).remove(0);
    assert_eq!(series.points, [(1_005_000, 1.0), (1_015_000, 3.0)]);
    assert_eq!(bed.store.query("g", &[], 1_010_000).remove(0).points, [(1_015_000, 3.0)]);
    assert_eq!(bed.store.query("g", &[], 1_020_000), []);
}

#[test]
fn a_histogram_comes_as_quantiles_and_a_rate() {
    let mut bed = Bed::new();
    let histogram = bed.meter.histogram("h_seconds", "H.", &[("service", "s/web")], LATENCY_SECONDS);
    bed.tick();
    for _ in 0..98 {
        histogram.observe(0.0015);
    }
    histogram.observe(0.4);
    histogram.observe(1_000.0);
    bed.tick();
    bed.tick();
    assert_eq!(bed.values("h_seconds_count", &[]), [20.0, 0.0]);
    let p50 = bed.values("h_seconds", &[("quantile", "p50"), ("service", "s/web")]);
    assert!(matches!(p50[..], [p50] if (0.001..=0.0025).contains(&p50)), "{p50:?}");
    let p99 = bed.values("h_seconds", &[("quantile", "p99")]);
    assert!(matches!(p99[..], [p99] if (0.25..=0.5).contains(&p99)), "{p99:?}");
    assert_eq!(bed.store.query("h_seconds", &[], 0).len(), 3);
    assert_eq!(bed.store.names(), ["bramble_meter_series_refused_total", "h_seconds", "h_seconds_count"]);
}

#[test]
fn labels_select_series() {
    let mut bed = Bed::new();
    for (stack, service) in [("a", "web"), ("a", "db"), ("b", "web")] {
        bed.meter.gauge("g", "G.", &[("stack", stack), ("service", service)]).set(1.0);
    }
    bed.tick();
    let count = |name: &str, filters: &[(&str, &str)]| {
        let filters: Vec<_> = filters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        bed.store.query(name, &filters, 0).len()
    };
    assert_eq!(count("g", &[]), 3);
    assert_eq!(count("g", &[("stack", "a")]), 2);
    assert_eq!(count("g", &[("stack", "a"), ("service", "db")]), 1);
    assert_eq!(count("g", &[("other", "a")]), 0);
    assert_eq!(count("x", &[]), 0);
}

#[test]
fn an_hour_is_kept_and_what_is_gone_for_an_hour_is_dropped() {
    let mut bed = Bed::new();
    let gauge = bed.meter.gauge("g", "G.", &[]);
    bed.meter.gauge("old", "Old.", &[("i", "x")]);
    bed.tick();
    bed.meter.forget("i", "x");
    for at in 0..POINTS + 10 {
        gauge.set(at as f64);
        bed.tick();
    }
    let values = bed.values("g", &[]);
    assert_eq!((values.len(), values[0], values[POINTS - 1]), (POINTS, 10.0, (POINTS + 9) as f64));
    assert_eq!(bed.store.query("old", &[], 0), []);
    assert_eq!(bed.store.streams(), 1 + 3);
}

#[test]
fn a_full_store_refuses_new_streams_and_counts_them() {
    let mut bed = Bed { store: Store::bounded(4), ..Bed::new() };
    bed.meter.gauge("a", "A.", &[]).set(1.0);
    bed.tick();
    bed.meter.histogram("h", "H.", &[], LATENCY_SECONDS);
    bed.meter.gauge("z", "Z.", &[]).set(1.0);
    bed.tick();
    assert_eq!((bed.store.streams(), bed.store.refused()), (4, 2));
    assert_eq!(bed.values("a", &[]), [1.0, 1.0]);
}

#[test]
fn what_json_cannot_say_is_no_point() {
    let mut bed = Bed::new();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 2.0] {
        bed.meter.gauge("g", "G.", &[]).set(value);
        bed.tick();
    }
    assert_eq!(bed.values("g", &[]), [2.0]);
}

#[test]
fn a_large_answer_is_thinned_to_means() {
    let mut bed = Bed::new();
    let count = 2 * ANSWER_POINTS_MAX / POINTS;
    let samples = [1.0, 3.0].map(|value| {
        for at in 0..count {
            bed.meter.gauge("g", "G.", &[("i", &at.to_string())]).set(value);
        }
        bed.meter.samples()
    });
    for tick in 0..POINTS {
        bed.now_ms += STEP_MS;
        bed.store.record(bed.now_ms, STEP_MS, &samples[tick % 2]);
    }
    let series = bed.store.query("g", &[], 0);
    assert_eq!(series.len(), count);
    assert!(series.iter().all(|series| series.points.len() == POINTS / 2));
    assert!(series.iter().flat_map(|series| &series.points).all(|(_, value)| *value == 2.0));
    assert_eq!(series[0].points.last().map(|last| last.0), Some(bed.now_ms));
    assert_eq!(bed.values("g", &[("i", "7")]).len(), POINTS);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("says how much");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1_024
}

/// Each test is a process of its own under nextest, so what grows is this test's.
#[test]
fn a_full_store_stays_within_ten_megabytes() {
    let samples: Vec<meter::Sample> = {
        let meter = Meter::new();
        for at in 0..STREAMS_MAX {
            let instance = format!("publishing.mastodon-web.{at}.k3v9x2m1");
            meter.gauge("bramble_instance_memory_bytes", "M.", &[("instance", &instance), ("stack", "publishing")]);
        }
        meter.samples()
    };
    let before = resident_bytes();
    let mut store = Store::new();
    for tick in 0..10 {
        store.record(tick * STEP_MS, STEP_MS, &samples);
    }
    assert_eq!(store.streams(), STREAMS_MAX);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 10_000_000, "{grown} bytes");
}
