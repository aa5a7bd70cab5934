//! Who has how many connections, and which of them go first when there is no room for more.
//!
//! Owns the counts by client (IPv6 by the network one client has) and the list of open connections. Promises that no
//! client has more connections or requests under way than its bound, and that a full house makes room by closing what
//! nobody would miss: connections without a request or with one whose body does not come, of those clients first who
//! have most of them, the longest unused first. Does not know HTTP.

use crate::pulse::Pulse;
use crate::rule::client_of;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Closed at once when there is no room: looking through all connections is then paid for by as many newcomers.
const SHED_MAX: usize = 64;
/// What a browser and a few others of its household open is nobody's part, however many clients there are.
const PART_MIN: usize = 16;
/// Slow uploads are looked for at most this often.
const LOOK_EVERY_MS: u64 = 20;
/// A connection that did something within this long is not closed for others.
const QUIET_MIN: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Crowd(Mutex<State>);

#[derive(Default)]
struct State {
    by_client: HashMap<IpAddr, Arc<Load>>,
    open: HashMap<u64, Open>,
    last: u64,
    /// When slow uploads were last looked for.
    looked_ms: u64,
}

/// What one client has under way.
#[derive(Default)]
pub(crate) struct Load {
    /// Changed under the lock only.
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// Requests at instances of which little is there.
    begun: AtomicUsize,
}

/// A request's part in one of its client's counts; dropped, it is free.
pub(crate) struct Part {
    load: Arc<Load>,
    count: fn(&Load) -> &AtomicUsize,
}

struct Open {
    client: Option<IpAddr>,
    pulse: Arc<Pulse>,
    /// A request within a connection: its end makes no room for another connection.
    is_stream: bool,
    /// Told, and not gone yet.
    is_told: bool,
}

/// A connection's place; dropped, it is free.
pub(crate) struct Seat {
    crowd: Arc<Crowd>,
    client: Option<(IpAddr, Arc<Load>)>,
    number: Option<u64>,
}

impl Crowd {
    /// A place for a connection from `client`, which is counted unless it speaks for others. `None` when it has as many
    /// as it may.
    pub(crate) fn enter(self: &Arc<Self>, client: Option<IpAddr>, most: usize) -> Option<Seat> {
        let client = match client.map(client_of) {
            Some(client) => {
                let mut state = self.lock();
                let load = state.by_client.entry(client).or_default();
                if load.connections.load(Ordering::Relaxed) >= most {
                    return None;
                }
                load.connections.fetch_add(1, Ordering::Relaxed);
                Some((client, Arc::clone(load)))
            }
            None => None,
        };
        Some(Seat { crowd: Arc::clone(self), client, number: None })
    }

    /// Whether a client has so much of a house with so many places that it gets no more at the cost of others.
    pub(crate) fn has_its_part(&self, client: IpAddr, places: usize) -> bool {
        let state = self.lock();
        let part = places / state.by_client.len().max(1) / 2;
        let load = state.by_client.get(&client_of(client));
        load.is_some_and(|load| load.connections.load(Ordering::Relaxed) >= part.max(PART_MIN))
    }

    /// Tells those to close that nobody would miss. How many were told.
    pub(crate) fn make_room(&self) -> u64 {
        self.lock().tell(|open| !open.is_stream)
    }

    /// Tells those to close whose requests' bodies do not come, if they have not been looked for just now.
    pub(crate) fn end_slow_uploads(&self) {
        let mut state = self.lock();
        let now_ms = world::clock::coarse_ms();
        if now_ms.saturating_sub(state.looked_ms) >= LOOK_EVERY_MS {
            state.looked_ms = now_ms;
            state.tell(|open| open.pulse.is_uploading());
        }
    }

    /// Puts a request with a body, one of many on its connection, among those that may be told to end: as
    /// [`Seat::watch`] does with connections.
    pub(crate) fn watch_upload(
        self: &Arc<Self>,
        client: IpAddr,
        pulse: &Arc<Pulse>,
    ) -> (Seat, impl Future<Output = ()> + use<>) {
        let mut seat = Seat { crowd: Arc::clone(self), client: None, number: None };
        let told = seat.list(Some(client_of(client)), true, pulse);
        (seat, told)
    }

    /// Has every connection look what has become of it.
    pub(crate) fn nudge(&self) {
        self.lock().open.values().for_each(|open| open.pulse.nudge());
    }

    /// The same for those without a request whose time is up: while they are at rest, nothing else reminds them.
    pub(crate) fn nudge_overdue(&self, idle_deadline: Duration) {
        let state = self.lock();
        let pulses = state.open.values().map(|open| &open.pulse);
        pulses.filter(|pulse| pulse.is_resting(idle_deadline)).for_each(|pulse| pulse.nudge());
    }

    /// Whether a connection is of no use still. If it has been since, it may be told again.
    fn is_useless(&self, number: u64, pulse: &Pulse) -> bool {
        let is_useless = quiet(pulse).is_some();
        if !is_useless {
            self.lock().open.get_mut(&number).into_iter().for_each(|open| open.is_told = false);
        }
        is_useless
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one statement: a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells the first few that are of no use and `meant`.
    fn tell(&mut self, meant: impl Fn(&Open) -> bool) -> u64 {
        let count = |open: &Open| {
            let load = open.client.and_then(|client| self.by_client.get(&client));
            load.map_or(0, |load| load.connections.load(Ordering::Relaxed))
        };
        let useless = self.open.iter().filter(|(_, open)| !open.is_told && meant(open));
        let useless =
            useless.filter_map(|(number, open)| Some((Reverse(count(open)), Reverse(quiet(&open.pulse)?), *number)));
        let mut useless: Vec<(Reverse<usize>, Reverse<Duration>, u64)> = useless.collect();
        if useless.len() > SHED_MAX {
            useless.select_nth_unstable(SHED_MAX);
            useless.truncate(SHED_MAX);
        }
        let mut told = 0;
        for (.., number) in useless {
            if let Some(open) = self.open.get_mut(&number) {
                open.is_told = true;
                open.pulse.tell();
                told += 1;
            }
        }
        told
    }
}

impl Load {
    /// A place for a request. `None` when the client has as many under way as it may.
    pub(crate) fn begin(self: &Arc<Self>, most: usize) -> Option<Part> {
        self.part(|load| &load.requests, most)
    }

    /// A place for a request of which little is there. `None` when the client has as many as it may.
    pub(crate) fn begin_partly(self: &Arc<Self>, most: usize) -> Option<Part> {
        self.part(|load| &load.begun, most)
    }

    fn part(self: &Arc<Self>, count: fn(&Load) -> &AtomicUsize, most: usize) -> Option<Part> {
        // Dropped, it takes itself back.
        let part = Part { load: Arc::clone(self), count };
        (count(self).fetch_add(1, Ordering::Relaxed) < most).then_some(part)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        (self.count)(&self.load).fetch_sub(1, Ordering::Relaxed);
    }
}

/// For how long the connection has been of no use, if that is long enough.
fn quiet(pulse: &Pulse) -> Option<Duration> {
    pulse.unused().filter(|unused| *unused >= QUIET_MIN)
}

impl Seat {
    /// What its client has under way, if that is counted.
    pub(crate) fn load(&self) -> Option<Arc<Load>> {
        self.client.as_ref().map(|(_, load)| Arc::clone(load))
    }

    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.client.as_ref().map(|(client, _)| *client)
    }

    /// Has the connection count for a client that became known later: the one of `other`, whose seat it takes over.
    pub(crate) fn count(&mut self, mut other: Seat) {
        self.client = other.client.take();
        let client = self.client();
        let mut state = self.crowd.lock();
        if let Some(open) = self.number.and_then(|number| state.open.get_mut(&number)) {
            open.client = client;
        }
    }

    /// Puts the connection among those that may be told to close. Ends when it is to, and is of no use still.
    pub(crate) fn watch(&mut self, pulse: &Arc<Pulse>) -> impl Future<Output = ()> + use<> {
        self.list(self.client(), false, pulse)
    }

    fn list(
        &mut self,
        client: Option<IpAddr>,
        is_stream: bool,
        pulse: &Arc<Pulse>,
    ) -> impl Future<Output = ()> + use<> {
        // One that was at rest is among them.
        let number = *self.number.get_or_insert_with(|| {
            let mut state = self.crowd.lock();
            state.last += 1;
            let number = state.last;
            state.open.insert(number, Open { client, pulse: Arc::clone(pulse), is_stream, is_told: false });
            number
        });
        let (crowd, pulse) = (Arc::clone(&self.crowd), Arc::clone(pulse));
        async move {
            loop {
                pulse.nudged().await;
                if pulse.is_told() && crowd.is_useless(number, &pulse) {
                    return;
                }
            }
        }
    }

    /// Whether a connection that was told to close is of no use still.
    pub(crate) fn is_useless(&self, pulse: &Pulse) -> bool {
        self.number.is_some_and(|number| self.crowd.is_useless(number, pulse))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.crowd.lock();
        if let Some(number) = self.number {
            state.open.remove(&number);
        }
        if let Some((client, load)) = &self.client
            && load.connections.fetch_sub(1, Ordering::Relaxed) == 1
        {
            state.by_client.remove(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_client_has_its_bound_and_networks_of_ipv6_are_one() {
        let crowd = Arc::new(Crowd::default());
        let first = crowd.enter(ip("10.0.0.1"), 2);
        let second = crowd.enter(ip("::ffff:10.0.0.1"), 2);
        assert!(first.is_some() && second.is_some() && crowd.enter(ip("10.0.0.1"), 2).is_none());
        assert!(crowd.enter(ip("10.0.0.2"), 2).is_some(), "others are not touched");
        drop(first);
        let again = crowd.enter(ip("10.0.0.1"), 2);
        assert!(again.is_some());
        let sixes = [crowd.enter(ip("2001:db8::1"), 2), crowd.enter(ip("2001:db8::2"), 2)];
        assert!(sixes.iter().all(Option::is_some) && crowd.enter(ip("2001:db8::3"), 2).is_none());
        assert!(crowd.enter(None, 0).is_some(), "who speaks for others is not counted");
        drop((second, again, sixes));
        assert_eq!(crowd.lock().by_client.len(), 0);
    }

    #[test]
    fn who_has_much_of_a_full_house_gets_no_more() {
        let crowd = Arc::new(Crowd::default());
        let sit = |client: &str| crowd.enter(ip(client), usize::MAX).expect("a seat");
        let has_part = |client: &str| crowd.has_its_part(ip(client).expect("an address"), 100);
        let mut seats: Vec<Seat> = (0..24).map(|_| sit("10.0.0.1")).collect();
        seats.push(sit("10.0.0.2"));
        assert!(!has_part("10.0.0.1"), "half of its half would be 25");
        seats.push(sit("10.0.0.1"));
        assert!(has_part("10.0.0.1") && !has_part("10.0.0.2") && !has_part("10.0.0.3"));
    }

    #[test]
    fn those_who_have_most_make_room_first() {
        let crowd = Arc::new(Crowd::default());
        let mut seats = Vec::new();
        let mut sit = |client: &str, unused: bool| {
            let pulse = Arc::new(if unused { Pulse::long_unused() } else { Pulse::new() });
            let mut seat = crowd.enter(ip(client), usize::MAX).expect("a seat");
            drop(seat.watch(&pulse));
            seats.push(seat);
        };
        (0..SHED_MAX + 10).for_each(|_| sit("10.0.0.1", true));
        (0..5).for_each(|_| sit("10.0.0.2", true));
        (0..5).for_each(|_| sit("10.0.0.3", false));
        assert_eq!(crowd.make_room(), u64::try_from(SHED_MAX).expect("few"));
        let told = |client: &str| {
            let state = crowd.lock();
            let told = state.open.values().filter(|open| open.client == ip(client));
            told.filter(|open| open.pulse.is_told()).count()
        };
        assert_eq!((told("10.0.0.1"), told("10.0.0.2"), told("10.0.0.3")), (SHED_MAX, 0, 0));
        drop(seats);
        assert_eq!((crowd.make_room(), crowd.lock().open.len()), (0, 0));
    }

    #[test]
    fn slow_uploads_are_ended_wherever_they_are() {
        let crowd = Arc::new(Crowd::default());
        let pulse = Arc::new(Pulse::long_unused());
        pulse.request_begins(true);
        pulse.body_waits(false);
        let (seat, told) = crowd.watch_upload(ip("10.0.0.1").expect("an address"), &pulse);
        let mut told = std::pin::pin!(told);
        let mut is_told =
            || told.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready();
        assert_eq!(crowd.make_room(), 0, "a stream's end makes no room for a connection");
        assert!(!is_told());
        crowd.end_slow_uploads();
        assert!(is_told());
        drop(seat);
        assert_eq!(crowd.lock().open.len(), 0);
        let (_seat, told) = crowd.watch_upload(ip("10.0.0.1").expect("an address"), &pulse);
        pulse.uploaded();
        crowd.lock().looked_ms = 0;
        crowd.end_slow_uploads();
        let told = std::pin::pin!(told).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(told.is_pending(), "its body is through");
    }

    proptest! {
        #[test]
        fn nobody_has_more_than_the_bound_and_all_is_given_back(
            steps in prop::collection::vec((0..5_u8, prop::bool::weighted(0.6), any::<prop::sample::Index>()), 0..200),
        ) {
            const MOST: usize = 3;
            let crowd = Arc::new(Crowd::default());
            let mut seats: Vec<(u8, Seat)> = Vec::new();
            for (client, comes, which) in steps {
                if comes {
                    let has = seats.iter().filter(|(of, _)| *of == client).count();
                    let seat = crowd.enter(Some(IpAddr::from([10, 0, 0, client])), MOST);
                    prop_assert_eq!(seat.is_some(), has < MOST);
                    seats.extend(seat.map(|seat| (client, seat)));
                } else if !seats.is_empty() {
                    seats.swap_remove(which.index(seats.len()));
                }
            }
            seats.clear();
            prop_assert_eq!(crowd.lock().by_client.len(), 0);
        }
    }
}
