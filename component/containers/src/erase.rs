//! Removes what boxes wrote.
//!
//! An ordinary user's boxes may have users of their own, whose files that user cannot remove from outside; from inside,
//! as the root of a box with the same users, it can.

use crate::shared::Shared;
use sandbox::{BoxSpec, Command, Ids, Mount, MountSource, Root, RunLimits, Trust};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// Where the box that removes sees the folders: on a scratch of its own.
const INSIDE: &str = "/tmp/boxes";
/// A million files on a slow card; what is left after that is removed at the next start.
const ERASE_MAX: Duration = Duration::from_secs(300);

/// Removes the folder of an instance that is gone. Runs to its end; dropped, the next start of the agent goes on.
pub(crate) async fn erase(shared: &Shared, instance: &str) -> io::Result<()> {
    let home = shared.box_dir(instance);
    let path = home.clone();
    // Waits for the disk, with large boxes for long.
    let removed = tokio::task::spawn_blocking(move || remove(&path)).await.unwrap_or_else(|error| Err(error.into()));
    match removed {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && has_users(shared.ids) => {
            from_inside(shared, instance).await?;
            if home.exists() { Err(error) } else { Ok(()) }
        }
        removed => removed,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn has_users(ids: Ids) -> bool {
    match ids {
        Ids::Single => false,
        Ids::Range { .. } => true,
    }
}

async fn from_inside(shared: &Shared, instance: &str) -> io::Result<()> {
    let mut spec = BoxSpec::new(format!("erase-{instance}"), Trust::Service, Root::Host);
    spec.ids = shared.ids;
    let boxes = shared.data.join("boxes");
    spec.mounts = vec![Mount { source: MountSource::Bind(boxes), target: INSIDE.into(), read_only: false }];
    let argv = ["rm", "-rf", "--", &format!("{INSIDE}/{instance}")].map(str::to_owned).to_vec();
    let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let command = Command { argv, env, ..Command::default() };
    let null: OwnedFd = File::options().read(true).write(true).open("/dev/null")?.into();
    let stdio = [null.try_clone()?, null.try_clone()?, null];
    let wall_ms = u64::try_from(ERASE_MAX.as_millis()).ok();
    let limits = RunLimits { wall_ms, ..RunLimits::default() };
    shared.spawner.run(&spec, command, stdio, limits).await.map(drop).map_err(io::Error::other)
}
