//! The new process: is given everything by the old one, and asks it about instances for as long as it is there.

use super::{SPOKEN, Services, ToNext, ToPrevious, written};
use sandbox::Channel;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};
use world::task::Task;

/// Instances asked about and not answered yet: more are stopped by no rollout at a time.
const QUESTIONS_MAX: usize = 256;
/// Processes that finish at a time, each with some 40 MiB: before one more, the oldest is ended with what it has.
const OLDER_MAX: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("standard input is no channel to a running node")]
    NoChannel(#[source] io::Error),
    #[error("talk to the node that is to be replaced")]
    Channel(#[source] io::Error),
    #[error("the node that was to be replaced goes on without this one")]
    Unwanted,
    #[error("the node that is to be replaced gave too little")]
    Incomplete,
}

/// The channel as it was inherited, before there is a runtime.
pub struct Inherited(OwnedFd);

/// The new process before it has been given anything.
pub struct Taking {
    channel: Channel,
}

/// What the old process gave.
pub struct Given {
    pub lock: OwnedFd,
    pub api: OwnedFd,
    pub asking: OwnedFd,
    pub sockets: Vec<gateway::Socket>,
    /// Instances that were ready.
    pub ready: Vec<String>,
    /// Channels to processes that finish what they had before the one that gives.
    pub older: Vec<OwnedFd>,
}

impl Inherited {
    /// Takes the channel from standard input.
    pub fn from_stdin() -> Result<Inherited, TakeError> {
        let channel = io::stdin().as_fd().try_clone_to_owned().map_err(TakeError::NoChannel)?;
        let kind = rustix::net::sockopt::socket_type(&channel).map_err(|error| TakeError::NoChannel(error.into()))?;
        if kind != rustix::net::SocketType::SEQPACKET {
            return Err(TakeError::NoChannel(io::ErrorKind::InvalidInput.into()));
        }
        Ok(Inherited(channel))
    }

    /// Needs a runtime.
    pub fn open(self) -> Result<Taking, TakeError> {
        Ok(Taking { channel: Channel::new(self.0).map_err(TakeError::NoChannel)? })
    }
}

impl Taking {
    /// Says that all is ready that needs nothing of the old process, and waits for what it gives.
    pub async fn receive(self) -> Result<(Given, Opening), TakeError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let prepared = ToPrevious::Prepared { version, spoken: SPOKEN };
        self.channel.send(&prepared, &[]).await.map_err(TakeError::Channel)?;
        let mut sockets = Vec::new();
        loop {
            let told = self.channel.receive::<ToNext>().await.map_err(TakeError::Channel)?;
            match told.ok_or(TakeError::Unwanted)? {
                (ToNext::Sockets { names }, fds) => {
                    if names.len() != fds.len() {
                        return Err(TakeError::Incomplete);
                    }
                    let given = names.into_iter().zip(fds);
                    sockets.extend(given.map(|((protocol, address), socket)| gateway::Socket {
                        address,
                        protocol,
                        socket,
                    }));
                }
                (ToNext::Take { ready }, fds) => {
                    let mut fds = fds.into_iter();
                    let (Some(lock), Some(api), Some(asking)) = (fds.next(), fds.next(), fds.next()) else {
                        return Err(TakeError::Incomplete);
                    };
                    let older = fds.collect();
                    let opening = Opening { channel: Arc::new(self.channel) };
                    return Ok((Given { lock, api, asking, sockets, ready, older }, opening));
                }
                (ToNext::Go | ToNext::Drained { .. }, _) => return Err(TakeError::Incomplete),
            }
        }
    }
}

/// The conversation while the new process opens what it was given.
pub struct Opening {
    channel: Arc<Channel>,
}

impl Opening {
    /// The old process as whoever has to ask it about instances sees it: from now on it may be asked.
    pub fn previous(&self) -> Previous {
        let previous = Previous::default();
        previous.add(Arc::clone(&self.channel));
        previous
    }

    /// Says that this process could serve, and waits until it may. An old process that has died lets it.
    pub async fn opened(&self, previous: &Previous) {
        self.say(&ToPrevious::Opened).await;
        let newest = previous.all().last().map(|one| one.go.subscribe());
        if let Some(mut go) = newest {
            // Its end without a word lets it too.
            let _ = go.wait_for(|go| *go).await;
        }
    }

    /// Says that it serves.
    pub async fn serving(&self) {
        self.say(&ToPrevious::Serving).await;
    }

    /// Says why it cannot.
    pub async fn failed(&self, reason: String) {
        self.say(&ToPrevious::Failed { reason }).await;
    }

    async fn say(&self, told: &ToPrevious) {
        if let Err(error) = self.channel.send(told, &[]).await {
            tracing::warn!(%error, "the process before this one is gone");
        }
    }
}

/// The processes before this one that finish what is under way there, the oldest first.
#[derive(Clone, Default)]
pub struct Previous {
    all: Arc<Mutex<Vec<One>>>,
}

struct One {
    channel: Arc<Channel>,
    services: watch::Sender<Option<Services>>,
    questions: mpsc::Sender<(String, oneshot::Sender<()>)>,
    /// This process may serve: it was told so, or nobody else does.
    go: watch::Sender<bool>,
    /// Ends with that process.
    _talking: Task,
}

impl Previous {
    /// Talks to one more. Needs a runtime.
    pub fn add(&self, channel: Arc<Channel>) {
        let (services, told) = watch::channel(None);
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let (go, _) = watch::channel(false);
        let work = talk(Arc::clone(&channel), told, asked, go.clone());
        let talking = world::task::spawn("previous process", work);
        self.all().push(One { channel, services, questions, go, _talking: talking });
    }

    /// Talks to those that were given by a process which did so before.
    pub fn add_older(&self, older: Vec<OwnedFd>) {
        for channel in older {
            match Channel::new(channel) {
                Ok(channel) => self.add(Arc::new(channel)),
                Err(error) => tracing::warn!(%error, "an older process will not hear of instances any more"),
            }
        }
    }

    /// Tells which endpoints there are. Only the newest matters.
    pub fn tell(&self, services: &Services) {
        for one in self.all().iter() {
            one.services.send_replace(Some(services.clone()));
        }
    }

    /// Waits until nothing is under way at an instance there. At once, when those processes are gone.
    pub async fn drained(&self, instance: &str) {
        let questions: Vec<_> = self.all().iter().map(|one| one.questions.clone()).collect();
        for questions in questions {
            let (tell, told) = oneshot::channel();
            if questions.send((instance.to_owned(), tell)).await.is_ok() {
                // Dropped unanswered: that process is gone, and with it what was under way.
                let _ = told.await;
            }
        }
    }

    /// Channels to those that are there, for the process that takes this one's place.
    pub fn channels(&self) -> Vec<Arc<Channel>> {
        self.all().iter().map(|one| Arc::clone(&one.channel)).collect()
    }

    /// Leaves the talking to the process that has this one's place.
    pub fn release(&self) {
        self.all().clear();
    }

    /// Has the oldest of too many end now.
    pub async fn bound(&self) {
        let oldest = {
            let all = self.all();
            (all.len() >= OLDER_MAX).then(|| all.first().map(|one| Arc::clone(&one.channel))).flatten()
        };
        if let Some(channel) = oldest
            && let Err(error) = channel.send(&ToPrevious::End, &[]).await
        {
            tracing::debug!(%error, "the oldest process has ended already");
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<One>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| !one.questions.is_closed());
        all
    }
}

/// Ends with the old process. Whoever waits for an answer is told by its end.
async fn talk(
    channel: Arc<Channel>,
    mut services: watch::Receiver<Option<Services>>,
    mut questions: mpsc::Receiver<(String, oneshot::Sender<()>)>,
    go: watch::Sender<bool>,
) {
    let mut waiting: BTreeMap<String, Vec<oneshot::Sender<()>>> = BTreeMap::new();
    loop {
        let say = tokio::select! {
            told = channel.receive::<ToNext>() => match told {
                Ok(Some((ToNext::Drained { instance }, _))) => {
                    for answer in waiting.remove(&instance).unwrap_or_default() {
                        // Whoever asked may have given up.
                        let _ = answer.send(());
                    }
                    continue;
                }
                Ok(Some((ToNext::Go, _))) => {
                    go.send_replace(true);
                    continue;
                }
                Ok(Some((ToNext::Sockets { .. } | ToNext::Take { .. }, _))) => continue,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the process before this one cannot be heard");
                    break;
                }
            },
            Some((instance, answer)) = questions.recv() => {
                let first = !waiting.contains_key(&instance);
                waiting.entry(instance.clone()).or_default().push(answer);
                first.then_some(ToPrevious::Leaves { instance })
            }
            Ok(()) = services.changed() => {
                services.borrow_and_update().as_ref().map(|services| ToPrevious::Endpoints { services: written(services) })
            }
            else => break,
        };
        if let Some(say) = say
            && let Err(error) = channel.send(&say, &[]).await
        {
            tracing::debug!(%error, "the process before this one is gone");
            break;
        }
    }
    go.send_replace(true);
}
