//! A machine whose clock is a year off, ahead or behind: it is told so, nothing is lost, and it is back when its clock is right.

use crate::alerts::alert;
use crate::cluster::{known, machines, web};
use lab::node::binary;
use lab::{Node, Settings, wait};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const YEAR_MS: i64 = 365 * 86_400 * 1_000;

/// The clock of one machine.
struct Clock {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Clock {
    fn right() -> Clock {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock { path: folder.path().join("clock"), _folder: folder };
        clock.set(0);
        clock
    }

    fn set(&self, wrong_ms: i64) {
        let fresh = self.path.with_extension("new");
        std::fs::write(&fresh, wrong_ms.to_string()).expect("a file can be written");
        std::fs::rename(&fresh, &self.path).expect("it can be put in its place");
    }

    fn settings(&self, token: Option<String>) -> Settings {
        let path = self.path.to_string_lossy().into_owned();
        let arguments = ["--clock-lab", &path, "--alerts-after", "0"].map(str::to_owned).to_vec();
        Settings { arguments, token, ..Settings::default() }
    }
}

fn certificate(node: &Node) -> String {
    std::fs::read_to_string(node.data().join("cluster/certificate.pem")).expect("a member has a certificate")
}

fn up(by: &Node) -> usize {
    let nodes = by.json(&["node", "ls"]);
    nodes.as_array().map_or(0, |nodes| nodes.iter().filter(|one| one["presence"] == "up").count())
}

/// `by` says that the clock of machine `of` is a year off.
fn skewed(by: &Node, of: &Node) -> Option<Value> {
    let skewed = alert(by, "clock_skewed")?;
    let is_it = skewed["labels"]["machine"] == of.id() && skewed["firing"] == true;
    (is_it && skewed["value"].as_f64()? > 31_000_000.0).then_some(skewed)
}

fn decides(node: &Node, replicas: usize) {
    wait::until("a service can be changed", 40, || {
        let scaled = node.cli(&["service", "scale", "shop/web", &replicas.to_string(), "--detach"]);
        scaled.status.success().then_some(())
    });
    wait::until("it has as many instances", 60, || (machines(node).len() == replicas).then_some(()));
}

fn joins(token: &str, data: &Path, clock: &Clock) -> String {
    let mut joining = Command::new(binary("bramble"));
    joining.args(["join", token, "--peers", "127.0.0.1:0", "--clock-lab"]).arg(&clock.path).arg("--data").arg(data);
    let tried = joining.output().expect("the binary runs");
    assert_eq!(tried.status.code(), Some(1));
    String::from_utf8_lossy(&tried.stderr).into_owned()
}

#[test]
fn who_joins_with_a_clock_a_year_off_is_told_by_how_much() {
    let node = Node::start();
    let token = node.join_token(&[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clock = Clock::right();
    for (wrong_ms, expected) in [(YEAR_MS, "365 days ahead of"), (-YEAR_MS, "365 days behind")] {
        clock.set(wrong_ms);
        let said = joins(&token, &folder.path().join("data"), &clock);
        assert!(said.contains(expected) && said.contains("timedatectl"), "{said}");
    }
    assert_eq!(known(&node), 1);
}

/// Three machines, and the clock of the first, which leads, or of the last.
fn goes_on_with_a_wrong_clock(at: usize, wrong_ms: i64) {
    let clocks = [Clock::right(), Clock::right(), Clock::right()];
    let mut nodes = vec![Node::with(clocks[0].settings(None))];
    for clock in &clocks[1..] {
        let token = nodes[0].join_token(&[]);
        nodes.push(Node::with(clock.settings(Some(token))));
    }
    wait::until("three vote", 40, || nodes[0].log().contains("voters=3").then_some(()));
    nodes[0].deployed("shop", &web(3));
    let before: Vec<String> = nodes.iter().map(certificate).collect();
    let other = usize::from(at == 0);
    // While it runs: what is connected stays so.
    clocks[at].set(wrong_ms);
    for by in [at, other] {
        wait::until("whose clock is off is an alert", 60, || skewed(&nodes[by], &nodes[at]));
    }
    decides(&nodes[other], 4);
    decides(&nodes[at], 3);
    // It is renewed at the earliest when it would be by the wrong clock.
    wait::until("it does not renew its certificate", 40, || {
        (wrong_ms < 0 || nodes[at].log().contains("certificate cannot be renewed")).then_some(())
    });
    // Begun anew it knows nobody by certificate, nor is it known.
    nodes[at].kill();
    nodes[at].launch();
    wait::until("it is cut off", 40, || (up(&nodes[other]) == 2).then_some(()));
    decides(&nodes[other], 4);
    for by in [at, other] {
        wait::until("whose clock is off is an alert still", 60, || skewed(&nodes[by], &nodes[at]));
    }
    clocks[at].set(0);
    wait::until("it is back", 60, || (up(&nodes[other]) == 3).then_some(()));
    wait::until("it knows what was decided", 60, || (machines(&nodes[at]).len() == 4).then_some(()));
    wait::until("the alert is over", 60, || {
        nodes.iter().all(|node| alert(node, "clock_skewed").is_none()).then_some(())
    });
    let after: Vec<String> = nodes.iter().map(certificate).collect();
    assert_eq!(after, before, "no certificate was made by a wrong clock");
}

#[test]
fn a_leader_whose_clock_is_a_year_ahead_goes_on_and_is_back_when_it_is_right() {
    goes_on_with_a_wrong_clock(0, YEAR_MS);
}

#[test]
fn a_member_whose_clock_is_a_year_behind_goes_on_and_is_back_when_it_is_right() {
    goes_on_with_a_wrong_clock(2, -YEAR_MS);
}
