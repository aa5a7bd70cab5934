//! Small images made of this machine's own programs, so that tests need no network and no registry's goodwill.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Bytes and their digest.
#[derive(Debug, Clone)]
pub struct Blob {
    pub digest: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Image {
    pub manifest: Blob,
    pub config: Blob,
    pub layer: Blob,
}

fn blob(bytes: Vec<u8>) -> Blob {
    let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Blob { digest: format!("sha256:{hex}"), bytes }
}

/// The machine's shell and a few programs with the libraries they need, and a user `app` (1000). `config` is the
/// image's own: `Cmd`, `User`, `Env` and so on.
pub fn with_shell(config: Value) -> Image {
    let mut tar = tar::Builder::new(Vec::new());
    for folder in ["bin", "etc", "tmp", "root", "data", "proc", "dev", "sys", "run"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if folder == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        tar.append_data(&mut header, folder, std::io::empty()).expect("memory takes a folder");
    }
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/data:/bin/sh\n";
    file(&mut tar, Path::new("etc/passwd"), 0o644, passwd.as_bytes());
    file(&mut tar, Path::new("etc/group"), 0o644, b"root:x:0:\napp:x:1000:\n");
    let mut libraries = BTreeSet::new();
    for program in ["sh", "cat", "ls", "id", "stat", "sleep", "touch", "true", "date", "head"] {
        let path = found(program);
        libraries.extend(needed(&path));
        let bytes = std::fs::read(&path).expect("a program of this machine can be read");
        file(&mut tar, &Path::new("bin").join(program), 0o755, &bytes);
    }
    for library in libraries {
        let bytes = std::fs::read(&library).expect("a library of this machine can be read");
        file(&mut tar, library.strip_prefix("/").unwrap_or(&library), 0o755, &bytes);
    }
    assemble(blob(tar.into_inner().expect("memory takes an end")), config)
}

/// One program as `/bin/<name>` with the libraries it needs, folders to write to (`/data` is user `app`'s, 1000), and
/// nothing else. `config` is the image's own.
pub fn with_program(program: &Path, config: Value) -> Image {
    let mut tar = tar::Builder::new(Vec::new());
    for (folder, mode, user) in [("bin", 0o755, 0), ("etc", 0o755, 0), ("tmp", 0o1777, 0), ("data", 0o755, 1000)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_uid(user);
        header.set_gid(user);
        header.set_size(0);
        tar.append_data(&mut header, folder, std::io::empty()).expect("memory takes a folder");
    }
    file(&mut tar, Path::new("etc/passwd"), 0o644, b"root:x:0:0::/root:\napp:x:1000:1000::/data:\n");
    let name = program.file_name().expect("a program has a name");
    for library in needed(program) {
        let bytes = std::fs::read(&library).expect("a library of this machine can be read");
        file(&mut tar, library.strip_prefix("/").unwrap_or(&library), 0o755, &bytes);
    }
    let bytes = std::fs::read(program).expect("the program was just made");
    file(&mut tar, &Path::new("bin").join(name), 0o755, &bytes);
    assemble(blob(tar.into_inner().expect("memory takes an end")), config)
}

/// Just these files: path without the first `/`, mode, bytes.
pub fn of_files(files: &[(&str, u32, &[u8])], config: Value) -> Image {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, bytes) in files {
        file(&mut tar, Path::new(path), *mode, bytes);
    }
    assemble(blob(tar.into_inner().expect("memory takes an end")), config)
}

fn file(tar: &mut tar::Builder<Vec<u8>>, path: &Path, mode: u32, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes).expect("memory takes a file");
}

fn found(program: &str) -> PathBuf {
    ["/bin", "/usr/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("this machine has no {program}"))
}

/// The libraries a program is linked with, by `ldd`, the loader among them.
fn needed(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn assemble(layer: Blob, config: Value) -> Image {
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    });
    let config = blob(config.to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.bytes.len()},
        "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.bytes.len()}],
    });
    Image { manifest: blob(manifest.to_string().into_bytes()), config, layer }
}
