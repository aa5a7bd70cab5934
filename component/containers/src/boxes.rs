//! The boxes of this machine that run, for whoever connects to them.
//!
//! Lives for as long as the process: agents come and go (one that fails to hand over to the next is followed by
//! another), and connections that were made through one go on without it. What no agent attends is found through its
//! run folder.

use crate::dial::InstanceDialer;
use crate::shared::Live;
use sandbox::{Found, Shim};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpStream;
use world::net::{Dialer, Dialing};

/// Boxes found through their folders that are remembered: those of the few instances that connections left behind by an
/// agent lead to.
const FOUND_MAX: usize = 1_024;

/// The running boxes of a data folder.
pub struct Boxes {
    data: PathBuf,
    live: Mutex<BTreeMap<String, Live>>,
    /// Those that no agent of this process attends.
    found: Mutex<BTreeMap<String, Arc<Shim>>>,
    pools: Mutex<BTreeMap<String, balancer::Pool>>,
    elsewhere: Mutex<Option<Arc<dyn Elsewhere>>>,
}

/// The way to instances of other machines.
pub trait Elsewhere: Send + Sync {
    /// A connection to an instance, as [`Dialer::dial`] makes it; `None` when it is none of another machine's.
    fn dial(self: Arc<Self>, instance: String, port: u16, client: Option<SocketAddr>) -> Option<Dialing<'static>>;
}

impl Boxes {
    pub fn new(data: &Path) -> Arc<Boxes> {
        let (live, found, pools) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Boxes { data: data.to_owned(), live, found, pools, elsewhere: Mutex::default() })
    }

    /// Where instances are looked for that are not here; nowhere, if nobody says.
    pub fn look_elsewhere(&self, elsewhere: Option<Arc<dyn Elsewhere>>) {
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = elsewhere;
    }

    pub(crate) fn elsewhere(&self) -> Option<Arc<dyn Elsewhere>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects to an instance of this machine, wherever others may be looked for.
    ///
    /// # Errors
    /// When it does not run here, or does not listen at `port`.
    pub async fn dial_here(
        self: &Arc<Self>,
        instance: &str,
        port: u16,
        client: Option<SocketAddr>,
    ) -> io::Result<TcpStream> {
        InstanceDialer { boxes: Arc::clone(self) }.dial_here(instance, port, client).await
    }

    /// Connections into instances, of this machine and of others.
    pub fn dialer(self: &Arc<Self>) -> Arc<dyn Dialer> {
        Arc::new(InstanceDialer { boxes: Arc::clone(self) })
    }

    /// A datagram socket inside an instance, for published UDP ports.
    pub async fn datagrams(&self, instance: &str) -> io::Result<OwnedFd> {
        self.shim(instance).await?.socket(sandbox::SocketKind::Udp4).await
    }

    /// Where a box's socket and records are. Short, since a socket's path may have 107 bytes only.
    pub(crate) fn run_dir(&self, instance: &str) -> PathBuf {
        self.data.join("run").join(instance)
    }

    /// The shim of an instance that runs.
    pub(crate) async fn shim(&self, instance: &str) -> io::Result<Arc<Shim>> {
        if let Some(shim) = self.attended(instance) {
            return Ok(shim);
        }
        if let Some(shim) = self.found().get(instance) {
            return Ok(Arc::clone(shim));
        }
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the instance does not run here");
        match Shim::connect(&self.run_dir(instance)).await {
            Ok(Found::Alive(shim)) => {
                let shim = Arc::new(shim);
                let mut found = self.found();
                while found.len() >= FOUND_MAX && found.pop_first().is_some() {}
                found.insert(instance.to_owned(), Arc::clone(&shim));
                Ok(shim)
            }
            Ok(Found::Exited(_) | Found::Nothing) => Err(gone()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    pub(crate) fn attended(&self, instance: &str) -> Option<Arc<Shim>> {
        self.live().get(instance).map(|live| Arc::clone(&live.shim))
    }

    /// No agent attends them any more.
    pub(crate) fn unattended(&self) {
        self.live().clear();
    }

    /// The box could not be connected to: it may be another one by now.
    pub(crate) fn mistrust(&self, instance: &str) {
        self.found().remove(instance);
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, BTreeMap<String, Live>> {
        // A panic while the lock was held left whole entries behind: each change of the map is one call.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pools(&self) -> MutexGuard<'_, BTreeMap<String, balancer::Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Shim>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
