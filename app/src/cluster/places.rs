//! Where members may be: as the state of record has it, as they announced it, and as a person said.
//!
//! Owns that book. Promises that an address which was found is looked at before those on record, and that none on record is lost for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use wire::identity::NodeId;
use wire::resource::Member;

/// As many as are tried of one machine.
const PLACES_MAX: usize = 8;
/// Of those, found ones: the likeliest on record stays among them.
const FOUND_MAX: usize = 4;

pub struct Places {
    /// Where somebody of the cluster is, as whoever started this node said.
    hinted: Vec<SocketAddr>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    recorded: BTreeMap<NodeId, Vec<SocketAddr>>,
    found: BTreeMap<NodeId, Vec<SocketAddr>>,
}

impl Places {
    pub fn new(hinted: Vec<SocketAddr>) -> Places {
        Places { hinted, book: Mutex::default() }
    }

    /// These are members, and no others.
    pub fn know<'a>(&self, members: impl Iterator<Item = &'a Member>) {
        let mut book = self.book();
        book.recorded = members.map(|member| (member.node, member.addresses.clone())).collect();
        let Book { recorded, found } = &mut *book;
        // What a member wrote down itself is later than what it announced before.
        found.retain(|node, places| {
            recorded.get(node).is_some_and(|on_record| !places.iter().all(|it| on_record.contains(it)))
        });
    }

    /// A member was found there. False: that is nothing new, or it is none.
    pub fn found(&self, node: NodeId, places: &[SocketAddr]) -> bool {
        let mut book = self.book();
        let Some(recorded) = book.recorded.get(&node) else { return false };
        let places: Vec<SocketAddr> = places.iter().take(FOUND_MAX).copied().collect();
        if places.iter().all(|place| recorded.contains(place)) || book.found.get(&node) == Some(&places) {
            return false;
        }
        book.found.insert(node, places);
        true
    }

    /// The likeliest first.
    pub fn of(&self, node: NodeId) -> Vec<SocketAddr> {
        let mut all = self.found_of(node);
        // Which member is at a hinted address shows when it answers.
        let hinted = self.hinted.iter().take(FOUND_MAX.saturating_sub(all.len())).copied();
        for place in hinted.chain(self.told_of(node)) {
            if !all.contains(&place) {
                all.push(place);
            }
        }
        all.truncate(PLACES_MAX);
        all
    }

    /// The same without those of which nobody knows which member is there.
    pub fn told_of(&self, node: NodeId) -> Vec<SocketAddr> {
        let recorded = self.book().recorded.get(&node).cloned().unwrap_or_default();
        self.found_of(node).into_iter().chain(recorded).collect()
    }

    fn found_of(&self, node: NodeId) -> Vec<SocketAddr> {
        self.book().found.get(&node).cloned().unwrap_or_default()
    }

    pub fn members(&self) -> Vec<NodeId> {
        self.book().recorded.keys().copied().collect()
    }

    pub fn is_member(&self, node: NodeId) -> bool {
        self.book().recorded.contains_key(&node)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Places;
    use std::net::SocketAddr;
    use wire::identity::NodeId;
    use wire::resource::Member;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 7701))
    }

    fn member(addresses: &[u8]) -> Member {
        Member {
            id: "ann".to_owned(),
            node: NodeId::of_key(b"ann"),
            number: 1,
            hostname: "ann".to_owned(),
            addresses: addresses.iter().map(|last| at(*last)).collect(),
            zone: None,
            role: None,
            joined_ms: 0,
            fsync_p99_us: None,
            revoked: false,
            incarnation: None,
        }
    }

    #[test]
    fn what_was_found_is_looked_at_first_until_it_is_on_record() {
        let (places, ann) = (Places::new(vec![at(9)]), NodeId::of_key(b"ann"));
        assert!(!places.found(ann, &[at(5)]), "it is no member");
        places.know([member(&[1, 2])].iter());
        assert_eq!(places.of(ann), [at(9), at(1), at(2)]);
        assert!(places.found(ann, &[at(5), at(1)]));
        assert!(!places.found(ann, &[at(5), at(1)]), "that is known");
        assert_eq!(places.of(ann), [at(5), at(1), at(9), at(2)]);
        places.know([member(&[5, 1])].iter());
        assert_eq!(places.of(ann), [at(9), at(5), at(1)]);
        assert!(!places.found(ann, &[at(1)]), "that is on record");
        places.know([].iter());
        assert!(!places.is_member(ann));
    }
}
