//! Why a space refuses or fails, whose fault it is, and what to do.

use std::sync::Arc;
use storage::replicated::ProposeError;

/// Why something asked of a space did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpaceError {
    #[error("a key is empty")]
    KeyEmpty,
    #[error("key {key:?} is longer than {max} bytes")]
    KeyTooLong { key: String, max: usize },
    #[error("the value of {key:?} is larger than {max} bytes")]
    ValueTooLarge { key: String, max: usize },
    #[error("a transaction has more than {max} compares and operations")]
    TooManyOperations { max: usize },
    #[error("the ranges of a transaction hold more than {max} keys")]
    TooManyKeys { max: usize },
    #[error("a transaction is larger than {max} bytes")]
    TransactionTooLarge { max: usize },
    #[error("a transaction changes {key:?} twice")]
    DuplicateKey { key: String },
    #[error("write {key:?} as json")]
    NotWritable {
        key: String,
        #[source]
        source: Arc<serde_json::Error>,
    },
    #[error("read {key:?} as json")]
    NotJson {
        key: String,
        #[source]
        source: Arc<serde_json::Error>,
    },
    #[error("lease {id} does not exist")]
    LeaseNotFound { id: u64 },
    #[error("a lease lasts from {min_ms} to {max_ms} ms")]
    LeaseDuration { min_ms: u64, max_ms: u64 },
    #[error("a lease with this id exists")]
    LeaseExists,
    #[error("a key of which something is to be kept does not exist")]
    KeyNotFound,
    #[error("an answer is larger than {max} bytes")]
    AnswerTooLarge { max: usize },
    #[error("the space holds its maximum of {max} bytes")]
    SpaceFull { max: usize },
    #[error("the disk is full")]
    DiskFull,
    #[error("the space was not reached")]
    Unavailable(#[source] ProposeError),
    #[error("a member answered with something else: {0}")]
    Protocol(&'static str),
}

impl SpaceError {
    /// What to do about it, a sentence for people.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::KeyEmpty | Self::KeyTooLong { .. } => "use a shorter, non-empty name",
            Self::ValueTooLarge { .. } => "keep large contents elsewhere and store a reference to them",
            Self::TooManyOperations { .. } | Self::TooManyKeys { .. } | Self::TransactionTooLarge { .. } => {
                "split the change into several"
            }
            Self::DuplicateKey { .. } => "put or delete each key once per transaction",
            Self::NotWritable { .. } => "the value cannot be expressed in json; this is a defect",
            Self::NotJson { .. } => "the stored value is not what this version expects; was it written by a newer one?",
            Self::LeaseNotFound { .. } => "grant a new lease: the old one has expired or was revoked",
            Self::LeaseDuration { .. } => "choose a duration within the limits",
            Self::LeaseExists => "choose another id, or none",
            Self::KeyNotFound => "give the value and the lease, or put the key first",
            Self::AnswerTooLarge { .. } => "ask for a part, with a limit",
            Self::SpaceFull { .. } => "remove stacks or old revisions that are no longer needed",
            Self::DiskFull => {
                "free space on the disk that holds the data directory; reading goes on, nothing acknowledged is lost"
            }
            Self::Unavailable(cause) => cause.hint(),
            Self::Protocol(_) => "bring all machines to the same version",
        }
    }

    /// Whether the same request may succeed later without anyone changing it.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::DiskFull | Self::SpaceFull { .. } | Self::Unavailable(_) => true,
            Self::KeyEmpty
            | Self::KeyTooLong { .. }
            | Self::ValueTooLarge { .. }
            | Self::TooManyOperations { .. }
            | Self::TooManyKeys { .. }
            | Self::TransactionTooLarge { .. }
            | Self::DuplicateKey { .. }
            | Self::NotWritable { .. }
            | Self::NotJson { .. }
            | Self::LeaseNotFound { .. }
            | Self::LeaseDuration { .. }
            | Self::LeaseExists
            | Self::KeyNotFound
            | Self::AnswerTooLarge { .. }
            | Self::Protocol(_) => false,
        }
    }
}

impl From<ProposeError> for SpaceError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::DiskFull => Self::DiskFull,
            ProposeError::NoLeader
            | ProposeError::Busy { .. }
            | ProposeError::Unanswered { .. }
            | ProposeError::Stopped { .. } => Self::Unavailable(error),
        }
    }
}

/// Why a watch cannot go on. In each case: list again, and watch from there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The revision asked for is older than the history kept; `at` is the oldest that can be watched from.
    #[error("watch: history before revision {at} is gone")]
    Compacted { at: u64 },
    /// The watcher read so slowly that the history it had not yet seen is gone.
    #[error("watch: fell behind the history that is kept")]
    Lagged,
    /// The space has been closed.
    #[error("watch: the space is closed")]
    Closed,
}
