//! What the store remembers: images by digest, and the names that point to them. One JSON file each.
//!
//! Promises that a record is on disk before it is known, and that a damaged one costs a new pull, never a start.

use crate::digest::Digest;
use crate::manifest::ImageConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Of the files below. A later format reads this one; an older program refuses a later store as a whole.
const RECORD_VERSION: u32 = 1;

/// An image: what its digest means on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    version: u32,
    /// Of what the reference named: the index, if it has one, so that it is the same on every architecture.
    pub(crate) digest: Digest,
    /// Content digests, bottom first, each once.
    pub(crate) layers: Vec<Digest>,
    pub(crate) config: ImageConfig,
    pub(crate) size_bytes: u64,
}

/// A name and the image it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    version: u32,
    /// Canonical: see `Reference`'s `Display`.
    pub(crate) reference: String,
    pub(crate) digest: Digest,
    pub(crate) pulled_ms: u64,
}

impl ImageRecord {
    pub(crate) fn new(digest: Digest, layers: Vec<Digest>, config: ImageConfig, size_bytes: u64) -> ImageRecord {
        ImageRecord { version: RECORD_VERSION, digest, layers, config, size_bytes }
    }
}

impl NameRecord {
    pub(crate) fn new(reference: String, digest: Digest, pulled_ms: u64) -> NameRecord {
        NameRecord { version: RECORD_VERSION, reference, digest, pulled_ms }
    }
}

/// All records, in memory and on disk.
pub(crate) struct Records {
    images_folder: PathBuf,
    names_folder: PathBuf,
    pub(crate) images: BTreeMap<Digest, ImageRecord>,
    pub(crate) names: BTreeMap<String, NameRecord>,
}

impl Records {
    pub(crate) fn open(root: &Path) -> io::Result<Records> {
        let (images_folder, names_folder) = (root.join("images"), root.join("names"));
        fs::create_dir_all(&images_folder)?;
        fs::create_dir_all(&names_folder)?;
        let images = read_all(&images_folder, |record: &ImageRecord| record.digest.clone(), |record| record.version)?;
        let mut names: BTreeMap<String, NameRecord> =
            read_all(&names_folder, |record: &NameRecord| record.reference.clone(), |record| record.version)?;
        names.retain(|_, name| images.contains_key(&name.digest));
        Ok(Records { images_folder, names_folder, images, names })
    }

    /// Writes the image first: a name never points to nothing.
    pub(crate) fn add(&mut self, image: ImageRecord, name: NameRecord) -> io::Result<()> {
        if self.images.get(&image.digest) != Some(&image) {
            write(&self.image_path(&image.digest), &image)?;
            self.images.insert(image.digest.clone(), image);
        }
        write(&self.name_path(&name.reference), &name)?;
        self.names.insert(name.reference.clone(), name);
        Ok(())
    }

    /// Whether the name was there.
    pub(crate) fn remove_name(&mut self, reference: &str) -> io::Result<bool> {
        if !self.names.contains_key(reference) {
            return Ok(false);
        }
        delete(&self.name_path(reference))?;
        self.names.remove(reference);
        Ok(true)
    }

    /// Forgets an image and all its names.
    pub(crate) fn remove_image(&mut self, digest: &Digest) -> io::Result<()> {
        let names: Vec<String> =
            self.names.values().filter(|name| name.digest == *digest).map(|name| name.reference.clone()).collect();
        for name in names {
            self.remove_name(&name)?;
        }
        delete(&self.image_path(digest))?;
        self.images.remove(digest);
        Ok(())
    }

    fn image_path(&self, digest: &Digest) -> PathBuf {
        self.images_folder.join(format!("{}.json", digest.short()))
    }

    /// References hold characters that file names may not, so their digest names the file.
    fn name_path(&self, reference: &str) -> PathBuf {
        self.names_folder.join(format!("{}.json", Digest::of(reference.as_bytes()).short()))
    }
}

fn read_all<K: Ord, T: DeserializeOwned>(
    folder: &Path,
    key: impl Fn(&T) -> K,
    version: impl Fn(&T) -> u32,
) -> io::Result<BTreeMap<K, T>> {
    let mut records = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            // A record that was being written when the power went.
            fs::remove_file(&path)?;
            continue;
        }
        match serde_json::from_slice::<T>(&fs::read(&path)?) {
            Ok(record) if version(&record) <= RECORD_VERSION => {
                records.insert(key(&record), record);
            }
            Ok(_) => tracing::warn!(path = %path.display(), "a record of a later version is left alone"),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a damaged image record is forgotten");
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(records)
}

/// Whole or not at all, and on disk when this returns.
fn write(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec_pretty(record).expect("a record is plain data");
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().expect("a record lies in a folder");
    File::open(parent)?.sync_all()
}
