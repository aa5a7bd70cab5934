//! The choice among the members of a pool.
//!
//! Owns who takes part in a draw, the two-choice rule, the hash, the preference for what is near, and who is due
//! for a trial. Walks the members a few times and keeps what it found in them: it makes no list.

use crate::endpoint::{Breaker, Cause, Choice, NotPicked};
use crate::member::{Circuit, Member, Trial};
use crate::pool::Pool;
use std::sync::Arc;

/// Latencies that differ by less than this count the same: it is noise, and in-flight numbers tell better.
const ALIKE: f64 = 1.5;
/// Latencies below this count the same: a scheduler's time slice moves them more than the endpoint does.
const LATENCY_US_FLOOR: f64 = 5_000.0;

/// An endpoint that takes so many times as long as the best is worth another draw.
const COSTLY: f64 = 3.0;
/// Pairs drawn at most: where a third of the endpoints are bad, all of four pairs are once in ten thousand picks.
const PAIRS_MAX: usize = 4;

/// Who takes part in a draw.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Full members; when those are too few, the ones left out for errors as well.
    Healthy { panic: bool },
    /// As above, and those whose trial is due: the caller wants a certain endpoint.
    Affine { panic: bool },
    /// All are left out: better a doubtful endpoint than none.
    Everybody,
}

/// What all endpoints in view say.
#[derive(Clone, Copy, Default)]
struct View {
    listed: usize,
    closed: usize,
    /// Of the closed ones.
    failing_sum: f64,
    /// The lowest known latency of the closed ones.
    best_us: Option<f64>,
    doubtful: bool,
}

/// Those that take part.
#[derive(Clone, Copy, Default)]
struct Side {
    count: u64,
    weight: u64,
    in_flight: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Near,
}

/// One that was drawn.
struct Candidate {
    index: usize,
    /// How many wait there and the newcomer, for its share.
    queue: f64,
    latency_us: f64,
    penalty_us: f64,
}

impl Candidate {
    fn cheaper_than(&self, other: &Candidate) -> bool {
        let (low_us, high_us) = (self.latency_us.min(other.latency_us), self.latency_us.max(other.latency_us));
        let alike = high_us <= low_us * ALIKE;
        let price = |one: &Candidate| one.queue * if alike { low_us } else { one.latency_us } + one.penalty_us;
        price(self) < price(other)
    }

    /// What it would cost with nobody there.
    fn idle_us(&self) -> f64 {
        self.latency_us + self.penalty_us
    }
}

impl Side {
    fn add(&mut self, member: &Member) {
        self.count += 1;
        self.weight += member.draw;
        self.in_flight += member.in_flight;
    }

    fn less(self, other: Side) -> Side {
        Side {
            count: self.count - other.count,
            weight: self.weight - other.weight,
            in_flight: self.in_flight - other.in_flight,
        }
    }

    /// What one endpoint of `mean_weight` has in flight here.
    fn crowd(self, mean_weight: f64) -> f64 {
        real(self.in_flight) * mean_weight / whole(self.weight).max(1.0)
    }
}

impl View {
    /// The share of failures of all but `member`.
    fn failing_of_others(&self, member: &Member) -> f64 {
        let counted = member.listed() && member.closed();
        let (own, own_failing) = if counted { (1, member.failing) } else { (0, 0.0) };
        let others = self.closed.saturating_sub(own);
        if others == 0 {
            return 0.0;
        }
        (self.failing_sum - own_failing).max(0.0) / real(others)
    }
}

impl Pool {
    /// How long an endpoint is expected to take, if anything is known of it, and what its failures cost it on top. In
    /// microseconds.
    pub(crate) fn price_parts_us(&self, now_ms: u64, member: &Member) -> (Option<f64>, f64) {
        let view = self.view();
        let latency_us = member.latency.known_us().map(|_| self.latency_us(now_ms, &view, member));
        (latency_us, member.penalty_us(view.failing_of_others(member), &self.settings))
    }

    pub(crate) fn choose(
        &mut self,
        now_ms: u64,
        random: u64,
        choice: Choice<'_>,
        except: &[Arc<str>],
    ) -> Result<usize, NotPicked> {
        let view = self.view();
        let panic = view.closed * 100 < view.listed * percent(self.settings.panic_percent);
        let certain = match choice {
            Choice::LeastLoad => None,
            Choice::Sticky(id) => self.sticky(now_ms, &view, panic, id, except),
            Choice::Hash(key) => self.hashed(now_ms, &view, panic, key, except),
        };
        if let Some(index) = certain {
            return Ok(index);
        }
        // A request that has failed once has done its share.
        if except.is_empty()
            && let Some(index) = self.due(now_ms, &view)
        {
            return Ok(index);
        }
        for round in [Round::Healthy { panic }, Round::Everybody] {
            let (all, near) = self.weigh(now_ms, &view, round, except);
            let scope = self.scope(all, near);
            let side = if scope == Scope::Near { near } else { all };
            if let Some(index) = self.cheapest(now_ms, random, &view, scope, side) {
                return Ok(index);
            }
        }
        Err(self.why_not(except))
    }

    /// Takes in that a member is picked: pays for a trial, earns towards the next.
    pub(crate) fn settle_trial(&mut self, now_ms: u64, index: usize) {
        let one_in = u64::from(self.settings.trial_one_in);
        // Four at once: a program that boots is found ready soon, however little is asked of it.
        self.trial_credit = (self.trial_credit + 1).min(one_in * 4);
        let Some(member) = self.members.get(index).filter(|member| member.doubtful()) else { return };
        let view = self.view();
        let trial = member.trial(now_ms, view.failing_of_others(member), &self.settings);
        if trial == Some(Trial::Blind) {
            self.trial_credit = self.trial_credit.saturating_sub(one_in);
        }
    }

    fn view(&self) -> View {
        let mut view = View::default();
        for member in self.members.iter().filter(|member| member.listed()) {
            view.listed += 1;
            view.doubtful |= member.doubtful();
            if member.closed() {
                view.closed += 1;
                view.failing_sum += member.failing;
                let known_us = member.latency.known_us();
                view.best_us =
                    view.best_us.zip(known_us).map(|(best, known)| best.min(known)).or(view.best_us).or(known_us);
            }
        }
        view
    }

    /// Who may be tried and has waited longest.
    fn due(&self, now_ms: u64, view: &View) -> Option<usize> {
        if !view.doubtful {
            return None;
        }
        let tried = self.members.iter().enumerate().filter(|(_, member)| {
            member.listed() && !member.full(&self.settings) && self.may_try(now_ms, view, member)
        });
        tried.min_by_key(|(_, member)| member.tried_ms).map(|(index, _)| index)
    }

    fn may_try(&self, now_ms: u64, view: &View, member: &Member) -> bool {
        match member.trial(now_ms, view.failing_of_others(member), &self.settings) {
            Some(Trial::Hopeful) => true,
            Some(Trial::Blind) => {
                self.trial_credit >= u64::from(self.settings.trial_one_in)
                    || now_ms.saturating_sub(member.tried_ms) >= self.settings.trial_wait_ms
            }
            None => false,
        }
    }

    fn takes_part(&self, now_ms: u64, view: &View, round: Round, member: &Member) -> bool {
        let open = |panic: bool| panic && matches!(member.circuit, Circuit::Open { cause: Cause::Errors, .. });
        member.listed()
            && !member.full(&self.settings)
            && match round {
                Round::Healthy { panic } => member.closed() || open(panic),
                Round::Affine { panic } => {
                    let back = member.breaker(now_ms) == Breaker::HalfOpen && self.may_try(now_ms, view, member);
                    member.closed() || open(panic) || back
                }
                Round::Everybody => true,
            }
    }

    /// Gives everybody who takes part a weight in the draw; says who they are in all, and who of them is near.
    fn weigh(&mut self, now_ms: u64, view: &View, round: Round, except: &[Arc<str>]) -> (Side, Side) {
        let (mut all, mut near) = (Side::default(), Side::default());
        for index in 0..self.members.len() {
            let Some(member) = self.members.get(index) else { break };
            let takes_part = self.takes_part(now_ms, view, round, member) && !except.contains(&member.id);
            let draw = if takes_part { member.share(now_ms, &self.settings) } else { 0 };
            let is_near = self.is_near(member);
            let Some(member) = self.members.get_mut(index) else { break };
            member.draw = draw;
            if draw > 0 {
                all.add(member);
                if is_near {
                    near.add(member);
                }
            }
        }
        (all, near)
    }

    fn is_near(&self, member: &Member) -> bool {
        self.settings.zone.is_some() && member.zone == self.settings.zone
    }

    /// Near, unless there is nobody, or they have so much more in flight that the way is worth it.
    fn scope(&self, all: Side, near: Side) -> Scope {
        let far = all.less(near);
        if near.count == 0 || far.count == 0 {
            return Scope::All;
        }
        let mean_weight = whole(all.weight) / whole(all.count);
        let bound = far.crowd(mean_weight) + f64::from(self.settings.zone_spill);
        if near.crowd(mean_weight) > bound { Scope::All } else { Scope::Near }
    }

    /// The cheaper of two; of more only while those drawn are all far worse than the best, as two may be by chance.
    fn cheapest(&self, now_ms: u64, mut random: u64, view: &View, scope: Scope, side: Side) -> Option<usize> {
        let mut cheapest: Option<Candidate> = None;
        for _ in 0..PAIRS_MAX {
            let (one, other) = self.pair(random, scope, side)?;
            for index in [Some(one), other].into_iter().flatten() {
                let Some(candidate) = self.candidate(now_ms, view, side, index) else { continue };
                cheapest = Some(match cheapest {
                    Some(before) if !candidate.cheaper_than(&before) => before,
                    Some(_) | None => candidate,
                });
            }
            let best_us = view.best_us.unwrap_or_default().max(LATENCY_US_FLOOR);
            if other.is_none() || cheapest.as_ref().is_none_or(|candidate| candidate.idle_us() <= best_us * COSTLY) {
                break;
            }
            random = mix(random);
        }
        cheapest.map(|candidate| candidate.index)
    }

    /// Two draws by weight, the second among the others, so that two endpoints are always compared.
    fn pair(&self, random: u64, scope: Scope, side: Side) -> Option<(usize, Option<usize>)> {
        let candidates = || {
            let members = self.members.iter().enumerate().filter(|(_, member)| member.draw > 0);
            members.filter(move |(_, member)| scope == Scope::All || self.is_near(member))
        };
        let (low, high) = (random & u64::from(u32::MAX), random >> 32);
        let (first, one) = at_weight(candidates(), scale(low, side.weight))?;
        let rest = candidates().filter(|(index, _)| *index != first);
        let second = at_weight(rest, scale(high, side.weight - one.draw));
        Some((first, second.map(|(index, _)| index)))
    }

    fn candidate(&self, now_ms: u64, view: &View, side: Side, index: usize) -> Option<Candidate> {
        let member = self.members.get(index)?;
        let mean_weight = whole(side.weight) / whole(side.count);
        Some(Candidate {
            index,
            queue: real(member.in_flight) * mean_weight / whole(member.draw) + 1.0,
            latency_us: self.latency_us(now_ms, view, member).max(LATENCY_US_FLOOR),
            penalty_us: member.penalty_us(view.failing_of_others(member), &self.settings),
        })
    }

    fn latency_us(&self, now_ms: u64, view: &View, member: &Member) -> f64 {
        member.latency.at(now_ms, self.settings.forget_ms, view.best_us.unwrap_or_default())
    }

    fn sticky(&self, now_ms: u64, view: &View, panic: bool, id: &str, except: &[Arc<str>]) -> Option<usize> {
        let index = self.find(id)?;
        let member = self.members.get(index)?;
        let may = self.takes_part(now_ms, view, Round::Affine { panic }, member) && !except.contains(&member.id);
        may.then_some(index)
    }

    /// The highest random weight among those that have not much more in flight than the mean.
    fn hashed(&mut self, now_ms: u64, view: &View, panic: bool, key: u64, except: &[Arc<str>]) -> Option<usize> {
        let (all, _) = self.weigh(now_ms, view, Round::Affine { panic }, except);
        let taking = || self.members.iter().enumerate().filter(|(_, member)| member.draw > 0);
        // By the weight alone: load and age change, and keys should not move with them.
        let weight: f64 = taking().map(|(_, member)| f64::from(member.weight)).sum();
        let bound = real(all.in_flight + 1) * f64::from(self.settings.hash_load_percent.max(100)) / 100.0;
        let fits = |member: &Member| real(member.in_flight) < (bound * f64::from(member.weight) / weight).ceil();
        taking()
            .filter(|(_, member)| fits(member))
            .map(|(index, member)| (index, rank(key, member)))
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
            .map(|(index, _)| index)
    }

    fn why_not(&self, except: &[Arc<str>]) -> NotPicked {
        let mut listed = self.members.iter().filter(|member| member.listed()).peekable();
        if listed.peek().is_none() {
            NotPicked::Nobody
        } else if listed.all(|member| except.contains(&member.id)) {
            NotPicked::Tried
        } else {
            NotPicked::Full
        }
    }
}

/// The weighted rendezvous score: `-weight / ln(h)` with `h` even between 0 and 1 ("New Hashing Algorithms for Data
/// Storage", Schindelhauer and Schomaker).
fn rank(key: u64, member: &Member) -> f64 {
    let even = (whole(mix(key ^ member.hash) >> 11) + 0.5) / whole(1 << 53);
    -f64::from(member.weight) / even.ln()
}

/// The end of splitmix64: every bit of the input moves half of the output's.
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
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
        if target < member.draw {
            return Some((index, member));
        }
        target -= member.draw;
    }
    None
}

fn percent(percent: u32) -> usize {
    usize::try_from(percent).unwrap_or(usize::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of requests and endpoints stay far below 2^52")]
fn real(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "weights in sum may be off by one in 2^52")]
fn whole(weight: u64) -> f64 {
    weight as f64
}
