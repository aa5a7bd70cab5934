//! A cluster that begins anew: from a backup and an empty data folder to its first machine.
//!
//! Promises that the whole file has been read and found right before anything is written, that the folder is as it was or
//! holds a machine that `bramble up` starts, and that machines of before find out that they are superseded. Done offline,
//! by whoever holds the lock of the folder.

use super::home::{Home, HomeError};
use super::{addresses, entry, hostname};
use crate::state;
use control::backup::{BackupError, Contents, Restored};
use control::{Keyspace, Txn};
use pki::Authority;
use replication::Options;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage::replicated::Machine;
use wire::resource::{ClusterAuthority, Member, key};

const STATE: &str = "control";
/// Of the data folder: what is not yet the state. Where it is left, a restore was cut off.
const UNFINISHED: &str = "control.restoring";

/// Why a machine was not made of a backup.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("{path} has the state of a machine already")]
    Occupied { path: PathBuf },
    #[error("read {what} in the backup")]
    Record { what: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("make {path}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("write the state of record")]
    State(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("make this machine a member")]
    Enrol(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl RestoreError {
    pub fn hint(&self) -> &'static str {
        match self {
            RestoreError::Backup(error) => error.hint(),
            RestoreError::Occupied { .. } => {
                "name an empty folder with --data DIR; if this one's state is to be given up, move `control` and `cluster` in \
                 it away first (its volumes and images may stay)"
            }
            RestoreError::Record { .. } => {
                "is it of a later version of bramble? install that, or take an earlier backup"
            }
            RestoreError::Folder { .. } | RestoreError::State(_) | RestoreError::Enrol(_) | RestoreError::Home(_) => {
                "is there room on the disk, and may this user write there? then run it again"
            }
        }
    }
}

/// Whether a restore in this data folder has not come to its end: what is there is no machine yet.
pub fn is_unfinished(data: &Path) -> bool {
    data.join(UNFINISHED).exists()
}

/// Refuses a folder in which something would be lost.
pub fn refuse_occupied(data: &Path) -> Result<(), RestoreError> {
    let is_member = Home::of(data).standing()?.is_some() && !is_unfinished(data);
    if data.join(STATE).exists() || is_member {
        return Err(RestoreError::Occupied { path: data.to_owned() });
    }
    Ok(())
}

/// Makes the machine `me` with this data folder the only one of a cluster with the state in `restored`. Blocks.
pub fn restore(data: &Path, me: &str, listen: SocketAddr, mut restored: Restored) -> Result<Contents, RestoreError> {
    refuse_occupied(data)?;
    let unfinished = data.join(UNFINISHED);
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| RestoreError::Folder { path, source }
    };
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(failed(&unfinished))?;
    }
    // Before anything else: from here on nobody takes the folder for a machine.
    std::fs::create_dir_all(&unfinished).map_err(failed(&unfinished))?;
    synced(data).map_err(failed(data))?;
    // Who has a token of then may have used it since, and a machine comes with a new one.
    let mut txn = Txn::new().delete_prefix(key::TOKENS).delete(key::verdict(me));
    let member = become_member(data, me, listen, &restored)?;
    if let Some(member) = member {
        txn = txn.put_json(key::member(me), &member);
    }
    restored.commit(txn).map_err(|error| RestoreError::State(Box::new(error)))?;
    write(&unfinished, entry::number(me), &restored)?;
    let state = data.join(STATE);
    std::fs::rename(&unfinished, &state).and_then(|()| synced(data)).map_err(failed(&state))?;
    Ok(restored.contents().clone())
}

fn synced(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Has the cluster's own authority sign this machine's key, and this machine know whom it may meet. `None` where there is
/// no cluster: of a machine on its own.
fn become_member(
    data: &Path,
    me: &str,
    listen: SocketAddr,
    restored: &Restored,
) -> Result<Option<Member>, RestoreError> {
    let kept: Option<ClusterAuthority> = read(restored, key::AUTHORITY)?.into_iter().next();
    let Some(kept) = kept else { return Ok(None) };
    let unsigned = |error| RestoreError::Enrol(Box::new(error));
    let home = Home::of(data);
    let own = home.key()?;
    let request = own.request().map_err(|error| RestoreError::Enrol(Box::new(error)))?;
    let authority = Authority::open(&kept.certificate_pem, &kept.key_pem).map_err(record(key::AUTHORITY))?;
    let certificate = authority.enrol(&kept.cluster, &request, Some(own.node()), entry::now_s()).map_err(unsigned)?;
    let mut members: Vec<Member> = read(restored, key::MEMBERS)?;
    let before = members.iter().position(|member| member.id == me).map(|at| members.remove(at));
    let member = Member {
        id: me.to_owned(),
        node: own.node(),
        number: entry::number(me),
        hostname: hostname(),
        addresses: addresses::reachable(listen),
        zone: before.as_ref().and_then(|before| before.zone.clone()),
        role: before.and_then(|before| before.role),
        joined_ms: world::clock::unix_ms(),
        fsync_p99_us: None,
        revoked: false,
        incarnation: None,
    };
    members.push(member.clone());
    home.keep_members(&members)?;
    home.keep(&certificate.pem(), &kept.certificate_pem)?;
    Ok(Some(member))
}

/// Every record under `prefix`.
fn read<T: serde::de::DeserializeOwned>(restored: &Restored, prefix: &str) -> Result<Vec<T>, RestoreError> {
    restored.list(prefix).entries.iter().map(|entry| entry.json().map_err(record(&entry.key))).collect()
}

fn record<E: std::error::Error + Send + Sync + 'static>(what: &str) -> impl FnOnce(E) -> RestoreError {
    let what = what.to_owned();
    |source| RestoreError::Record { what, source: Box::new(source) }
}

/// The state and the log of a group of one, as `state::open` finds them.
fn write(folder: &Path, number: u64, restored: &Restored) -> Result<(), RestoreError> {
    let options = Options { node: number, ..Options::alone(&folder.join("log")) };
    let state = state::own_folder(folder, "state").map_err(|error| RestoreError::State(Box::new(error)))?;
    let keyspace = Keyspace::open(Arc::clone(&options.disk), &state);
    let keyspace: Arc<dyn Machine> = keyspace.map_err(|error| RestoreError::State(Box::new(error)))?;
    let (snapshot, term) = (restored.snapshot(), restored.contents().head.term);
    replication::restore(options, &keyspace, &snapshot, term, world::clock::unix_ms())
        .map_err(|error| RestoreError::State(Box::new(error)))?;
    synced(folder).map_err(|source| RestoreError::Folder { path: folder.to_owned(), source })
}
