//! What must hold of a run that is over: nothing acknowledged is lost, nothing happened twice, no answer is unexplained, no lease
//! ended early.

use crate::sim::clients::FAMILIES;
use crate::sim::linear;
use crate::sim::record::{Recorded, Told};
use control::Listing;
use std::collections::{BTreeMap, BTreeSet};

/// `listings`: what each member lists at the end, when nothing is under way any more.
pub(crate) fn of(recorded: &Recorded, listings: &[(u64, Listing)]) -> Vec<String> {
    let mut found = recorded.violations.clone();
    found.extend(same_everywhere(listings));
    let replayed = replayed(recorded);
    if let (Some(replayed), Some((node, listing))) = (&replayed, listings.first()) {
        let listed = listing.entries.iter().map(|entry| (entry.key.clone(), entry.value.to_vec()));
        if listed.collect::<BTreeMap<_, _>>() != *replayed {
            found.push(format!("what the watches told does not make what {node} lists"));
        }
    }
    found.extend(once(recorded));
    found.extend(acknowledged(recorded));
    found.extend((0..FAMILIES).filter_map(|family| unexplained(recorded, family, replayed.is_some())));
    found.extend(leases(recorded));
    found
}

fn same_everywhere(listings: &[(u64, Listing)]) -> Option<String> {
    let (first, rest) = listings.split_first()?;
    let other = rest.iter().find(|(_, listing)| *listing != first.1)?;
    Some(format!("members {} and {} list different keys", first.0, other.0))
}

/// What all changes make one after the other, if none is missing.
fn replayed(recorded: &Recorded) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut map = BTreeMap::new();
    for (expected, (revision, (_, changes))) in (2..).zip(&recorded.changes) {
        if *revision != expected {
            return None;
        }
        for (key, value) in changes {
            match value {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
        }
    }
    Some(map)
}

/// Every value is written once at most.
fn once(recorded: &Recorded) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut found = Vec::new();
    for (revision, (_, changes)) in &recorded.changes {
        for (key, value) in changes.iter().filter(|(key, _)| key.starts_with('f')) {
            let Some(value) = value else { continue };
            if let Some(before) = seen.insert(value.clone(), *revision) {
                found.push(format!("{key} was written at revision {before} and again at {revision}: {value:?}"));
            }
        }
    }
    found
}

/// Every acknowledged write is among the changes, at its revision.
fn acknowledged(recorded: &Recorded) -> Vec<String> {
    let lost = recorded.calls.iter().filter(|told| {
        let (Some(revision), Some((_, outcome))) = (told.revision, &told.call.answered) else { return false };
        let acts = if outcome.succeeded { &told.call.operation.success } else { &told.call.operation.failure };
        let puts = acts.iter().filter_map(|act| match act {
            linear::Act::Put(_, value) => Some(value.to_le_bytes().to_vec()),
            linear::Act::Delete(_) | linear::Act::Get(_) => None,
        });
        let there = recorded.changes.get(&revision).map(|(_, changes)| changes);
        let has = |value: &Vec<u8>| {
            there.is_some_and(|changes| changes.iter().any(|change| change.1.as_ref() == Some(value)))
        };
        !puts.collect::<Vec<_>>().iter().all(has)
    });
    lost.map(|told| format!("acknowledged at revision {:?} and lost: {}", told.revision, told.said)).collect()
}

/// The call of a family that nothing explains.
fn unexplained(recorded: &Recorded, family: usize, all_known: bool) -> Option<String> {
    let written = recorded.changes.values().flat_map(|(_, changes)| changes);
    let written = written.filter_map(|(_, value)| value.clone()).collect::<BTreeSet<_>>();
    // What nobody was told of and no watch ever saw did not happen; what only reads makes no difference.
    let counts = |told: &&Told| {
        let operation = &told.call.operation;
        let writes = |act: &linear::Act| !matches!(act, linear::Act::Get(_));
        let seen = |value: linear::Value| written.contains(value.to_le_bytes().as_slice());
        let deletes = operation.puts().next().is_none() && operation.success.iter().any(writes);
        told.call.answered.is_some() || deletes || operation.puts().any(seen) || !all_known
    };
    let told = recorded.calls.iter().filter(|told| told.family == family).filter(counts).collect::<Vec<_>>();
    let calls = told.iter().map(|told| told.call.clone()).collect::<Vec<_>>();
    let number = linear::check(&calls).err()?;
    Some(format!(
        "not linearizable in family {family}: {}, answered {:?}",
        told[number].said, told[number].call.answered
    ))
}

/// A leased key is there until its time after the last renewal, counted from when whoever renewed began to ask.
fn leases(recorded: &Recorded) -> Vec<String> {
    let mut ended = BTreeMap::new();
    for (at, changes) in recorded.changes.values() {
        let deleted = changes.iter().filter(|(key, value)| key.starts_with("held/") && value.is_none());
        ended.extend(deleted.map(|(key, _)| (key.clone(), *at)));
    }
    let early = recorded.renewals.iter().filter_map(|renewal| {
        let at = *ended.get(&renewal.key)?;
        let due = renewal.asked_ms + renewal.ttl_ms;
        (at < due).then(|| format!("a lease ended at {at} ms, {} ms early: {renewal:?}", due - at))
    });
    early.collect()
}
