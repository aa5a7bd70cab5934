//! A set of endpoints to choose from, and the choice.
//!
//! Owns the draw and the rules that need all endpoints in view: who may be picked, and how many may be left
//! out. Does not know why an endpoint is slow: its price says so.

use crate::member::{Endpoint, Member, Outcome, Standing};
use std::sync::Arc;

/// Server errors leave out no more than this share of the endpoints: when most of them answer with errors,
/// the program or what it depends on is broken, and fewer endpoints would only be busier.
const EJECTED_PERCENT_MAX: usize = 50;

/// The endpoints of one service, with what is known of each.
#[derive(Debug, Default)]
pub struct Pool {
    /// Sorted by id.
    members: Vec<Member>,
}

/// Who takes part in a draw.
#[derive(Clone, Copy)]
enum Round {
    /// Everybody who is not left out.
    Healthy,
    /// All are left out: better a doubtful endpoint than none.
    Everybody,
}

impl Pool {
    /// An empty pool, from which nothing can be picked.
    pub fn new() -> Pool {
        Pool::default()
    }

    /// Makes `endpoints` the ones to choose from. What is known of those that stay is kept; those that go
    /// are forgotten when the last of what they have in flight is done, and begin anew if they come back.
    pub fn update(&mut self, mut endpoints: Vec<Endpoint>) {
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        endpoints.dedup_by(|later, first| later.id == first.id);
        let mut known = std::mem::take(&mut self.members).into_iter().peekable();
        let mut members = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            while let Some(gone) = known.next_if(|member| *member.id < *endpoint.id) {
                members.extend(leaving(gone));
            }
            match known.next_if(|member| *member.id == *endpoint.id) {
                Some(member) => members.push(member.listed_as(endpoint)),
                None => members.push(Member::new(endpoint)),
            }
        }
        members.extend(known.filter_map(leaving));
        self.members = members;
    }

    /// Chooses an endpoint and counts one more in flight there, until [`Pool::done`] is told how it went.
    /// `None` when there is no endpoint that may get picks.
    pub fn pick(&mut self, now_ms: u64, random: u64) -> Option<Arc<str>> {
        self.pick_except(now_ms, random, &[])
    }

    /// [`Pool::pick`] among those not in `except`: the ones a request has already tried.
    pub fn pick_except(&mut self, now_ms: u64, random: u64, except: &[Arc<str>]) -> Option<Arc<str>> {
        let index = self
            .draw(Round::Healthy, now_ms, random, except)
            .or_else(|| self.draw(Round::Everybody, now_ms, random, except))?;
        let member = self.members.get_mut(index)?;
        member.picked(now_ms);
        Some(Arc::clone(&member.id))
    }

    /// Says that what was picked works, though it goes on: a tunnel that opened, whose end tells nothing more
    /// ([`Outcome::ClientGone`]).
    pub fn answered(&mut self, id: &str, now_ms: u64, latency_ms: u64) {
        if let Ok(index) = self.find(id)
            && let Some(member) = self.members.get_mut(index)
        {
            member.answered(now_ms, latency_ms);
        }
    }

    /// Says how what was picked ended. Returns true when nothing is left in flight at an endpoint that gets
    /// no new picks: it may be stopped.
    pub fn done(&mut self, id: &str, now_ms: u64, outcome: Outcome) -> bool {
        let Ok(index) = self.find(id) else { return false };
        let may_eject = self.may_eject_one_more(now_ms);
        let Some(member) = self.members.get_mut(index) else { return false };
        member.done(now_ms, outcome, may_eject);
        if member.in_flight > 0 {
            return false;
        }
        match member.standing {
            Standing::Active => false,
            Standing::Draining => true,
            Standing::Gone => {
                self.members.remove(index);
                true
            }
        }
    }

    /// How much is in flight at an endpoint, also at one that is no longer listed.
    pub fn in_flight(&self, id: &str) -> usize {
        self.find(id).ok().and_then(|index| self.members.get(index)).map_or(0, |member| member.in_flight)
    }

    /// How much is in flight in all.
    pub fn in_flight_total(&self) -> usize {
        self.members.iter().map(|member| member.in_flight).sum()
    }

    /// Whether an endpoint gets new picks.
    pub fn takes_picks(&self, id: &str) -> bool {
        self.find(id).ok().and_then(|index| self.members.get(index)).is_some_and(Member::listed)
    }

    /// How many endpoints may be picked, counting those left out for a while.
    pub fn size(&self) -> usize {
        self.members.iter().filter(|member| member.listed()).count()
    }

    /// Every id known, also of those that only finish what they have.
    pub fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.members.iter().map(|member| &member.id)
    }

    fn find(&self, id: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|member| (*member.id).cmp(id))
    }

    fn draw(&self, round: Round, now_ms: u64, random: u64, except: &[Arc<str>]) -> Option<usize> {
        let eligible = |member: &Member| {
            member.listed()
                && match round {
                    Round::Healthy => !member.ejected(now_ms),
                    Round::Everybody => true,
                }
                && !except.contains(&member.id)
        };
        let candidates = || self.members.iter().enumerate().filter(|(_, member)| eligible(member));
        let total: u64 = candidates().map(|(_, member)| u64::from(member.weight)).sum();
        // Two draws by weight, the second among the others, so that two endpoints are always compared.
        let (low, high) = (random & u64::from(u32::MAX), random >> 32);
        let (first, one) = at_weight(candidates(), scale(low, total))?;
        let rest = candidates().filter(|(index, _)| *index != first);
        let Some((second, other)) = at_weight(rest, scale(high, total - u64::from(one.weight))) else {
            return Some(first);
        };
        Some(if other.price(now_ms) < one.price(now_ms) { second } else { first })
    }

    fn may_eject_one_more(&self, now_ms: u64) -> bool {
        let out = self.members.iter().filter(|member| member.listed() && member.ejected(now_ms)).count();
        (out + 1) * 100 <= self.size() * EJECTED_PERCENT_MAX
    }
}

/// What is left of a member that is no longer listed.
fn leaving(mut member: Member) -> Option<Member> {
    member.standing = Standing::Gone;
    (member.in_flight > 0).then_some(member)
}

/// Maps 32 random bits onto `0..total` without a division.
fn scale(bits: u64, total: u64) -> u64 {
    u64::try_from((u128::from(bits) * u128::from(total)) >> 32).unwrap_or(0)
}

/// The candidate in whose stretch of the summed weights `target` lies.
fn at_weight<'a>(
    candidates: impl Iterator<Item = (usize, &'a Member)>,
    mut target: u64,
) -> Option<(usize, &'a Member)> {
    for (index, member) in candidates {
        let weight = u64::from(member.weight);
        if target < weight {
            return Some((index, member));
        }
        target -= weight;
    }
    None
}
