//! Attacks on the gateway, and what honest clients notice of them: `lab attack [--short] [--beside] [NAME…]`.
//!
//! Each attack goes against a gateway just started, on loopback. Honest clients are measured before, during and after,
//! and so is the gateway's memory. An attack holds when no honest request failed and the gateway serves afterwards; how
//! long answers took is told and not judged, since attackers and attacked share one machine here: attackers give way
//! to the others, as if they were on machines of their own, and another proxy can be attacked in the same run.

mod floods;
mod frames;
mod gateway;
mod honest;

pub use gateway::{ATTACKED, SERVED, serve, serve_alone};

use crate::bench::proxying::proxies::{HAPROXY, KINDS};
use floods::Target;
use gateway::Attacked;
use honest::Met;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use world::task::Task;

/// Both ends of a hundred thousand connections are in two processes: as many in each.
const FILES_WANTED: u64 = 120_000;
/// Of this process, besides the attackers' connections.
const OTHER_FILES: usize = 512;
const MEGABYTE: f64 = 1e6;
/// Of the attackers' thread: whoever else wants a core has it.
const NICENESS: i32 = 19;
/// After the attackers have left: their connections are closed within this.
const CALM: Duration = Duration::from_secs(2);

struct Attack {
    name: &'static str,
    what: &'static str,
    start: fn(&Target, usize) -> Vec<Task>,
    /// Attackers, at full length.
    count: usize,
}

const ATTACKS: [Attack; 8] = [
    Attack { name: "slow-heads", what: "heads that never end", start: floods::slow_heads, count: 12_000 },
    Attack { name: "slow-bodies", what: "bodies that come byte by byte", start: floods::slow_bodies, count: 12_000 },
    Attack {
        name: "slow-streams",
        what: "the same in streams, many to a connection",
        start: floods::slow_streams,
        count: 120,
    },
    Attack { name: "resets", what: "streams opened and reset at once", start: floods::rapid_resets, count: 16 },
    Attack { name: "headers", what: "header blocks that never end", start: floods::endless_headers, count: 16 },
    Attack { name: "bombs", what: "headers that expand, and heads too long", start: floods::header_bombs, count: 16 },
    Attack { name: "coded", what: "bodies that would expand", start: floods::coded_bombs, count: 16 },
    Attack { name: "silence", what: "as many connections as can be", start: floods::silence, count: 100_000 },
];

/// How much of each.
struct Size {
    before_s: u64,
    during_s: u64,
    /// At most.
    attackers: usize,
}

/// Attacks go on for minutes and hours: the moment in which attackers come is told besides, and is not half of what counts.
const FULL: Size = Size { before_s: 10, during_s: 60, attackers: usize::MAX };
const SHORT: Size = Size { before_s: 1, during_s: 3, attackers: 300 };

pub fn knows(name: &str) -> bool {
    ATTACKS.iter().any(|attack| attack.name == name)
}

pub fn list() {
    for attack in ATTACKS {
        eprintln!("  {:12} {}", attack.name, attack.what);
    }
}

/// Whether the gateway held against all of `names`, or all there are. With `beside`, what another makes of them is told.
pub fn run(names: &[String], short: bool, beside: bool) -> bool {
    let files = raise_open_files();
    let size = if short { SHORT } else { FULL };
    // A drill without it is harder, not wrong.
    let give_way = || {
        let _ = setpriority_process(None, NICENESS);
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).on_thread_start(give_way).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let other = KINDS.iter().find(|kind| beside && kind.name == HAPROXY).filter(|kind| {
        let tried = kind.tried();
        if let Err(told) = &tried {
            println!("{told}");
        }
        tried.is_ok()
    });
    let mut held = true;
    for attack in ATTACKS.iter().filter(|attack| names.is_empty() || names.iter().any(|name| name == attack.name)) {
        println!("\n{}: {}", attack.name, attack.what);
        held &= against(attack, &size, files, &runtime, Attacked::start());
        if let Some(kind) = other {
            println!("  {}, told and not judged:", kind.name);
            against(attack, &size, files, &runtime, Attacked::other(kind));
        }
    }
    held
}

fn against(
    attack: &Attack,
    size: &Size,
    files: usize,
    runtime: &tokio::runtime::Runtime,
    mut attacked: Attacked,
) -> bool {
    let before = honest::visit(attacked.address, size.before_s);
    let memory_before = attacked.resident_bytes();
    let target = Target { address: attacked.address, open: Arc::default(), sent: Arc::default() };
    let count = attack.count.min(size.attackers).min(files.saturating_sub(OTHER_FILES));
    let attackers = runtime.block_on(async { (attack.start)(&target, count) });
    let watched = Watched::start(&target.open);
    let during = honest::visit(attacked.address, size.during_s);
    let (memory_during, open) = (attacked.resident_bytes(), attacked.counted("bramble_gateway_connections"));
    let reached = watched.most();
    drop(attackers);
    std::thread::sleep(CALM);
    let after = honest::visit(attacked.address, size.before_s);
    let memory_after = attacked.resident_bytes();
    let sent = target.sent.load(Ordering::Relaxed);
    println!("  attackers: {reached} connections at most, {sent} sent");
    if let Some(open) = open {
        let [refused, shed] = ["refused", "shed"].map(|word| {
            let counted = attacked.counted(&format!("bramble_gateway_connections_{word}_total"));
            counted.unwrap_or_default()
        });
        println!("  connections: {open} open, {refused} refused, {shed} shed");
    }
    for (when, met) in [("before", &before), ("during", &during), ("after", &after)] {
        told(when, met);
    }
    let (at_first_ms, before_ms) = (during.within_ms_at_first(990), before.within_ms(990));
    println!("  p99 during / before: {:.1} (while they come: {at_first_ms:.2} ms)", during.within_ms(990) / before_ms);
    let [before_mb, during_mb, after_mb] = [memory_before, memory_during, memory_after].map(|bytes| bytes / MEGABYTE);
    println!("  memory: {before_mb:.1} MB before, {during_mb:.1} MB during, {after_mb:.1} MB after");
    let held = [&before, &during, &after].iter().all(|met| met.failures.is_empty() && !met.took.is_empty());
    println!("  {}", if held { "held" } else { "did not hold" });
    held
}

fn told(when: &str, met: &Met) {
    let [p50, p99, p999] = [500, 990, 999].map(|permille| met.within_ms(permille));
    let (answers, failed, again) = (met.took.len(), met.failures.len(), met.reconnected);
    println!(
        "  {when:6} {answers} answers, p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms; {failed} failed, {again} connected again"
    );
    for failure in met.failures.iter().take(3) {
        println!("         {}", failure.lines().next().unwrap_or_default());
    }
}

/// Looks now and then how many connections attackers have.
struct Watched {
    most: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Watched {
    fn start(open: &Arc<AtomicUsize>) -> Watched {
        let watched = Watched { most: Arc::default(), open: Arc::clone(open) };
        let (most, open) = (Arc::downgrade(&watched.most), Arc::clone(open));
        std::thread::spawn(move || {
            // It ends with who watches.
            while let Some(most) = most.upgrade() {
                most.fetch_max(open.load(Ordering::Relaxed), Ordering::Relaxed);
                drop(most);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        watched
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed).max(self.open.load(Ordering::Relaxed))
    }
}

/// Lets this process and those it starts open as many files as they may; how many that is.
fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(FILES_WANTED, |maximum| maximum.max(FILES_WANTED));
    let all = |files: Option<u64>| setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files });
    // Above the maximum only root may go, and not everywhere; up to it everybody.
    if all(Some(most)).is_err() {
        let _ = all(limit.maximum);
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}
