//! Why an instance cannot be built, and why the agent cannot start.

use std::path::PathBuf;

/// Why a box could not be made ready for an instance.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("image {reference:?} is not a reference")]
    Reference {
        reference: String,
        #[source]
        source: images::ReferenceError,
    },
    #[error("pull {reference}")]
    Pull {
        reference: String,
        #[source]
        source: images::PullError,
    },
    #[error("user {user:?} does not exist in the image")]
    User { user: String },
    #[error("group {group:?} of `group_add` does not exist in the image")]
    Group { group: String },
    #[error("neither the stack file nor the image names a program to run")]
    NoProgram,
    #[error("make folder {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("config or secret {source_name} is not base 64")]
    Content { source_name: String },
    #[error("{0}")]
    Box(#[from] sandbox::StartError),
}

/// Why the agent cannot start on this machine.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    #[error("make folder {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("list {path}")]
    List {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}
