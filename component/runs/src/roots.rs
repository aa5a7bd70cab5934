//! Root file systems for runs: copies of what a language needs of this machine, or of an image, kept in the image store.
//!
//! Code of strangers never sees the machine's own files, not even their pages in the kernel's cache: what it could do to one
//! by a fault of the kernel, it does to a copy. What programs and libraries need besides what the language names is found
//! out by asking the machine's own loader (`ldd`), for the machine's own files only.
//!
//! A copy is named after what it was made of, so that an upgrade of the machine's programs has a new one made. Of an image,
//! that is its reference: it is fetched once, and all its layers become one.

use crate::language::{Language, is_like};
use images::{Image, Packed, Progress, Pull, Reference, Store};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::sync::watch;

/// Links followed one after the other, as the kernel does.
const LINKS_MAX: u32 = 40;
/// A copy larger than this is a mistake in a language's file: `/usr` as a whole.
const COPY_BYTES_MAX: u64 = 4 << 30;
/// Files whose libraries are asked for in one go.
const ASKED_AT_ONCE: usize = 200;
/// A program that does not say its version within this says none.
const VERSION_DEADLINE: Duration = Duration::from_secs(20);
/// Who waits for an image is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// What every box has: a shell, for languages that call one.
const BASE: [&str; 2] = ["/bin/sh", "/usr/bin/env"];
const BASE_TAKES: [&str; 2] = ["/usr/lib/locale/C.utf8", "/etc/ssl/openssl.cnf"];
/// Where things are mounted.
const FOLDERS: [&str; 8] = ["/box", "/dev", "/proc", "/sys", "/tmp", "/run", "/etc", "/root"];
/// Who there is, for programs that ask.
const TEXTS: [(&str, &str); 3] = [
    ("/etc/passwd", "runner:x:0:0:runner:/box:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("/etc/group", "runner:x:0:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost box\n"),
];

/// Why there is no root file system of a language.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("this machine has no {0}")]
    Lack(String),
    #[error("copy {path}")]
    Copy {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("what {0} needs is larger than 4 GiB")]
    TooLarge(String),
    #[error("keep the copy")]
    Keep(#[from] images::ImportError),
    #[error("the copy has {0} layers, not one")]
    Layers(usize),
    #[error("what copied it ended")]
    Ended,
    #[error("fetch the image {image}")]
    Fetch {
        image: String,
        #[source]
        source: images::PullError,
    },
    #[error("{image:?} is no image: {source}")]
    Image { image: String, source: images::ReferenceError },
}

/// The first program that a language needs and this machine has not got. One of an image needs none.
pub fn lack(language: &Language) -> Option<String> {
    language.root.needs.iter().find(|path| !Path::new(path).exists()).cloned()
}

/// Which version of a language the machine has, as its own program says; of an image, its name.
pub async fn version(language: &Language) -> String {
    if !language.root.image.is_empty() {
        return language.root.image.clone();
    }
    let Some((program, arguments)) = language.version.split_first() else { return String::new() };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let Ok(Ok(output)) = tokio::time::timeout(VERSION_DEADLINE, command.output()).await else { return String::new() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

/// What a copy of the language's files is called.
fn name(language: &Language) -> Reference {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", language.root));
    for need in &language.root.needs {
        if let Ok(path) = Path::new(need).canonicalize()
            && let Ok(metadata) = path.metadata()
        {
            hash.update(format!("{} {} {}", path.display(), metadata.len(), metadata.mtime()));
        }
    }
    let tag = hex::encode(&hash.finalize()[..8]);
    let text =
        format!("localhost/bramble/languages/{}:{tag}", language.name.to_ascii_lowercase().replace(['+', '#'], "x"));
    text.parse().expect("letters, digits and dashes are a name")
}

/// The copy, if it was made before.
pub fn found(store: &Store, language: &Language) -> Option<PathBuf> {
    store.find(&name(language))?.layers.into_iter().next()
}

/// Of the image that is the copy.
pub fn digest(store: &Store, language: &Language) -> Option<String> {
    store.find(&name(language)).map(|image| image.digest)
}

/// Makes the copy of a language that lacks nothing here, which takes seconds, or as long as an image takes to come. Of that is told how far it is.
pub async fn make(store: &Store, language: &Language, tell: impl Fn(String)) -> Result<PathBuf, RootError> {
    if !language.root.image.is_empty() {
        return of_image(store, language, tell).await;
    }
    let wanted = language.clone();
    let tree = tokio::task::spawn_blocking(move || tree(&wanted)).await.map_err(|_| RootError::Ended)??;
    only_layer(store.import_files(tree, &name(language)).await?)
}

fn only_layer(mut image: Image) -> Result<PathBuf, RootError> {
    match (image.layers.pop(), image.layers.len()) {
        (Some(root), 0) => Ok(root),
        (_, more) => Err(RootError::Layers(more + 1)),
    }
}

/// A copy of all that an image shows, whose own layers are for others again.
async fn of_image(store: &Store, language: &Language, tell: impl Fn(String)) -> Result<PathBuf, RootError> {
    let image = &language.root.image;
    let reference: Reference = image.parse().map_err(|source| RootError::Image { image: image.clone(), source })?;
    let was_here = store.find(&reference).is_some();
    let (progress, seen) = watch::channel(Progress::default());
    let mut pulling = std::pin::pin!(store.pull(&reference, Pull::Missing, progress));
    let pulled = loop {
        tokio::select! {
            pulled = &mut pulling => break pulled,
            () = tokio::time::sleep(TELL_EVERY) => {
                let Progress { bytes_done, bytes_total, .. } = *seen.borrow();
                tell(format!("fetching {image}: {} of {} MB", bytes_done >> 20, bytes_total >> 20));
            }
        }
    };
    let pulled = pulled.map_err(|source| RootError::Fetch { image: image.clone(), source })?;
    if pulled.size_bytes > COPY_BYTES_MAX {
        return Err(RootError::TooLarge(language.name.clone()));
    }
    tell(format!("copying {image}, once"));
    let made = store.import_merged(&pulled, usual_entries(), COPY_BYTES_MAX, &name(language)).await?;
    if !was_here && let Err(error) = store.remove(&reference).await {
        // Its layers stay until somebody removes it, and nothing else.
        tracing::warn!(image, %error, "an image that was copied cannot be let go of");
    }
    only_layer(made)
}

/// What every box has, whatever its language.
fn usual_entries() -> BTreeMap<PathBuf, Packed> {
    let folder = |path: &str| (path.into(), Packed::Folder { mode: if path == "/tmp" { 0o1777 } else { 0o755 } });
    let text = |(path, text): (&str, &'static str)| (path.into(), Packed::Text(text));
    FOLDERS.into_iter().map(folder).chain(TEXTS.into_iter().map(text)).collect()
}

/// What the language needs, by its paths.
fn tree(language: &Language) -> Result<BTreeMap<PathBuf, Packed>, RootError> {
    let mut tree = Tree { leaves: language.root.leaves.clone(), entries: BTreeMap::new(), bytes: 0 };
    for path in language.root.needs.iter().map(String::as_str).chain(BASE) {
        tree.add(Path::new(path))?;
    }
    for pattern in language.root.takes.iter().map(String::as_str).chain(BASE_TAKES) {
        for path in matching(pattern) {
            tree.add(&path)?;
        }
    }
    tree.add_libraries()?;
    if tree.bytes > COPY_BYTES_MAX {
        return Err(RootError::TooLarge(language.name.clone()));
    }
    let mut entries = tree.entries;
    entries.extend(usual_entries());
    Ok(entries)
}

/// Paths of this machine that a pattern means.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for folder in found {
            if !part.contains('*') {
                let path = folder.join(part);
                if path.symlink_metadata().is_ok() {
                    next.push(path);
                }
                continue;
            }
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let names = entries.flatten().map(|entry| entry.file_name());
            next.extend(
                names
                    .filter(|name| name.to_str().is_some_and(|name| is_like(name, part)))
                    .map(|name| folder.join(name)),
            );
        }
        found = next;
    }
    found.sort();
    found
}

/// What is to be packed, by its path on this machine, folders before what is in them.
struct Tree {
    leaves: Vec<String>,
    entries: BTreeMap<PathBuf, Packed>,
    bytes: u64,
}

impl Tree {
    /// Adds what is at the path, with all links on the way to it and all that is in it.
    fn add(&mut self, path: &Path) -> Result<(), RootError> {
        self.add_at(path, LINKS_MAX)
    }

    fn add_at(&mut self, path: &Path, links: u32) -> Result<(), RootError> {
        let failed = |source| RootError::Copy { path: path.to_owned(), source };
        if path.to_str().is_none_or(|text| self.leaves.iter().any(|pattern| is_like(text, pattern))) {
            return Ok(());
        }
        let mut at = PathBuf::from("/");
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            match part {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
                Component::ParentDir => {
                    at.pop();
                    continue;
                }
                Component::Normal(name) => at.push(name),
            }
            let metadata = match at.symlink_metadata() {
                Ok(metadata) => metadata,
                // A link to nothing is a link to nothing in a box, too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(failed(error)),
            };
            if metadata.is_symlink() {
                let target = std::fs::read_link(&at).map_err(failed)?;
                let mut whole = at.parent().unwrap_or(Path::new("/")).join(&target);
                whole.extend(parts);
                self.entries.insert(at, Packed::Link(target));
                let Some(links) = links.checked_sub(1) else { return Ok(()) };
                return self.add_at(&whole, links);
            }
            if metadata.is_dir() {
                let is_new = self.entries.insert(at.clone(), Packed::Folder { mode: 0o755 }).is_none();
                if parts.peek().is_none() && (is_new || path == at) {
                    return self.add_all_in(&at, links);
                }
            } else if metadata.is_file() {
                let executable = metadata.permissions().mode() & 0o111 != 0;
                let copy = Packed::Copy { from: at.clone(), executable };
                if self.entries.insert(at.clone(), copy).is_none() {
                    self.bytes += metadata.len();
                }
            }
        }
        Ok(())
    }

    fn add_all_in(&mut self, folder: &Path, links: u32) -> Result<(), RootError> {
        // A folder nobody may read is not for strangers either.
        let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
        for entry in entries.flatten() {
            let path = entry.path();
            if !self.entries.contains_key(&path) {
                self.add_at(&path, links)?;
            }
        }
        Ok(())
    }

    /// Adds the libraries of everything that is there.
    fn add_libraries(&mut self) -> Result<(), RootError> {
        let is_library = |path: &Path| path.to_str().is_some_and(|path| path.contains(".so"));
        let programs: Vec<PathBuf> = self
            .entries
            .iter()
            .filter(|(path, entry)| match entry {
                Packed::Copy { executable, .. } => *executable || is_library(path),
                Packed::Folder { .. } | Packed::Link(_) | Packed::Text(_) => false,
            })
            .map(|(path, _)| path.clone())
            .filter(|path| is_elf(path))
            .collect();
        let mut libraries = BTreeSet::new();
        for some in programs.chunks(ASKED_AT_ONCE) {
            // It fails when one of them is linked as a whole, and tells of the others all the same.
            let output =
                Command::new("ldd").args(some).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).output();
            let output = output.map_err(|source| RootError::Copy { path: "ldd".into(), source })?;
            libraries.extend(String::from_utf8_lossy(&output.stdout).lines().filter_map(library));
        }
        for library in libraries {
            self.add(&library)?;
        }
        Ok(())
    }
}

fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// The path in a line of `ldd`: `libc.so.6 => /lib/libc.so.6 (0x7f…)` or `/lib64/ld-linux.so.2 (0x7f…)`.
fn library(line: &str) -> Option<PathBuf> {
    let line = line.trim();
    let path = line.split_once("=> ").map_or(line, |(_, path)| path);
    let (path, _) = path.split_once(" (0x")?;
    path.starts_with('/').then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ldd_name_libraries() {
        let check =
            |line: &str, expected: Option<&str>| assert_eq!(library(line), expected.map(PathBuf::from), "{line}");
        check("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)", Some("/lib/x86_64-linux-gnu/libc.so.6"));
        check("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)", Some("/lib64/ld-linux-x86-64.so.2"));
        check("\tlinux-vdso.so.1 (0x00007ffc)", None);
        check("\tlibgone.so => not found", None);
        check("/usr/bin/python3:", None);
        check("\tstatically linked", None);
    }

    #[test]
    fn a_tree_has_links_and_what_they_lead_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("real/deep")).expect("made");
        std::fs::write(at("real/deep/file"), "x").expect("written");
        std::fs::write(at("real/left"), "x").expect("written");
        std::os::unix::fs::symlink("real", at("link")).expect("linked");
        std::os::unix::fs::symlink("loop", at("loop")).expect("linked");
        std::os::unix::fs::symlink("gone", at("real/nowhere")).expect("linked");
        let mut tree = Tree { leaves: vec!["*/left".to_owned()], entries: BTreeMap::new(), bytes: 0 };
        tree.add(&at("link/deep")).expect("added");
        tree.add(&at("real")).expect("added");
        tree.add(&at("loop")).expect("added");
        let names: Vec<String> = tree
            .entries
            .keys()
            .filter_map(|path| Some(path.strip_prefix(folder.path()).ok()?.to_str()?.to_owned()))
            .filter(|name| !name.is_empty())
            .collect();
        assert_eq!(names, ["link", "loop", "real", "real/deep", "real/deep/file", "real/nowhere"]);
        assert_eq!(tree.bytes, 1);
        assert_eq!(matching(&format!("{}/r*l/d*", folder.path().display())), [at("real/deep")]);
    }
}
