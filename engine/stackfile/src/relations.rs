//! What holds between services: ports published once, dependencies that exist and form no ring.
//!
//! Sees all services at once, after each was read alone.

use crate::findings::{Findings, Place};
use crate::read::shortened;
use crate::service::ServiceRead;
use crate::words;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use wire::spec::{DependencyCondition, Mode, Protocol, Service};

/// Ports of one stack: each is a listener on every machine.
const PUBLISHED_MAX: usize = 5000;
/// Rings shown: each is one line to remove, after which the next are seen.
const RINGS_MAX: usize = 20;

pub(crate) fn settle(mut read: BTreeMap<String, ServiceRead>, findings: &mut Findings) -> BTreeMap<String, Service> {
    let left_out: BTreeSet<String> =
        read.iter().filter(|(_, service)| service.marks.left_out).map(|(name, _)| name.clone()).collect();
    read.retain(|_, service| !service.marks.left_out);
    check_references(&read, &left_out, findings);
    drop_missing_dependencies(&mut read);
    check_rings(&read, findings);
    check_ports(&read, findings);
    check_container_names(&read, findings);
    share_volumes(&mut read, findings);
    name_links(&mut read);
    mark_jobs(&mut read);
    read.into_iter().map(|(name, service)| (name, service.spec)).collect()
}

fn check_references(read: &BTreeMap<String, ServiceRead>, left_out: &BTreeSet<String>, findings: &mut Findings) {
    for (name, service) in read {
        for mention in &service.marks.mentions {
            if mention.service == *name {
                findings.error(&mention.place, format!("the service `{}` refers to itself", shortened(name)), "");
            } else if left_out.contains(&mention.service) && !mention.optional {
                let message = format!("the service `{}` is left out by its profiles", shortened(&mention.service));
                findings.error(&mention.place, message, "name one of its profiles in the variable COMPOSE_PROFILES");
            } else if !read.contains_key(&mention.service) && !mention.optional {
                let message = format!("there is no service `{}`", shortened(&mention.service));
                let hint = match words::closest(&mention.service, read.keys().map(String::as_str)) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => String::new(),
                };
                findings.error(&mention.place, message, hint);
            }
        }
    }
}

fn drop_missing_dependencies(read: &mut BTreeMap<String, ServiceRead>) {
    let known: BTreeSet<String> = read.keys().cloned().collect();
    for service in read.values_mut() {
        service.spec.depends_on.retain(|name, _| known.contains(name));
    }
}

/// Finds a ring by walking the dependencies, without recursion: a chain may be as long as there are services.
fn check_rings(read: &BTreeMap<String, ServiceRead>, findings: &mut Findings) {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut rings = 0;
    for start in read.keys() {
        if done.contains(start.as_str()) {
            continue;
        }
        let mut on_trail: BTreeSet<&str> = BTreeSet::from([start.as_str()]);
        let mut trail: Vec<(&str, Vec<&str>)> = vec![(start, next_of(read, start))];
        while let Some((name, remaining)) = trail.last_mut() {
            let Some(next) = remaining.pop() else {
                done.insert(name);
                on_trail.remove(name);
                trail.pop();
                continue;
            };
            if on_trail.contains(next) {
                let ring = trail.iter().map(|(name, _)| *name).skip_while(|name| *name != next).chain([next]);
                report_ring(read, &ring.collect::<Vec<_>>(), findings);
                rings += 1;
                if rings >= RINGS_MAX {
                    return;
                }
            } else if !done.contains(next) {
                on_trail.insert(next);
                trail.push((next, next_of(read, next)));
            }
        }
    }
}

fn next_of<'r>(read: &'r BTreeMap<String, ServiceRead>, name: &str) -> Vec<&'r str> {
    let dependencies = read.get(name).map(|service| service.spec.depends_on.keys());
    // A service that names itself was reported already.
    dependencies.into_iter().flatten().map(String::as_str).filter(|next| *next != name).rev().collect()
}

fn report_ring(read: &BTreeMap<String, ServiceRead>, ring: &[&str], findings: &mut Findings) {
    let place_of = |from: &str, to: &str| {
        let mentions = read.get(from).map(|service| service.marks.mentions.iter());
        mentions.into_iter().flatten().find(|mention| mention.service == to).map(|mention| mention.place.clone())
    };
    let steps: Vec<String> = ring
        .windows(2)
        .map(|pair| {
            let at = place_of(pair[0], pair[1]).map(|place| findings.describe(place.spot)).unwrap_or_default();
            format!("{} -> {} ({at})", pair[0], pair[1])
        })
        .collect();
    let place = place_of(ring[0], ring[1]).unwrap_or_default();
    findings.error(
        &place,
        format!("services depend on each other in a ring: {}", steps.join(", ")),
        "remove one of these dependencies",
    );
}

/// A port taken: on which address (`None` is every one), by which service, where in the file.
type Taken<'r> = (Option<&'r str>, &'r str, &'r Place);

fn check_ports(read: &BTreeMap<String, ServiceRead>, findings: &mut Findings) {
    let mut taken: HashMap<(u16, Protocol), Vec<Taken<'_>>> = HashMap::new();
    let mut all: Vec<_> = read
        .iter()
        .flat_map(|(name, service)| {
            service.spec.ports.iter().zip(&service.marks.ports).map(move |(port, place)| (place, name, port))
        })
        .collect();
    all.sort_by_key(|(place, _, _)| place.spot);
    if let Some((place, ..)) = all.get(PUBLISHED_MAX) {
        findings.error(place, format!("the stack publishes more than {PUBLISHED_MAX} ports"), "publish fewer");
        return;
    }
    for (place, name, port) in all {
        let Some(published) = port.published else { continue };
        let others = taken.entry((published, port.protocol)).or_default();
        let host_ip = port.host_ip.as_deref();
        let clash = others.iter().find(|(other, ..)| other.is_none() || host_ip.is_none() || *other == host_ip);
        if let Some((_, other, first)) = clash {
            let protocol = match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let by = if *other == name { "this service itself".to_string() } else { format!("service `{other}`") };
            let message = format!(
                "port {published}/{protocol} is published twice, already by {by} at {}",
                findings.describe(first.spot)
            );
            findings.error(place, message, "publish one of them at another port");
        } else {
            others.push((host_ip, name, place));
        }
    }
}

fn check_container_names(read: &BTreeMap<String, ServiceRead>, findings: &mut Findings) {
    let mut taken: BTreeMap<&str, &Place> = BTreeMap::new();
    for service in read.values() {
        let (Some(name), Some(place)) = (&service.spec.container_name, &service.marks.container_name) else { continue };
        if let Some(first) = taken.insert(name, place) {
            let message =
                format!("the container name `{}` stands at {} too", shortened(name), findings.describe(first.spot));
            findings.error(place, message, "give each service its own");
        }
        if service.spec.replicas > 1 {
            let message = format!("{} instances cannot all have the name `{}`", service.spec.replicas, shortened(name));
            findings.warn(place, message, "the name leads to all of them, as the service's own name does");
        }
    }
}

/// `volumes_from`: the other service's mounts, unless the service mounts something there itself.
fn share_volumes(read: &mut BTreeMap<String, ServiceRead>, findings: &mut Findings) {
    let mounts: BTreeMap<String, Vec<wire::spec::Mount>> =
        read.iter().map(|(name, service)| (name.clone(), service.spec.mounts.clone())).collect();
    for service in read.values_mut() {
        for from in std::mem::take(&mut service.marks.volumes_from) {
            for mount in mounts.get(&from.service).into_iter().flatten() {
                if matches!(mount.source, wire::spec::MountSource::Anonymous) {
                    let message = format!("the unnamed volume at `{}` cannot be shared", shortened(&mount.target));
                    findings.warn(
                        &from.place,
                        message,
                        "give it a name; the service has an empty folder of its own there",
                    );
                }
                if service.spec.mounts.iter().all(|own| own.target != mount.target) {
                    let read_only = mount.read_only || from.read_only;
                    service.spec.mounts.push(wire::spec::Mount { read_only, ..mount.clone() });
                }
            }
        }
    }
}

/// `links: [db:database]`: the other service answers to that name on the networks both are on.
fn name_links(read: &mut BTreeMap<String, ServiceRead>) {
    let mut names: Vec<(String, String, Vec<String>)> = Vec::new();
    for service in read.values() {
        let networks: Vec<String> = service.spec.networks.keys().cloned().collect();
        for (target, alias) in &service.marks.links {
            names.push((target.clone(), alias.clone(), networks.clone()));
        }
    }
    for (target, alias, networks) in names {
        let Some(service) = read.get_mut(&target) else { continue };
        for network in networks {
            if let Some(attachment) = service.spec.networks.get_mut(&network)
                && alias != target
                && !attachment.aliases.contains(&alias)
            {
                attachment.aliases.push(alias.clone());
            }
        }
    }
}

/// A service that others wait for to complete runs to its end, unless the file says how it is to be kept running.
fn mark_jobs(read: &mut BTreeMap<String, ServiceRead>) {
    let awaited: BTreeSet<String> = read
        .values()
        .flat_map(|service| &service.spec.depends_on)
        .filter(|(_, dependency)| dependency.condition == DependencyCondition::CompletedSuccessfully)
        .map(|(name, _)| name.clone())
        .collect();
    for name in awaited {
        if let Some(service) = read.get_mut(&name)
            && !service.marks.mode_given
        {
            service.spec.mode = Mode::ReplicatedJob;
            if !service.marks.restart_given {
                service.spec.restart.condition = wire::spec::RestartCondition::OnFailure;
            }
        }
    }
}
