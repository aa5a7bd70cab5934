//! What a space gives out: entries, listings, events. Plain data.

use crate::SpaceError;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A key as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Arc<[u8]>,
    /// The revision at which the key came to be; a key deleted and put again starts anew.
    pub create_revision: u64,
    /// The revision of the last put: what a compare-and-swap compares.
    pub mod_revision: u64,
    /// 1 for the first put, one more for each after it.
    pub version: u64,
    /// The lease whose end deletes the key.
    pub lease: Option<u64>,
}

impl Entry {
    /// The value read as JSON.
    ///
    /// # Errors
    /// [`SpaceError::NotJson`], naming the key.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, SpaceError> {
        serde_json::from_slice(&self.value)
            .map_err(|error| SpaceError::NotJson { key: self.key.clone(), source: Arc::new(error) })
    }
}

/// The entries under a prefix, in the order of their keys, and the revision at which they were so. A watch from
/// `revision + 1` continues where the listing ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub revision: u64,
    pub entries: Vec<Entry>,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub key: String,
    /// The value put; `None` when the key was deleted.
    pub value: Option<Arc<[u8]>>,
    /// The revision of the change; all changes of one transaction share it.
    pub revision: u64,
    /// 0 for a deletion.
    pub create_revision: u64,
    /// 0 for a deletion.
    pub version: u64,
    pub lease: Option<u64>,
}

impl Event {
    /// The value read as JSON; `None` for a deletion.
    ///
    /// # Errors
    /// [`SpaceError::NotJson`], naming the key.
    pub fn json<T: DeserializeOwned>(&self) -> Result<Option<T>, SpaceError> {
        let Some(value) = &self.value else { return Ok(None) };
        serde_json::from_slice(value)
            .map(Some)
            .map_err(|error| SpaceError::NotJson { key: self.key.clone(), source: Arc::new(error) })
    }
}
