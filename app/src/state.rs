//! The state of record, opened: control's key space over a replicated group over this machine's disk.

use control::{Keyspace, Space};
use replication::{Group, Network, Options, Start, Timing};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
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

/// A folder of the state of record. The cluster's key and every secret are in it: nobody else reads there.
pub fn own_folder(control: &Path, name: &str) -> Result<PathBuf, StateError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| StateError::Folder { path, source }
    };
    let path = control.join(name);
    std::fs::create_dir_all(&path).map_err(failed(&path))?;
    // Others may pass through the data folder: boxes' users have their files there.
    std::fs::set_permissions(control, Permissions::from_mode(0o700)).map_err(failed(control))?;
    Ok(path)
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
    let control = data.join("control");
    let (state, log) = (own_folder(&control, "state")?, own_folder(&control, "log")?);
    let opened = tokio::task::spawn_blocking(move || Keyspace::open(disk, &state)).await;
    let keyspace = opened
        .map_err(|error| StateError::Keyspace(Box::new(error)))?
        .map_err(|error| StateError::Keyspace(Box::new(error)))?;
    let options = Options { node: number, start, timing, ..Options::alone(&log) };
    let group = Group::open(options, Arc::clone(&keyspace) as _, network).await?;
    let space = Space::start(keyspace, Arc::new(group.clone()));
    Ok((space, group))
}
