//! The image store: images from any OCI registry, unpacked so that a box can mount them.
//!
//! Owns the distribution protocol, layers, unpacking and garbage collection. Promises that an image it hands out is
//! complete, checked against its digests and on disk; that nothing in an image reaches outside its own folders; and
//! that whatever is interrupted goes on where it was. Never knows of containers: callers say what is in use.

mod auth;
mod compression;
mod digest;
mod download;
mod error;
mod import;
mod layer;
mod manifest;
mod merged;
mod owners;
mod pack;
mod pull;
mod record;
mod reference;
mod registry;
mod seed;
mod share;
mod store;
mod tape;
mod tree;
mod trust;
mod unpack;
mod user;

pub use error::{Fault, ImportError, OpenError, PullError, RemoveError, UserError};
pub use manifest::{Healthcheck, ImageConfig};
pub use pack::Packed;
pub use reference::{Reference, ReferenceError};
pub use store::Store;
pub use unpack::UnpackError;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Downloads at the same time, as Docker does: more only makes a home line stall.
pub const LAYERS_AT_ONCE_DEFAULT: usize = 3;

/// How a store behaves.
#[derive(Debug, Clone)]
pub struct Config {
    pub ownership: Ownership,
    /// Base URL by registry, tried before the registry itself: `docker.io` → `https://mirror.example.org`.
    pub mirrors: BTreeMap<String, String>,
    /// By registry (or mirror host), as it stands in a reference: `docker.io`, `localhost:5000`.
    pub credentials: BTreeMap<String, Credentials>,
    pub layers_at_once: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            ownership: Ownership::Mine,
            mirrors: BTreeMap::new(),
            credentials: BTreeMap::new(),
            layers_at_once: LAYERS_AT_ONCE_DEFAULT,
        }
    }
}

/// Whom unpacked files belong to. Overlayfs lets a box change only files whose owner is mapped into its user
/// namespace, so this follows from how boxes are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// As the image says. For host root without a user namespace.
    Keep,
    /// An image's id `n` is the host's `base + n`; ids from `count` on become nobody. For host root.
    Shift { base: u32, count: u32 },
    /// Everything belongs to whoever runs the store, and set-user-id bits are dropped. Needs no privileges.
    Mine,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// When a registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// Every time: a tag may have moved.
    Always,
    /// Only when the image is not here.
    Missing,
    Never,
}

/// How far a pull is. Bytes are those of the compressed layers, with what was there already counted as done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub step: Step,
    pub layers_done: usize,
    pub layers_total: usize,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Step {
    /// Asking the registry what the name stands for.
    #[default]
    Asking,
    /// Layers are downloaded and unpacked.
    Fetching,
    Done,
}

/// An image that is here as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Of what the reference named: of the index, where there is one, so that it is the same on every architecture.
    pub digest: String,
    /// Complete, as `docker.io/library/nginx:latest`.
    pub reference: String,
    /// Unpacked folders, bottom first, for overlayfs with `userxattr`. Each once; never empty of meaning, but the list
    /// may be.
    pub layers: Vec<PathBuf>,
    pub config: ImageConfig,
    /// Of the unpacked files.
    pub size_bytes: u64,
}

/// A line of [`Store::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `None`: the name was removed or moved on, the image awaits pruning.
    pub reference: Option<String>,
    pub digest: String,
    pub layers: usize,
    pub size_bytes: u64,
    pub pulled_ms: u64,
}

/// What [`Store::prune`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Digests.
    pub images: Vec<String>,
    pub layers: usize,
    pub freed_bytes: u64,
}
