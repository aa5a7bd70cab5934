//! One run: a cluster, its clients and its faults from one seed, and the verdict.

use crate::sim::careless::Careless;
use crate::sim::clients::Load;
use crate::sim::cluster::Cluster;
use crate::sim::record::Record;
use crate::sim::{faults, verdict};
use control::Listing;
use std::sync::Arc;
use std::time::Duration;
use world::random::Dice;

/// Machines that can hear each other must agree again within this.
const HEALED_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) machines: u64,
    pub(crate) minutes: u64,
    pub(crate) clients: usize,
    pub(crate) think_ms: u64,
    /// Instead of all kinds of faults: that many power cuts of all machines at once.
    pub(crate) blackouts: usize,
    pub(crate) careless: Option<Careless>,
}

impl Plan {
    pub(crate) fn of(machines: u64, minutes: u64) -> Self {
        Self { machines, minutes, clients: 6, think_ms: 500, blackouts: 0, careless: None }
    }
}

/// What came out.
#[derive(Debug)]
#[expect(dead_code, reason = "some of it is only shown")]
pub(crate) struct Report {
    pub(crate) trace: u64,
    pub(crate) calls: usize,
    pub(crate) answered: usize,
    pub(crate) revisions: usize,
    pub(crate) renewals: usize,
    /// Watches that were told that what they missed is gone.
    pub(crate) skipped: u64,
    pub(crate) messages: u64,
    pub(crate) simulated: Duration,
    pub(crate) faults: std::collections::BTreeMap<&'static str, u64>,
    pub(crate) violations: Vec<String>,
}

#[expect(clippy::disallowed_methods, reason = "a test is told its seed")]
fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs `plan` with a fresh seed, or the one it is told, and fails with what repeats it.
pub(crate) fn explore(test: &str, plan: Plan) {
    let seed = told("BRAMBLE_SIM_SEED").unwrap_or_else(|| world::random::number() >> 16);
    let report = run(plan, seed);
    println!("seed {seed}: {report:?}");
    assert!(
        report.violations.is_empty(),
        "{} violations, the first: {}\n\nrepeat it: BRAMBLE_SIM_SEED={seed} BRAMBLE_SIM_TELL=1 cargo test -p control --test it {test} -- --nocapture\n",
        report.violations.len(),
        report.violations[0],
    );
    assert!(report.answered * 2 > report.calls, "less than half of the calls were answered: {report:?}");
}

/// Runs of an hour each, one seed after the other, until as many minutes were simulated as it is told.
pub(crate) fn long() {
    let minutes = told("BRAMBLE_SIM_MINUTES").unwrap_or(60);
    let each = told("BRAMBLE_SIM_EACH").unwrap_or(60).min(minutes);
    let first = told("BRAMBLE_SIM_SEED").unwrap_or_else(|| world::random::number() >> 16);
    let mut failed = Vec::new();
    for (seed, round) in (first..).zip(0..minutes.div_ceil(each)) {
        let machines = if round % 2 == 0 { 3 } else { 5 };
        let busy = round % 4 >= 2;
        let plan = Plan::of(machines, each);
        let plan = if busy { Plan { clients: 12, think_ms: 300, ..plan } } else { plan };
        let report = run(plan, seed);
        println!("seed {seed} {plan:?}: {report:?}");
        if !report.violations.is_empty() {
            failed.push((seed, plan));
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

pub(crate) fn run(plan: Plan, seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(plan, seed))
}

async fn simulate(plan: Plan, seed: u64) -> Report {
    let began = tokio::time::Instant::now();
    let dice = Dice::seeded(seed);
    let record = Record::new(told("BRAMBLE_SIM_TELL").is_some());
    let cluster = Cluster::new(dice.others(), record.clone(), plan.careless);
    cluster.found(plan.machines).await;
    let load =
        Load { cluster: cluster.clone(), think_ms: plan.think_ms, values: Arc::default(), ended: Arc::default() };
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..plan.clients {
        clients.spawn(load.clone().client(number, dice.others()));
    }
    for number in 0..2 {
        clients.spawn(load.clone().holder(number, dice.others()));
    }
    faults_of(plan, load.clone(), dice.others()).await;
    load.ended.store(true, std::sync::atomic::Ordering::Relaxed);
    while clients.join_next().await.is_some() {}
    cluster.heal().await;
    let listings = tokio::time::timeout(HEALED_WITHIN, agreed(&cluster)).await.unwrap_or_else(|_| {
        record.violated(format!("mended for {HEALED_WITHIN:?}, and members do not agree: {:?}", cluster.led()));
        Vec::new()
    });
    let recorded = record.read();
    Report {
        trace: recorded.trace,
        calls: recorded.calls.len(),
        answered: recorded.calls.iter().filter(|told| told.call.answered.is_some()).count(),
        revisions: recorded.changes.len(),
        renewals: recorded.renewals.len(),
        skipped: recorded.skipped,
        messages: cluster.net.messages(),
        simulated: began.elapsed(),
        faults: recorded.faults.clone(),
        violations: verdict::of(&recorded, &listings),
    }
}

async fn faults_of(plan: Plan, load: Load, dice: Dice) {
    if plan.blackouts > 0 {
        for _ in 0..plan.blackouts {
            tokio::time::sleep(Duration::from_millis(6_000 + dice.roll() % 4_000)).await;
            faults::blackout(&load.cluster, &dice).await;
        }
        return;
    }
    let mut all = tokio::task::JoinSet::new();
    all.spawn(faults::all(load.clone(), dice));
    for _ in 0..plan.minutes * 60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if load.cluster.record.is_violated() {
            break;
        }
    }
    load.ended.store(true, std::sync::atomic::Ordering::Relaxed);
    while all.join_next().await.is_some() {}
}

/// Waits until every member lists the same and all leases are over, and says what.
async fn agreed(cluster: &Cluster) -> Vec<(u64, Listing)> {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Some(led) = cluster.led() else { continue };
        let mut listings = Vec::new();
        for node in led.voters.iter().chain(&led.learners) {
            let Some(machine) = cluster.machine(*node) else { continue };
            let listed = machine.host.spawn(async move { machine.space.list("").await });
            if let Ok(Ok(listing)) = listed.await {
                listings.push((*node, listing));
            }
        }
        let all = listings.len() == led.voters.len() + led.learners.len();
        let held =
            listings.iter().any(|(_, listing)| listing.entries.iter().any(|entry| entry.key.starts_with("held/")));
        let told = listings.iter().all(|(node, listing)| cluster.record.followed(*node) >= listing.revision);
        let settled = listings.windows(2).all(|pair| pair[0].1.revision == pair[1].1.revision);
        if all && !held && told && settled {
            return listings;
        }
    }
}
