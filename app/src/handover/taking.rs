//! The new process: is given everything by the old one, and asks it about instances for as long as it is there.

use super::{SPOKEN, Services, ToNext, ToPrevious, written};
use sandbox::Channel;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use world::task::Task;

/// Instances asked about and not answered yet: more are stopped by no rollout at a time.
const QUESTIONS_MAX: usize = 256;

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
pub struct Taken {
    pub lock: OwnedFd,
    pub api: OwnedFd,
    pub asking: OwnedFd,
    pub sockets: Vec<gateway::Socket>,
    /// Instances that were ready.
    pub ready: Vec<String>,
    channel: Channel,
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
    pub async fn receive(self) -> Result<Taken, TakeError> {
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
                    let [lock, api, asking] = <[OwnedFd; 3]>::try_from(fds).map_err(|_few| TakeError::Incomplete)?;
                    return Ok(Taken { lock, api, asking, sockets, ready, channel: self.channel });
                }
                (ToNext::Go | ToNext::Drained { .. }, _) => return Err(TakeError::Incomplete),
            }
        }
    }
}

impl Taken {
    /// Takes the conversation out, for the time after everything has been given.
    pub fn talk(self) -> (Given, Opening) {
        let Taken { lock, api, asking, sockets, ready, channel } = self;
        (Given { lock, api, asking, sockets, ready }, Opening { channel: Arc::new(channel) })
    }
}

/// [`Taken`] without the conversation.
pub struct Given {
    pub lock: OwnedFd,
    pub api: OwnedFd,
    pub asking: OwnedFd,
    pub sockets: Vec<gateway::Socket>,
    pub ready: Vec<String>,
}

/// The conversation while the new process opens what it was given.
pub struct Opening {
    channel: Arc<Channel>,
}

impl Opening {
    /// The old process as whoever has to ask it about instances sees it: from now on it may be asked. Its task ends
    /// with the old process.
    pub fn previous(&self) -> (Previous, Task) {
        let (services, told) = watch::channel(None);
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let (go, _) = watch::channel(false);
        let previous = Previous { services: Arc::new(services), questions, go };
        let task =
            world::task::spawn("previous process", talk(Arc::clone(&self.channel), told, asked, previous.go.clone()));
        (previous, task)
    }

    /// Says that this process could serve, and waits until it may. An old process that has died lets it.
    pub async fn opened(&self, previous: &Previous) {
        self.say(&ToPrevious::Opened).await;
        let mut go = previous.go.subscribe();
        // The sender is `previous` itself.
        let _ = go.wait_for(|go| *go).await;
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

/// The process before this one, which finishes what is under way there.
#[derive(Clone)]
pub struct Previous {
    services: Arc<watch::Sender<Option<Services>>>,
    questions: mpsc::Sender<(String, oneshot::Sender<()>)>,
    /// This process may serve: it was told so, or nobody else does.
    go: watch::Sender<bool>,
}

impl Previous {
    /// Tells which endpoints there are. Only the newest matters.
    pub fn tell(&self, services: &Services) {
        self.services.send_replace(Some(services.clone()));
    }

    /// Waits until nothing is under way at an instance there. At once, when that process is gone.
    pub async fn drained(&self, instance: &str) {
        let (tell, told) = oneshot::channel();
        if self.questions.send((instance.to_owned(), tell)).await.is_ok() {
            // Dropped unanswered: that process is gone, and with it what was under way.
            let _ = told.await;
        }
    }

    /// Waits until that process is gone.
    pub async fn ended(&self) {
        self.questions.closed().await;
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
