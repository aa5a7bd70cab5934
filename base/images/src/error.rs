//! What can go wrong with images, in words for the person who named one; whose fault it is; whether trying again helps.

use crate::unpack::UnpackError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use {path} as the image store")]
    Disk {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the image store {path} is in use by another process")]
    InUse { path: PathBuf },
    #[error("the image store {path} was written by a newer version ({found})")]
    Newer { path: PathBuf, found: String },
    #[error("cannot set up TLS for registries")]
    Tls {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{url:?} is not usable as the mirror of {registry}")]
    Mirror { registry: String, url: String },
}

impl OpenError {
    pub fn hint(&self) -> &'static str {
        match self {
            OpenError::Disk { .. } => "check that the folder can be made and written by this user",
            OpenError::InUse { .. } => "stop the other agent, or give this one a folder of its own",
            OpenError::Newer { .. } => "run the newer version, or remove the folder: images are pulled again",
            OpenError::Tls { .. } => "report this: the binary carries everything TLS needs",
            OpenError::Mirror { .. } => "write a base URL such as https://mirror.example.org",
        }
    }
}

/// Who can do something about a failed pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Whoever wrote the image's name or the credentials.
    Caller,
    /// The registry, or the network to it.
    Registry,
    /// Whoever built the image.
    Image,
    /// This machine: its disk, its architecture.
    Machine,
}

/// Why an image could not be had. Cheap to clone: several pulls may share one failed download.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    #[error("there is no image {reference}")]
    Unknown { reference: String },
    #[error("{registry} does not let us pull {reference}")]
    Unauthorized { registry: String, reference: String },
    #[error("{registry} cannot be reached: {why}")]
    Unreachable { registry: String, why: String },
    #[error("{registry} stopped answering while {what} was read: {why}")]
    Interrupted { registry: String, what: String, why: String },
    #[error("{registry} asks us to slow down")]
    RateLimited { registry: String },
    #[error("{registry} answered {status} when asked for {what}")]
    Refused { registry: String, what: String, status: u16 },
    #[error("{what} is damaged: asked for {expected}, got {found}")]
    DigestMismatch { what: String, expected: String, found: String },
    #[error("{what} is of the unsupported kind {media_type:?}")]
    UnsupportedMediaType { what: String, media_type: String },
    #[error("{reference} does not exist for {wanted}, only for {}", present.join(", "))]
    PlatformMissing { reference: String, wanted: String, present: Vec<String> },
    #[error("{what} is not well-formed: {why}")]
    Malformed { what: String, why: String },
    #[error("{what} is too large: more than {bound}")]
    TooLarge { what: String, bound: String },
    #[error("layer {digest} cannot be unpacked")]
    Layer {
        digest: String,
        #[source]
        source: Arc<UnpackError>,
    },
    #[error("{reference} is not on this machine")]
    NotHere { reference: String },
    #[error("the disk is full at {path}")]
    DiskFull { path: PathBuf },
    #[error("cannot write {path}")]
    Disk {
        path: PathBuf,
        #[source]
        source: Arc<std::io::Error>,
    },
}

impl PullError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            PullError::Unknown { .. } => "check the name and the tag for a typing error".to_owned(),
            PullError::Unauthorized { registry, .. } => {
                format!("the image may not exist, or it is private: give credentials for {registry}")
            }
            PullError::Unreachable { registry, .. } => {
                format!("check the name {registry}, and that this machine has a way out to it")
            }
            PullError::Interrupted { .. } => "try again: what has arrived is kept".to_owned(),
            PullError::RateLimited { registry } => {
                format!("wait, give credentials for {registry}, or configure a mirror")
            }
            PullError::Refused { registry, status, .. } if *status < 500 => {
                format!("check that {registry} is a registry and serves images under this name")
            }
            PullError::Refused { .. } => "this is the registry's own trouble: try again later".to_owned(),
            PullError::DigestMismatch { .. } => {
                "try again; if it stays so, the registry or a mirror serves altered content".to_owned()
            }
            PullError::UnsupportedMediaType { .. } => {
                "push the image again with a current tool, as a Docker v2 or OCI image".to_owned()
            }
            PullError::PlatformMissing { wanted, .. } => format!("use an image built for {wanted}"),
            PullError::Malformed { .. } => "push the image again, or tell its maker".to_owned(),
            PullError::TooLarge { .. } => "build a smaller image".to_owned(),
            PullError::Layer { source, .. } => source.hint().to_owned(),
            PullError::NotHere { .. } => "pull it first, or use another pull policy than never".to_owned(),
            PullError::DiskFull { .. } => "free some space, for example by pruning images".to_owned(),
            PullError::Disk { .. } => "check the disk and the folder's permissions".to_owned(),
        }
    }

    pub fn fault(&self) -> Fault {
        match self {
            PullError::Unknown { .. } | PullError::Unauthorized { .. } | PullError::NotHere { .. } => Fault::Caller,
            PullError::Unreachable { .. }
            | PullError::Interrupted { .. }
            | PullError::RateLimited { .. }
            | PullError::Refused { .. }
            | PullError::DigestMismatch { .. } => Fault::Registry,
            PullError::UnsupportedMediaType { .. }
            | PullError::PlatformMissing { .. }
            | PullError::Malformed { .. }
            | PullError::TooLarge { .. } => Fault::Image,
            PullError::Layer { source, .. } if source.is_disk() => Fault::Machine,
            PullError::Layer { .. } => Fault::Image,
            PullError::DiskFull { .. } | PullError::Disk { .. } => Fault::Machine,
        }
    }

    /// Whether the same pull may succeed later without anybody changing the image, its name or the credentials.
    pub fn is_retryable(&self) -> bool {
        match self {
            PullError::Unreachable { .. }
            | PullError::Interrupted { .. }
            | PullError::RateLimited { .. }
            | PullError::DigestMismatch { .. }
            | PullError::DiskFull { .. }
            | PullError::Disk { .. } => true,
            PullError::Refused { status, .. } => *status >= 500,
            PullError::Layer { source, .. } => source.is_disk(),
            PullError::Unknown { .. }
            | PullError::Unauthorized { .. }
            | PullError::UnsupportedMediaType { .. }
            | PullError::PlatformMissing { .. }
            | PullError::Malformed { .. }
            | PullError::TooLarge { .. }
            | PullError::NotHere { .. } => false,
        }
    }

    pub(crate) fn disk(path: &Path, source: std::io::Error) -> PullError {
        if is_full(&source) {
            return PullError::DiskFull { path: path.to_owned() };
        }
        PullError::Disk { path: path.to_owned(), source: Arc::new(source) }
    }

    /// Turns an unpacking failure into what a puller is told: a full disk is not the layer's fault.
    pub(crate) fn unpacking(digest: &str, path: &Path, source: UnpackError) -> PullError {
        if source.io().is_some_and(is_full) {
            return PullError::DiskFull { path: path.to_owned() };
        }
        if let UnpackError::TooLarge { bound } = &source {
            return PullError::TooLarge { what: format!("layer {digest}"), bound: bound.clone() };
        }
        PullError::Layer { digest: digest.to_owned(), source: Arc::new(source) }
    }
}

/// Why a name could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("{reference} is not on this machine")]
    NotHere { reference: String },
    #[error("cannot remove the record of {reference}")]
    Disk {
        reference: String,
        #[source]
        source: std::io::Error,
    },
}

impl RemoveError {
    pub fn hint(&self) -> &'static str {
        match self {
            RemoveError::NotHere { .. } => "list the images to see their names",
            RemoveError::Disk { .. } => "check the disk and the store folder's permissions",
        }
    }
}

/// Why a tarball did not become an image.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not an image: {why}")]
    NotAnImage { path: PathBuf, why: String },
    #[error("cannot import {path}")]
    Store {
        path: PathBuf,
        #[source]
        source: PullError,
    },
}

impl ImportError {
    pub fn hint(&self) -> String {
        match self {
            ImportError::Read { .. } => "check the path and its permissions".to_owned(),
            ImportError::NotAnImage { .. } => {
                "give an OCI layout, the output of `docker save`, or a root file system, as a tarball".to_owned()
            }
            ImportError::Store { source, .. } => source.hint(),
        }
    }
}

/// Why a `user[:group]` could not be turned into numbers.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("{spec:?} is not a user")]
    Malformed { spec: String },
    #[error("there is no user {name:?} in the image")]
    UnknownUser { name: String },
    #[error("there is no group {name:?} in the image")]
    UnknownGroup { name: String },
    #[error("cannot read {path} of the image")]
    Read {
        path: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl UserError {
    pub fn hint(&self) -> &'static str {
        match self {
            UserError::Malformed { .. } => "write user, uid, user:group or uid:gid",
            UserError::UnknownUser { .. } => "use a numeric uid, or a user of the image's /etc/passwd",
            UserError::UnknownGroup { .. } => "use a numeric gid, or a group of the image's /etc/group",
            UserError::Read { .. } => "pull the image again",
        }
    }
}

pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
