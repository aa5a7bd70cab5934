//! Why a machine has the roles it has, for people.

use super::Input;
use super::spec::{Duty, FSYNC_P99_US_MAX, Machine};
use super::view::View;
use super::voters::{coming, good};

/// A sentence for each role of a machine, for its vote or copy of the log, or for having none.
pub fn why(input: &Input<'_>, machine: &str) -> Vec<String> {
    let view = View::new(input, input.assignment);
    let mut told = roles(&view, machine);
    if told.is_empty() {
        told.push(empty(&view, machine));
    }
    told.extend(vote(&view, machine));
    told
}

fn roles(view: &View<'_>, id: &str) -> Vec<String> {
    let assignment = view.assignment;
    let mut told = Vec::new();
    if let Some(gateway) = assignment.gateway.as_ref().filter(|gateway| *gateway.holder == *id) {
        told.push(format!("gateway in epoch {}: {}", gateway.epoch, gateway.why));
    }
    if let Some(given) = assignment.monitors.get(id) {
        told.push(format!("monitor: {}", given.why));
    }
    if let Some(given) = assignment.pair_of(id).and_then(|(_, pair)| pair.members.get(id)) {
        match assignment.buddy_of(id) {
            Some(buddy) => told.push(format!("assigner, with {buddy} as buddy: {}", given.why)),
            None => told.push(format!("assigner without a buddy: {}", given.why)),
        }
    }
    if let Some(given) = assignment.workers.get(id) {
        let cores = view.machine(id).map_or(1, |machine| machine.cores.max(1));
        told.push(format!("worker, a process for each core ({cores}): {}", given.why));
    }
    told
}

fn empty(view: &View<'_>, id: &str) -> String {
    let reason = match view.machine(id) {
        None => "it does not belong to the cluster",
        Some(_) if !view.up(id) => "it is down, and begins as empty when it returns",
        Some(machine) => match machine.duty {
            Duty::Draining => "it is draining",
            Duty::Cordoned => "it is cordoned and gets nothing new",
            Duty::Open => "every role has enough machines; it is kept for when one is lost or load grows",
        },
    };
    format!("empty: {reason}")
}

fn vote(view: &View<'_>, id: &str) -> Option<String> {
    let assignment = view.assignment;
    let voters = assignment.voters.len();
    if assignment.voters.contains(id) {
        let kept = if good(view, id) { "" } else { "; it gives its vote away as soon as another can take it" };
        return Some(format!("voter: one of {voters}{kept}"));
    }
    if assignment.learners.contains(id) {
        let reason = if coming(view, id) {
            "it is catching up with the log".to_owned()
        } else if voters >= view.input.spec.voters_max {
            format!("{voters} voters are enough")
        } else {
            "voters are an odd number, and it would make them even".to_owned()
        };
        return Some(format!("learner: {reason}"));
    }
    let machine = view.machine(id).filter(|machine| assignment.orchestrates(id) && !machine.may_vote())?;
    Some(format!("no vote and no copy of the log: {}", disk(machine)))
}

fn disk(machine: &Machine) -> String {
    match machine.fsync_p99_us {
        _ if !machine.durable => "its disk does not survive a power cut".to_owned(),
        None => "its disk was not measured yet".to_owned(),
        Some(p99_us) => {
            let (p99_ms, max_ms) = (p99_us / 1_000, FSYNC_P99_US_MAX / 1_000);
            format!("its disk takes {p99_ms} ms to write for sure, {max_ms} ms is the limit")
        }
    }
}
