//! The hostile programs: one binary, compiled once for each state of its sources.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// In the binary, so that a copy of it elsewhere still has them.
const SOURCES: [(&str, &str); 8] = [
    ("hostile.h", include_str!("programs/hostile.h")),
    ("main.c", include_str!("programs/main.c")),
    ("processes.c", include_str!("programs/processes.c")),
    ("memory.c", include_str!("programs/memory.c")),
    ("files.c", include_str!("programs/files.c")),
    ("kernel.c", include_str!("programs/kernel.c")),
    ("streams.c", include_str!("programs/streams.c")),
    ("again.c", include_str!("programs/again.c")),
];
/// Its name in its folder.
pub(crate) const PROGRAM: &str = "hostile";

/// The folder with the compiled program: beside the build where that can be reached, else below `scratch`.
pub(crate) fn folder(scratch: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    SOURCES.hash(&mut hasher);
    let name = format!("hostile-{:016x}", hasher.finish());
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
    if shared.join(PROGRAM).exists() || compile(&shared).is_ok() {
        return shared;
    }
    let own = scratch.join(&name);
    compile(&own).unwrap_or_else(|error| panic!("the hostile programs cannot be compiled: {error}"));
    own
}

/// Two at once do no harm: each works in a folder of its own, and what is moved into place is whole.
fn compile(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    let work = tempfile::tempdir_in(folder)?;
    for (name, text) in SOURCES {
        std::fs::write(work.path().join(name), text)?;
    }
    let gcc = |kind: &[&str]| {
        let sources = SOURCES.iter().map(|(name, _)| *name).filter(|name| name.ends_with(".c"));
        let mut command = Command::new("gcc");
        command.args(["-O1", "-w", "-pthread", "-o", PROGRAM]).args(kind).args(sources).current_dir(work.path());
        command.output()
    };
    // Statically where the machine has what that takes: then the program needs nothing of the box's root.
    let mut output = gcc(&["-static"])?;
    if !output.status.success() {
        output = gcc(&[])?;
    }
    if !output.status.success() {
        return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    std::fs::set_permissions(work.path().join(PROGRAM), std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(work.path().join(PROGRAM), folder.join(PROGRAM))
}
