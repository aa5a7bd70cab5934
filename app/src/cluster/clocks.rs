//! How far the machines' clocks are from each other.
//!
//! Owns what was measured last. Promises to find it out also where a clock is so far off that certificates do not count for
//! that very reason: a stranger may ask what time it is. Sets no clock, and decides nothing but which of them are told of.

use super::home::Home;
use super::twin::{Life, PING};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use meter::Meter;
use rpc::{AttemptError, Guest, Patience, Peers, Terms};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wire::identity::Fingerprint;
use wire::resource::Member;

/// Clocks drift by seconds a day; one that was set is noticed before much is built on it.
const LOOK: Duration = Duration::from_secs(10);
/// What takes longer says little about the time.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// What is under way to one that does not know this machine's certificate any more.
const VISITED_WITHIN: Duration = Duration::from_secs(2);
/// From here on the log says so: an answer may be late by half of [`ANSWERED_WITHIN`], and nothing is decided by less.
const TOLD_MS: u64 = 2_000;

pub struct Clocks {
    pub me: String,
    pub peers: Peers,
    /// The cluster's, by whom a member is known to a stranger.
    pub authority: Option<Fingerprint>,
    pub home: Home,
    pub meter: Meter,
    /// By how much this machine's is ahead of the middle of all.
    pub own: watch::Sender<Option<i64>>,
}

/// By machine: host name, and how far its clock is ahead of the middle of all.
type Skews = BTreeMap<String, (String, i64)>;

impl Clocks {
    /// Runs until it is dropped, anywhere.
    pub async fn compare(self) {
        let shown = Arc::new(Mutex::new(Skews::new()));
        let collected = Arc::clone(&shown);
        let _series = self.meter.collector(move |samples| {
            let help = "How far a machine's clock is from the middle of all that were asked.";
            for (machine, (host, ahead_ms)) in &*collected.lock().unwrap_or_else(PoisonError::into_inner) {
                let seconds = Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64();
                samples.gauge(
                    "bramble_cluster_clock_skew_seconds",
                    help,
                    &[("machine", machine), ("host", host)],
                    seconds,
                );
            }
        });
        let mut told = false;
        loop {
            let measured = self.measure().await;
            let skews = skews(measured);
            let own = skews.get(&self.me).map(|(_, ahead_ms)| *ahead_ms);
            let is_off = own.is_some_and(|ahead_ms| ahead_ms.unsigned_abs() >= TOLD_MS);
            if let Some(ahead_ms) = own.filter(|_| is_off && !told) {
                let clock = side(ahead_ms);
                tracing::warn!(
                    clock,
                    "this machine's clock is not the others': set it; `timedatectl set-ntp true` keeps it right"
                );
            }
            told = is_off;
            self.own.send_replace(own);
            *shown.lock().unwrap_or_else(PoisonError::into_inner) = skews;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// By how much each clock that can be asked is ahead of this machine's, its own among them.
    async fn measure(&self) -> Skews {
        // Not of the state of record: a machine that is cut off by its clock is told nothing of it.
        let members = self.home.members().unwrap_or_else(|error| {
            tracing::warn!(error = wire::diagnostic::chain(&error), "whose clocks there are cannot be read");
            Vec::new()
        });
        let members: Vec<&Member> = members.iter().filter(|member| !member.revoked).collect();
        let mut asked: FuturesUnordered<_> = members
            .iter()
            .filter(|member| member.id != self.me)
            .map(|member| async move { (member, self.ahead_ms(member).await) })
            .collect();
        let mut measured = Skews::new();
        while let Some((member, ahead_ms)) = asked.next().await {
            if let Some(ahead_ms) = ahead_ms {
                measured.insert(member.id.clone(), (member.hostname.clone(), ahead_ms));
            }
        }
        if !measured.is_empty() {
            measured.insert(self.me.clone(), (super::hostname(), 0));
        }
        measured
    }

    async fn ahead_ms(&self, member: &Member) -> Option<i64> {
        let asked = world::clock::monotonic();
        if let Ok(answer) = self.peers.call(member.node, PING, Vec::new(), Terms::within(ANSWERED_WITHIN)).await {
            let life: Life = serde_json::from_slice(&answer.bytes).ok()?;
            let half_ms = i64::try_from(asked.elapsed().as_millis() / 2).unwrap_or(i64::MAX);
            return Some(ahead_ms(life.now_ms.saturating_add_signed(half_ms)));
        }
        let uncounted = Meter::new();
        let visit = Guest::visit(&member.addresses, self.authority?, Patience::default(), &uncounted);
        match tokio::time::timeout(VISITED_WITHIN, visit).await.ok()? {
            Ok(guest) => Some(ahead_ms(guest.now_ms())),
            Err(error) => error.attempts.iter().find_map(|(_, error)| {
                if let AttemptError::Clock { behind_s } = error { Some(behind_s.saturating_mul(1_000)) } else { None }
            }),
        }
    }
}

fn ahead_ms(there_ms: u64) -> i64 {
    there_ms.cast_signed().saturating_sub(world::clock::unix_ms().cast_signed())
}

/// Seen from the middle: one of three that is wrong does not move it. Of two nobody can say which is right.
fn skews(measured: Skews) -> Skews {
    let mut sorted: Vec<i64> = measured.values().map(|(_, ahead_ms)| *ahead_ms).collect();
    sorted.sort_unstable();
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    let (Some(low), Some(high)) = (sorted.get(low), sorted.get(high)) else { return measured };
    let middle = low.midpoint(*high);
    measured.into_iter().map(|(id, (host, ahead_ms))| (id, (host, ahead_ms.saturating_sub(middle)))).collect()
}

/// As people say it.
pub fn side(ahead_ms: i64) -> String {
    const DAY_S: u64 = 86_400;
    let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let seconds = ahead_ms.unsigned_abs() / 1_000;
    if seconds >= DAY_S { format!("{} days {side}", seconds / DAY_S) } else { format!("{seconds} seconds {side}") }
}

#[cfg(test)]
mod tests {
    use super::{Skews, side, skews};

    #[test]
    fn one_of_three_that_is_wrong_is_named_and_of_two_both() {
        let check = |ahead: &[i64], expected: &[i64]| {
            let name = |at: usize| if at == 0 { "me".to_owned() } else { at.to_string() };
            let measured: Skews = ahead.iter().enumerate().map(|(at, ms)| (name(at), (String::new(), *ms))).collect();
            let found = skews(measured);
            let found: Vec<i64> = (0..ahead.len()).map(|at| found[&name(at)].1).collect();
            assert_eq!(found, expected, "{ahead:?}");
        };
        check(&[], &[]);
        check(&[0], &[0]);
        check(&[0, 10_000], &[-5_000, 5_000]);
        check(&[0, 9, 31_536_000_000], &[-9, 0, 31_535_999_991]);
        check(&[0, -31_536_000_000, -31_535_999_990], &[31_535_999_990, -10, 0]);
        check(&[0, 1, 2, 100_000], &[-1, 0, 1, 99_999]);
    }

    #[test]
    fn a_difference_is_said_as_people_do() {
        assert_eq!(side(-31_536_000_000), "365 days behind");
        assert_eq!(side(5_300), "5 seconds ahead of");
    }
}
