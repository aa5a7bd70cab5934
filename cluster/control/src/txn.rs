//! Transactions: compares, and what happens when all of them hold or one does not. Validated here, decided in
//! [`crate::state`]. The shape is etcd's, so that its API can be served from the same words.

use crate::{Entry, Range, SpaceError, nested};
use serde::Serialize;
use std::sync::Arc;

/// A key is a path of names; etcd's users stay far below it.
pub const KEY_BYTES_MAX: usize = 1024;
/// One resource; etcd's bound on a request. Larger contents belong into blobs, with a reference here.
pub const VALUE_BYTES_MAX: usize = 1536 * 1024;
/// etcd's default bound on the compares, and on the operations of either branch, of one transaction.
pub const OPERATIONS_MAX: usize = 128;
/// One transaction is one log entry: it has to fit the log's segments and the members' messages with room to spare.
pub const TRANSACTION_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What several ranges of one transaction may hold together: each key is looked at while nobody else reads or writes, some tens
/// of milliseconds for all of these. A range alone may be all there is, as it may in a request of its own.
pub const RANGED_KEYS_MAX: usize = 256 * 1024;

/// What a compare looks at. A key that does not exist has 0 for every number and no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    ModRevision(u64),
    CreateRevision(u64),
    Version(u64),
    /// 0 is no lease.
    Lease(u64),
    Value(Arc<[u8]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Equal,
    NotEqual,
    Less,
    Greater,
}

/// One condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub key: String,
    /// Of every key from `key` up to here, if it is given. Where there is none, it is as for one that does not exist.
    pub end: Option<String>,
    pub relation: Relation,
    pub target: Target,
}

impl Compare {
    /// Holds while `key` was last changed at `revision`; 0: while it does not exist.
    pub fn mod_revision(key: impl Into<String>, revision: u64) -> Self {
        Self { key: key.into(), end: None, relation: Relation::Equal, target: Target::ModRevision(revision) }
    }

    /// Holds while `key` does not exist.
    pub fn absent(key: impl Into<String>) -> Self {
        Self::mod_revision(key, 0)
    }

    /// Holds while `key` exists.
    pub fn exists(key: impl Into<String>) -> Self {
        Self { key: key.into(), end: None, relation: Relation::NotEqual, target: Target::ModRevision(0) }
    }

    /// Holds while `key` has this value.
    pub fn value(key: impl Into<String>, value: impl Into<Arc<[u8]>>) -> Self {
        Self { key: key.into(), end: None, relation: Relation::Equal, target: Target::Value(value.into()) }
    }
}

/// One thing a transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Put {
        key: String,
        value: Arc<[u8]>,
        lease: Option<u64>,
    },
    Delete {
        key: String,
    },
    /// Deletes every key that starts with `prefix`, which is not empty.
    DeletePrefix {
        prefix: String,
    },
    Get {
        key: String,
    },
    List {
        prefix: String,
    },
    /// Reads at most `limit` entries of a range, and how many keys it has.
    Range {
        range: Range,
        limit: usize,
    },
    /// Deletes a range. With `tell` the outcome holds what was there.
    DeleteRange {
        range: Range,
        tell: bool,
    },
    /// Puts what is given and keeps the rest as it was; a key of which something is to be kept has to exist. With `tell`
    /// the outcome holds what was there.
    Replace {
        key: String,
        value: Option<Arc<[u8]>>,
        lease: Leasing,
        tell: bool,
    },
    /// A transaction within: its compares look at what was there before the whole of it.
    Nested(Box<Nested>),
}

/// What becomes of a key's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leasing {
    Set(Option<u64>),
    Keep,
}

/// A transaction as a part of another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nested {
    pub compares: Vec<Compare>,
    pub success: Vec<Operation>,
    pub failure: Vec<Operation>,
}

impl Operation {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Get { key } => key,
            Self::DeletePrefix { prefix } | Self::List { prefix } => prefix,
            Self::Replace { key, .. } => key,
            Self::Range { range, .. } | Self::DeleteRange { range, .. } => &range.start,
            Self::Nested(_) => "",
        }
    }
}

/// Changes that happen together, at one revision, if all compares hold; otherwise the `otherwise` ones do.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    pub(crate) compares: Vec<Compare>,
    pub(crate) success: Vec<Operation>,
    pub(crate) failure: Vec<Operation>,
    /// The first thing that went wrong while building, told at commit so that building reads as a chain.
    broken: Option<SpaceError>,
}

impl Txn {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition; all must hold.
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    pub fn put(self, key: impl Into<String>, value: impl Into<Arc<[u8]>>) -> Self {
        self.and(Operation::Put { key: key.into(), value: value.into(), lease: None })
    }

    /// Puts `value` as JSON. A value that cannot be written makes the commit fail with
    /// [`SpaceError::NotWritable`].
    pub fn put_json<T: Serialize + ?Sized>(mut self, key: impl Into<String>, value: &T) -> Self {
        let key = key.into();
        match serde_json::to_vec(value) {
            Ok(bytes) => self.put(key, bytes),
            Err(error) => {
                self.broken.get_or_insert(SpaceError::NotWritable { key, source: Arc::new(error) });
                self
            }
        }
    }

    /// Puts a key that is deleted when `lease` ends.
    pub fn put_leased(self, key: impl Into<String>, value: impl Into<Arc<[u8]>>, lease: u64) -> Self {
        self.and(Operation::Put { key: key.into(), value: value.into(), lease: Some(lease) })
    }

    pub fn delete(self, key: impl Into<String>) -> Self {
        self.and(Operation::Delete { key: key.into() })
    }

    pub fn delete_prefix(self, prefix: impl Into<String>) -> Self {
        self.and(Operation::DeletePrefix { prefix: prefix.into() })
    }

    /// Reads `key` as it is after the operations before it; the answer is in [`Committed::replies`].
    pub fn get(self, key: impl Into<String>) -> Self {
        self.and(Operation::Get { key: key.into() })
    }

    /// Adds an operation for the case that all compares hold.
    pub fn and(mut self, operation: Operation) -> Self {
        self.success.push(operation);
        self
    }

    /// Adds an operation for the case that a compare does not hold.
    pub fn otherwise(mut self, operation: Operation) -> Self {
        self.failure.push(operation);
        self
    }

    /// Reads `key` if a compare does not hold: what was there instead, without a second request.
    pub fn otherwise_get(self, key: impl Into<String>) -> Self {
        self.otherwise(Operation::Get { key: key.into() })
    }

    /// Whether the transaction keeps the bounds.
    pub(crate) fn check(&self) -> Result<(), SpaceError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        nested::check(&self.compares, &self.success, &self.failure)
    }

    pub(crate) fn told(&self) -> Vec<(Range, usize)> {
        nested::told(&self.success, &self.failure)
    }

    pub(crate) fn ranges(&self) -> Vec<Range> {
        nested::ranges(&self.compares, &self.success, &self.failure)
    }
}

pub(crate) fn check_key(key: &str) -> Result<(), SpaceError> {
    if key.is_empty() {
        return Err(SpaceError::KeyEmpty);
    }
    if key.len() > KEY_BYTES_MAX {
        let start = key.chars().take(40).collect::<String>();
        return Err(SpaceError::KeyTooLong { key: format!("{start}…"), max: KEY_BYTES_MAX });
    }
    Ok(())
}

pub(crate) fn check_value(key: &str, value: &[u8]) -> Result<(), SpaceError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(SpaceError::ValueTooLarge { key: key.to_owned(), max: VALUE_BYTES_MAX });
    }
    Ok(())
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Whether all compares held.
    pub succeeded: bool,
    /// The revision after it: its own if it changed something, otherwise the latest one.
    pub revision: u64,
    /// The answers of the branch taken, one per `Get` or `List`, in order.
    pub replies: Vec<Vec<Entry>>,
    /// The answers to its operations on ranges, its replacements and what is nested in it, one for each, in order.
    pub outcomes: Vec<Outcome>,
}

/// What an operation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Of [`Operation::Range`].
    Ranged { entries: Vec<Entry>, count: u64 },
    /// Of [`Operation::DeleteRange`] and [`Operation::Replace`]: how many keys there were, and what, if that was asked.
    Changed { count: u64, before: Vec<Entry> },
    /// Of [`Operation::Nested`].
    Nested(Committed),
}

impl Committed {
    /// The answer to the first `Get` of the branch taken.
    pub fn entry(&self) -> Option<&Entry> {
        self.replies.first().and_then(|reply| reply.first())
    }
}
