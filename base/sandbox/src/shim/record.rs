//! The run folder of a box: `socket`, `state.json` while it lives, `exit.json` once it has ended.

use crate::build::Begun;
use crate::cgroup::Cgroup;
use crate::failure::{During, Failure, Step};
use crate::protocol::{ExitRecord, NetworkReport};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const SOCKET: &str = "socket";
const STATE: &str = "state.json";
const EXIT: &str = "exit.json";
/// Both files are a few hundred bytes.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// Connections waiting while the shim writes a log line.
const BACKLOG: i32 = 64;
/// Version of `state.json`; the first.
const STATE_VERSION: u32 = 1;

/// What somebody who finds the folder must know about the box.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) version: u32,
    pub(crate) shim_pid: u32,
    pub(crate) init_pid: u32,
    pub(crate) network: NetworkReport,
    pub(crate) cgroups: Vec<(String, PathBuf)>,
}

/// An open run folder. Names in it are resolved from here, so a path longer than a socket address works.
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    pub(crate) fn make(path: &Path) -> Result<Folder, Failure> {
        let folder = || path.display().to_string();
        if !path.is_absolute() {
            return Err(Failure::plain(Step::Invalid, format!("the run folder {}, which is not absolute,", folder())));
        }
        std::fs::create_dir_all(path).during(Step::RunFolder, folder)?;
        Folder::open(path).during(Step::RunFolder, folder)
    }

    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder { fd: rustix::fs::open(path, flags, Mode::empty())?, path: path.to_path_buf() })
    }

    fn socket_address(&self) -> io::Result<SocketAddrUnix> {
        Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", self.fd.as_raw_fd()))?)
    }

    /// Takes the folder over from a box that is gone; refuses when one lives.
    pub(crate) fn listen(&self) -> Result<OwnedFd, Failure> {
        let path = || self.path.display().to_string();
        if self.is_listened_in() {
            return Err(Failure::plain(Step::RunFolder, format!("{}, where a box lives,", path())));
        }
        self.clear();
        let make = || -> io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            let before = rustix::process::umask(Mode::from_raw_mode(0o077));
            let bound = bind(&socket, &self.socket_address()?);
            rustix::process::umask(before);
            bound?;
            listen(&socket, BACKLOG)?;
            Ok(socket)
        };
        make().during(Step::RunFolder, path)
    }

    /// Without waiting: `WouldBlock` when the shim has too many waiting already.
    pub(crate) fn connect(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &self.socket_address()?)?;
        Ok(socket)
    }

    fn is_listened_in(&self) -> bool {
        match self.connect() {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Removes what boxes leave here.
    pub(crate) fn clear(&self) {
        for name in [SOCKET, STATE, EXIT] {
            // Mostly not there.
            let _ = rustix::fs::unlinkat(&self.fd, name, rustix::fs::AtFlags::empty());
        }
    }

    pub(crate) fn write_state(&self, begun: &Begun, network: &NetworkReport) -> Result<(), Failure> {
        let state = State {
            version: STATE_VERSION,
            shim_pid: rustix::process::getpid().as_raw_nonzero().get().unsigned_abs(),
            init_pid: begun.init.as_raw_nonzero().get().unsigned_abs(),
            network: network.clone(),
            cgroups: begun.cgroup.to_saved(),
        };
        self.write(STATE, &state).during(Step::RunFolder, || self.path.display().to_string())
    }

    pub(crate) fn write_exit(&self, record: &ExitRecord) -> io::Result<()> {
        self.write(EXIT, record)
    }

    /// Written beside and renamed over: there is never half a record.
    fn write<T: Serialize>(&self, name: &str, record: &T) -> io::Result<()> {
        let beside = format!("{name}.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, beside.as_str(), flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(fd);
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        rustix::fs::renameat(&self.fd, beside.as_str(), &self.fd, name)?;
        rustix::fs::fsync(&self.fd)?;
        Ok(())
    }

    pub(crate) fn read_state(&self) -> io::Result<Option<State>> {
        self.read(STATE)
    }

    pub(crate) fn read_exit(&self) -> io::Result<Option<ExitRecord>> {
        self.read(EXIT)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let fd = match rustix::fs::openat(&self.fd, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut json = Vec::new();
        File::from(fd).take(RECORD_BYTES_MAX).read_to_end(&mut json)?;
        Ok(Some(serde_json::from_slice(&json)?))
    }

    /// Removes the folder of a box that is gone, and its control groups.
    pub(crate) fn forget(self) -> io::Result<()> {
        if self.is_listened_in() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("the box in {} lives", self.path.display()),
            ));
        }
        if let Some(state) = self.read_state()? {
            Cgroup::from_saved(&state.cgroups).remove();
        }
        self.clear();
        std::fs::remove_dir_all(&self.path)
    }
}
