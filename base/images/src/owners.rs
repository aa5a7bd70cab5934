//! Whom an entry belongs to on the host and with which rights, by the store's [`Ownership`].
//!
//! Pure: numbers in, numbers out.

use crate::Ownership;
use rustix::fs::{Gid, Uid};

/// Owner ids that the shift has no room for become nobody, as the kernel's overflow id.
const NOBODY: u32 = 65_534;
// Layout of `security.capability` (linux/capability.h): revision in the highest byte of a little-endian word.
const CAPABILITY_LENGTH: usize = 20;
const CAPABILITY_REVISION_AT: usize = 3;
const CAPABILITY_REVISION_2: u8 = 2;
const CAPABILITY_REVISION_3: u8 = 3;

/// Translates an image's ids, and counts those it could not.
pub(crate) struct Owners {
    ownership: Ownership,
    pub(crate) clamped: u64,
}

impl Owners {
    pub(crate) fn new(ownership: Ownership) -> Owners {
        Owners { ownership, clamped: 0 }
    }

    /// Who owns an entry on the host; `None` leaves it to whoever unpacks.
    pub(crate) fn on_host(&mut self, uid: u64, gid: u64) -> Option<(Uid, Gid)> {
        let (base, count) = match self.ownership {
            Ownership::Mine => return None,
            // The highest number means "unchanged" to chown.
            Ownership::Keep => (0, u32::MAX),
            Ownership::Shift { base, count } => (base, count),
        };
        let clamped = &mut self.clamped;
        let mut shifted = |id: u64| match u32::try_from(id).ok().filter(|id| *id < count) {
            Some(id) => base.saturating_add(id),
            None => {
                *clamped += 1;
                base.saturating_add(NOBODY.min(count.saturating_sub(1)))
            }
        };
        let (uid, gid) = (shifted(uid), shifted(gid));
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// Permission bits as they are written.
    pub(crate) fn mode(&self, mode: u32) -> u32 {
        match self.ownership {
            // A program that becomes its owner would become the runner.
            Ownership::Mine => mode & 0o1777,
            Ownership::Keep | Ownership::Shift { .. } => mode & 0o7777,
        }
    }

    /// The attribute `security.capability` as it must be written here. Revision 3 names the user namespace's root by
    /// its id on the host; without that, the kernel ignores the capability inside the namespace.
    pub(crate) fn capability(&self, value: &[u8]) -> Option<Vec<u8>> {
        if value.len() != CAPABILITY_LENGTH || value[CAPABILITY_REVISION_AT] != CAPABILITY_REVISION_2 {
            return None;
        }
        match self.ownership {
            Ownership::Mine => None,
            Ownership::Keep => Some(value.to_vec()),
            Ownership::Shift { base, .. } => {
                let mut shifted = value.to_vec();
                shifted[CAPABILITY_REVISION_AT] = CAPABILITY_REVISION_3;
                shifted.extend_from_slice(&base.to_le_bytes());
                Some(shifted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shifted_and_never_leave_their_range() {
        let check = |ownership, id, expected: Option<u32>| {
            let found = Owners::new(ownership).on_host(id, 0).map(|(uid, _)| uid.as_raw());
            assert_eq!(found, expected, "{ownership:?} {id}");
        };
        let shift = Ownership::Shift { base: 100_000, count: 65_536 };
        check(shift, 0, Some(100_000));
        check(shift, 65_535, Some(165_535));
        check(shift, 65_536, Some(165_534));
        check(shift, u64::MAX, Some(165_534));
        check(Ownership::Shift { base: 5, count: 1 }, 7, Some(5));
        check(Ownership::Shift { base: 5, count: 0 }, 7, Some(5));
        check(Ownership::Keep, 1_000, Some(1_000));
        check(Ownership::Keep, u64::from(u32::MAX), Some(NOBODY));
        check(Ownership::Mine, 1_000, None);
    }
}
