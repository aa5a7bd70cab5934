//! Stacks, services and instances as people want to see them at a glance, made from one snapshot. Pure.

use crate::serve::Edge;
use control::view::Snapshot;
use std::sync::Arc;
use wire::api::{InstanceDetail, ServiceSummary, StackSummary, Usage};
use wire::resource::{Instance, Phase, Rollout, RolloutState, Wanted};
use wire::spec::{Mode, Protocol, Service};

/// A service's instances, counted.
struct Counts {
    wanted: u32,
    /// Serving, of whatever revision.
    ready: u32,
    /// Whether those that serve are what is wanted now.
    current: bool,
}

fn counts(snapshot: &Snapshot, stack: &str, service: &str, spec: &Service) -> Counts {
    let shape = scheduler::shape(spec);
    let (mut ready, mut present, mut current) = (0, 0, 0);
    let mut leaving = false;
    for instance in snapshot.instances_of(stack, service) {
        let status = snapshot.statuses.get(&instance.id);
        if instance.wanted == Wanted::Stopped {
            // Told to stop, and not yet out of traffic: the next request may still be its own.
            leaving |= status.is_some_and(|status| status.ready);
            continue;
        }
        present += 1;
        let Some(status) = status else { continue };
        let done = status.phase == Phase::Exited && status.exit.as_ref().is_some_and(|exit| exit.code == 0);
        if status.ready || done {
            ready += 1;
            current += u32::from(instance.shape == shape);
        }
    }
    let wanted = match spec.mode {
        Mode::Replicated | Mode::ReplicatedJob => spec.replicas,
        Mode::Global => present,
    };
    Counts { wanted, ready: ready.min(wanted), current: current == wanted && present == wanted && !leaving }
}

pub(super) fn service(snapshot: &Snapshot, stack: &str, name: &str, spec: &Service, edge: &Edge) -> ServiceSummary {
    let counts = counts(snapshot, stack, name, spec);
    let at = (stack.to_owned(), name.to_owned());
    let rollout = snapshot.rollouts.get(&at);
    ServiceSummary {
        stack: stack.to_owned(),
        service: name.to_owned(),
        image: spec.image.clone(),
        instances_ready: counts.ready,
        instances_wanted: counts.wanted,
        state: edge.closed(spec).map_or_else(|| service_state(rollout, &counts), |why| format!("failed: {why}")),
        endpoints: endpoints(spec, edge),
        address: snapshot.addresses.get(&at).map(|address| address.ip.clone()).unwrap_or_default(),
        revision: rollout.map_or(0, |rollout| rollout.revision),
    }
}

fn service_state(rollout: Option<&Rollout>, counts: &Counts) -> String {
    let because =
        |word: &str, reason: &str| if reason.is_empty() { word.to_owned() } else { format!("{word}: {reason}") };
    match rollout.map(|rollout| (rollout.state, rollout.reason.as_str())) {
        None => "waiting".to_owned(),
        Some((RolloutState::Paused, reason)) => because("paused", reason),
        Some((RolloutState::Failed, reason)) => because("failed", reason),
        // The new instances are watched for a while after they serve; that is no reason to call it unfinished.
        Some((RolloutState::Running | RolloutState::Done, _)) if counts.current => "running".to_owned(),
        Some((RolloutState::Running, reason)) => because("updating", reason),
        Some((RolloutState::Done, reason)) if counts.ready < counts.wanted => because("degraded", reason),
        Some((RolloutState::Done, _)) => "updating".to_owned(),
    }
}

/// Where the gateway serves it. The shared port's host names carry that port unless it is the usual one.
fn endpoints(spec: &Service, edge: &Edge) -> Vec<String> {
    let mut endpoints = Vec::new();
    for port in &spec.ports {
        let Some(published) = port.published else { continue };
        let host = port.host_ip.as_deref().filter(|ip| *ip != "0.0.0.0").unwrap_or("localhost");
        endpoints.push(match port.protocol {
            Protocol::Tcp => format!("http://{host}:{published}"),
            Protocol::Udp => format!("udp://{host}:{published}"),
        });
    }
    for route in &spec.routes {
        let path = if route.path_prefix == "/" { "" } else { &route.path_prefix };
        let nobody = ["localhost".to_owned()];
        let hosts = if route.hosts.is_empty() { &nobody[..] } else { &route.hosts };
        endpoints.extend(hosts.iter().map(|host| format!("{}{path}", edge.origin(host, route.tls))));
    }
    endpoints
}

pub(super) fn services(snapshot: &Snapshot, stack: Option<&str>, edge: &Edge) -> Vec<ServiceSummary> {
    snapshot
        .services()
        .filter(|(of, _, _)| stack.is_none_or(|stack| stack == *of))
        .map(|(of, name, spec)| service(snapshot, of, name, spec, edge))
        .collect()
}

pub(super) fn stack(snapshot: &Snapshot, name: &str, edge: &Edge) -> Option<StackSummary> {
    let wanted = snapshot.stacks.get(name)?;
    let revision = snapshot.current(name)?;
    let services = services(snapshot, Some(name), edge);
    let ready = services.iter().map(|service| service.instances_ready).sum();
    let all = services.iter().map(|service| service.instances_wanted).sum();
    let worst = |word: &str| services.iter().find(|service| service.state.starts_with(word));
    let state = if wanted.head.removing {
        "removing".to_owned()
    } else if let Some(failed) = worst("failed").or_else(|| worst("paused")) {
        failed.state.clone()
    } else if worst("updating").or_else(|| worst("waiting")).is_some() {
        "deploying".to_owned()
    } else if worst("degraded").is_some() {
        "degraded".to_owned()
    } else {
        "running".to_owned()
    };
    Some(StackSummary {
        name: name.to_owned(),
        revision: wanted.head.revision,
        services: u32::try_from(services.len()).unwrap_or(u32::MAX),
        instances_ready: ready,
        instances_wanted: all,
        state,
        changed_ms: revision.created_ms,
    })
}

pub(super) fn instance(snapshot: &Snapshot, instance: &Arc<Instance>, usage: Usage) -> InstanceDetail {
    let status = snapshot.statuses.get(&instance.id).map(|status| status.as_ref().clone()).unwrap_or_default();
    InstanceDetail { instance: instance.as_ref().clone(), status, usage }
}
