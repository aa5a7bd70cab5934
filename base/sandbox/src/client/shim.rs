//! A service's box, as the agent sees it.

use super::channel::Channel;
use super::error::{ConnectError, RequestError, StartError};
use crate::protocol::{
    DoorAnswer, DoorRequest, ExecResult, ExitRecord, NetworkReport, ShimAnswer, ShimRequest, SocketKind, Usage,
};
use crate::shim::record::Folder;
use crate::spec::Command;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Mutex;

/// A box that lives, or did when it was last asked.
#[derive(Debug)]
pub struct Shim {
    dir: PathBuf,
    pid: u32,
    network: NetworkReport,
    /// A channel to init for sockets, opened with the first; held over one request and its answer.
    door: Mutex<Option<Channel>>,
    /// TCP sockets of the box that nobody uses yet.
    spare: std::sync::Mutex<Vec<OwnedFd>>,
}

/// Fetched together, since a round trip to init costs more than all the rest of a connection.
const SOCKETS_AT_ONCE: u8 = 8;
/// A shim that ends does so within milliseconds; one that waits for a slow disk is worth a second.
const CONNECT_ATTEMPTS: u32 = 100;
const CONNECT_PAUSE: Duration = Duration::from_millis(10);

/// What is in a run folder.
#[derive(Debug)]
pub enum Found {
    Alive(Shim),
    Exited(ExitRecord),
    Nothing,
}

impl Shim {
    pub(super) fn new(dir: &Path, pid: u32, network: NetworkReport) -> Shim {
        Shim { dir: dir.to_path_buf(), pid, network, door: Mutex::new(None), spare: std::sync::Mutex::default() }
    }

    /// Finds the box of a run folder again.
    pub async fn connect(dir: &Path) -> Result<Found, ConnectError> {
        let folder_error = |source| ConnectError::Folder { folder: dir.display().to_string(), source };
        let folder = match Folder::open(dir) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(folder_error(error)),
        };
        for _attempt in 0..CONNECT_ATTEMPTS {
            let nobody = match ask_in(&folder, &ShimRequest::Hello).await {
                Ok((ShimAnswer::Hello { pid, network }, _)) => return Ok(Found::Alive(Shim::new(dir, pid, network))),
                Ok((other, _)) => unexpected(&other),
                Err(error) => error,
            };
            use io::ErrorKind as Kind;
            if [Kind::NotFound, Kind::ConnectionRefused].contains(&nobody.kind()) {
                // No socket, or one that nobody listens at.
                return left_behind(&folder).map_err(folder_error);
            }
            if ![Kind::UnexpectedEof, Kind::ConnectionReset, Kind::BrokenPipe, Kind::WouldBlock]
                .contains(&nobody.kind())
            {
                return Err(ConnectError::Shim { folder: dir.display().to_string(), source: nobody });
            }
            // It ends just now, or has too much to do.
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
        let source = io::ErrorKind::TimedOut.into();
        Err(ConnectError::Shim { folder: dir.display().to_string(), source })
    }

    /// Process 1 of the box, as numbered outside.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What the box's network can do.
    pub fn network(&self) -> &NetworkReport {
        &self.network
    }

    /// Waits until the box has ended. May be dropped and asked again.
    pub async fn exited(&self) -> ExitRecord {
        loop {
            if let Ok((ShimAnswer::Exited(record), _)) = self.ask(&ShimRequest::Watch).await {
                return record;
            }
            match Shim::connect(&self.dir).await {
                Ok(Found::Exited(record)) => return record,
                // Somebody else has seen its end and removed the folder.
                Ok(Found::Nothing) => return lost_record(),
                Ok(Found::Alive(_)) | Err(_) => tokio::time::sleep(CONNECT_PAUSE).await,
            }
        }
    }

    /// Sends a signal to the box's program.
    pub async fn signal(&self, number: i32) -> io::Result<()> {
        self.order(&ShimRequest::Signal(number)).await
    }

    /// Kills everything in the box.
    pub async fn kill(&self) -> io::Result<()> {
        self.order(&ShimRequest::Kill).await
    }

    /// Lets the box live until then, by the clock since boot, or without an end. One that had no end may have one from now on.
    ///
    /// # Errors
    /// When its time was up before.
    pub async fn prolong(&self, boot_ms: Option<u64>) -> io::Result<()> {
        self.order(&ShimRequest::Prolong { boot_ms }).await
    }

    pub async fn usage(&self) -> io::Result<Usage> {
        let answer = self.ask(&ShimRequest::Usage).await?.0;
        if let ShimAnswer::Usage(usage) = answer { Ok(usage) } else { Err(unexpected(&answer)) }
    }

    /// TCP ports the box's programs listen on.
    pub async fn listening(&self) -> io::Result<Vec<u16>> {
        let answer = self.ask(&ShimRequest::Listening).await?.0;
        if let ShimAnswer::Listening(ports) = answer { Ok(ports) } else { Err(unexpected(&answer)) }
    }

    /// Has the shim keep sockets while no agent is there, in place of those it kept before. At most 64.
    pub async fn hold(&self, sockets: &[(String, BorrowedFd<'_>)]) -> io::Result<()> {
        let names = sockets.iter().map(|(name, _)| name.clone()).collect();
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| *socket).collect();
        let channel = Channel::new(Folder::open(&self.dir)?.connect()?)?;
        channel.send(&ShimRequest::Hold { names }, &fds).await?;
        let (answer, _): (ShimAnswer, _) = channel.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if let ShimAnswer::Done = answer { Ok(()) } else { Err(unexpected(&answer)) }
    }

    /// The sockets an agent before this one had kept. A shim of an older version keeps none.
    pub async fn held(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let (answer, sockets) = self.ask(&ShimRequest::Held).await?;
        if let ShimAnswer::Held { names } = answer {
            Ok(names.into_iter().zip(sockets).collect())
        } else {
            Err(unexpected(&answer))
        }
    }

    /// Runs a program beside the box's own; killed after `timeout`.
    pub async fn exec(&self, command: Command, timeout: Duration) -> Result<ExecResult, RequestError> {
        let gone = |source| RequestError::Gone { source };
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let channel = self.channel().await.map_err(gone)?;
        channel.send(&DoorRequest::Exec { command, timeout_ms }, &[]).await.map_err(gone)?;
        match channel.receive().await.map_err(gone)? {
            Some((DoorAnswer::Executed(result), _)) => Ok(result),
            Some((DoorAnswer::NotExecuted(failure), _)) => Err(StartError::from_failure(failure).into()),
            Some((DoorAnswer::Failed { errno }, _)) => Err(gone(io::Error::from_raw_os_error(errno))),
            Some((DoorAnswer::Sockets, _)) => Err(gone(io::ErrorKind::InvalidData.into())),
            None => Err(gone(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// The listener at which TCP connections to any address arrive; `None` without a door.
    pub async fn catch_all(&self) -> io::Result<Option<OwnedFd>> {
        Ok(self.door(DoorRequest::CatchAll).await?.pop())
    }

    /// The DNS sockets of 127.0.0.53:53: UDP, TCP.
    pub async fn dns(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let mut sockets = self.door(DoorRequest::Dns).await?.into_iter();
        match (sockets.next(), sockets.next()) {
            (Some(udp), Some(tcp)) => Ok((udp, tcp)),
            (_, _) => Err(io::Error::new(io::ErrorKind::NotFound, "the box has no door")),
        }
    }

    /// A socket inside the box's network, not connected, non-blocking.
    pub async fn socket(&self, kind: SocketKind) -> io::Result<OwnedFd> {
        let pooled = kind == SocketKind::Tcp4;
        if pooled && let Some(socket) = self.spare().pop() {
            return Ok(socket);
        }
        let count = if pooled { SOCKETS_AT_ONCE } else { 1 };
        let mut sockets = self.door(DoorRequest::Socket { kind, count }).await?;
        let socket = sockets.pop().ok_or(io::ErrorKind::NotFound)?;
        self.spare().extend(sockets);
        Ok(socket)
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<OwnedFd>> {
        // Whoever panicked with it left a list of sockets.
        self.spare.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A listener at an address inside the box.
    pub async fn listen(&self, address: SocketAddr, kind: SocketKind) -> io::Result<OwnedFd> {
        self.door(DoorRequest::Listen { address, kind }).await?.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Asks init for sockets on the kept channel. Dropped between request and answer, the channel is not put back,
    /// so that no answer is taken for another's.
    async fn door(&self, request: DoorRequest) -> io::Result<Vec<OwnedFd>> {
        let mut kept = self.door.lock().await;
        let channel = match kept.take() {
            Some(channel) => channel,
            None => self.channel().await?,
        };
        channel.send(&request, &[]).await?;
        let result = match channel.receive().await? {
            Some((DoorAnswer::Sockets, fds)) => Ok(fds),
            Some((DoorAnswer::Failed { errno }, _)) => Err(io::Error::from_raw_os_error(errno)),
            Some((DoorAnswer::Executed(_) | DoorAnswer::NotExecuted(_), _)) => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        *kept = Some(channel);
        result
    }

    async fn channel(&self) -> io::Result<Channel> {
        let (answer, mut fds) = self.ask(&ShimRequest::Channel).await?;
        match (answer, fds.pop()) {
            (ShimAnswer::Channel, Some(channel)) => Channel::new(channel),
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn order(&self, request: &ShimRequest) -> io::Result<()> {
        let answer = self.ask(request).await?.0;
        if let ShimAnswer::Done = answer { Ok(()) } else { Err(unexpected(&answer)) }
    }

    async fn ask(&self, request: &ShimRequest) -> io::Result<(ShimAnswer, Vec<OwnedFd>)> {
        ask_in(&Folder::open(&self.dir)?, request).await
    }
}

/// What a box that is gone left in its folder.
fn left_behind(folder: &Folder) -> io::Result<Found> {
    if let Some(record) = folder.read_exit()? {
        return Ok(Found::Exited(record));
    }
    Ok(match folder.read_state()? {
        // The box died with it.
        Some(_state) => Found::Exited(lost_record()),
        None => Found::Nothing,
    })
}

async fn ask_in(folder: &Folder, request: &ShimRequest) -> io::Result<(ShimAnswer, Vec<OwnedFd>)> {
    let channel = Channel::new(folder.connect()?)?;
    channel.send(request, &[]).await?;
    channel.receive().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn unexpected(answer: &ShimAnswer) -> io::Error {
    match answer {
        ShimAnswer::Failed { errno } => io::Error::from_raw_os_error(*errno),
        ShimAnswer::Hello { .. }
        | ShimAnswer::Channel
        | ShimAnswer::Done
        | ShimAnswer::Usage(_)
        | ShimAnswer::Listening(_)
        | ShimAnswer::Held { .. }
        | ShimAnswer::Exited(_) => io::Error::new(io::ErrorKind::InvalidData, "the shim answered something else"),
    }
}

/// For a box whose shim ended without a record: it was killed, or the machine was.
fn lost_record() -> ExitRecord {
    const KILL: i32 = 9;
    ExitRecord {
        code: None,
        signal: Some(KILL),
        oom: false,
        overdue: false,
        reason: "killed with its shim, or with the machine".to_owned(),
        at_ms: 0,
    }
}
