//! How many connections are taken, and from whom. Counts only; knows no sockets.

use crate::settings::{
    CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX, HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX, STRANGERS_MAX,
};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::identity::NodeId;

/// Clones are the same seats.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seats(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    handshakes: HashMap<IpAddr, usize>,
    handshakes_all: usize,
    nodes: HashMap<NodeId, usize>,
    nodes_all: usize,
    strangers: usize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    who: Who,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Has not said who it is.
    Unknown(IpAddr),
    Node(NodeId),
    Stranger,
}

impl Seats {
    /// `None` when there is none left for those.
    pub(crate) fn take(&self, who: Who) -> Option<Seat> {
        let mut taken = self.lock();
        let is_free = match who {
            Who::Unknown(address) => {
                taken.handshakes_all < HANDSHAKES_MAX
                    && taken.handshakes.get(&address).is_none_or(|count| *count < HANDSHAKES_PER_ADDRESS_MAX)
            }
            Who::Node(node) => {
                taken.nodes_all < CONNECTIONS_MAX
                    && taken.nodes.get(&node).is_none_or(|count| *count < CONNECTIONS_PER_PEER_MAX)
            }
            Who::Stranger => taken.strangers < STRANGERS_MAX,
        };
        if !is_free {
            return None;
        }
        match who {
            Who::Unknown(address) => {
                taken.handshakes_all += 1;
                *taken.handshakes.entry(address).or_default() += 1;
            }
            Who::Node(node) => {
                taken.nodes_all += 1;
                *taken.nodes.entry(node).or_default() += 1;
            }
            Who::Stranger => taken.strangers += 1,
        }
        drop(taken);
        Some(Seat { seats: self.clone(), who })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        match self.who {
            Who::Unknown(address) => {
                taken.handshakes_all -= 1;
                leave(&mut taken.handshakes, address);
            }
            Who::Node(node) => {
                taken.nodes_all -= 1;
                leave(&mut taken.nodes, node);
            }
            Who::Stranger => taken.strangers -= 1,
        }
    }
}

/// Whoever has none left is forgotten: the table is no longer than what is taken.
fn leave<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Seats, Who};
    use crate::settings::{CONNECTIONS_PER_PEER_MAX, HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX, STRANGERS_MAX};
    use std::net::{IpAddr, Ipv4Addr};
    use wire::identity::NodeId;

    #[test]
    fn nobody_takes_the_seats_of_others() {
        let seats = Seats::default();
        let check = |who: Who, max: usize, other: Option<Who>| {
            let mut taken: Vec<_> = (0..max).map(|_| seats.take(who).unwrap()).collect();
            assert!(seats.take(who).is_none(), "{who:?}");
            assert!(other.is_none_or(|other| seats.take(other).is_some()), "{other:?}");
            taken.pop();
            assert!(seats.take(who).is_some(), "{who:?}");
        };
        let address = |last: u8| Who::Unknown(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        let node = |number: u8| Who::Node(NodeId::from_bytes([number; 20]));
        check(address(1), HANDSHAKES_PER_ADDRESS_MAX, Some(address(2)));
        check(node(1), CONNECTIONS_PER_PEER_MAX, Some(node(2)));
        check(Who::Stranger, STRANGERS_MAX, Some(node(1)));
        let all: Vec<_> = (0..).map_while(|number| seats.take(address(u8::try_from(number / 32).ok()?))).collect();
        assert_eq!(all.len(), HANDSHAKES_MAX);
        drop(all);
        let taken = seats.lock();
        assert!(taken.handshakes.is_empty() && taken.nodes.is_empty() && taken.strangers == 0);
    }
}
