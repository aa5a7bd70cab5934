//! The mixed drill: every kind of request at once, while every few seconds something changes.
//!
//! Promises that a request that failed is told with its cause, and that none is excused but those that were under way
//! when an instance was killed, and could not be sent again. `lab mixed [--minutes N]`.

mod changes;
mod clients;
mod tally;

pub use clients::{Clients, Ways};
pub use tally::{Kind, Tally};

use crate::node::{self, Node, Settings};
use crate::{process, program};
use changes::Changes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seconds: f64,
    /// Between two changes.
    pub pause: Duration,
}

/// What a drill came to.
#[derive(Debug)]
pub struct Outcome {
    pub requests: u64,
    /// With their causes.
    pub failures: Vec<String>,
    pub excused: Vec<String>,
    pub changes: usize,
    /// Changes that could not be made.
    pub stuck: Vec<String>,
    /// Seconds since the start, and what the process that serves and all that finish hold.
    pub memory: Vec<(f64, u64, u64)>,
}

/// The names the services are reached by.
const WEB: &str = "web.mixed.localhost";
const STILL: &str = "still.mixed.localhost";

/// The stack: `web` is changed all the time, `still` never.
fn stack(port: u16, still_port: u16, text: &str) -> String {
    let web = program::service(&format!(
        "ports: ['127.0.0.1:{port}:8000']\nlabels: {{text: {text}}}\nstop_grace_period: 5s\n\
         deploy: {{replicas: 3, update_config: {{monitor: 100ms, order: start-first}}}}\n\
         x-bramble: {{routes: [{{host: tls.mixed.localhost, port: 8000}}], healthcheck: {{tcp: 8000, interval: 500ms}}}}"
    ));
    let still = program::service(&format!("ports: ['127.0.0.1:{still_port}:8000']"));
    let web = web.replace("SLOT: ", &format!("TEXT: '{text}', SLOT: "));
    format!("services:\n  web:\n{web}  still:\n{still}")
}

/// Runs it, telling as it goes.
pub fn run(plan: Plan, mut tell: impl FnMut(&str)) -> Outcome {
    let https = node::free_port();
    let arguments = vec!["--https".to_owned(), format!("127.0.0.1:{https}")];
    let mut node = Node::with(Settings { arguments, ..Settings::default() });
    let (port, still_port) = (node::free_port(), node::free_port());
    node.deployed("mixed", &stack(port, still_port, "first"));
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ways = Ways { shared: node.http, published: at(port), tls: Some(at(https)), web: WEB, still: STILL };
    let tally = Arc::new(Tally::new());
    let clients = Clients::start(&ways, &tally);
    let began = world::clock::monotonic();
    let mut changes = Changes::new(port, still_port);
    let (mut made, mut stuck, mut memory) = (0, Vec::new(), Vec::new());
    while began.elapsed().as_secs_f64() < plan.seconds {
        let told = tally.failures().0.len();
        std::thread::sleep(plan.pause);
        let (what, change) = changes.next(&mut node, &tally);
        made += 1;
        let seconds = began.elapsed().as_secs_f64();
        if let Err(reason) = change {
            tell(&format!("{seconds:7.1} s  {what}: could not be done: {reason}"));
            stuck.push(format!("{what}: {reason}"));
        }
        let (own, all) = held(&node);
        memory.push((seconds, own, all));
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        tell(&format!(
            "{seconds:7.1} s  {what:28} {:8} requests  {:6.1} MiB, {:6.1} with those that finish",
            tally.requests(),
            mebibytes(own),
            mebibytes(all),
        ));
        for failure in tally.failures().0.iter().skip(told) {
            tell(&format!("           failed: {failure}"));
        }
    }
    clients.stop();
    for line in tally.lines() {
        tell(&line);
    }
    let (failures, excused) = tally.failures();
    if !failures.is_empty() {
        tell(&node.log());
    }
    Outcome { requests: tally.requests(), failures, excused, changes: made, stuck, memory }
}

/// Resident memory of the process that serves, and of all processes of the node but the spawner's boxes.
fn held(node: &Node) -> (u64, u64) {
    let serving = node.pid();
    let of_node = process::of_data(node.data());
    let all = of_node.into_iter().filter(|pid| process::command_line(*pid).contains(" up "));
    (process::resident_bytes(serving), all.map(process::resident_bytes).sum())
}
