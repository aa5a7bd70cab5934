//! What becomes of an instance whose machine is away.

use crate::Input;
use crate::census::{Census, Seat};
use crate::choice::For;
use crate::volumes;
use wire::resource::Presence;
use wire::spec::{Mode, Reconcile};

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its machine is there, or not yet judged; or it has done what it was to do.
    Stays,
    /// Another takes its slot. Told to stop, so that it does if its machine comes back.
    Replaced,
    /// Another takes its slot until its machine comes back.
    StoodIn,
    /// Its slot waits.
    Waits { until_ms: Option<u64>, why: String },
    /// Its slot waits until it is sure that it runs no longer.
    Fenced { why: String },
}

pub(crate) fn fate<'a>(input: &Input<'a>, census: &Census<'a>, of: &For<'a>, seat: &Seat<'a>) -> Fate {
    if seat.reachable || seat.done {
        return Fate::Stays;
    }
    let machine = census.called(&seat.instance.node);
    let down_since_ms = seat.spot.and_then(|spot| match census.machines[spot as usize].1.presence {
        Presence::Up | Presence::Silent { .. } => None,
        Presence::Down { since_ms } => Some(since_ms),
    });
    if of.spec.mode == Mode::Global && down_since_ms.is_some() {
        return Fate::Waits { until_ms: None, why: format!("{machine} is down") };
    }
    let slot_is_wanted = of.spec.mode == Mode::Global || seat.slot <= of.spec.replicas;
    let keeps_data = volumes::local(of.stack, of.spec).next().is_some();
    if let Some(volume) = volumes::pinned(of.stack, seat)
        && keeps_data
        && slot_is_wanted
        && seat.wanted
    {
        let why = format!("its volume {volume} is on {machine}, which is down");
        return Fate::Waits { until_ms: None, why };
    }
    if let Some(since_ms) = down_since_ms {
        let until_ms = since_ms.saturating_add(of.spec.disconnect.lost_after_ms);
        if input.now_ms < until_ms {
            let why = format!("{machine} is down; replaced when it stays so for its service's lost_after");
            return Fate::Waits { until_ms: Some(until_ms), why };
        }
    }
    if volumes::is_single(of.spec) && !input.fenced.contains(&seat.instance.id) {
        let why = format!("it may still run on {machine}, which is down: it must be fenced before it runs elsewhere");
        return Fate::Fenced { why };
    }
    match of.spec.disconnect.reconcile {
        Reconcile::KeepOriginal if down_since_ms.is_some() && !volumes::is_single(of.spec) => Fate::StoodIn,
        Reconcile::KeepOriginal | Reconcile::KeepReplacement => Fate::Replaced,
    }
}
