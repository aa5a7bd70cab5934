//! Volumes that are a folder of one machine: an instance that has one stays where its data is.

use crate::census::{Census, Seat, Spot};
use std::collections::BTreeSet;
use wire::spec::{Mode, MountSource, STOP_AFTER_MS_MIN, Service, Stack};

/// Where a slot's instance must go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pin<'a> {
    Anywhere,
    /// To one of these machines, because of that volume.
    To(&'a str, BTreeSet<Spot>),
    /// To a machine nobody knows any longer.
    Lost(&'a str, &'a str),
}

/// The names of a service's volumes whose data is on one machine only. May hold templates, if the service does.
pub(crate) fn local<'s>(stack: &Stack, spec: &'s Service) -> impl Iterator<Item = &'s str> {
    spec.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { name } => Some(name.as_str()).filter(|name| !shared(stack, name)),
        MountSource::Bind { .. } | MountSource::Anonymous | MountSource::Tmpfs { .. } => None,
    })
}

fn shared(stack: &Stack, name: &str) -> bool {
    stack.volumes.values().filter(|volume| volume.shared).any(|volume| match volume.name.split_once("{{") {
        // The instance's own name for it is filled in, the stack's is not.
        Some((before, _)) => name.starts_with(before),
        None => volume.name == name,
    })
}

/// Two of it at once would ruin what it keeps.
pub(crate) fn is_single(spec: &Service) -> bool {
    let keeps = spec.mounts.iter().any(|mount| match mount.source {
        MountSource::Volume { .. } => !mount.read_only,
        MountSource::Bind { .. } | MountSource::Anonymous | MountSource::Tmpfs { .. } => false,
    });
    match spec.mode {
        Mode::Replicated => spec.replicas == 1 && keeps,
        Mode::Global | Mode::ReplicatedJob => false,
    }
}

/// Whether none may take its slot before it is certain that it runs no longer.
pub(crate) fn runs_once(spec: &Service, seat: &Seat<'_>) -> bool {
    is_single(spec) || seat.instance.spec.disconnect.stop_after_ms.is_some()
}

/// A service as its instances are made of it: one that must not run twice, and is not kept where its data is, stops by itself
/// on a machine that is cut off, though nobody asked for that.
pub(crate) fn instance_spec(stack: &Stack, spec: &Service) -> Service {
    let mut spec = spec.clone();
    if spec.disconnect.stop_after_ms.is_none() && is_single(&spec) && local(stack, &spec).next().is_none() {
        spec.disconnect.stop_after_ms = Some(spec.disconnect.lost_after_ms.max(STOP_AFTER_MS_MIN));
    }
    spec
}

/// The volume that keeps this instance on its machine. A folder of that name elsewhere is no way out: which of the two
/// is the older nobody here can tell.
pub(crate) fn pinned<'a>(stack: &Stack, seat: &Seat<'a>) -> Option<&'a str> {
    local(stack, &seat.instance.spec).next()
}

/// Where the instance of a slot must go: where its predecessor's data is; if there is one instance only, where the
/// volume is at all; where another service has it that is to share it.
///
/// Several replicas of one service with one volume each have a folder of their own on their machines, as in swarm.
pub(crate) fn pin<'a>(census: &Census<'a>, stack: &'a Stack, service: &str, spec: &'a Service, slot: u32) -> Pin<'a> {
    if local(stack, spec).next().is_none() {
        return Pin::Anywhere;
    }
    let before = census.seats(&stack.name, service).iter().filter(|seat| seat.slot == slot);
    if let Some(seat) = before.max_by_key(|seat| seat.instance.created_ms)
        && let Some(volume) = pinned(stack, seat)
    {
        return match seat.spot {
            Some(spot) => Pin::To(volume, BTreeSet::from([spot])),
            None => Pin::Lost(volume, &seat.instance.node),
        };
    }
    for volume in local(stack, spec) {
        let homes = if spec.replicas == 1 && spec.mode == Mode::Replicated {
            census.homes(volume).cloned().unwrap_or_default()
        } else {
            of_others(census, stack, service, volume)
        };
        if !homes.is_empty() {
            return Pin::To(volume, homes);
        }
    }
    Pin::Anywhere
}

/// The machines where another service of the stack has the volume.
fn of_others(census: &Census<'_>, stack: &Stack, service: &str, volume: &str) -> BTreeSet<Spot> {
    let others = stack.services.keys().filter(|other| *other != service);
    let seats = others.flat_map(|other| census.seats(&stack.name, other));
    seats
        .filter(|seat| {
            seat.wanted
                && seat.instance.spec.mounts.iter().any(|mount| match &mount.source {
                    MountSource::Volume { name } => name == volume,
                    MountSource::Bind { .. } | MountSource::Anonymous | MountSource::Tmpfs { .. } => false,
                })
        })
        .filter_map(|seat| seat.spot)
        .collect()
}
