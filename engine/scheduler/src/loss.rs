//! What becomes of an instance whose machine is away.

use crate::Input;
use crate::census::{Census, Seat};
use crate::choice::For;
use crate::volumes;
use wire::resource::Presence;
use wire::spec::{Mode, Reconcile};

/// What whoever counts adds to `stop_after` until an instance has surely stopped, rounded up.
const SURE_WITHIN_MS: u64 = 2_000;

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
    /// Its slot waits until it is sure that it runs no longer, which takes until then at the most.
    Fenced { until_ms: Option<u64>, why: String },
}

pub(crate) fn fate<'a>(input: &Input<'a>, census: &Census<'a>, of: &For<'a>, seat: &Seat<'a>) -> Fate {
    if seat.done {
        return Fate::Stays;
    }
    // Its machine may be back: it was kept from running for good, and another may be on its way.
    if crate::is_fenced(input, seat) {
        return Fate::Replaced;
    }
    if seat.reachable {
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
    if volumes::runs_once(of.spec, seat) {
        let why = match (seat.instance.spec.disconnect.stop_after_ms, down_since_ms) {
            (Some(_), Some(_)) => format!("until {machine}, which is down, has surely stopped it"),
            (Some(_), None) => format!("{machine}, which was removed, must surely have stopped it first"),
            (None, _) => format!(
                "it may still run on {machine}, which is down and stops it only when it is back: its service has no `stop_after`"
            ),
        };
        return Fate::Fenced { until_ms: stopped_at_ms(seat, down_since_ms), why };
    }
    match of.spec.disconnect.reconcile {
        Reconcile::KeepOriginal if down_since_ms.is_some() => Fate::StoodIn,
        Reconcile::KeepOriginal | Reconcile::KeepReplacement => Fate::Replaced,
    }
}

/// When its machine has surely stopped it, if that has asked for leave no more since it was last heard of, and nobody else has come
/// to lead.
fn stopped_at_ms(seat: &Seat<'_>, down_since_ms: Option<u64>) -> Option<u64> {
    let stop_after_ms = seat.instance.spec.disconnect.stop_after_ms?;
    Some(down_since_ms?.saturating_add(stop_after_ms).saturating_add(SURE_WITHIN_MS))
}
