//! The spawner: forked while the agent still has one thread, so that boxes are born from a small process without
//! locks. Starts shims, which it forgets, and keeps parked boxes, which die with it. It dies with the agent.

use crate::build::{self, Accounts, Begun, Net};
use crate::channel;
use crate::client::SpawnerClient;
use crate::failure::{During, Step};
use crate::networks::Networks;
use crate::protocol::{Report, SpawnRequest};
use crate::spec::{BoxSpec, Network, ShimStart, Trust, User};
use crate::{seccomp, shim, sys};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, waitpid};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A running spawner; [`Spawner::client`] makes it usable once there is a runtime.
#[derive(Debug)]
pub struct Spawner {
    channel: OwnedFd,
}

impl Spawner {
    /// Forks the spawner. Call it before any other thread exists; it ends when this process does.
    pub fn start() -> io::Result<Spawner> {
        Spawner::start_as(|()| None)
    }

    /// The same for boxes of strangers alone, many a second: it keeps what can be used again safely.
    pub fn start_for_strangers() -> io::Result<Spawner> {
        Spawner::start_as(|()| Networks::open())
    }

    fn start_as(networks: impl FnOnce(()) -> Option<Networks>) -> io::Result<Spawner> {
        crate::cgroup::settle();
        let (ours, theirs) = channel::pair()?;
        sys::fork(|| run(theirs.as_fd(), networks))?;
        Ok(Spawner { channel: ours })
    }

    /// # Panics
    /// Outside a runtime.
    pub fn client(self) -> io::Result<SpawnerClient> {
        SpawnerClient::new(self.channel)
    }
}

/// A box with the network that it was given.
type Parked = (Begun, Option<OwnedFd>);

fn run(channel: BorrowedFd<'_>, networks: impl FnOnce(()) -> Option<Networks>) -> i32 {
    let Ok([channel]) = sys::keep_only([channel]) else { return 1 };
    sys::set_title("bramble-spawner");
    sys::reset_signals();
    // So that all children have them ready. What fails here fails again, and is told, when it is needed.
    crate::clock::monotonic_ms();
    crate::cgroup::sweep();
    for trust in [Trust::Service, Trust::Untrusted] {
        let _ = seccomp::filter(trust);
    }
    let mut networks = networks(());
    let mut parked: Vec<Parked> = Vec::new();
    loop {
        let mut fds = vec![PollFd::new(&channel, PollFlags::IN)];
        fds.extend(parked.iter().map(|(begun, _)| PollFd::new(&begun.pidfd, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return 1,
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (index, _) in ready[1..].iter().enumerate().rev().filter(|(_, ended)| **ended) {
            let (begun, network) = parked.swap_remove(index);
            begun.abandon();
            if let (Some(networks), Some(network)) = (&mut networks, network) {
                networks.give_back(network);
            }
        }
        if ready[0] {
            let Ok(Some((request, mut fds))) = channel::receive::<SpawnRequest>(&channel) else { break };
            let Some(reply) = fds.pop() else { continue };
            match request {
                SpawnRequest::Shim(start) => start_shim(&start, &reply),
                SpawnRequest::Park(spec) => match park(&spec, reply, networks.as_mut()) {
                    Ok(begun) => parked.extend(begun),
                    // Where it is now is no place to start anything from.
                    Err(_lost) => break,
                },
            }
        }
    }
    // The agent is gone, however it went.
    parked.into_iter().for_each(|(begun, _)| begun.abandon());
    0
}

/// Forks twice, so that the shim is nobody's child here: it outlives the spawner, and the machine's init reaps it.
fn start_shim(start: &ShimStart, reply: &OwnedFd) {
    let middle = sys::fork(|| {
        let shim = sys::fork(|| shim::run(start, reply.as_fd()));
        i32::from(shim.is_err())
    });
    // A shim that could not be made closes `reply` unanswered, which the agent sees.
    if let Ok(middle) = middle {
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(middle), WaitOptions::empty()));
    }
}

fn park(spec: &BoxSpec, reply: OwnedFd, networks: Option<&mut Networks>) -> Result<Option<Parked>, Errno> {
    let told = reply.try_clone();
    let fits = spec.trust == Trust::Untrusted && spec.network == Network::Isolated && spec.sysctls.is_empty();
    let begun = match networks.filter(|_| fits) {
        None => build::begin(spec, &User::default(), reply, Accounts::Limits, Net::Own).map(|begun| (begun, None)),
        Some(networks) => {
            let entered = networks.enter();
            let begun = entered.during(Step::Network, || "a network that is kept".to_owned()).and_then(|network| {
                let begun = build::begin(spec, &User::default(), reply, Accounts::Limits, Net::Given);
                begun.map(|begun| (begun, Some(network)))
            });
            networks.leave()?;
            begun
        }
    };
    Ok(begun
        .map_err(|failure| {
            if let Ok(told) = told {
                // An agent that is gone needs no answer.
                let _ = channel::send(told, &Report::Failed(failure), &[]);
            }
        })
        .ok())
}
