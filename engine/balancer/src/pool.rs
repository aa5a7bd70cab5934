//! A set of endpoints to choose from.
//!
//! Owns what is known of them and the rules that need all of them in view when something ends: how many may be
//! left out, and who does worse than the rest. The choice itself is in `draw`.

use crate::endpoint::{Breaker, Choice, Endpoint, NotPicked, Outcome, Seen};
use crate::member::{Circuit, Member, Standing};
use crate::settings::Settings;
use std::sync::Arc;

/// The endpoints of one service, with what is known of each.
#[derive(Debug)]
pub struct Pool {
    pub(crate) settings: Settings,
    /// Sorted by id.
    pub(crate) members: Vec<Member>,
    /// Picks since doubtful endpoints were last tried, up to a few trials' worth.
    pub(crate) trial_credit: u64,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::with(Settings::default())
    }
}

impl Pool {
    /// An empty pool, from which nothing can be picked.
    pub fn new() -> Pool {
        Pool::default()
    }

    /// An empty pool that chooses by `settings`.
    pub fn with(settings: Settings) -> Pool {
        let trial_credit = u64::from(settings.trial_one_in) * 4;
        Pool { settings, members: Vec::new(), trial_credit }
    }

    /// Makes `endpoints` the ones to choose from. What is known of those that stay is kept; those that go
    /// are forgotten when the last of what they have in flight is done, and begin anew if they come back.
    pub fn update(&mut self, now_ms: u64, mut endpoints: Vec<Endpoint>) {
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        endpoints.dedup_by(|later, first| later.id == first.id);
        let mut known = std::mem::take(&mut self.members).into_iter().peekable();
        let mut members = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            while let Some(gone) = known.next_if(|member| *member.id < *endpoint.id) {
                members.extend(leaving(gone));
            }
            match known.next_if(|member| *member.id == *endpoint.id) {
                Some(member) => members.push(member.listed_as(now_ms, endpoint)),
                None => members.push(Member::new(now_ms, endpoint)),
            }
        }
        members.extend(known.filter_map(leaving));
        self.members = members;
    }

    /// How much may be in flight at one endpoint from now on; 0 is no bound.
    pub fn bound(&mut self, in_flight_max: usize) {
        self.settings.in_flight_max = in_flight_max;
    }

    /// Says how busy an endpoint's machine is, from 0.0, idle, to 1.0, saturated. Nothing else about it changes.
    pub fn set_load(&mut self, id: &str, load: f64) {
        if let Some(member) = self.member_mut(id) {
            member.load = if load.is_nan() { 0.0 } else { load.clamp(0.0, 1.0) };
        }
    }

    /// Chooses an endpoint by least load and counts one more in flight there, until [`Pool::done`] is told how it
    /// went. All bits of `random` are used.
    pub fn pick(&mut self, now_ms: u64, random: u64) -> Result<Arc<str>, NotPicked> {
        self.pick_by(now_ms, random, Choice::LeastLoad, &[])
    }

    /// [`Pool::pick`] among those not in `except`: the ones a request has already tried.
    pub fn pick_except(&mut self, now_ms: u64, random: u64, except: &[Arc<str>]) -> Result<Arc<str>, NotPicked> {
        self.pick_by(now_ms, random, Choice::LeastLoad, except)
    }

    /// [`Pool::pick_except`] by another rule.
    pub fn pick_by(
        &mut self,
        now_ms: u64,
        random: u64,
        choice: Choice<'_>,
        except: &[Arc<str>],
    ) -> Result<Arc<str>, NotPicked> {
        let index = self.choose(now_ms, random, choice, except)?;
        self.settle_trial(now_ms, index);
        let member = self.members.get_mut(index).ok_or(NotPicked::Nobody)?;
        member.picked(now_ms);
        Ok(Arc::clone(&member.id))
    }

    /// Says that what was picked works, though it goes on: a tunnel that opened, whose end tells nothing more
    /// ([`Outcome::ClientGone`]). Says nothing of its speed: tunnels are spread by how many there are.
    pub fn answered(&mut self, id: &str, now_ms: u64) {
        if let Some(index) = self.find(id) {
            self.note_answer(index, now_ms, None);
        }
    }

    /// Says how what was picked ended. Returns true when nothing is left in flight at an endpoint that gets
    /// no new picks: it may be stopped.
    pub fn done(&mut self, id: &str, now_ms: u64, outcome: Outcome) -> bool {
        let Some(index) = self.find(id) else { return false };
        match outcome {
            Outcome::Ok { latency_us } => self.note_answer(index, now_ms, Some(latency_us)),
            Outcome::ConnectFailed => {
                if let Some(member) = self.members.get_mut(index) {
                    member.refused(now_ms, &self.settings);
                }
            }
            Outcome::ServerError => self.note_error(index, now_ms),
            Outcome::ClientGone => {}
        }
        let Some(member) = self.members.get_mut(index) else { return false };
        member.in_flight = member.in_flight.saturating_sub(1);
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
        self.member(id).map_or(0, |member| member.in_flight)
    }

    /// How much is in flight in all.
    pub fn in_flight_total(&self) -> usize {
        self.members.iter().map(|member| member.in_flight).sum()
    }

    /// Whether an endpoint gets new picks.
    pub fn takes_picks(&self, id: &str) -> bool {
        self.member(id).is_some_and(Member::listed)
    }

    /// How many endpoints may be picked, counting those left out for a while.
    pub fn size(&self) -> usize {
        self.members.iter().filter(|member| member.listed()).count()
    }

    /// Every id known, also of those that only finish what they have.
    pub fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.members.iter().map(|member| &member.id)
    }

    /// Whether an endpoint gets requests. `None` for one that is not known.
    pub fn breaker(&self, id: &str, now_ms: u64) -> Option<Breaker> {
        self.member(id).map(|member| member.breaker(now_ms))
    }

    /// Whether the service as a whole does: as its best endpoint. Open when there is none.
    pub fn breaker_of_all(&self, now_ms: u64) -> Breaker {
        let listed = self.members.iter().filter(|member| member.listed());
        listed.map(|member| member.breaker(now_ms)).min().unwrap_or(Breaker::Open)
    }

    /// What is known of every endpoint, in the order of their ids, for people to look at.
    pub fn seen(&self, now_ms: u64) -> impl Iterator<Item = Seen<'_>> {
        self.members.iter().map(move |member| {
            let (latency_us, penalty_us) = self.price_parts_us(now_ms, member);
            let (since_ms, cause) = match member.circuit {
                Circuit::Closed { since_ms } => (since_ms, None),
                Circuit::Open { since_ms, cause, .. } => (since_ms, Some(cause)),
            };
            Seen {
                id: &member.id,
                zone: member.zone.as_ref(),
                weight: member.weight,
                load: member.load,
                in_flight: member.in_flight,
                latency_ms: latency_us.map(|latency_us| latency_us / 1_000.0),
                penalty_ms: penalty_us / 1_000.0,
                breaker: member.breaker(now_ms),
                since_ms,
                cause,
                ejected_until_ms: match member.circuit {
                    Circuit::Open { until_ms, .. } if now_ms < until_ms => Some(until_ms),
                    Circuit::Open { .. } | Circuit::Closed { .. } => None,
                },
                draining: member.standing != Standing::Active,
            }
        })
    }

    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.members.binary_search_by(|member| (*member.id).cmp(id)).ok()
    }

    fn member(&self, id: &str) -> Option<&Member> {
        self.find(id).and_then(|index| self.members.get(index))
    }

    fn member_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.find(id).and_then(|index| self.members.get_mut(index))
    }

    fn note_answer(&mut self, index: usize, now_ms: u64, latency_us: Option<u64>) {
        if let Some(member) = self.members.get_mut(index) {
            member.answered(now_ms, latency_us, &self.settings);
        }
    }

    fn note_error(&mut self, index: usize, now_ms: u64) {
        let may_eject = self.may_eject_one_more();
        let others = self.success_of_others(index, now_ms);
        if let Some(member) = self.members.get_mut(index) {
            member.erred(now_ms, may_eject, others, &self.settings);
        }
    }

    fn may_eject_one_more(&self) -> bool {
        let out = self.members.iter().filter(|member| member.listed() && !member.closed()).count();
        let most = u64::from(self.settings.ejected_percent_max);
        u64::try_from((out + 1) * 100).is_ok_and(|wanted| wanted <= most.saturating_mul(self.size() as u64))
    }

    /// The mean success rate of the other full members of which enough is known.
    fn success_of_others(&self, index: usize, now_ms: u64) -> Option<f64> {
        let (mut sum, mut count) = (0.0, 0_u32);
        for (other, member) in self.members.iter().enumerate() {
            if other != index
                && member.listed()
                && member.closed()
                && let Some(rate) = member.success_rate(now_ms, &self.settings)
            {
                sum += rate;
                count += 1;
            }
        }
        (count > 0).then(|| sum / f64::from(count))
    }
}

/// What is left of a member that is no longer listed.
fn leaving(mut member: Member) -> Option<Member> {
    member.standing = Standing::Gone;
    (member.in_flight > 0).then_some(member)
}
