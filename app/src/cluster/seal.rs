//! Datagrams that only one machine can have sent and only one can read: ChaCha20-Poly1305, with a key for each direction
//! between two machines, which the receiver makes and hands over by mutual TLS.
//!
//! Owns the keys and which datagrams have come. Promises that a datagram is opened at most once, by whom it was sealed for,
//! and that who it says it is from is who was given its key; forgetting a machine takes its keys away. Does no IO.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::collections::{BTreeMap, VecDeque};
use wire::identity::NodeId;

/// What is handed over: the key, and a tag by which the receiver finds it.
pub const TICKET_BYTES: usize = KEY_BYTES + TAG_BYTES;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 4;
const VERSION: u8 = 1;
const NODE_BYTES: usize = 20;
const HEAD_BYTES: usize = 1 + NODE_BYTES + TAG_BYTES + 8;
/// Keys that one machine may use at once: it asks for another when it is not sure of the one it has.
const KEYS_MAX: usize = 4;
/// Datagrams that may overtake one another.
const WINDOW: u64 = 64;

/// The keys of one machine with all others.
pub struct Seals {
    me: NodeId,
    outgoing: BTreeMap<NodeId, Outgoing>,
    incoming: BTreeMap<NodeId, VecDeque<Incoming>>,
}

struct Outgoing {
    key: LessSafeKey,
    tag: [u8; TAG_BYTES],
    next: u64,
}

struct Incoming {
    key: LessSafeKey,
    tag: [u8; TAG_BYTES],
    /// One more than the highest number that came.
    end: u64,
    /// Which of the numbers before it came: the lowest bit is the highest number.
    came: u64,
}

impl Seals {
    pub fn new(me: NodeId) -> Seals {
        Seals { me, outgoing: BTreeMap::new(), incoming: BTreeMap::new() }
    }

    /// A new key with which `from` may seal for this machine, out of random bytes. It is what is handed over.
    pub fn invite(&mut self, from: NodeId, ticket: [u8; TICKET_BYTES]) -> Vec<u8> {
        if let Some((key, tag)) = read(&ticket) {
            let keys = self.incoming.entry(from).or_default();
            if keys.len() == KEYS_MAX {
                keys.pop_front();
            }
            keys.push_back(Incoming { key, tag, end: 0, came: 0 });
        }
        ticket.to_vec()
    }

    /// Takes what `to` has handed over. False: it is none.
    pub fn accept(&mut self, to: NodeId, ticket: &[u8]) -> bool {
        let read = read(ticket);
        let is_one = read.is_some();
        if let Some((key, tag)) = read {
            self.outgoing.insert(to, Outgoing { key, tag, next: 0 });
        }
        is_one
    }

    /// Whether this machine can seal for `to`.
    pub fn reaches(&self, to: NodeId) -> bool {
        self.outgoing.contains_key(&to)
    }

    /// Machines that may seal for this one, or it for them, are these and no others.
    pub fn keep(&mut self, is_known: impl Fn(NodeId) -> bool) {
        self.outgoing.retain(|node, _| is_known(*node));
        self.incoming.retain(|node, _| is_known(*node));
    }

    /// `None` without a key for `to`.
    pub fn seal(&mut self, to: NodeId, datagram: &[u8]) -> Option<Vec<u8>> {
        let outgoing = self.outgoing.get_mut(&to)?;
        let number = outgoing.next;
        outgoing.next = number.checked_add(1)?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + datagram.len() + CHACHA20_POLY1305.tag_len());
        sealed.push(VERSION);
        sealed.extend(self.me.as_bytes());
        sealed.extend(outgoing.tag);
        sealed.extend(number.to_be_bytes());
        let mut content = datagram.to_vec();
        let head = Aad::from(sealed.clone());
        outgoing.key.seal_in_place_append_tag(nonce(number), head, &mut content).ok()?;
        sealed.extend(content);
        Some(sealed)
    }

    /// Who sent it, and what. `None` for everything else.
    pub fn open(&mut self, sealed: &[u8]) -> Option<(NodeId, Vec<u8>)> {
        let (head, content) = sealed.split_at_checked(HEAD_BYTES)?;
        let (version, rest) = head.split_first()?;
        let (from, rest) = rest.split_first_chunk::<NODE_BYTES>()?;
        let (tag, number) = rest.split_first_chunk::<TAG_BYTES>()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        if *version != VERSION {
            return None;
        }
        let from = NodeId::from_bytes(*from);
        let incoming = self.incoming.get_mut(&from)?.iter_mut().find(|incoming| incoming.tag == *tag)?;
        if incoming.has_come(number) {
            return None;
        }
        let mut content = content.to_vec();
        let length = incoming.key.open_in_place(nonce(number), Aad::from(head), &mut content).ok()?.len();
        content.truncate(length);
        incoming.note(number);
        Some((from, content))
    }
}

impl Incoming {
    /// What is older than all that is remembered counts as come.
    fn has_come(&self, number: u64) -> bool {
        match self.end.checked_sub(number) {
            None | Some(0) => false,
            Some(behind) => behind > WINDOW || self.came >> (behind - 1) & 1 == 1,
        }
    }

    fn note(&mut self, number: u64) {
        let end = number.saturating_add(1);
        if end > self.end {
            let ahead = end - self.end;
            self.came = if ahead >= WINDOW { 0 } else { self.came << ahead };
            self.end = end;
        }
        self.came |= 1 << (self.end - end);
    }
}

fn read(ticket: &[u8]) -> Option<(LessSafeKey, [u8; TAG_BYTES])> {
    let (key, tag) = ticket.split_at_checked(KEY_BYTES)?;
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).ok()?;
    Some((LessSafeKey::new(key), tag.try_into().ok()?))
}

/// Never twice with one key: the number grows, and ends before it begins anew.
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    let (_, end) = bytes.split_at_mut(NONCE_LEN - 8);
    end.copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::{HEAD_BYTES, Seals, TICKET_BYTES};
    use proptest::prelude::*;
    use wire::identity::NodeId;

    fn pair() -> (Seals, Seals, NodeId, NodeId) {
        let (ann, bob) = (NodeId::of_key(b"ann"), NodeId::of_key(b"bob"));
        let (mut here, mut there) = (Seals::new(ann), Seals::new(bob));
        let ticket = there.invite(ann, [7; TICKET_BYTES]);
        assert!(here.accept(bob, &ticket));
        (here, there, ann, bob)
    }

    #[test]
    fn what_was_sealed_is_opened_once_by_whom_it_is_for() {
        let (mut here, mut there, ann, bob) = pair();
        let sealed = here.seal(bob, b"hello").expect("there is a key");
        assert_eq!(there.open(&sealed), Some((ann, b"hello".to_vec())));
        assert_eq!(there.open(&sealed), None, "it came before");
        assert_eq!(here.open(&sealed), None, "it is for another");
        assert!(here.seal(ann, b"hello").is_none());
    }

    #[test]
    fn what_is_changed_anywhere_is_not_opened() {
        let (mut here, mut there, ..) = pair();
        let sealed = here.seal(NodeId::of_key(b"bob"), b"hello").expect("there is a key");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(there.open(&changed), None, "byte {at}");
            assert_eq!(there.open(&sealed[..at]), None, "cut off at {at}");
        }
        assert!(there.open(&sealed).is_some());
    }

    #[test]
    fn datagrams_may_overtake_one_another_and_come_once() {
        let (mut here, mut there, _, bob) = pair();
        let sealed: Vec<Vec<u8>> = (0..200_u8).filter_map(|number| here.seal(bob, &[number])).collect();
        let mut opened = |at: usize| there.open(&sealed[at]).is_some();
        for (at, expected) in [(5, true), (3, true), (5, false), (3, false), (4, true), (0, true), (70, true)] {
            assert_eq!(opened(at), expected, "{at}");
        }
        // Too old to be known, and as old as is known.
        for (at, expected) in [(6, false), (7, true), (7, false), (199, true), (135, false), (136, true), (198, true)] {
            assert_eq!(opened(at), expected, "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_and_disturb_nobody(
            bytes in proptest::collection::vec(any::<u8>(), 0..1_400),
            number in any::<u64>(),
        ) {
            let (mut here, mut there, _, bob) = pair();
            let sealed = here.seal(bob, b"hello").expect("there is a key");
            prop_assert_eq!(there.open(&bytes), None);
            // With a head that is right but for the number, which somebody may have seen and counted on.
            let mut like = sealed[..HEAD_BYTES - 8].to_vec();
            like.extend(number.to_be_bytes());
            like.extend(&bytes);
            prop_assert_eq!(there.open(&like), None);
            prop_assert!(there.open(&sealed).is_some());
            prop_assert_eq!(here.accept(bob, &bytes), bytes.len() == TICKET_BYTES);
        }
    }

    #[test]
    fn who_is_forgotten_is_not_heard() {
        let (mut here, mut there, _, bob) = pair();
        let sealed = here.seal(bob, b"hello").expect("there is a key");
        there.keep(|_| false);
        assert_eq!(there.open(&sealed), None);
        assert!(here.reaches(bob));
        here.keep(|_| false);
        assert!(!here.reaches(bob) && here.seal(bob, b"hello").is_none());
    }
}
