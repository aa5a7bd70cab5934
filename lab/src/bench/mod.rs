//! The measurements there are: each prints a table and writes `target/bench/NAME.json`.
//!
//! Promises that figures are as measured: medians of interleaved rounds, peers that are not here are named and left
//! out, a goal that is missed is said to be.

mod address;
mod boxes;
mod deploying;
mod figures;
mod floating;
mod idle;
mod image;
mod leaving;
mod losing;
mod peers;
pub(crate) mod proxying;
mod report;
mod resting;
mod running;
mod scheduling;
mod writing;

pub use address::{HELD_THERE, SERVED_THERE, hold, serve};
pub use boxes::CGROUPS_SEEN;
pub use proxying::{GATEWAY_ALONE, serve_alone};

use report::Row;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// All if none is named.
    pub names: Vec<String>,
    /// How long the node is looked at while nothing happens.
    pub minutes: f64,
    /// Already started again where engines find the control groups they want.
    pub cgroups_seen: bool,
}

impl Default for Options {
    fn default() -> Options {
        // Long enough for what happens every minute to happen ten times.
        const MINUTES: f64 = 10.0;
        Options { names: Vec::new(), minutes: MINUTES, cgroups_seen: false }
    }
}

/// What a measurement came to.
enum Measured {
    Rows(Vec<Row>),
    /// By this program, started again: whether all was fine there.
    Elsewhere(bool),
}

struct Bench {
    name: &'static str,
    what: &'static str,
    run: fn(&Options) -> Measured,
}

/// Boxes first: their spawner is forked while this process has one thread. The gateway last: it takes the machine for
/// itself, and the priority it gives itself for that stays.
const BENCHES: [Bench; 13] = [
    Bench { name: "box", what: "from the start of `true` in a box to its end", run: boxes::run },
    Bench { name: "deploy", what: "from `deploy` to the first answered request", run: deploying::deploy },
    Bench { name: "scale", what: "from one instance to fifty that are ready", run: deploying::scale },
    Bench { name: "leave", what: "from a client's leaving to the end of the work it caused", run: leaving::run },
    Bench { name: "loss", what: "from the loss of machines to everything being ready elsewhere", run: losing::run },
    Bench {
        name: "scheduler",
        what: "what the scheduler takes for a large cluster, on one core",
        run: scheduling::run,
    },
    Bench {
        name: "address",
        what: "from a fault of the machine with the floating address to the next answer, keepalived beside it",
        run: address::run,
    },
    Bench {
        name: "floating",
        what: "how long nobody answers at a cluster's floating address when something happens to its machine",
        run: floating::run,
    },
    Bench {
        name: "writes",
        what: "durable writes of the state of record beside etcd, three members each",
        run: writing::run,
    },
    Bench { name: "runs", what: "code that is handed in, from asking to its output", run: running::run },
    Bench { name: "idle", what: "what a node with the example uses while nobody asks for anything", run: idle::run },
    Bench {
        name: "resting",
        what: "what five and forty machines of a cluster use while nobody asks for anything",
        run: resting::run,
    },
    Bench { name: "gateway", what: "our gateway beside other proxies, with the same load", run: proxying::run },
];

pub fn knows(name: &str) -> bool {
    BENCHES.iter().any(|bench| bench.name == name)
}

pub fn list() {
    for bench in BENCHES {
        eprintln!("  {:8} {}", bench.name, bench.what);
    }
}

/// Whether all that was asked for ran and every goal holds.
pub fn run(options: &Options) -> bool {
    let asked = |bench: &&Bench| options.names.is_empty() || options.names.iter().any(|name| name == bench.name);
    let mut fine = true;
    for bench in BENCHES.iter().filter(asked) {
        println!("\n{}: {}", bench.name, bench.what);
        // One that fails is no reason not to know the others.
        match catch_unwind(AssertUnwindSafe(|| (bench.run)(options))) {
            Ok(Measured::Elsewhere(all_fine)) => fine &= all_fine,
            Ok(Measured::Rows(rows)) => {
                report::print(&rows);
                fine &= report::write(bench.name, &rows) && rows.iter().all(|row| row.holds);
            }
            Err(_told) => {
                println!("{}: could not be measured", bench.name);
                fine = false;
            }
        }
    }
    fine
}
