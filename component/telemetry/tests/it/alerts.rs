//! Alerts: the machine, and each built-in rule, on a clock the test turns.

use meter::{LATENCY_SECONDS, Meter};
use std::collections::BTreeMap;
use telemetry::Unit;
use telemetry::alerts::{ALERTS_MAX, Alerts, Change, Expression, Holds, Match, Rule, Select, built_in};
use telemetry::series::Store;

const STEP_MS: u64 = 5_000;
const BUDGET_BYTES: u64 = 80 << 20;

struct Bed {
    meter: Meter,
    store: Store,
    alerts: Alerts,
    now_ms: u64,
    changes: Vec<Change>,
}

impl Bed {
    fn new(rules: Vec<Rule>) -> Bed {
        Bed {
            meter: Meter::new(),
            store: Store::new(),
            alerts: Alerts::new(rules),
            now_ms: 100_000_000,
            changes: Vec::new(),
        }
    }

    /// The built-in rules, with a first sample taken.
    fn built_in() -> Bed {
        let mut bed = Bed::new(built_in(BUDGET_BYTES));
        bed.pass(STEP_MS);
        bed
    }

    /// Lets time pass, sample by sample.
    fn pass(&mut self, ms: u64) {
        self.pass_with(ms, |_| {});
    }

    /// Lets time pass; `each` happens before every sample.
    fn pass_with(&mut self, ms: u64, each: impl Fn(&Meter)) {
        for _ in 0..ms / STEP_MS {
            each(&self.meter);
            self.now_ms += STEP_MS;
            self.store.record(self.now_ms, STEP_MS, &self.meter.samples());
            self.changes.extend(self.alerts.step(self.now_ms, &self.store));
        }
    }

    fn set(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        self.meter.gauge(name, "G.", labels).set(value);
    }

    /// What changed since the last look: `+` fired, `-` ended, with the labels.
    fn changed(&mut self) -> Vec<String> {
        let show = |change: Change| {
            let (sign, alert) = match change {
                Change::Fired(alert) => ('+', alert),
                Change::Resolved(alert) => ('-', alert),
            };
            assert_eq!(alert.firing, sign == '+');
            assert!(!alert.summary.contains(['{', '}']), "{}", alert.summary);
            let labels: Vec<_> = alert.labels.values().map(String::as_str).collect();
            format!("{sign}{}({})", alert.name, labels.join(","))
        };
        self.changes.drain(..).map(show).collect()
    }
}

#[test]
fn an_instance_that_restarts_three_times_in_ten_minutes() {
    let mut bed = Bed::built_in();
    let labels = [("stack", "s"), ("service", "web"), ("instance", "s.web.1.x")];
    let restarts = bed.meter.counter("bramble_instance_restarts_total", "R.", &labels);
    for _ in 0..2 {
        restarts.inc();
        bed.pass(60_000);
    }
    assert_eq!(bed.changed(), [] as [&str; 0]);
    restarts.inc();
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+instance_restarting(s.web.1.x,web,s)"]);
    let alert = bed.alerts.list().remove(0);
    assert_eq!(alert.summary, "s.web.1.x was restarted 3 times in ten minutes: its last log lines say why");
    bed.pass(10 * 60_000);
    assert_eq!(bed.changed(), ["-instance_restarting(s.web.1.x,web,s)"]);
}

#[test]
fn a_service_with_fewer_ready_than_wanted() {
    let mut bed = Bed::built_in();
    let labels = [("stack", "s"), ("service", "web")];
    bed.set("bramble_service_instances_wanted", &labels, 3.0);
    bed.set("bramble_service_instances_ready", &labels, 3.0);
    bed.pass(60_000);
    bed.set("bramble_service_instances_ready", &labels, 1.0);
    bed.pass(60_000);
    assert_eq!(bed.changed(), [] as [&str; 0]);
    let pending = bed.alerts.list().remove(0);
    assert!(!pending.firing && pending.value == 2.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+service_degraded(web,s)"]);
    bed.set("bramble_service_instances_ready", &labels, 3.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-service_degraded(web,s)"]);
}

#[test]
fn a_service_that_nobody_reports_ready_is_degraded() {
    let mut bed = Bed::built_in();
    bed.set("bramble_service_instances_wanted", &[("stack", "s"), ("service", "web")], 1.0);
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+service_degraded(web,s)"]);
    // The stack is removed.
    bed.meter.forget("stack", "s");
    bed.pass(15_000 + STEP_MS);
    assert_eq!(bed.changed(), ["-service_degraded(web,s)"]);
}

#[test]
fn a_service_that_answers_with_errors() {
    let mut bed = Bed::built_in();
    let answer = |class: &'static str, count: u64| {
        move |meter: &Meter| {
            let labels = [("service", "s/web"), ("class", class), ("method", "GET")];
            meter.counter("bramble_gateway_requests_total", "R.", &labels).add(count);
        }
    };
    let both = |good: u64, bad: u64| {
        move |meter: &Meter| {
            answer("2xx", good)(meter);
            answer("5xx", bad)(meter);
        }
    };
    bed.pass_with(180_000, both(96, 4));
    assert_eq!(bed.changed(), [] as [&str; 0]);
    bed.pass_with(180_000, both(90, 10));
    assert_eq!(bed.changed(), ["+service_errors(s/web)"]);
    bed.pass_with(120_000, both(100, 0));
    assert_eq!(bed.changed(), ["-service_errors(s/web)"]);
}

#[test]
fn a_failure_among_few_requests_is_no_trend() {
    let mut bed = Bed::built_in();
    for _ in 0..10 {
        let labels = [("service", "s/web"), ("class", "5xx"), ("method", "GET")];
        bed.meter.counter("bramble_gateway_requests_total", "R.", &labels).add(5);
        bed.pass(60_000);
    }
    assert_eq!(bed.changed(), [] as [&str; 0]);
}

#[test]
fn a_service_that_nobody_can_reach() {
    let mut bed = Bed::built_in();
    bed.meter.counter("bramble_gateway_no_endpoint_total", "N.", &[("service", "s/web")]).inc();
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+service_unreachable(s/web)"]);
    bed.pass(2 * 60_000);
    assert_eq!(bed.changed(), ["-service_unreachable(s/web)"]);
}

#[test]
fn a_service_that_answers_slowly() {
    let mut bed = Bed::built_in();
    let seconds = |meter: &Meter| {
        meter.histogram("bramble_gateway_request_seconds", "T.", &[("service", "s/web")], meter::LATENCY_SECONDS)
    };
    bed.pass_with(240_000, move |meter| seconds(meter).observe(9.0));
    assert_eq!(bed.changed(), [] as [&str; 0]);
    bed.pass_with(120_000, move |meter| seconds(meter).observe(9.0));
    assert_eq!(bed.changed(), ["+service_slow(s/web)"]);
    bed.pass_with(600_000, move |meter| seconds(meter).observe(0.01));
    assert_eq!(bed.changed(), ["-service_slow(s/web)"]);
}

#[test]
fn a_gateway_with_nearly_all_connections_open() {
    let mut bed = Bed::built_in();
    bed.set("bramble_gateway_connections_max", &[], 1_000.0);
    bed.set("bramble_gateway_connections", &[], 950.0);
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+gateway_saturated()"]);
    bed.set("bramble_gateway_connections", &[], 100.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-gateway_saturated()"]);
}

#[test]
fn a_core_that_computes_wrong_is_named_with_its_answer() {
    let mut bed = Bed::built_in();
    let labels =
        [("machine", "m1"), ("host", "pi"), ("core", "1"), ("test", "float"), ("expected", "2f"), ("got", "2e")];
    bed.set("bramble_selftest_core_wrong", &labels, 1.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+core_wrong(1,2f,2e,pi,m1,float)"]);
    // Nobody tells of it any more.
    bed.meter.forget("machine", "m1");
    bed.pass(30_000);
    assert_eq!(bed.changed(), ["-core_wrong(1,2f,2e,pi,m1,float)"]);
}

#[test]
fn a_machine_whose_clock_is_wrong() {
    let mut bed = Bed::built_in();
    let skew = |bed: &mut Bed, value| {
        bed.set("bramble_cluster_clock_skew_seconds", &[("machine", "m1"), ("host", "pi")], value);
    };
    skew(&mut bed, 1.5);
    bed.pass(60_000 + STEP_MS);
    assert!(bed.changed().is_empty());
    skew(&mut bed, 31_536_000.0);
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+clock_skewed(pi,m1)"]);
    skew(&mut bed, 0.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-clock_skewed(pi,m1)"]);
}

#[test]
fn a_machine_that_is_there_twice() {
    let mut bed = Bed::built_in();
    let met = bed.meter.counter("bramble_cluster_twins_met_total", "T.", &[("machine", "m1")]);
    bed.pass(STEP_MS);
    assert!(bed.changed().is_empty());
    met.inc();
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+machine_twin(m1)"]);
    bed.pass(10 * 60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["-machine_twin(m1)"]);
}

#[test]
fn an_address_that_the_gateway_cannot_hold() {
    let mut bed = Bed::built_in();
    let failed = |bed: &mut Bed, value| bed.set("bramble_cluster_floating_failed", &[("address", "192.0.2.80")], value);
    failed(&mut bed, 1.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+floating_address_lost(192.0.2.80)"]);
    failed(&mut bed, 0.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-floating_address_lost(192.0.2.80)"]);
}

#[test]
fn a_machine_that_its_owner_needs_and_work_does_not_leave() {
    let mut bed = Bed::built_in();
    let left = |bed: &mut Bed, instances| {
        bed.set("bramble_cluster_machine_pressed_instances", &[("machine", "m1"), ("host", "pi")], instances);
    };
    left(&mut bed, 3.0);
    bed.pass(5 * 60_000);
    left(&mut bed, 2.0);
    assert_eq!(bed.changed(), [] as [&str; 0], "it takes its time");
    bed.pass(5 * 60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+machine_pressed(pi,m1)"]);
    left(&mut bed, 0.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-machine_pressed(pi,m1)"]);
}

#[test]
fn a_machine_that_is_down_and_machines_that_are_refused() {
    let mut bed = Bed::built_in();
    let up = |bed: &mut Bed, value| bed.set("bramble_cluster_machine_up", &[("machine", "m1"), ("host", "pi")], value);
    up(&mut bed, 1.0);
    bed.pass(STEP_MS);
    assert!(bed.changed().is_empty());
    up(&mut bed, 0.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+machine_down(pi,m1)"]);
    up(&mut bed, 1.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-machine_down(pi,m1)"]);
    let labels = [("side", "server"), ("reason", "unknown_authority")];
    let refused = bed.meter.counter("bramble_rpc_handshakes_failed_total", "C.", &labels);
    refused.add(99);
    bed.pass(STEP_MS);
    assert!(bed.changed().is_empty());
    refused.add(1);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+machines_refused(unknown_authority)"]);
    bed.pass(5 * 60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["-machines_refused(unknown_authority)"]);
}

#[test]
fn clients_of_etcd_that_fail_and_that_fill_their_room() {
    let mut bed = Bed::built_in();
    let of = |bed: &Bed, result| {
        bed.meter.counter("bramble_etcd_requests_total", "R.", &[("method", "put"), ("result", result)])
    };
    let (done, refused, failed) = (of(&bed, "done"), of(&bed, "refused"), of(&bed, "failed"));
    done.add(80);
    refused.add(20);
    failed.add(5);
    bed.pass(STEP_MS);
    assert!(bed.changed().is_empty(), "one in twenty is a client's bad day");
    failed.add(5);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+etcd_failing()"]);
    bed.pass(2 * 60_000);
    assert_eq!(bed.changed(), ["-etcd_failing()"]);
    bed.set("bramble_etcd_bytes_max", &[], 100.0);
    bed.set("bramble_etcd_bytes", &[], 79.0);
    bed.pass(2 * 60_000);
    assert!(bed.changed().is_empty());
    bed.set("bramble_etcd_bytes", &[], 81.0);
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+etcd_space_filling()"]);
    bed.set("bramble_etcd_bytes", &[], 10.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-etcd_space_filling()"]);
}

#[test]
fn a_client_that_opens_more_and_more_connections() {
    let mut bed = Bed::built_in();
    let refused = bed.meter.counter("bramble_gateway_connections_refused_total", "C.", &[]);
    refused.add(99);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), [] as [&str; 0]);
    refused.add(1);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+client_connections_refused()"]);
    bed.pass(6 * 60_000);
    assert_eq!(bed.changed(), ["-client_connections_refused()"]);
}

#[test]
fn a_client_that_is_banned() {
    let mut bed = Bed::built_in();
    bed.meter.counter("bramble_gateway_bans_total", "B.", &[("service", "s/web")]).inc();
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+clients_banned(s/web)"]);
    bed.pass(6 * 60_000);
    assert_eq!(bed.changed(), ["-clients_banned(s/web)"]);
}

#[test]
fn requests_that_are_refused_for_lack_of_a_machine() {
    let mut bed = Bed::built_in();
    bed.meter.counter("bramble_gateway_shed_total", "S.", &[("service", "s/web"), ("class", "low")]).inc();
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+requests_shed(s/web)"]);
    bed.pass(2 * 60_000);
    assert_eq!(bed.changed(), ["-requests_shed(s/web)"]);
}

#[test]
fn an_instance_that_is_left_out() {
    let mut bed = Bed::built_in();
    let labels = [("service", "s/web"), ("instance", "s.web.1.x")];
    bed.set("bramble_gateway_breaker", &labels, 1.0);
    bed.pass(30_000);
    bed.set("bramble_gateway_breaker", &labels, 0.5);
    bed.pass(30_000);
    assert_eq!(bed.changed(), [] as [&str; 0]);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+instance_left_out(s.web.1.x,s/web)"]);
    bed.set("bramble_gateway_breaker", &labels, 0.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-instance_left_out(s.web.1.x,s/web)"]);
}

#[test]
fn requests_that_are_missing_from_the_log() {
    let mut bed = Bed::built_in();
    bed.meter.counter("bramble_gateway_log_dropped_total", "D.", &[("reason", "full")]).inc();
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+requests_not_told()"]);
    bed.pass(10 * 60_000);
    assert_eq!(bed.changed(), ["-requests_not_told()"]);
}

#[test]
fn a_certificate_that_ends_soon() {
    let mut bed = Bed::built_in();
    let labels = [("name", "shop.test"), ("source", "shop.crt")];
    bed.set("bramble_certificate_left_seconds", &labels, 20.0 * 86_400.0);
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), [] as [&str; 0]);
    bed.set("bramble_certificate_left_seconds", &labels, 13.0 * 86_400.0);
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+certificate_ending(shop.test)"]);
    bed.set("bramble_certificate_left_seconds", &labels, 90.0 * 86_400.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-certificate_ending(shop.test)"]);
}

#[test]
fn a_certificate_that_no_authority_gives() {
    let mut bed = Bed::built_in();
    bed.set("bramble_certificate_unobtainable", &[("name", "shop.test")], 1.0);
    bed.pass(4 * 60_000);
    assert_eq!(bed.changed(), [] as [&str; 0], "it may be away for a moment");
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+certificate_unobtainable(shop.test)"]);
    bed.set("bramble_certificate_unobtainable", &[("name", "shop.test")], 0.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-certificate_unobtainable(shop.test)"]);
}

#[test]
fn a_certificate_file_that_is_none() {
    let mut bed = Bed::built_in();
    bed.set("bramble_certificates_unusable", &[], 1.0);
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+certificate_unusable()"]);
    bed.set("bramble_certificates_unusable", &[], 0.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-certificate_unusable()"]);
}

#[test]
fn a_cache_whose_disk_is_of_no_use() {
    let mut bed = Bed::built_in();
    bed.set("bramble_cache_disk_lost", &[], 1.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+cache_disk_lost()"]);
    bed.set("bramble_cache_disk_lost", &[], 0.0);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-cache_disk_lost()"]);
}

#[test]
fn a_cache_whose_disk_fails_again_and_again() {
    let mut bed = Bed::built_in();
    let errors = bed.meter.counter("bramble_cache_disk_errors_total", "E.", &[]);
    bed.pass(STEP_MS);
    errors.add(2);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), [] as [&str; 0], "a fault that passes is none");
    errors.add(2);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+cache_disk_failing()"]);
    bed.pass(10 * 60_000);
    assert_eq!(bed.changed(), ["-cache_disk_failing()"]);
}

#[test]
fn an_image_that_cannot_be_pulled() {
    let mut bed = Bed::built_in();
    bed.meter.counter("bramble_image_pull_failures_total", "F.", &[]).inc();
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+image_pull_failing()"]);
    bed.pass(10 * 60_000);
    assert_eq!(bed.changed(), ["-image_pull_failing()"]);
}

#[test]
fn a_disk_that_is_nearly_full() {
    let mut bed = Bed::built_in();
    bed.set("bramble_node_disk_total_bytes", &[], 1e12);
    bed.set("bramble_node_disk_available_bytes", &[], 0.05e12);
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+disk_nearly_full()"]);
    assert!(bed.alerts.list()[0].summary.starts_with("5 % of the disk"), "{:?}", bed.alerts.list());
    bed.set("bramble_node_disk_available_bytes", &[], 0.2e12);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-disk_nearly_full()"]);
}

#[test]
fn a_disk_nobody_knows_the_room_of_is_not_full() {
    let mut bed = Bed::built_in();
    bed.set("bramble_node_disk_total_bytes", &[], 1e12);
    bed.pass(300_000);
    assert_eq!(bed.changed(), [] as [&str; 0]);
}

#[test]
fn programs_that_wait_for_memory() {
    let mut bed = Bed::built_in();
    bed.set("bramble_node_psi", &[("kind", "cpu")], 0.9);
    bed.set("bramble_node_psi", &[("kind", "memory")], 0.3);
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+memory_pressure()"]);
    bed.set("bramble_node_psi", &[("kind", "memory")], 0.1);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-memory_pressure()"]);
}

#[test]
fn changes_that_are_slow_to_reach_the_disk() {
    let mut bed = Bed::built_in();
    let commit = bed.meter.histogram("bramble_control_commit_seconds", "C.", &[], LATENCY_SECONDS);
    commit.observe(2.0);
    bed.pass(30_000);
    commit.observe(2.0);
    bed.pass(40_000);
    assert_eq!(bed.changed(), ["+control_slow()"]);
    commit.observe(0.01);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-control_slow()"]);
}

#[test]
fn changes_that_cannot_be_written() {
    let mut bed = Bed::built_in();
    bed.meter.counter("bramble_control_commit_failures_total", "F.", &[("kind", "full")]).inc();
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+control_failing()"]);
    bed.pass(5 * 60_000);
    assert_eq!(bed.changed(), ["-control_failing()"]);
}

#[test]
fn a_node_that_cannot_be_replaced() {
    let mut bed = Bed::built_in();
    let failures = bed.meter.counter("bramble_upgrade_failures_total", "F.", &[]);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), [] as [&str; 0]);
    failures.inc();
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+upgrade_failing()"]);
    bed.pass(10 * 60_000);
    assert_eq!(bed.changed(), ["-upgrade_failing()"]);
}

#[test]
fn an_agent_over_its_memory_budget() {
    let mut bed = Bed::built_in();
    let set = |bed: &Bed, bytes: f64| bed.set("bramble_process_resident_bytes", &[("process", "agent")], bytes);
    bed.set("bramble_process_resident_bytes", &[("process", "shim")], 1e9);
    set(&bed, 90e6);
    bed.pass(5 * 60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+agent_memory()"]);
    set(&bed, 40e6);
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["-agent_memory()"]);
}

#[test]
fn series_that_are_not_kept() {
    let mut bed = Bed::built_in();
    bed.pass_with(120_000, |meter| meter.counter("bramble_telemetry_refused_total", "R.", &[]).inc());
    assert_eq!(bed.changed(), ["+series_refused()"]);
    bed.pass(60_000);
    assert_eq!(bed.changed(), ["-series_refused()"]);
}

#[test]
fn logs_that_cannot_be_removed() {
    let mut bed = Bed::built_in();
    bed.meter.counter("bramble_telemetry_prune_failures_total", "F.", &[]).inc();
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+logs_not_pruned()"]);
    bed.pass(10 * 60_000);
    assert_eq!(bed.changed(), ["-logs_not_pruned()"]);
}

#[test]
fn every_built_in_rule_has_a_test_above() {
    let tested = include_str!("alerts.rs");
    for rule in built_in(BUDGET_BYTES) {
        for sign in ['+', '-'] {
            assert!(tested.contains(&format!("\"{sign}{}(", rule.name)), "{sign}{}", rule.name);
        }
    }
}

/// `x` above 1 for a minute, per `a`.
fn rule() -> Rule {
    Rule {
        name: "x_high",
        summary: "{a} is at {value}",
        expression: Expression::Latest { of: Select::all("x"), within_ms: 15_000 },
        by: &["a"],
        holds: Holds::Above(1.0),
        for_ms: 60_000,
        unit: Unit::Count,
    }
}

#[test]
fn a_break_starts_the_wait_anew() {
    let mut bed = Bed::new(vec![rule()]);
    for _ in 0..3 {
        bed.set("x", &[("a", "1")], 2.0);
        bed.pass(55_000);
        bed.set("x", &[("a", "1")], 1.0);
        bed.pass(STEP_MS);
    }
    assert_eq!(bed.changed(), [] as [&str; 0]);
    assert_eq!(bed.alerts.list(), []);
}

#[test]
fn groups_are_judged_apart_and_summed_within() {
    let mut bed = Bed::new(vec![rule()]);
    bed.set("x", &[("a", "one"), ("b", "1")], 0.8);
    bed.set("x", &[("a", "one"), ("b", "2")], 0.8);
    bed.set("x", &[("a", "two"), ("b", "1")], 0.8);
    bed.pass(60_000 + STEP_MS);
    assert_eq!(bed.changed(), ["+x_high(one)"]);
    assert_eq!(bed.alerts.firing(), [("x_high", 1)]);
    let alert = bed.alerts.list().remove(0);
    assert_eq!(alert.labels, BTreeMap::from([("a".to_owned(), "one".to_owned())]));
    assert_eq!((alert.summary.as_str(), alert.since_ms), ("one is at 1.6", bed.now_ms - 60_000));
}

#[test]
fn a_clock_set_back_does_not_put_an_alert_off() {
    let mut bed = Bed::new(vec![rule()]);
    bed.set("x", &[("a", "1")], 2.0);
    bed.pass(30_000);
    bed.now_ms -= 3_600_000;
    bed.pass(60_000 + 2 * STEP_MS);
    assert_eq!(bed.changed(), ["+x_high(1)"]);
}

#[test]
fn alerts_are_bounded() {
    let mut bed = Bed::new(vec![Rule { for_ms: 0, ..rule() }]);
    for at in 0..ALERTS_MAX + 10 {
        bed.set("x", &[("a", &at.to_string())], 2.0);
    }
    bed.pass(STEP_MS);
    assert_eq!(bed.alerts.list().len(), ALERTS_MAX);
}

#[test]
fn labels_are_matched_whole_or_by_their_begin() {
    let growth = |labels| Expression::Growth { of: Select { name: "c_total", labels }, over_ms: 60_000 };
    let rule = |name, labels| Rule {
        name,
        expression: growth(labels),
        by: &[],
        holds: Holds::AtLeast(1.0),
        for_ms: 0,
        summary: "x",
        unit: Unit::Count,
    };
    let mut bed = Bed::new(vec![
        rule("is", &[("code", Match::Is("5"))]),
        rule("begins", &[("code", Match::Begins("5"))]),
        rule("other", &[("kind", Match::Begins(""))]),
    ]);
    bed.pass(STEP_MS);
    bed.meter.counter("c_total", "C.", &[("code", "503")]).inc();
    bed.pass(STEP_MS);
    assert_eq!(bed.changed(), ["+begins()"]);
}

#[test]
fn workers_that_are_missing_or_end_again_and_again() {
    let mut bed = Bed::built_in();
    bed.set("bramble_workers_wanted", &[], 2.0);
    bed.set("bramble_workers", &[], 1.0);
    let lost = bed.meter.counter("bramble_workers_lost_total", "", &[]);
    bed.pass(5_000);
    assert!(bed.changed().is_empty(), "one that ended is started again");
    bed.pass(10_000);
    assert_eq!(bed.changed(), ["+workers_missing()"]);
    bed.set("bramble_workers", &[], 2.0);
    lost.add(3);
    bed.pass(2 * STEP_MS);
    let mut changed = bed.changed();
    changed.sort();
    assert_eq!(changed, ["+workers_ending()", "-workers_missing()"]);
    bed.pass(6 * 60_000);
    assert_eq!(bed.changed(), ["-workers_ending()"]);
}

#[test]
fn boxes_that_are_not_used_again_and_languages_that_are_not_there() {
    let mut bed = Bed::built_in();
    let boxes = bed.meter.counter("bramble_run_boxes_total", "", &[("from", "built")]);
    let given_up = bed.meter.counter("bramble_run_boxes_given_up_total", "", &[]);
    let failed = bed.meter.counter("bramble_language_copies_total", "", &[("result", "failed")]);
    bed.pass(2 * STEP_MS);
    boxes.add(100);
    given_up.add(100);
    bed.pass(2 * STEP_MS);
    assert!(bed.changed().is_empty(), "somebody tries things out");
    boxes.add(200);
    given_up.add(100);
    bed.pass(2 * STEP_MS);
    assert_eq!(bed.changed(), ["+run_boxes_given_up()"]);
    boxes.add(500);
    bed.pass(2 * STEP_MS);
    assert_eq!(bed.changed(), ["-run_boxes_given_up()"]);
    failed.inc();
    bed.pass(2 * STEP_MS);
    assert_eq!(bed.changed(), ["+language_copy_failing()"]);
    bed.pass(11 * 60_000);
    assert_eq!(bed.changed(), ["-language_copy_failing()"]);
}

#[test]
fn runs_that_wait_or_are_lost() {
    let mut bed = Bed::built_in();
    bed.set("bramble_runs_waiting", &[], 25.0);
    bed.pass(70_000);
    assert_eq!(bed.changed(), ["+runs_waiting()"]);
    bed.set("bramble_runs_waiting", &[], 0.0);
    let labels = [("language", "c"), ("verdict", "lost")];
    let lost = bed.meter.counter("bramble_runs_total", "", &labels);
    bed.pass(2 * STEP_MS);
    assert_eq!(bed.changed(), ["-runs_waiting()"]);
    lost.add(12);
    bed.pass(2 * STEP_MS);
    assert_eq!(bed.changed(), ["+runs_lost()"]);
    bed.pass(6 * 60_000);
    assert_eq!(bed.changed(), ["-runs_lost()"]);
    let unheard = bed.meter.counter("bramble_run_buddies_unheard_total", "", &[]);
    bed.pass(2 * STEP_MS);
    unheard.add(40);
    bed.pass(2 * STEP_MS);
    assert_eq!(bed.changed(), ["+run_buddy_silent()"]);
    bed.pass(2 * 60_000);
    assert_eq!(bed.changed(), ["-run_buddy_silent()"]);
}
