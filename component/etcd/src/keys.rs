//! Keys and leases of clients, apart from Bramble's own.
//!
//! A client's key is bytes; one of the space is text. Each byte becomes the character of its number, so that order and
//! prefixes stay as they are and every key comes back, and stands below [`control::CLIENTS`]. A client's lease has the top
//! bit set, which no lease of Bramble's has and no id a client can say: neither can name the other's.

use crate::status::{self, Status};
use control::{CLIENTS, Range};
use std::sync::Arc;

/// Comes right after every key that is a client's: `/` is followed by `0`.
const AFTER_ALL: &str = "etcd0";
/// Where a lease is a client's.
const LEASE_MARK: u64 = 1 << 63;

pub(crate) fn stored(key: &[u8]) -> String {
    let mut out = String::with_capacity(CLIENTS.len() + key.len() + key.len() / 8);
    out.push_str(CLIENTS);
    out.extend(key.iter().map(|byte| char::from(*byte)));
    out
}

/// A client's key as it was given. What is not a client's never gets here.
pub(crate) fn given(key: &str) -> Arc<[u8]> {
    let name = key.strip_prefix(CLIENTS).unwrap_or_default();
    name.chars().map(|character| u8::try_from(u32::from(character)).unwrap_or(b'?')).collect()
}

/// The range a client means: no end is one key, an end of a single zero is everything from there on.
pub(crate) fn range(key: &[u8], end: &[u8]) -> Range {
    match end {
        [] => Range::key(stored(key)),
        [0] => Range { start: stored(key), end: AFTER_ALL.to_owned() },
        end => Range { start: stored(key), end: stored(end) },
    }
}

/// As [`range`], of a request that has to name a key.
pub(crate) fn named(key: &[u8], end: &[u8]) -> Result<Range, Status> {
    if key.is_empty() { Err(status::empty_key()) } else { Ok(range(key, end)) }
}

pub(crate) fn stored_lease(id: i64) -> Result<u64, Status> {
    let id = u64::try_from(id).map_err(|_| status::lease_not_found())?;
    Ok(id | LEASE_MARK)
}

/// `None` for a lease of Bramble's own.
pub(crate) fn given_lease(id: u64) -> Option<i64> {
    (id & LEASE_MARK != 0).then(|| (id & !LEASE_MARK).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_come_back_in_the_same_order(one: Vec<u8>, other: Vec<u8>) {
            let (a, b) = (stored(&one), stored(&other));
            prop_assert_eq!(given(&a).to_vec(), one.clone());
            prop_assert_eq!(a.cmp(&b), one.cmp(&other));
            prop_assert_eq!(a.starts_with(&b), one.starts_with(&other));
            prop_assert!(a.as_str() >= CLIENTS && a.as_str() < AFTER_ALL);
        }

        #[test]
        fn no_range_reaches_what_is_not_a_clients(key: Vec<u8>, end: Vec<u8>) {
            for end in [end.as_slice(), &[0], &[]] {
                let range = range(&key, end);
                for own in ["authority", "etcd", "etcd.", "etcd0", "etcd-compacted", "stack/a", "~"] {
                    prop_assert!(!range.contains(own));
                }
            }
        }

        #[test]
        fn leases_come_back_and_are_never_brambles(id in 1..i64::MAX, own in 1..=i64::MAX.cast_unsigned()) {
            let stored = stored_lease(id).expect("not negative");
            prop_assert_eq!(given_lease(stored), Some(id));
            prop_assert_ne!(stored, own);
            prop_assert_eq!(given_lease(own), None);
        }
    }
}
