//! The one active gateway: who is named, and when another may be.
//!
//! Promises that the epoch rises only when the lease of the one before has run out or was handed back.

use super::spec::{Id, Lease, Role};
use super::step::Change;
use super::view::{Decision, View};

/// Names the gateway when nobody can be active, and asks one that has to go to hand over.
pub(super) fn grant(view: &View<'_>) -> Option<Decision> {
    let Some(last) = &view.assignment.gateway else {
        let heir = heir(view, None)?;
        return Some(Decision::new(
            Change::Grant { machine: heir.clone(), epoch: 1 },
            "the cluster has no gateway yet",
        ));
    };
    let holder = &last.holder;
    match lease(view) {
        Lease::Held => {
            let leaves = view.up(holder) && !view.stays(holder) && heir(view, Some(holder)).is_some();
            let why = || format!("{holder} is draining; another becomes the gateway as soon as it has stopped");
            (leaves && !last.hand_over).then(|| Decision::new(Change::HandOver, why()))
        }
        Lease::Released => {
            let heir = heir(view, None)?;
            let why = format!("{holder} has handed over");
            Some(Decision::new(Change::Grant { machine: heir.clone(), epoch: last.epoch + 1 }, why))
        }
        // A holder that lets its lease run out is in trouble, whatever the verdict on it: it is the last that is chosen.
        Lease::Expired => {
            let heir = heir(view, Some(holder)).or_else(|| heir(view, None))?;
            let why = format!("the lease of {holder} has run out");
            Some(Decision::new(Change::Grant { machine: heir.clone(), epoch: last.epoch + 1 }, why))
        }
    }
}

/// A machine that people asked to be the gateway becomes it, when all is quiet, and else one that does not lead.
pub(super) fn tidy(view: &View<'_>) -> Option<Decision> {
    let last = view.assignment.gateway.as_ref()?;
    let quiet = lease(view) == Lease::Held && !last.hand_over && view.stays(&last.holder);
    let heir = heir(view, None)?;
    if !quiet || asked(view, &last.holder) || view.machine(heir).is_none_or(|it| it.considerate) {
        return None;
    }
    let why = if asked(view, heir) {
        format!("{heir} was asked to be the gateway when it joined")
    } else if leads(view, &last.holder) && !leads(view, heir) && view.open(heir) {
        format!("{} leads: were it lost as the gateway too, an election would have to come first", last.holder)
    } else {
        return None;
    };
    Some(Decision::new(Change::HandOver, why))
}

pub(super) fn waits(view: &View<'_>) -> Option<String> {
    let last = view.assignment.gateway.as_ref()?;
    let holder = &last.holder;
    match lease(view) {
        Lease::Held if !view.up(holder) => {
            Some(format!("{holder} is the gateway and down: nobody takes over before its lease has run out"))
        }
        Lease::Held if last.hand_over => {
            Some(format!("{holder} is asked to hand the gateway over and has not said so"))
        }
        Lease::Held => None,
        Lease::Released | Lease::Expired => Some("no machine can be the gateway".to_owned()),
    }
}

/// The input tells of the epoch that it names. One that this plan grants is held from the start.
fn lease(view: &View<'_>) -> Lease {
    let told_of = view.input.assignment.gateway.as_ref().map(|gateway| gateway.epoch);
    let present = view.assignment.gateway.as_ref().map(|gateway| gateway.epoch);
    if told_of == present { view.input.lease } else { Lease::Held }
}

/// The best to be the gateway: asked for it, else one who orchestrates, for it knows the machines already, and does not
/// lead, so that the two are not lost together.
fn heir<'a>(view: &View<'a>, except: Option<&Id>) -> Option<&'a Id> {
    let others = || view.staying.iter().copied().filter(|id| except != Some(*id));
    let rank = |id: &&'a Id| {
        let machine = view.machine(id);
        let considerate = machine.is_some_and(|machine| machine.considerate);
        let load = machine.map_or(0, |machine| machine.load_per_mille / 100);
        (!asked(view, id), considerate, leads(view, id), !view.assignment.orchestrates(id), load, *id)
    };
    let open = others().filter(|id| view.open(id)).min_by_key(rank);
    open.or_else(|| others().min_by_key(rank))
}

fn leads(view: &View<'_>, id: &str) -> bool {
    view.machine(id).is_some_and(|machine| machine.leads)
}

fn asked(view: &View<'_>, id: &str) -> bool {
    view.machine(id).is_some_and(|machine| machine.asked == Some(Role::Gateway))
}
