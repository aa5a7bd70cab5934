//! The old process: starts the new one, gives it everything, and takes it back or leaves.

use super::{Previous, SPOKEN, ToNext, ToPrevious, read, send_sockets};
use gateway::Gateway;
use sandbox::Channel;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use world::task::Task;

/// What has ended is reaped at once; a process that hangs in the kernel is not waited for.
const REAP_MAX: Duration = Duration::from_secs(5);

/// How an upgrade is to go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Terms {
    /// Of the new process; without one, whatever is now where this process was started from.
    pub program: Option<PathBuf>,
    /// From the start of the new process until it serves.
    pub ready_ms: u64,
    /// How long requests under way may go on in the old process.
    pub requests_ms: u64,
    /// The same for WebSockets and other tunnels.
    pub tunnels_ms: u64,
}

impl Default for Terms {
    fn default() -> Self {
        // A start takes tenths of a second, on a slow card seconds. A minute is what gateways give a client for one
        // byte. Programs keep WebSockets for hours and connect again when they end: ten minutes end most by themselves.
        Terms { program: None, ready_ms: 30_000, requests_ms: 60_000, tunnels_ms: 600_000 }
    }
}

impl Terms {
    pub fn requests(&self) -> Duration {
        Duration::from_millis(self.requests_ms)
    }

    pub fn tunnels(&self) -> Duration {
        Duration::from_millis(self.tunnels_ms)
    }
}

/// Why the old process goes on.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("this is process 1 of a container, which ends with it: replace the container instead")]
    FirstProcess,
    #[error("start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("the new process ended with {status} {step}; its messages are where this node's are")]
    Ended { status: ExitStatus, step: &'static str },
    #[error("the new process was not ready within {within_ms} ms: it had not {step}")]
    Late { within_ms: u64, step: &'static str },
    #[error("the new process says: {reason}")]
    Said { reason: String },
    #[error(
        "the new process is of version {version}, which takes over in another way; stop this node and start that one"
    )]
    Strange { version: String },
    #[error("talk to the new process {step}: {source}")]
    Channel { step: &'static str, source: io::Error },
}

/// The process that is to take over.
pub struct Next {
    child: Child,
    channel: Arc<Channel>,
    pub version: String,
    pub pid: u32,
    deadline: Instant,
    within_ms: u64,
    /// Instances whose end is being waited for.
    leaving: Vec<Task>,
}

/// What the old process gives away.
pub struct Gifts<'a> {
    pub lock: &'a std::fs::File,
    pub api: &'a std::net::TcpListener,
    pub asking: &'a super::asking::Asking,
    pub sockets: Vec<gateway::Socket>,
    pub ready: Vec<String>,
}

/// Who is asked about instances while both processes run.
#[derive(Clone)]
pub struct Staying {
    pub gateway: Arc<Gateway>,
    pub previous: Previous,
}

impl Next {
    /// Starts the new process and waits until it is prepared. Nothing of this one is touched.
    pub async fn prepare(terms: &Terms, program: PathBuf, arguments: Vec<std::ffi::OsString>) -> Result<Next, Refused> {
        if std::process::id() == 1 {
            return Err(Refused::FirstProcess);
        }
        let failed = |source| Refused::Channel { step: "at its start", source };
        let deadline = world::clock::monotonic() + Duration::from_millis(terms.ready_ms);
        let (channel, theirs) = Channel::pair().map_err(failed)?;
        let mut command = Command::new(&program);
        command.args(arguments).stdin(Stdio::from(theirs));
        let child =
            command.spawn().map_err(|source| Refused::Start { program: program.display().to_string(), source })?;
        // Has the other end, which is the new process's alone from here on.
        drop(command);
        let pid = child.id().unwrap_or_default();
        let mut next = Next {
            child,
            channel: Arc::new(channel),
            version: String::new(),
            pid,
            deadline,
            within_ms: terms.ready_ms,
            leaving: Vec::new(),
        };
        match next.hear("started").await {
            Ok(ToPrevious::Prepared { version, spoken: SPOKEN }) => {
                next.version = version;
                Ok(next)
            }
            Ok(ToPrevious::Prepared { version, .. }) => {
                next.end().await;
                Err(Refused::Strange { version })
            }
            Ok(other) => {
                next.end().await;
                Err(unexpected(&other))
            }
            Err(refused) => {
                next.end().await;
                Err(refused)
            }
        }
    }

    /// Gives everything away and waits until it is served. Call it with the state of record closed.
    pub async fn take(&mut self, gifts: Gifts<'_>, staying: &Staying) -> Result<(), Refused> {
        let failed = |source| Refused::Channel { step: "to hand over", source };
        let Gifts { lock, api, asking, sockets, ready } = gifts;
        send_sockets(&self.channel, &sockets).await.map_err(failed)?;
        let older = staying.previous.channels();
        let mut fds = vec![lock.as_fd(), api.as_fd(), asking.as_fd()];
        fds.extend(older.iter().map(|channel| channel.as_fd()));
        self.channel.send(&ToNext::Take { ready }, &fds).await.map_err(failed)?;
        self.until("opened the state of record and found its instances", staying, |told| {
            matches!(told, ToPrevious::Opened)
        })
        .await?;
        self.channel.send(&ToNext::Go, &[]).await.map_err(failed)?;
        self.until("begun to serve", staying, |told| matches!(told, ToPrevious::Serving)).await
    }

    async fn until(
        &mut self,
        step: &'static str,
        staying: &Staying,
        is_it: impl Fn(&ToPrevious) -> bool,
    ) -> Result<(), Refused> {
        loop {
            let told = self.hear(step).await?;
            if is_it(&told) {
                return Ok(());
            }
            self.attend(told, staying)?;
        }
    }

    /// The next word, or why there will be none.
    async fn hear(&mut self, step: &'static str) -> Result<ToPrevious, Refused> {
        let late = Refused::Late { within_ms: self.within_ms, step };
        let deadline = tokio::time::Instant::from_std(self.deadline);
        let told = tokio::time::timeout_at(deadline, self.channel.receive::<ToPrevious>()).await.map_err(|_| late)?;
        match told {
            Ok(Some((ToPrevious::Failed { reason }, _))) => Err(Refused::Said { reason }),
            Ok(Some((told, _))) => Ok(told),
            Ok(None) => match tokio::time::timeout(REAP_MAX, self.child.wait()).await {
                Ok(Ok(status)) => Err(Refused::Ended { status, step: "before it had done its part" }),
                Ok(Err(source)) => Err(Refused::Channel { step, source }),
                Err(_) => Err(Refused::Channel { step, source: io::ErrorKind::UnexpectedEof.into() }),
            },
            Err(source) => Err(Refused::Channel { step, source }),
        }
    }

    fn attend(&mut self, told: ToPrevious, staying: &Staying) -> Result<(), Refused> {
        match told {
            ToPrevious::Endpoints { services } => {
                let services = read(services);
                staying.gateway.follow(&services);
                staying.previous.tell(&services);
            }
            ToPrevious::Leaves { instance } => {
                self.leaving.retain(|task| !task.is_finished());
                let (channel, staying) = (Arc::clone(&self.channel), staying.clone());
                self.leaving.push(world::task::spawn("leaving instance", async move {
                    staying.gateway.drained(&instance).await;
                    staying.previous.drained(&instance).await;
                    if let Err(error) = channel.send(&ToNext::Drained { instance }, &[]).await {
                        tracing::debug!(%error, "nobody asks any more whether an instance is free");
                    }
                }));
            }
            other @ (ToPrevious::Prepared { .. }
            | ToPrevious::Failed { .. }
            | ToPrevious::Opened
            | ToPrevious::Serving
            | ToPrevious::End) => return Err(unexpected(&other)),
        }
        Ok(())
    }

    /// Answers whoever serves, this process or one after it, until that says that it is enough.
    pub async fn attend_all(&mut self, staying: &Staying) {
        let mut reaped = false;
        loop {
            let told = tokio::select! {
                told = self.channel.receive::<ToPrevious>() => told,
                // It may have given its place to another one, which talks to us in the same way.
                ended = self.child.wait(), if !reaped => {
                    tracing::info!(pid = self.pid, ?ended, "the process that was started here has ended");
                    reaped = true;
                    continue;
                }
            };
            match told {
                Ok(Some((ToPrevious::End, _))) => return,
                Ok(Some((told, _))) => {
                    if let Err(error) = self.attend(told, staying) {
                        tracing::warn!(%error, "the process that serves said something strange");
                    }
                }
                Ok(None) => {
                    tracing::warn!("nobody serves any more; what is under way here is finished");
                    return std::future::pending().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the process that serves cannot be heard any more");
                    return std::future::pending().await;
                }
            }
        }
    }

    /// Kills it, so that it lets go of what it was given.
    pub async fn end(&mut self) {
        self.leaving.clear();
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "the new process has ended already");
        }
        if tokio::time::timeout(REAP_MAX, self.child.wait()).await.is_err() {
            tracing::warn!(pid = self.pid, "the new process does not end although it was killed");
        }
    }
}

fn unexpected(told: &ToPrevious) -> Refused {
    Refused::Said { reason: format!("{told:?}, which was not its turn to say") }
}
