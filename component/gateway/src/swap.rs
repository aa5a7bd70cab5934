//! A value that many read and one replaces as a whole.
//!
//! Owns the moment of change: a reader has the old value or the new one, never parts of both, and keeps what
//! it has for as long as it needs.

use std::sync::{Arc, PoisonError, RwLock};

/// The current value.
#[derive(Debug)]
pub(crate) struct Swap<T>(RwLock<Arc<T>>);

impl<T> Swap<T> {
    pub(crate) fn new(value: T) -> Swap<T> {
        Swap(RwLock::new(Arc::new(value)))
    }

    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, value: T) {
        let value = Arc::new(value);
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // What was there is dropped after the lock: it may be the last hold on much.
        let _before = std::mem::replace(&mut *current, value);
        drop(current);
    }
}
