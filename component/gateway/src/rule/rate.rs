//! How many requests a route lets through: the generic cell rate algorithm (ITU-T I.371).
//!
//! Owns one number per client: when its next request would be due if it kept an even pace. It may be ahead of that by
//! the burst. Promises a bounded table; where that is full of clients who are ahead, the rest share one entry.

use super::client_of;
use http::{HeaderMap, HeaderName};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use wire::spec::{RateKey, RateLimit};

/// Clients remembered at once. An entry is 16 bytes; a client who keeps his pace is forgotten.
const CLIENTS_MAX: usize = 65_536;
/// A full table is looked through at most this often.
const SWEEP_EVERY_NS: u64 = 1_000_000_000;
/// Stands for everybody there is no place for.
const THE_REST: u64 = 0;

#[derive(Debug)]
pub(crate) struct Rate {
    interval_ns: u64,
    /// How far ahead of an even pace one may be.
    ahead_ns: u64,
    by: By,
    hasher: RandomState,
    clients: Mutex<Clients>,
}

#[derive(Debug)]
enum By {
    Address,
    Header(HeaderName),
    Route,
}

#[derive(Debug, Default)]
struct Clients {
    /// When each one's next request is due.
    due_ns: HashMap<u64, u64>,
    swept_ns: u64,
}

impl Rate {
    pub(crate) fn new(limit: &RateLimit) -> Rate {
        let interval_ns = limit.period_ms.saturating_mul(1_000_000) / u64::from(limit.requests.max(1));
        let by = match &limit.by {
            RateKey::Address => By::Address,
            // A header that cannot be read is missing from every request: all are counted together.
            RateKey::Header(name) => name.parse().map_or(By::Route, By::Header),
            RateKey::Route => By::Route,
        };
        let ahead_ns = interval_ns.saturating_mul(u64::from(limit.burst.max(1)));
        Rate { interval_ns, ahead_ns, by, hasher: RandomState::new(), clients: Mutex::default() }
    }

    /// Counts a request. `Err` says for how long no further one is let through, in nanoseconds.
    pub(crate) fn admit(&self, client: IpAddr, headers: &HeaderMap, now_ns: u64) -> Result<(), u64> {
        let key = self.key(client, headers);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = clients.place(key, now_ns);
        let due_ns = clients.due_ns.get(&key).copied().unwrap_or(0);
        let next = paced(due_ns, now_ns, self.interval_ns, self.ahead_ns)?;
        clients.due_ns.insert(key, next);
        Ok(())
    }

    fn key(&self, client: IpAddr, headers: &HeaderMap) -> u64 {
        let hash = match &self.by {
            By::Address => self.hasher.hash_one(client_of(client)),
            By::Header(name) => self.hasher.hash_one(headers.get(name).map(http::HeaderValue::as_bytes)),
            By::Route => return THE_REST,
        };
        hash.max(THE_REST + 1)
    }
}

impl Clients {
    /// The entry to count under.
    fn place(&mut self, key: u64, now_ns: u64) -> u64 {
        if self.due_ns.len() < CLIENTS_MAX || self.due_ns.contains_key(&key) {
            return key;
        }
        if now_ns.saturating_sub(self.swept_ns) >= SWEEP_EVERY_NS {
            self.swept_ns = now_ns;
            self.due_ns.retain(|_, due_ns| *due_ns > now_ns);
        }
        if self.due_ns.len() < CLIENTS_MAX { key } else { THE_REST }
    }
}

/// When the request after this one is due; `Err` says how much too early this one comes.
fn paced(due_ns: u64, now_ns: u64, interval_ns: u64, ahead_ns: u64) -> Result<u64, u64> {
    let next_ns = due_ns.max(now_ns).saturating_add(interval_ns);
    let early_ns = next_ns.saturating_sub(ahead_ns).saturating_sub(now_ns);
    if early_ns == 0 { Ok(next_ns) } else { Err(early_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const SECOND_NS: u64 = 1_000_000_000;

    fn rate(requests: u32, burst: u32, by: RateKey) -> Rate {
        Rate::new(&RateLimit { requests, period_ms: 1_000, burst, by })
    }

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn a_burst_passes_and_then_an_even_pace() {
        let rate = rate(10, 3, RateKey::Address);
        let asks = |now_ms: u64| rate.admit(client(1), &HeaderMap::new(), now_ms * 1_000_000);
        assert_eq!([asks(0), asks(0), asks(0)], [Ok(()); 3]);
        assert_eq!(asks(0), Err(100_000_000), "the next is due in a tenth of a second");
        assert_eq!(asks(99), Err(1_000_000));
        assert_eq!(asks(100), Ok(()));
        assert!(asks(100).is_err());
        assert_eq!([asks(10_000), asks(10_000), asks(10_000)], [Ok(()); 3], "a pause earns the burst again");
        assert!(asks(10_000).is_err());
        assert_eq!(rate.admit(client(2), &HeaderMap::new(), 10_000_000_000), Ok(()), "others are not touched");
    }

    #[test]
    fn requests_are_counted_by_what_the_route_says() {
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static("x-key"), http::HeaderValue::from_static(value))])
        };
        let by_header = rate(1, 1, RateKey::Header("x-key".to_owned()));
        assert!(by_header.admit(client(1), &headers("a"), 0).is_ok());
        assert!(by_header.admit(client(2), &headers("a"), 0).is_err());
        assert!(by_header.admit(client(1), &headers("b"), 0).is_ok());
        assert!(by_header.admit(client(1), &HeaderMap::new(), 0).is_ok());
        let by_route = rate(1, 1, RateKey::Route);
        assert!(by_route.admit(client(1), &headers("a"), 0).is_ok());
        assert!(by_route.admit(client(2), &headers("b"), 0).is_err());
        let by_address = rate(1, 1, RateKey::Address);
        let v6 = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(by_address.admit(v6("2001:db8::1"), &HeaderMap::new(), 0).is_ok());
        assert!(by_address.admit(v6("2001:db8::2"), &HeaderMap::new(), 0).is_err(), "of the same network");
        assert!(by_address.admit(v6("2001:db8:0:1::1"), &HeaderMap::new(), 0).is_ok());
    }

    #[test]
    fn the_table_is_bounded() {
        let rate = rate(1, 1, RateKey::Address);
        let all = u32::try_from(CLIENTS_MAX).expect("fits");
        for number in 0..all + 100 {
            rate.admit(client(number), &HeaderMap::new(), 5).ok();
        }
        let size = || rate.clients.lock().expect("no panic").due_ns.len();
        assert!(size() <= CLIENTS_MAX + 1);
        assert!(rate.admit(client(all + 200), &HeaderMap::new(), 5).is_err(), "the rest share one entry");
        assert!(rate.admit(client(all + 201), &HeaderMap::new(), 5 + 2 * SECOND_NS).is_ok());
        assert!(size() < 10, "those who keep their pace are forgotten");
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_its_share(
            requests in 1..50_u32, burst in 1..20_u32, pauses_ms in prop::collection::vec(0..200_u64, 1..200),
        ) {
            let rate = rate(requests, burst, RateKey::Route);
            let mut now_ms = 0;
            let mut passed = Vec::new();
            for pause in pauses_ms {
                now_ms += pause;
                if rate.admit(client(1), &HeaderMap::new(), now_ms * 1_000_000).is_ok() {
                    passed.push(now_ms);
                }
            }
            for (at, first) in passed.iter().enumerate() {
                for (count, last) in (1_u64..).zip(&passed[at..]) {
                    // Rounded up by one: the interval is cut to whole nanoseconds.
                    let share = u64::from(burst) + (last - first) * u64::from(requests) / 1_000 + 1;
                    prop_assert!(count <= share, "{count} in {} ms", last - first);
                }
            }
        }
    }
}
