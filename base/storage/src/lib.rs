//! The append log and the ordered key-value store.
