//! The shim: owns one service's box. Its own session, so that neither agent nor spawner take it with them.
//!
//! Promises: it writes what the program says into the log without ever making the program wait for the disk; it can
//! be found through its folder by whoever comes later; it writes down how the box ended, and then ends. The box dies
//! with it. Single-threaded; knows nothing of restarts.

mod deadline;
mod log;
pub(crate) mod record;
mod serve;
pub(crate) mod usage;

use crate::build::{self, Accounts, Begun, Net};
use crate::channel;
use crate::failure::{During, Failure, Step};
use crate::protocol::{NetworkReport, Order, Report, RunLimits};
use crate::spec::ShimStart;
use crate::sys;
use deadline::Deadline;
use log::Log;
use record::Folder;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What a running shim holds.
struct Shim {
    folder: Folder,
    begun: Begun,
    init: OwnedFd,
    listener: OwnedFd,
    network: NetworkReport,
    /// Closed one by one as the box closes them. A terminal is standard output alone.
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    log: Log,
    memory_limit_bytes: Option<u64>,
    /// Set when the shim itself has killed the box for memory, where no control group does.
    over_memory: bool,
    deadline: Deadline,
    /// When to look next.
    look_ms: u64,
    /// Sockets kept for the agent while it is away, by name.
    held: Vec<(String, OwnedFd)>,
}

/// The whole life of a shim; returns its exit code.
pub(crate) fn run(start: &ShimStart, reply: BorrowedFd<'_>) -> i32 {
    let Ok([reply]) = sys::keep_only([reply]) else { return 1 };
    sys::set_title(&format!("bramble-shim {}", start.spec.name));
    // Already a session's leader when it fails; the folder would only pin a mount.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    match begin(start) {
        Ok(shim) => {
            let pid = shim.begun.init.as_raw_nonzero().get().unsigned_abs();
            let answer = Report::Started { pid, network: shim.network.clone() };
            // Nobody listens any more: the box still runs, and is found through its folder.
            let _ = channel::send(&reply, &answer, &[]);
            drop(reply);
            serve::run(shim)
        }
        Err(failure) => {
            let _ = channel::send(&reply, &Report::Failed(failure), &[]);
            1
        }
    }
}

fn begin(start: &ShimStart) -> Result<Shim, Failure> {
    let deadline = Deadline::new(start.ends_boot_ms).during(Step::Program, || "the end of its time".to_owned())?;
    let folder = Folder::make(&start.dir)?;
    let log = Log::open(&start.log_dir, start.log_size_bytes_max)
        .during(Step::RunFolder, || start.log_dir.display().to_string())?;
    let listener = folder.listen()?;
    let (ours, theirs) = channel::pair().during(Step::Namespaces, || "channel".to_owned())?;
    let begun = build::begin(&start.spec, &start.command.user, theirs, Accounts::Usage, Net::Own)?;
    match launch(start, &folder, &begun, &ours) {
        Ok((network, streams)) => {
            let mut streams = streams.into_iter();
            Ok(Shim {
                folder,
                begun,
                init: ours,
                listener,
                network,
                stdout: streams.next(),
                stderr: streams.next(),
                log,
                memory_limit_bytes: start.spec.limits.memory_bytes,
                over_memory: false,
                deadline,
                look_ms: 0,
                held: Vec::new(),
            })
        }
        Err(failure) => {
            begun.abandon();
            folder.clear();
            Err(failure)
        }
    }
}

fn launch(
    start: &ShimStart,
    folder: &Folder,
    begun: &Begun,
    init: &OwnedFd,
) -> Result<(NetworkReport, Vec<OwnedFd>), Failure> {
    let network = match answer(init)?.0 {
        Report::Built { network } => network,
        Report::Failed(failure) => return Err(failure),
        Report::Launched | Report::Started { .. } | Report::Collected(_) | Report::Ended(_) => {
            return Err(Failure::plain(Step::Died, "init said something else"));
        }
    };
    folder.write_state(begun, &network)?;
    let order =
        Order::Launch { command: start.command.clone(), limits: RunLimits::default(), collect: None, again: false };
    channel::send(init, &order, &[]).during(Step::Program, || "init".to_owned())?;
    let (report, streams) = answer(init)?;
    match report {
        Report::Launched => {
            for fd in streams.iter().chain([init]) {
                // From here on nothing in the box may make the shim wait.
                rustix::io::ioctl_fionbio(fd, true).during(Step::Program, || "standard streams".to_owned())?;
            }
            Ok((network, streams))
        }
        Report::Failed(failure) => Err(failure),
        Report::Built { .. } | Report::Started { .. } | Report::Collected(_) | Report::Ended(_) => {
            Err(Failure::plain(Step::Died, "init said something else"))
        }
    }
}

fn answer(init: &OwnedFd) -> Result<(Report, Vec<OwnedFd>), Failure> {
    match channel::receive::<Report>(init) {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Failure::plain(Step::Died, "init ended while it built the box")),
        Err(error) => Err(Failure::io(Step::Died, "init", &error)),
    }
}
