//! What machines of a cluster use while nobody asks for anything: what a few of them write, and what many hold in memory.

use super::figures::median;
use super::idle::{MEGABYTE, SECONDS_PER_DAY, Used};
use super::report::{Goal, Row};
use super::{Measured, Options};
use lab::{Node, wait};
use std::time::Duration;

const FEW: usize = 5;
const MANY: usize = 40;
/// Roles that could as well stay move ten seconds after all is quiet, one at a time.
const SETTLING: Duration = Duration::from_secs(45);

pub(super) fn run(options: &Options) -> Measured {
    let mut machines = vec![Node::start()];
    grow(&mut machines, FEW);
    wait::until("five vote", 60, || machines[0].log().contains("voters=5").then_some(()));
    std::thread::sleep(SETTLING);
    let look = |machines: &[Node]| -> Vec<Look> { machines.iter().map(Look::at).collect() };
    let before = look(&machines);
    println!("{FEW} machines; looking for {} minutes", options.minutes);
    std::thread::sleep(Duration::from_secs_f64(options.minutes * 60.0));
    let after = look(&machines);
    let seconds = options.minutes * 60.0;
    let each = |read: fn(&Look, &Look, f64) -> f64| -> Vec<f64> {
        before.iter().zip(&after).map(|(before, after)| read(before, after, seconds)).collect()
    };
    let written = each(|before, after, seconds| {
        (after.used.written_bytes - before.used.written_bytes) / MEGABYTE * SECONDS_PER_DAY / seconds
    });
    let logged = each(|before, after, _| after.log_writes - before.log_writes);
    let processor = each(|before, after, seconds| Used::share(&before.used, &after.used, seconds));
    let mut rows = vec![
        Row::new(format!("written by one of {FEW}, median"), "MB a day", median(&written), Goal::Below(200.0)),
        Row::new("most", "MB a day", most(&written), Goal::Below(200.0)),
        Row::new("writes of the state's log, all together", "writes", logged.iter().sum(), Goal::Below(0.5)),
        Row::new(format!("processor of one of {FEW}, median"), "% of a core", median(&processor), Goal::Below(1.0)),
    ];
    grow(&mut machines, MANY);
    std::thread::sleep(SETTLING);
    let held: Vec<f64> = machines.iter().map(|machine| Used::by(machine).resident_bytes / MEGABYTE).collect();
    rows.push(Row::new(format!("resident memory of one of {MANY}, median"), "MB", median(&held), Goal::Below(40.0)));
    rows.push(Row::new("largest", "MB", most(&held), Goal::Below(40.0)));
    Measured::Rows(rows)
}

/// What a machine has used by now.
struct Look {
    used: Used,
    log_writes: f64,
}

impl Look {
    fn at(machine: &Node) -> Look {
        Look { used: Used::by(machine), log_writes: log_writes(machine) }
    }
}

fn grow(machines: &mut Vec<Node>, to: usize) {
    while machines.len() < to {
        let next = machines[0].join();
        machines.push(next);
    }
    wait::until("all know all", 120, || {
        let known = machines[0].json(&["node", "ls"]).as_array().map_or(0, Vec::len);
        (known == to).then_some(())
    });
}

fn log_writes(machine: &Node) -> f64 {
    let metrics = machine.call("GET", "/metrics", "").text();
    let line = metrics.lines().find(|line| line.starts_with("bramble_log_writes_total{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a node counts its log's writes")
}

fn most(of: &[f64]) -> f64 {
    of.iter().copied().fold(0.0, f64::max)
}
