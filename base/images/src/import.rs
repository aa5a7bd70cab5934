//! Images from files: an OCI layout, what `docker save` writes, or a plain root file system, as a tarball of any
//! compression.
//!
//! An image tarball is first laid out in a workspace by the same careful unpacking as a layer; a root file system is
//! taken as the one layer of an image without configuration.

use crate::compression::uncompressed;
use crate::digest::{Digest, Hasher};
use crate::error::{ImportError, PullError};
use crate::manifest::{
    self, Descriptor, Document, INDEX_DEPTH_MAX, ImageConfig, MANIFEST_BYTES_MAX, Manifest, Platform, choose,
    parse_configuration,
};
use crate::merged;
use crate::pull::plan;
use crate::reference::{Reference, TAG_DEFAULT};
use crate::share::{Cancel, unpack};
use crate::store::{Inner, Store};
use crate::tape::Tape;
use crate::unpack::{Limits, unpack as unpack_archive};
use crate::{Image, Ownership, layer};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const COPY_BYTES: usize = 256 << 10;

/// What a tarball turned out to be.
enum Shape {
    Oci,
    DockerSave,
    /// With the digest of its uncompressed content.
    RootFileSystem(Digest),
}

/// An image found in a tarball, ready to become layers.
struct Contents {
    digest: Digest,
    config: ImageConfig,
    /// Content digest and archive of each layer, bottom first.
    layers: Vec<(Digest, PathBuf)>,
}

/// `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    layers: Vec<String>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

/// Removes the workspace however the import ends.
pub(crate) struct Workspace(pub(crate) PathBuf);

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = layer::remove(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "cannot remove an import's workspace");
        }
    }
}

impl Store {
    /// Makes an image of a tarball under the name given, without its digest if it has one.
    pub async fn import_tarball(&self, path: &Path, name: &Reference) -> Result<Image, ImportError> {
        // A digest in the name would promise content that nobody has checked.
        let tag = name.tag.clone().or_else(|| Some(TAG_DEFAULT.to_owned()));
        let name = &Reference { digest: None, tag, ..name.clone() };
        let stored = |source| ImportError::Store { path: path.to_owned(), source };
        let failed = |source| stored(PullError::disk(path, source));
        let workspace = Workspace(self.inner.layers.workspace().map_err(failed)?);
        let cancel = Cancel(Arc::new(AtomicBool::new(false)));
        let (archive, wanted, cancelled) = (path.to_owned(), name.clone(), cancel.0.clone());
        let read = tokio::task::spawn_blocking(move || {
            let contents = contents(&archive, &workspace.0, &wanted, &cancelled)?;
            Ok((contents, workspace))
        });
        let (contents, workspace) = read.await.map_err(|error| failed(io::Error::other(error)))??;
        let diff_ids: Vec<Digest> = contents.layers.iter().map(|(diff_id, _)| diff_id.clone()).collect();
        let pin = self.inner.pin(&diff_ids);
        let image = add(&self.inner, name, contents).await.map_err(stored);
        drop(pin);
        // Removing thousands of files blocks.
        let _ = tokio::task::spawn_blocking(move || drop(workspace)).await;
        image
    }
}

async fn add(inner: &Arc<Inner>, name: &Reference, contents: Contents) -> Result<Image, PullError> {
    for (diff_id, archive) in &contents.layers {
        unpack(inner, diff_id, archive).await?;
    }
    let diff_ids = contents.layers.into_iter().map(|(diff_id, _)| diff_id).collect();
    inner.finish(name, contents.digest, diff_ids, contents.config).await
}

/// Finds out what the tarball is and where its layers are. Blocks for long.
fn contents(archive: &Path, work: &Path, name: &Reference, cancelled: &AtomicBool) -> Result<Contents, ImportError> {
    let read = |source| ImportError::Read { path: archive.to_owned(), source };
    let not_an_image = |why: String| ImportError::NotAnImage { path: archive.to_owned(), why };
    let shape = match shape(archive).map_err(read)? {
        Ok(shape) => shape,
        Err(why) => return Err(not_an_image(why)),
    };
    if let Shape::RootFileSystem(diff_id) = shape {
        let digest = Digest::of(format!("rootfs {diff_id}").as_bytes());
        let layers = vec![(diff_id, archive.to_owned())];
        return Ok(Contents { digest, config: ImageConfig::default(), layers });
    }
    let file = File::open(archive).map_err(read)?;
    let limits = Limits::for_archive(file.metadata().map_err(read)?.len());
    let reader = BufReader::with_capacity(COPY_BYTES, file);
    unpack_archive(reader, work, Ownership::Mine, &limits, cancelled).map_err(|source| ImportError::Store {
        path: archive.to_owned(),
        source: PullError::unpacking("tarball", work, source),
    })?;
    let found = if matches!(shape, Shape::Oci) { oci(work, name) } else { docker_save(work, name) };
    match found {
        Ok(contents) => Ok(contents),
        Err(source @ (PullError::Disk { .. } | PullError::PlatformMissing { .. })) => {
            Err(ImportError::Store { path: archive.to_owned(), source })
        }
        Err(other) => Err(not_an_image(other.to_string())),
    }
}

/// Reads the whole tarball once. The inner error says why it is no tarball.
fn shape(archive: &Path) -> io::Result<Result<Shape, String>> {
    let reader = BufReader::with_capacity(COPY_BYTES, File::open(archive)?);
    let mut tape = Tape::new(Hashed { inner: uncompressed(reader)?, hasher: Hasher::new() });
    let (mut entries, mut oci, mut saved) = (0, false, false);
    loop {
        let entry = match tape.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => return Ok(Err(error.to_string())),
        };
        entries += 1;
        match entry.path.strip_prefix(b"./").unwrap_or(&entry.path) {
            b"oci-layout" => oci = true,
            b"manifest.json" => saved = true,
            _ => {}
        }
    }
    if let Err(error) = tape.finish() {
        return Ok(Err(error.to_string()));
    }
    Ok(match (oci, saved) {
        _ if entries == 0 => Err("it holds no files".to_owned()),
        (true, _) => Ok(Shape::Oci),
        (false, true) => Ok(Shape::DockerSave),
        (false, false) => Ok(Shape::RootFileSystem(tape.into_inner().hasher.finish())),
    })
}

struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(out)?;
        self.hasher.update(&out[..got]);
        Ok(got)
    }
}

fn oci(work: &Path, name: &Reference) -> Result<Contents, PullError> {
    let what = name.to_string();
    let malformed = |why: &str| PullError::Malformed { what: what.clone(), why: why.to_owned() };
    let mut bytes = small_file(work, "index.json")?.ok_or_else(|| malformed("it has no index.json"))?;
    let mut digest = None;
    for _ in 0..INDEX_DEPTH_MAX {
        let manifest = match manifest::parse(&what, None, &bytes)? {
            Document::Index(entries) => {
                let entry = choose(&what, &named(&entries, name), &Platform::here())?;
                bytes = small_blob(work, &what, &entry.digest)?;
                // `index.json` is the tarball's own; what it lists is what was pushed or built.
                digest.get_or_insert(entry.digest);
                continue;
            }
            Document::Image(manifest) => manifest,
        };
        let configuration = parse_configuration(&what, &small_blob(work, &what, &manifest.config.digest)?)?;
        configuration.check_platform(&what, &Platform::here())?;
        let plan = plan(&what, &manifest, configuration.diff_ids)?;
        let archives = plan.blobs.iter().map(|blob| extracted(work, &what, &blob_path(&blob.digest)));
        let archives: Result<Vec<PathBuf>, PullError> = archives.collect();
        return Ok(Contents {
            digest: digest.unwrap_or_else(|| Digest::of(&bytes)),
            config: configuration.config,
            layers: plan.diff_ids.into_iter().zip(archives?).collect(),
        });
    }
    Err(malformed("it is an index of indexes without end"))
}

/// The entries that carry the name asked for, or all of them when none does.
fn named(entries: &[Descriptor], name: &Reference) -> Vec<Descriptor> {
    let carries = |entry: &&Descriptor| {
        let annotation = |key: &str| entry.annotations.as_ref().and_then(|annotations| annotations.get(key));
        annotation("io.containerd.image.name").is_some_and(|full| *full == name.to_string())
            || annotation("org.opencontainers.image.ref.name").is_some_and(|tag| Some(tag) == name.tag.as_ref())
    };
    let found: Vec<Descriptor> = entries.iter().filter(carries).cloned().collect();
    if found.is_empty() { entries.to_vec() } else { found }
}

fn docker_save(work: &Path, name: &Reference) -> Result<Contents, PullError> {
    let what = name.to_string();
    let malformed = |why: String| PullError::Malformed { what: what.clone(), why };
    let bytes = small_file(work, "manifest.json")?.ok_or_else(|| malformed("it has no manifest.json".to_owned()))?;
    let images: Vec<SavedImage> = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let carries = |image: &&SavedImage| {
        let tags = image.repo_tags.iter().flatten();
        tags.filter_map(|tag| tag.parse::<Reference>().ok()).any(|tag| tag == *name)
    };
    let image = images.iter().find(carries).or(images.first());
    let image = image.ok_or_else(|| malformed("it lists no image".to_owned()))?;
    let config = small_file(work, &image.config)?.ok_or_else(|| malformed(format!("it lacks {}", image.config)))?;
    let configuration = parse_configuration(&what, &config)?;
    configuration.check_platform(&what, &Platform::here())?;
    if image.layers.len() != configuration.diff_ids.len() {
        return Err(malformed("its layers and its configuration disagree".to_owned()));
    }
    // The archives' own digests are not said; what counts is their content's, which unpacking checks.
    let blob = |diff_id: &Digest| Descriptor {
        media_type: String::new(),
        digest: diff_id.clone(),
        size: 0,
        platform: None,
        annotations: None,
    };
    let layers = configuration.diff_ids.iter().map(blob).collect();
    let paths = configuration.diff_ids.iter().zip(&image.layers).collect::<std::collections::BTreeMap<_, _>>();
    let manifest = Manifest { config: blob(&Digest::of(&config)), layers };
    let plan = plan(&what, &manifest, configuration.diff_ids.clone())?;
    let layers: Result<Vec<(Digest, PathBuf)>, PullError> = plan
        .diff_ids
        .into_iter()
        .map(|diff_id| extracted(work, &what, paths[&diff_id]).map(|archive| (diff_id, archive)))
        .collect();
    Ok(Contents { digest: Digest::of(&config), config: configuration.config, layers: layers? })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn small_blob(work: &Path, what: &str, digest: &Digest) -> Result<Vec<u8>, PullError> {
    let missing = || PullError::Malformed { what: what.to_owned(), why: format!("it lacks {digest}") };
    let bytes = small_file(work, &blob_path(digest))?.ok_or_else(missing)?;
    let found = Digest::of(&bytes);
    if found == *digest {
        return Ok(bytes);
    }
    Err(PullError::DigestMismatch { what: what.to_owned(), expected: digest.to_string(), found: found.to_string() })
}

/// A file of the laid-out tarball, by way of its own links only.
fn small_file(work: &Path, path: &str) -> Result<Option<Vec<u8>>, PullError> {
    let disk = |error| PullError::disk(work, error);
    let Some(file) = merged::open(&[work], path.as_bytes()).map_err(disk)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(disk)?;
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(PullError::TooLarge { what: path.to_owned(), bound: format!("{} MiB", MANIFEST_BYTES_MAX >> 20) });
    }
    Ok(Some(bytes))
}

/// Where a laid-out layer archive really lies. `docker save` of older versions links equal layers to each other.
fn extracted(work: &Path, what: &str, path: &str) -> Result<PathBuf, PullError> {
    let disk = |error| PullError::disk(work, error);
    let missing = || PullError::Malformed { what: what.to_owned(), why: format!("it lacks {path}") };
    let file = merged::open(&[work], path.as_bytes()).map_err(disk)?.ok_or_else(missing)?;
    // The descriptor was opened inside the workspace; its path is asked of the kernel.
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(disk)
}
