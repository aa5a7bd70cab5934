//! The part as the app starts it.

use meter::Meter;
use std::time::Duration;
use telemetry::alerts::{Expression, Holds, Rule, Select};
use telemetry::logs::{Keep, Query};
use telemetry::{Settings, Telemetry, Unit, boards};
use tempfile::TempDir;

/// Nothing in these tests takes long: one that does is stuck.
const STUCK: Duration = Duration::from_secs(20);

fn settings(dir: &TempDir) -> Settings {
    let settings = Settings::new(dir.path(), &dir.path().join("logs"));
    Settings { sample_every: Duration::from_millis(2), ..settings }
}

/// Waits until `holds` after some sample.
async fn until(telemetry: &Telemetry, holds: impl Fn(&Telemetry) -> bool) {
    let mut sampled = telemetry.sampled();
    let wait = async {
        while !holds(telemetry) {
            sampled.changed().await.expect("sampling goes on");
        }
    };
    tokio::time::timeout(STUCK, wait).await.expect("it happens");
}

fn has(telemetry: &Telemetry, name: &str) -> bool {
    !telemetry.series(name, &[], 0).is_empty()
}

#[tokio::test]
async fn the_machine_and_the_part_itself_are_sampled() {
    let dir = tempfile::tempdir().expect("makes a folder");
    let meter = Meter::new();
    let telemetry = Telemetry::start(settings(&dir), meter.clone());
    until(&telemetry, |telemetry| has(telemetry, "bramble_telemetry_sample_seconds_count")).await;
    for name in [
        "bramble_node_load1",
        "bramble_node_cpu_busy",
        "bramble_node_memory_available_bytes",
        "bramble_node_disk_available_bytes",
        "bramble_process_resident_bytes",
        "bramble_telemetry_streams",
        "bramble_alerts_firing",
    ] {
        assert!(has(&telemetry, name), "{name}");
        assert!(telemetry.series_names().iter().any(|known| known == name), "{name}");
    }
    assert!(telemetry.load().memory_available_bytes > 0);
    assert!(meter.encode().contains("bramble_alerts_firing{alert=\"disk_nearly_full\"} "));
}

#[tokio::test]
async fn an_alert_fires_is_counted_and_ends() {
    let dir = tempfile::tempdir().expect("makes a folder");
    let meter = Meter::new();
    let rule = Rule {
        name: "x_high",
        summary: "x is {value}",
        expression: Expression::Latest { of: Select::all("x"), within_ms: 15_000 },
        by: &[],
        holds: Holds::Above(1.0),
        for_ms: 0,
        unit: Unit::Count,
    };
    let telemetry = Telemetry::start(Settings { rules: vec![rule], ..settings(&dir) }, meter.clone());
    let x = meter.gauge("x", "X.", &[]);
    x.set(2.0);
    until(&telemetry, |telemetry| telemetry.alerts().iter().any(|alert| alert.firing)).await;
    until(&telemetry, |_| meter.encode().contains("bramble_alerts_firing{alert=\"x_high\"} 1\n")).await;
    x.set(0.0);
    until(&telemetry, |telemetry| telemetry.alerts().is_empty()).await;
    until(&telemetry, |_| meter.encode().contains("bramble_alerts_firing{alert=\"x_high\"} 0\n")).await;
}

#[tokio::test]
async fn logs_are_pruned_once_it_is_known_what_to_keep() {
    let dir = tempfile::tempdir().expect("makes a folder");
    let telemetry = Telemetry::start(settings(&dir), Meter::new());
    for instance in ["dead", "live"] {
        telemetry.logs().note("s", "web", instance, "hello").expect("writes");
    }
    let instances = || {
        let found = telemetry.logs().query_blocking("s", "web", &Query::default()).expect("can be read");
        found.into_iter().map(|line| line.instance).collect::<Vec<_>>()
    };
    until(&telemetry, |telemetry| *telemetry.sampled().borrow() > 3).await;
    assert_eq!(instances().len(), 2);
    let live = ["live".to_owned()].into();
    telemetry.keep_logs(vec![Keep { stack: "s".to_owned(), service: "web".to_owned(), size_bytes_max: 1, live }]);
    until(&telemetry, |_| instances() == ["live"]).await;
}

#[tokio::test]
async fn dropped_it_samples_no_more() {
    let dir = tempfile::tempdir().expect("makes a folder");
    let meter = Meter::new();
    let telemetry = Telemetry::start(settings(&dir), meter.clone());
    let mut sampled = telemetry.sampled();
    until(&telemetry, |telemetry| has(telemetry, "bramble_node_load1")).await;
    drop(telemetry);
    let ended = async { while sampled.changed().await.is_ok() {} };
    tokio::time::timeout(STUCK, ended).await.expect("the task ends");
    assert!(!meter.encode().contains("bramble_node_load1"));
}

#[test]
fn boards_name_what_can_be_asked_for() {
    for board in boards() {
        assert!(!board.panels.is_empty(), "{}", board.component);
        for line in board.panels.iter().flat_map(|panel| panel.lines) {
            assert!(line.name.starts_with("bramble_"), "{}", line.name);
            // What is gone with the next name change should not linger in a legend.
            assert_eq!(line.legend.matches('{').count(), line.legend.matches('}').count(), "{}", line.legend);
        }
    }
}
