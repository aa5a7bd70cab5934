//! How long nobody answers at a cluster's floating address when something happens to the machine that has it: a cluster of
//! real machines in a network of their own, clients on another that ask every 5 ms.

use super::address::{Client, Request};
use super::figures::{median, milliseconds};
use super::report::{Goal, Row};
use super::{Measured, Options};
use lab::machines::Verb;
use lab::{Machines, http, program, wait};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const MACHINES: usize = 7;
const TIMES: usize = 3;
const HOST: &str = "web.test";
const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 200);
const PORT: u16 = 8080;
/// Before something happens everything is calm; after it, it is looked for so long.
const CALM: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    PowerCut,
    Killed,
    Frozen,
    HandedOver,
}

/// What one fault came to.
struct Outcome {
    silent: Duration,
    failed: usize,
}

pub(super) fn run(_options: &Options) -> Measured {
    let Some(mut cluster) = Machines::in_network(MACHINES) else { return Measured::Rows(Vec::new()) };
    let service = program::service(&format!(
        "expose: ['8000']\nx-bramble: {{routes: [{{host: {HOST}, port: 8000}}]}}\n\
         deploy: {{replicas: {MACHINES}, update_config: {{monitor: 100ms}}}}"
    ));
    cluster.node(1).deployed("floating", &format!("services:\n  web:\n{service}"));
    assert!(cluster.node(1).cli(&["cluster", "address", "add", &FLOATING.to_string()]).status.success());
    let mut rows = Vec::new();
    for (fault, what, goal_ms) in [
        (Fault::PowerCut, "its machine lost power", 1_000.0),
        (Fault::Killed, "its node was killed", 2_500.0),
        (Fault::Frozen, "its machine was frozen", 2_500.0),
        // As long as those who are connected may take to be answered; newcomers wait for as long.
        (Fault::HandedOver, "it was handed over", 1_000.0),
    ] {
        let outcomes: Vec<Outcome> = (0..TIMES).map(|_| one(&mut cluster, fault)).collect();
        let times: Vec<f64> = outcomes.iter().map(|one| milliseconds(one.silent)).collect();
        let longest = times.iter().copied().fold(0.0, f64::max);
        let failed: usize = outcomes.iter().map(|one| one.failed).sum();
        let below = Goal::Below(goal_ms);
        rows.push(Row::new(format!("{what}: nobody answered, median"), "ms", median(&times), below));
        rows.push(Row::new(format!("{what}: longest"), "ms", longest, below));
        let none = if fault == Fault::HandedOver { Goal::Below(0.5) } else { Goal::None };
        rows.push(Row::new(format!("{what}: requests that failed"), "requests", failed as f64, none));
    }
    Measured::Rows(rows)
}

fn one(cluster: &mut Machines, fault: Fault) -> Outcome {
    let has = wait::until("another than who leads is the gateway", 60, || gateway(cluster));
    wait::until("everybody is up and answers", 60, || {
        (cluster.count_up() == MACHINES && ask().is_some()).then_some(())
    });
    let place = cluster.place().expect("it has a network");
    let client = Client::start(&place, ask);
    std::thread::sleep(CALM);
    let began = world::clock::monotonic();
    let named = cluster.node(has).id();
    match fault {
        Fault::PowerCut => drop(cluster.act(Verb::PowerCut(Some(has))).expect("its power is cut")),
        Fault::Killed => drop(cluster.act(Verb::Kill(has)).expect("its node is killed")),
        Fault::Frozen => drop(cluster.act(Verb::Freeze(has)).expect("it stands still")),
        Fault::HandedOver => assert!(cluster.node(1).cli(&["node", "drain", &named]).status.success()),
    }
    std::thread::sleep(LOOK);
    let requests = client.stop();
    match fault {
        Fault::PowerCut | Fault::Killed => drop(cluster.act(Verb::Rejoin(has)).expect("it comes back")),
        Fault::Frozen => drop(cluster.act(Verb::Thaw(has)).expect("it goes on")),
        Fault::HandedOver => assert!(cluster.node(1).cli(&["node", "activate", &named]).status.success()),
    }
    outcome(&requests, began)
}

/// The longest time between two answers, from just before it happened on.
fn outcome(requests: &[Request], began: Instant) -> Outcome {
    let mut ends: Vec<Instant> = requests.iter().filter(|one| one.by.is_some()).map(|one| one.ended).collect();
    ends.sort_unstable();
    let last_before = ends.iter().rev().find(|end| **end <= began).copied().unwrap_or(began);
    let after = ends.into_iter().filter(|end| *end >= last_before);
    let (mut silent, mut before) = (Duration::ZERO, last_before);
    for end in after {
        silent = silent.max(end - before);
        before = end;
    }
    let over = requests.iter().map(|one| one.ended).max().unwrap_or(began);
    let failed = requests.iter().filter(|one| one.by.is_none() && one.began < over).count();
    Outcome { silent: silent.max(over.saturating_duration_since(before)), failed }
}

/// One request through the address.
fn ask() -> Option<usize> {
    let answer = http::quick(SocketAddr::from((FLOATING, PORT)), HOST).ok()?;
    (answer.status == 200).then_some(1)
}

/// The machine that is the gateway, once it is neither the one that leads nor the first, which is asked.
fn gateway(cluster: &Machines) -> Option<usize> {
    let roles = cluster.node(1).json(&["cluster", "roles"]);
    let machines = roles["machines"].as_array()?;
    let is_gateway = |one: &&Value| one["roles"].as_array().is_some_and(|roles| roles.iter().any(|it| it == "gateway"));
    let named = machines.iter().find(is_gateway)?["node"].as_str()?;
    let leads = roles["leader"].as_str() == Some(named);
    cluster.number(named).filter(|number| !leads && *number != 1)
}
