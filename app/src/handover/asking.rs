//! Where upgrades are asked for: a Unix socket in the data folder, which only the node's own user may open. What it asks
//! for, to run a program as that user, is more than a token of the API stands for.

use super::Terms;
use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

const SOCKET: &str = "upgrade";
/// Whoever connects says at once what they want.
const QUESTION_MAX: Duration = Duration::from_secs(2);
/// A question is numbers and a path, an answer numbers and a sentence.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// What became of an upgrade.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// Another process serves; this one finishes `connections`.
    Serves { version: String, pid: u32, previous_version: String, previous_pid: u32, connections: usize },
    /// The old process goes on.
    Refused { reason: String },
}

/// The listening socket.
pub struct Asking {
    socket: UnixListener,
}

/// Somebody who waits for an answer.
pub struct Asker {
    stream: UnixStream,
    pub terms: Terms,
}

impl Asking {
    /// Listens in `data`, whose lock this process has.
    pub fn listen(data: &Path) -> io::Result<Asking> {
        // Left by one that was killed.
        match std::fs::remove_file(data.join(SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let folder = open(data)?;
        let socket = UnixListener::bind(address(&folder))?;
        std::fs::set_permissions(data.join(SOCKET), std::fs::Permissions::from_mode(0o600))?;
        Ok(Asking { socket })
    }

    /// Goes on with a socket that listens already.
    pub fn inherit(socket: OwnedFd) -> io::Result<Asking> {
        let socket = std::os::unix::net::UnixListener::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Asking { socket: UnixListener::from_std(socket)? })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next who asks for an upgrade. Dropped, nobody is lost but one who was just being listened to.
    pub async fn next(&self) -> io::Result<Asker> {
        let own = rustix::process::geteuid().as_raw();
        loop {
            let (mut stream, _) = self.socket.accept().await?;
            // Between its making and its mode, the socket was open to others.
            if stream.peer_cred().is_ok_and(|peer| peer.uid() != own && peer.uid() != 0) {
                continue;
            }
            match tokio::time::timeout(QUESTION_MAX, line(&mut stream)).await {
                Ok(Ok(terms)) => return Ok(Asker { stream, terms }),
                Ok(Err(error)) => tracing::warn!(%error, "somebody asked for an upgrade in words that cannot be read"),
                Err(_) => {}
            }
        }
    }
}

impl Asker {
    pub async fn answer(mut self, answer: &Answer) {
        if let Err(error) = say(&mut self.stream, answer).await {
            tracing::debug!(%error, "whoever asked for the upgrade has gone");
        }
    }
}

/// Asks the node of a data folder to be replaced, and waits for what becomes of it.
pub async fn ask(data: &Path, terms: &Terms) -> io::Result<Answer> {
    let folder = open(data)?;
    let mut stream = UnixStream::connect(address(&folder)).await?;
    say(&mut stream, terms).await?;
    line(&mut stream).await
}

async fn say<T: Serialize>(stream: &mut UnixStream, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn line<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

fn open(data: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(data, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// By the open folder, since a socket's path may have 107 bytes only.
fn address(folder: &OwnedFd) -> String {
    format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())
}
