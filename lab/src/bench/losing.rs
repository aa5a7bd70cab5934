//! How soon what ran on a machine that is lost answers elsewhere, and what clients meet meanwhile. Machines are nodes with
//! addresses of loopback of their own, which share this machine's cores; each is lost with everything it started.

use super::figures::{median, milliseconds};
use super::report::{Goal, Row};
use super::{Measured, Options};
use lab::load::Load;
use lab::{Node, program, wait};
use serde_json::Value;
use std::time::Duration;

const MACHINES: usize = 7;
const TIMES: usize = 3;
const CLIENTS: usize = 4;
const HOST: &str = "web.test";
/// Before a machine is lost everything has to be calm.
const CALM: Duration = Duration::from_secs(2);
/// Milliseconds until everything answers again: a worker, and the one that leads with a worker.
const WORKER_GOAL_MS: f64 = 3_000.0;
const LEADER_GOAL_MS: f64 = 6_000.0;

/// What the loss of some machines came to.
struct Lost {
    ready_again: Duration,
    failures: usize,
    answers: u32,
}

pub(super) fn run(_options: &Options) -> Measured {
    let mut rows = Vec::new();
    for (what, lost, goal_ms) in
        [("a machine", 1, WORKER_GOAL_MS), ("the one that leads and another", 2, LEADER_GOAL_MS)]
    {
        let all: Vec<Lost> = (0..TIMES).map(|_| lose(lost)).collect();
        let times: Vec<f64> = all.iter().map(|one| milliseconds(one.ready_again)).collect();
        let longest = times.iter().copied().fold(0.0, f64::max);
        let (failures, answers) =
            all.iter().fold((0, 0), |(failures, answers), one| (failures + one.failures, answers + one.answers));
        println!("{what} lost: {failures} requests failed, {answers} were answered");
        rows.push(Row::new(
            format!("{what} lost: all ready elsewhere, median"),
            "ms",
            median(&times),
            Goal::Below(goal_ms),
        ));
        rows.push(Row::new(format!("{what} lost: longest"), "ms", longest, Goal::Below(goal_ms)));
        rows.push(Row::new(format!("{what} lost: requests that failed"), "requests", failures as f64, Goal::None));
    }
    Measured::Rows(rows)
}

/// Loses the last `count` machines of a fresh cluster; with two, the one that leads is among them.
fn lose(count: usize) -> Lost {
    let first = Node::start();
    let mut machines = vec![first];
    while machines.len() < MACHINES {
        let next = machines[0].join();
        machines.push(next);
    }
    wait::until("all know all", 30, || {
        let known = machines[1].json(&["node", "ls"]).as_array().map_or(0, Vec::len);
        (known == MACHINES).then_some(())
    });
    wait::until("five vote", 30, || machines[0].log().contains("voters=5").then_some(()));
    let service = program::service(&format!(
        "expose: ['8000']\nx-bramble: {{routes: [{{host: {HOST}, port: 8000}}]}}\n\
         deploy: {{replicas: {MACHINES}, update_config: {{monitor: 100ms}}}}"
    ));
    machines[0].deployed("lost", &format!("services:\n  web:\n{service}"));
    // The founder leads. Clients come in at a machine that stays.
    let mut going = if count > 1 { vec![machines.remove(0)] } else { Vec::new() };
    going.extend(machines.pop());
    let stays = &machines[0];
    wait::until("all are ready", 30, || (ready(stays).len() == MACHINES).then_some(()));
    let before = ready(stays);
    let load = Load::start(CLIENTS, stays.http, HOST);
    std::thread::sleep(CALM);
    let calm = load.so_far();
    for machine in &mut going {
        machine.lose_power();
    }
    let began = world::clock::monotonic();
    wait::until("all are ready again", 60, || {
        let now = ready(stays);
        let lost = before.len() - before.iter().filter(|id| now.contains(id)).count();
        (now.len() == MACHINES && lost == count).then_some(())
    });
    let ready_again = began.elapsed();
    let report = load.stop();
    for failure in report.failures.iter().skip(calm.failures.len()).take(2) {
        println!("  {}", failure.lines().next().unwrap_or_default());
    }
    Lost {
        ready_again,
        failures: report.failures.len() - calm.failures.len(),
        answers: report.answered() - calm.answered(),
    }
}

/// Instances that are wanted and ready, as a machine sees them.
fn ready(node: &Node) -> Vec<String> {
    let is_ready = |one: &Value| one["status"]["ready"] == true && one["instance"]["wanted"] == "running";
    let instances = node.instances();
    let ids = instances.iter().filter(|one| is_ready(one)).filter_map(|one| one["instance"]["id"].as_str());
    ids.map(str::to_owned).collect()
}
