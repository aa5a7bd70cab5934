//! Turns `web/dist`, the built page, into a table of files inside the crate. Without a built page it embeds one that says
//! how to build it, so that `cargo build` alone always works and needs no Node.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::fs;
use std::hash::Hasher as _;
use std::io;
use std::path::{Path, PathBuf};

const UNBUILT: &str = "unbuilt.html";

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dist = root.join("web/dist");
    // Cargo takes a missing path for one that changed each time: an empty folder spares every build a rebuild. Where
    // the sources are read-only it stays missing, which costs time and breaks nothing.
    if !dist.exists() && fs::create_dir(&dist).is_err() {
        println!("cargo::warning=cannot create {}: the dashboard is embedded anew in each build", dist.display());
    }
    println!("cargo::rerun-if-changed=web/dist");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={UNBUILT}");

    let mut files = Vec::new();
    if dist.join("index.html").is_file() {
        collect(&dist, "", &mut files)?;
    } else {
        files.push(("index.html".to_owned(), root.join(UNBUILT)));
    }
    files.sort();
    fs::write(out_dir().join("files.rs"), table(&files)?)
}

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script where to write through the environment only")]
fn out_dir() -> PathBuf {
    PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"))
}

/// Every file below `folder`, with its path from `web/dist`, parts joined by `/`.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| io::Error::other(format!("{} is not a name in UTF-8", name.display())))?;
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else {
            files.push((path, entry.path()));
        }
    }
    Ok(())
}

/// The table as Rust, sorted by path so that it can be searched by halves.
fn table(files: &[(String, PathBuf)]) -> io::Result<String> {
    let mut out = String::from("static FILES: &[File] = &[\n");
    for (path, file) in files {
        let bytes = fs::read(file)?;
        // An entity tag must only differ when the bytes do; nobody gains from forging one of their own page.
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        let tag = format!("\"{:016x}-{:x}\"", hasher.finish(), bytes.len());
        writeln!(out, "    File {{ path: {path:?}, etag: {tag:?}, bytes: include_bytes!({file:?}) }},")
            .map_err(io::Error::other)?;
    }
    out.push_str("];\n");
    Ok(out)
}
