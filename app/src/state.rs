//! The state of record, opened: control's key space over a replicated group over this machine's disk.

use control::{Keyspace, Space};
use replication::{Group, Network, Options, Start, Timing};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use world::disk::{Disk, Real};

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("make folder {path}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("open the state of record")]
    Keyspace(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("open the log of the state of record")]
    Group(#[from] replication::OpenError),
}

impl StateError {
    pub fn hint(&self) -> &'static str {
        match self {
            StateError::Folder { .. } => "is there room on the disk, and may this user write there?",
            StateError::Keyspace(_) | StateError::Group(_) => {
                "nothing was changed; if the disk is full make room, if a file is damaged restore the data folder from a backup"
            }
        }
    }
}

/// Opens what is there, or begins as `start` says. `number` is this machine's in the group, the same for ever.
pub async fn open(
    data: &Path,
    number: u64,
    start: Start,
    timing: Timing,
    network: Arc<dyn Network>,
) -> Result<(Space, Group), StateError> {
    let disk: Arc<dyn Disk> = Arc::new(Real);
    let folder = |name: &str| {
        let path = data.join("control").join(name);
        std::fs::create_dir_all(&path).map(|()| path.clone()).map_err(|source| StateError::Folder { path, source })
    };
    let (state, log) = (folder("state")?, folder("log")?);
    let opened = tokio::task::spawn_blocking(move || Keyspace::open(disk, &state)).await;
    let keyspace = opened
        .map_err(|error| StateError::Keyspace(Box::new(error)))?
        .map_err(|error| StateError::Keyspace(Box::new(error)))?;
    let options = Options { node: number, start, timing, ..Options::alone(&log) };
    let group = Group::open(options, Arc::clone(&keyspace) as _, network).await?;
    let space = Space::start(keyspace, Arc::new(group.clone()));
    Ok((space, group))
}
