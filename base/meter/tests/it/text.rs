//! The text format: golden, and read back by a parser written from the format's description.

use meter::Meter;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

#[test]
fn the_text_is_what_prometheus_describes() {
    let meter = Meter::new();
    meter.counter("requests_total", "Requests, by code.\nAll of them \\ each.", &[("code", "200")]).add(3);
    meter.gauge("temperature", "Now.", &[("at", "a \"b\" \\ c\nd")]).set(-0.5);
    meter.gauge("odd", "Odd.", &[("v", "nan")]).set(f64::NAN);
    meter.gauge("odd", "Odd.", &[("v", "inf")]).set(f64::INFINITY);
    let histogram = meter.histogram("wait_seconds", "Wait.", &[("q", "x")], &[0.5, 1.0]);
    histogram.observe(0.25);
    histogram.observe(4.0);
    let expected = r#"# HELP bramble_meter_series_refused_total Series not kept: too many, a name that is not one, or two kinds under one name.
# TYPE bramble_meter_series_refused_total counter
bramble_meter_series_refused_total{reason="bound"} 0
bramble_meter_series_refused_total{reason="conflict"} 0
bramble_meter_series_refused_total{reason="name"} 0
# HELP odd Odd.
# TYPE odd gauge
odd{v="inf"} +Inf
odd{v="nan"} NaN
# HELP requests_total Requests, by code.\nAll of them \\ each.
# TYPE requests_total counter
requests_total{code="200"} 3
# HELP temperature Now.
# TYPE temperature gauge
temperature{at="a \"b\" \\ c\nd"} -0.5
# HELP wait_seconds Wait.
# TYPE wait_seconds histogram
wait_seconds_bucket{q="x",le="0.5"} 1
wait_seconds_bucket{q="x",le="1"} 1
wait_seconds_bucket{q="x",le="+Inf"} 2
wait_seconds_sum{q="x"} 4.25
wait_seconds_count{q="x"} 2
"#;
    assert_eq!(meter.encode(), expected);
}

#[test]
fn open_metrics_has_examples_of_what_took_so_long() {
    let meter = Meter::new();
    meter.counter("requests_total", "A \"help\".", &[]).add(3);
    let histogram = meter.histogram("wait_seconds", "Wait.", &[("q", "x")], &[0.5, 1.0]);
    histogram.observe(0.25);
    histogram.observe(4.0);
    histogram.exemplify(0.25, "0af7", 1_700_000_000_250);
    histogram.exemplify(3.0, "old", 1_700_000_000_000);
    histogram.exemplify(4.0, "new", 1_700_000_001_000);
    histogram.exemplify(f64::NAN, "nan", 0);
    histogram.exemplify(0.7, &"x".repeat(200), 0);
    let text = meter.encode_open();
    let refused = text.split_once("# HELP requests").expect("the first is there").0;
    assert!(refused.contains("# TYPE bramble_meter_series_refused counter\n"), "{refused}");
    let expected = r#" A \"help\".
# TYPE requests counter
requests_total 3
# HELP wait_seconds Wait.
# TYPE wait_seconds histogram
wait_seconds_bucket{q="x",le="0.5"} 1 # {trace_id="0af7"} 0.25 1700000000.25
wait_seconds_bucket{q="x",le="1.0"} 1
wait_seconds_bucket{q="x",le="+Inf"} 2 # {trace_id="new"} 4 1700000001
wait_seconds_sum{q="x"} 4.25
wait_seconds_count{q="x"} 2
# EOF
"#;
    assert!(text.ends_with(expected), "{text}");
    assert!(!meter.encode().contains("trace_id"), "Prometheus' own text has none");
}

type Key = (String, BTreeMap<String, String>);

/// Reads one text as a scraper does; an error names the line.
fn parse(text: &str) -> Result<BTreeMap<Key, f64>, String> {
    let mut found = BTreeMap::new();
    let mut typed = HashSet::new();
    let mut family = String::new();
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    for line in text.split_terminator('\n') {
        let bad = || format!("not a line of the format: {line:?}");
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, _) = rest.split_once(' ').ok_or_else(bad)?;
            if !typed.insert(name.to_owned()) {
                return Err(format!("two TYPE lines for {name}"));
            }
            family = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let (key, value) = sample(line).ok_or_else(bad)?;
            if !key.0.starts_with(&family) {
                return Err(format!("{} stands under {family}", key.0));
            }
            if found.insert(key, value).is_some() {
                return Err(format!("twice: {line:?}"));
            }
        }
    }
    Ok(found)
}

fn sample(line: &str) -> Option<(Key, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, tail) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut letters = tail.char_indices();
            let after = loop {
                match letters.next()? {
                    (at, '"') => break at + 1,
                    (_, '\\') => value.push(match letters.next()?.1 {
                        'n' => '\n',
                        plain @ ('\\' | '"') => plain,
                        _ => return None,
                    }),
                    (_, letter) => value.push(letter),
                }
            };
            labels.insert(label.to_owned(), value);
            rest = &tail[after..];
            if let Some(more) = rest.strip_prefix(',') {
                rest = more;
            } else {
                rest = rest.strip_prefix('}')?;
                break;
            }
        }
    }
    Some(((name.to_owned(), labels), rest.strip_prefix(' ')?.parse().ok()?))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_label_value_and_number_comes_back(
        series in proptest::collection::vec((any::<String>(), "[\\\\\"\n{},= a]{0,8}", any::<f64>()), 0..12)
    ) {
        let meter = Meter::new();
        let mut wanted = BTreeMap::new();
        for (first, second, value) in &series {
            meter.gauge("g", "A \"gauge\".", &[("first", first), ("second", second)]).set(*value);
            let labels = BTreeMap::from([("first".to_owned(), first.clone()), ("second".to_owned(), second.clone())]);
            wanted.insert(("g".to_owned(), labels), *value);
        }
        let found = parse(&meter.encode()).map_err(TestCaseError::fail)?;
        for (key, value) in &wanted {
            let read = found.get(key).copied();
            prop_assert!(read == Some(*value) || (value.is_nan() && read.is_some_and(f64::is_nan)), "{key:?}: {read:?}");
        }
        prop_assert_eq!(found.len(), wanted.len() + 3);
    }

    #[test]
    fn buckets_only_grow_and_end_at_the_count(values in proptest::collection::vec(-2.0..70.0_f64, 0..50)) {
        let meter = Meter::new();
        let histogram = meter.histogram("h", "H.", &[], meter::LATENCY_SECONDS);
        for value in &values {
            histogram.observe(*value);
        }
        let found = parse(&meter.encode()).map_err(TestCaseError::fail)?;
        let mut buckets: Vec<(f64, f64)> = found
            .iter()
            .filter(|((name, _), _)| name == "h_bucket")
            .map(|((_, labels), count)| (labels["le"].parse().expect("a number"), *count))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (bound, count) in &buckets {
            let below = values.iter().filter(|value| *value <= bound).count();
            prop_assert_eq!(*count, below as f64);
        }
        prop_assert_eq!(buckets.last().map(|last| last.1), found.get(&("h_count".to_owned(), BTreeMap::new())).copied());
    }
}

#[test]
fn a_long_label_is_cut_at_a_character() {
    let meter = Meter::new();
    meter.gauge("g", "G.", &[("l", &"ä".repeat(1_000))]).set(1.0);
    meter.gauge("h", "H.", &[("l", &format!("x{}", "ä".repeat(1_000)))]).set(1.0);
    let found = parse(&meter.encode()).expect("is valid");
    for (_, labels) in found.keys().filter(|(name, _)| name == "g" || name == "h") {
        assert!(labels["l"].len() <= meter::LABEL_BYTES_MAX);
    }
}
