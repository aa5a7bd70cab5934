//! Clients who got certain answers too often, and are turned away for a while: guessers of passwords, seekers of holes.
//!
//! Owns when each client's last strikes were, and until when each is banned. Promises bounded tables: of those who only
//! have strikes, the half that has been quiet for longest is forgotten when there are too many; of those who are banned,
//! the one that is free soonest. Pure but for its lock.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

/// Clients with strikes remembered at once, per route: with 20 strikes each, 4 MB.
const STRUCK_MAX: usize = 16_384;
/// Clients banned at once, per route.
const BANNED_MAX: usize = 65_536;
/// The bits of a network that one client has (RFC 6177).
const V6_BITS: u32 = 64;

#[derive(Debug)]
pub(crate) struct Bans {
    statuses: Vec<u16>,
    times: usize,
    within_ns: u64,
    for_ns: u64,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// When, the oldest first; never more than the strikes that ban.
    struck: HashMap<IpAddr, VecDeque<u64>>,
    /// Until when.
    banned: HashMap<IpAddr, u64>,
}

/// Whom an address stands for: itself, or the network of an IPv6 address.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> V6_BITS << V6_BITS)),
    }
}

impl Bans {
    pub(crate) fn new(wanted: &wire::spec::Ban) -> Bans {
        let ns = |ms: u64| ms.saturating_mul(1_000_000);
        Bans {
            statuses: wanted.statuses.clone(),
            times: usize::try_from(wanted.times.max(1)).unwrap_or(usize::MAX),
            within_ns: ns(wanted.within_ms),
            for_ns: ns(wanted.for_ms),
            tables: Mutex::default(),
        }
    }

    /// For how long the client is still banned.
    pub(crate) fn left_ns(&self, client: IpAddr, now_ns: u64) -> Option<u64> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.banned.is_empty() {
            return None;
        }
        let client = client_of(client);
        let left_ns = tables.banned.get(&client)?.saturating_sub(now_ns);
        if left_ns == 0 {
            tables.banned.remove(&client);
        }
        (left_ns > 0).then_some(left_ns)
    }

    /// Takes in what a client was answered. Whether it is banned from now on.
    pub(crate) fn note(&self, client: IpAddr, status: u16, now_ns: u64) -> bool {
        if !self.statuses.contains(&status) {
            return false;
        }
        let client = client_of(client);
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.banned.get(&client).is_some_and(|until_ns| *until_ns > now_ns) {
            return false;
        }
        tables.make_room(client);
        let strikes = tables.struck.entry(client).or_default();
        let oldest_ns = now_ns.saturating_sub(self.within_ns);
        while strikes.front().is_some_and(|struck_ns| *struck_ns < oldest_ns) {
            strikes.pop_front();
        }
        strikes.push_back(now_ns);
        if strikes.len() < self.times {
            return false;
        }
        tables.struck.remove(&client);
        tables.ban(client, now_ns.saturating_add(self.for_ns), now_ns);
        true
    }

    /// Everybody who is banned, and for how long still.
    pub(crate) fn list(&self, now_ns: u64) -> Vec<(IpAddr, u64)> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |until_ns: u64| until_ns.saturating_sub(now_ns);
        tables
            .banned
            .iter()
            .map(|(client, until_ns)| (*client, left(*until_ns)))
            .filter(|(_, left)| *left > 0)
            .collect()
    }

    /// Lets a client in again, with no strikes. Whether it was banned.
    pub(crate) fn lift(&self, client: IpAddr, now_ns: u64) -> bool {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let client = client_of(client);
        tables.struck.remove(&client);
        tables.banned.remove(&client).is_some_and(|until_ns| until_ns > now_ns)
    }
}

impl Tables {
    fn make_room(&mut self, client: IpAddr) {
        if self.struck.len() < STRUCK_MAX || self.struck.contains_key(&client) {
            return;
        }
        let last = |strikes: &VecDeque<u64>| strikes.back().copied().unwrap_or(0);
        let mut quiet: Vec<(u64, IpAddr)> = self.struck.iter().map(|(client, all)| (last(all), *client)).collect();
        // Half at once, so that looking through all of them is paid for by as many strikes.
        quiet.select_nth_unstable(STRUCK_MAX / 2);
        for (_, client) in quiet.iter().take(STRUCK_MAX / 2) {
            self.struck.remove(client);
        }
    }

    fn ban(&mut self, client: IpAddr, until_ns: u64, now_ns: u64) {
        if self.banned.len() >= BANNED_MAX {
            self.banned.retain(|_, until_ns| *until_ns > now_ns);
        }
        if self.banned.len() >= BANNED_MAX
            && let Some(soonest) = self.banned.iter().min_by_key(|(_, until_ns)| **until_ns).map(|(client, _)| *client)
        {
            self.banned.remove(&soonest);
        }
        self.banned.insert(client, until_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const SECOND_NS: u64 = 1_000_000_000;

    fn bans(times: u32) -> Bans {
        Bans::new(&wire::spec::Ban { statuses: vec![401, 404], times, within_ms: 10_000, for_ms: 60_000 })
    }

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn who_strikes_too_often_is_out_for_a_while() {
        let bans = bans(3);
        let at = |second: u64, status| bans.note(client(1), status, second * SECOND_NS);
        assert_eq!([at(0, 401), at(1, 200), at(5, 404)], [false; 3]);
        assert!(!at(12, 401), "the first one is too long ago");
        assert_eq!(bans.left_ns(client(1), 12 * SECOND_NS), None);
        assert!(at(13, 401));
        assert_eq!(bans.left_ns(client(1), 14 * SECOND_NS), Some(59 * SECOND_NS));
        assert_eq!(bans.left_ns(client(2), 14 * SECOND_NS), None, "nobody else");
        assert_eq!(bans.left_ns(client(1), 73 * SECOND_NS), None);
        assert!(!at(74, 401), "it begins anew");
        assert_eq!(bans.list(74 * SECOND_NS), []);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_bans_are_lifted() {
        let bans = bans(1);
        let v6 = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(bans.note(v6("2001:db8::1"), 404, 0));
        assert!(bans.left_ns(v6("2001:db8::2"), 1).is_some() && bans.left_ns(v6("2001:db8:0:1::1"), 1).is_none());
        assert_eq!(bans.list(0), [(v6("2001:db8::"), 60 * SECOND_NS)]);
        assert!(bans.note(v6("::ffff:10.0.0.1"), 404, 0) && bans.left_ns(v6("10.0.0.1"), 1).is_some());
        assert!(bans.lift(v6("2001:db8::7"), 1) && !bans.lift(v6("2001:db8::7"), 1));
        assert!(bans.left_ns(v6("2001:db8::1"), 1).is_none());
        assert!(!bans.lift(v6("10.0.0.1"), 61 * SECOND_NS), "that one is over");
    }

    #[test]
    fn the_tables_are_bounded_and_the_quiet_are_forgotten_first() {
        let bans = bans(2);
        let all = u32::try_from(STRUCK_MAX).expect("fits");
        for number in 0..all {
            assert!(!bans.note(client(number), 404, u64::from(number)));
        }
        assert!(!bans.note(client(all), 404, u64::from(all)));
        let size = bans.tables.lock().expect("no panic").struck.len();
        assert_eq!(size, STRUCK_MAX / 2 + 1);
        assert!(!bans.note(client(0), 404, u64::from(all)), "its strike is forgotten");
        assert!(bans.note(client(all - 1), 404, u64::from(all)), "its is not");
    }

    proptest! {
        #[test]
        fn nobody_is_banned_for_fewer_strikes_than_the_route_says(
            times in 1..6_u32, steps in prop::collection::vec((0..4_u32, 0..8_u64, prop::bool::ANY), 1..120),
        ) {
            let bans = bans(times);
            let mut now_ns = 0;
            let mut strikes: HashMap<u32, Vec<u64>> = HashMap::new();
            let mut free: HashMap<u32, u64> = HashMap::new();
            for (who, pause, bad) in steps {
                now_ns += pause * SECOND_NS;
                let out = bans.note(client(who), if bad { 404 } else { 200 }, now_ns);
                let is_banned = free.get(&who).is_some_and(|free_ns| *free_ns > now_ns);
                let of = strikes.entry(who).or_default();
                if bad && !is_banned {
                    of.push(now_ns);
                }
                let recent = of.iter().filter(|at| now_ns - **at <= 10 * SECOND_NS).count();
                prop_assert_eq!(out, bad && !is_banned && recent >= times as usize);
                if out {
                    of.clear();
                    free.insert(who, now_ns + 60 * SECOND_NS);
                }
            }
        }
    }
}
