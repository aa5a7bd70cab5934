//! Code of strangers on this machine: its workers, the desk where runs are asked for, and the process that a worker is.

use crate::boot::BootError;
use crate::cli::WorkerArgs;
use crate::cluster::running;
use crate::config;
use crate::roles::Lasting;
use control::view::View;
use images::Store;
use meter::Registration;
use runs::front::Front;
use runs::house::{House, Parts};
use runs::ledger::Ledger;
use runs::meters::Meters;
use runs::workers::{Settings, Workers};
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use world::disk::Real;
use world::task::Task;

/// A node that is replaced or comes back finds its workers within this; what has none then is lost.
const LEFT_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// What there is to let go of again.
pub(crate) struct Opened {
    pub front: Arc<Front>,
    pub tasks: Vec<Task>,
    pub figures: Registration,
}

/// Opens it. Workers are started with the first run; those that another process of this node has left are taken up.
pub(crate) async fn open(lasting: &Lasting, images: &Store, view: &View) -> Result<Opened, BootError> {
    let Lasting { node, id, meter, .. } = lasting;
    let folder = node.data.join("runs");
    let (ledger, writing) = Ledger::open(Arc::new(Real), &folder.join("ledger")).map_err(BootError::Ledger)?;
    let meters = Meters::new(meter);
    let settings = Settings {
        folder: folder.join("workers"),
        program: "/proc/self/exe".into(),
        arguments: ["worker", "--data", &node.data.display().to_string(), "--psi", &node.runs_psi]
            .map(str::to_owned)
            .to_vec(),
        node: id.clone(),
        version: version(),
        count: std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1)),
    };
    let workers = Workers::new(settings, ledger.clone(), meters.clone());
    let parts = Parts {
        languages: node.data.join("languages"),
        folder,
        node: id.clone(),
        images: images.clone(),
        workers: Arc::clone(&workers),
        ledger: ledger.clone(),
        meters: meters.clone(),
        refuses: {
            let (me, view) = (id.clone(), view.clone());
            Box::new(move || running::refuses(&me, &view))
        },
        gives_way: {
            let (me, view) = (id.clone(), view.clone());
            Box::new(move || running::gives_way(&me, &view))
        },
    };
    let front = Front::new(House::open(parts)?);
    let writing = world::task::spawn("the record of runs", writing);
    // Those that were begun by processes before this one.
    let left: BTreeSet<String> = ledger.running().into_iter().map(|record| record.id).collect();
    workers.adopt().await;
    let found: Vec<u32> = workers.numbers();
    let left = world::task::spawn("runs that were left", async move {
        tokio::time::sleep(LEFT_PATIENCE).await;
        for record in ledger.lose(|record| left.contains(&record.id) && !found.contains(&record.worker)).await {
            tracing::warn!(run = record.id, "its worker was gone when this node began");
            meters.ended(&record);
        }
    });
    let of = Arc::downgrade(&front);
    let figures = meter.collector(move |samples| {
        let carried = of.upgrade().map_or(0, |front| front.carried());
        samples.gauge("bramble_runs_carried", "Runs that this machine assigned or carries on.", &[], carried as f64);
        let (live, wanted, runs, parked) = workers.figures();
        samples.gauge("bramble_workers", "Processes that code is run in.", &[], live as f64);
        samples.gauge("bramble_workers_wanted", "How many there should be.", &[], f64::from(wanted));
        samples.gauge("bramble_runs_running", "Runs that have not ended.", &[], f64::from(runs));
        samples.gauge("bramble_boxes_ready", "Boxes that wait for code.", &[], f64::from(parked));
    });
    Ok(Opened { front, tasks: vec![writing, left], figures })
}

/// Which program this is: a worker of another one takes no more runs, whatever it calls its version.
fn version() -> String {
    use std::os::unix::fs::MetadataExt;
    let of_file = std::fs::metadata("/proc/self/exe").map_or_else(
        |_unreadable| String::new(),
        |program| format!("{}-{}-{}", program.size(), program.mtime(), program.mtime_nsec()),
    );
    format!("{} {of_file}", env!("CARGO_PKG_VERSION"))
}

/// The whole life of a worker.
pub(crate) fn work(args: &WorkerArgs) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::new(config::log_filter());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    match runs::worker::run(args.number, args.node.clone(), version(), args.psi) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, number = args.number, "a worker cannot run");
            ExitCode::FAILURE
        }
    }
}
