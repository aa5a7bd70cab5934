//! Which machine an instance goes to: filters that say why not, then a ranking that spreads.

use crate::Input;
use std::collections::BTreeMap;
use wire::resource::{Node, Wanted};
use wire::spec::{Constraint, Mode, Service};

/// A machine that is up.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub node: Node,
    /// Memory nobody has reserved is memory the machine really has: what the system itself needs is left out.
    pub memory_usable_bytes: u64,
    pub cpu_usable_millis: u64,
}

/// Why no machine fits, a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced(pub String);

/// What is taken on each machine while one plan is made, so that two placements never count the same room.
pub(crate) struct Room<'a> {
    machines: &'a BTreeMap<String, Machine>,
    taken: BTreeMap<String, Taken>,
}

#[derive(Debug, Default, Clone)]
struct Taken {
    memory_bytes: u64,
    cpu_millis: u64,
    instances: u32,
    /// (stack, service) to how many.
    services: BTreeMap<(String, String), u32>,
}

impl<'a> Room<'a> {
    pub(crate) fn new(input: &Input<'a>) -> Room<'a> {
        let mut room = Room { machines: input.machines, taken: BTreeMap::new() };
        for instance in input.instances.values().filter(|instance| instance.wanted == Wanted::Running) {
            room.take(&instance.node, &instance.stack, &instance.service, &instance.spec);
        }
        room
    }

    fn take(&mut self, node: &str, stack: &str, service: &str, spec: &Service) {
        let taken = self.taken.entry(node.to_owned()).or_default();
        taken.memory_bytes = taken.memory_bytes.saturating_add(spec.resources.memory_reserved_bytes);
        taken.cpu_millis = taken.cpu_millis.saturating_add(spec.resources.cpu_reserved_millis);
        taken.instances += 1;
        *taken.services.entry((stack.to_owned(), service.to_owned())).or_default() += 1;
    }

    /// Machines a global service is wanted on.
    pub(crate) fn eligible(&self, spec: &Service) -> Vec<String> {
        self.machines
            .iter()
            .filter(|(_, machine)| !machine.node.drained && mismatch(machine, spec).is_none())
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Finds a machine for one more instance and takes the room. `on` restricts it to one machine.
    pub(crate) fn place(
        &mut self,
        stack: &str,
        service: &str,
        spec: &Service,
        on: Option<&str>,
    ) -> Result<String, Unplaced> {
        let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
        let mut best: Option<(Rank, &String)> = None;
        for (id, machine) in self.machines {
            if on.is_some_and(|wanted| wanted != id) {
                continue;
            }
            let taken = self.taken.get(id).cloned().unwrap_or_default();
            if let Some(reason) = refuse(machine, &taken, stack, service, spec) {
                *reasons.entry(reason).or_default() += 1;
                continue;
            }
            let rank = self.rank(machine, &taken, stack, service, spec);
            if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                best = Some((rank, id));
            }
        }
        let Some((_, id)) = best else {
            return Err(unplaced(self.machines.len(), &reasons));
        };
        let id = id.clone();
        self.take(&id, stack, service, spec);
        Ok(id)
    }

    /// Lower is better: fewest of this service under the same spread label, then on the machine, then the least
    /// reserved share, then the fewest instances.
    fn rank(&self, machine: &Machine, taken: &Taken, stack: &str, service: &str, spec: &Service) -> Rank {
        let key = (stack.to_owned(), service.to_owned());
        let spread = spec
            .placement
            .spread
            .iter()
            .map(|label| {
                let value = field(machine, label);
                self.machines
                    .iter()
                    .filter(|(_, other)| field(other, label) == value)
                    .filter_map(|(id, _)| self.taken.get(id)?.services.get(&key))
                    .sum()
            })
            .collect();
        let memory = share(taken.memory_bytes, machine.memory_usable_bytes);
        let cpu = share(taken.cpu_millis, machine.cpu_usable_millis);
        Rank {
            spread,
            same: taken.services.get(&key).copied().unwrap_or(0),
            reserved_per_mille: memory.max(cpu),
            instances: taken.instances,
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    spread: Vec<u32>,
    same: u32,
    reserved_per_mille: u64,
    instances: u32,
}

fn share(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1000).checked_div(whole).unwrap_or(1000)
}

fn unplaced(machines: usize, reasons: &BTreeMap<String, u32>) -> Unplaced {
    if machines == 0 {
        return Unplaced("no machine is up".to_owned());
    }
    let told: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} of {machines} {reason}")).collect();
    Unplaced(format!("no machine fits: {}", told.join("; ")))
}

/// Why this machine cannot take one more, as the end of "2 of 3 …".
fn refuse(machine: &Machine, taken: &Taken, stack: &str, service: &str, spec: &Service) -> Option<String> {
    if machine.node.drained {
        return Some("drained".to_owned());
    }
    if let Some(reason) = mismatch(machine, spec) {
        return Some(reason);
    }
    let wants = &spec.resources;
    let memory_free = machine.memory_usable_bytes.saturating_sub(taken.memory_bytes);
    if wants.memory_reserved_bytes > memory_free {
        let (wanted, free) = (wants.memory_reserved_bytes >> 20, memory_free >> 20);
        return Some(format!("short of memory ({wanted} MiB reserved by the service, {free} MiB unreserved)"));
    }
    let cpu_free = machine.cpu_usable_millis.saturating_sub(taken.cpu_millis);
    if wants.cpu_reserved_millis > cpu_free {
        let wanted = wants.cpu_reserved_millis;
        return Some(format!("short of CPU ({wanted}m reserved by the service, {cpu_free}m unreserved)"));
    }
    let count = |name: &str| taken.services.get(&(stack.to_owned(), name.to_owned())).copied().unwrap_or(0);
    if let Some(most) = spec.placement.replicas_per_node_max.filter(|most| count(service) >= *most) {
        return Some(format!("at max_replicas_per_node {most}"));
    }
    if let Some(other) = spec.placement.without.iter().find(|other| count(other) > 0) {
        return Some(format!("runs {other}, which this service must not share a machine with"));
    }
    if let Some(other) = spec.placement.with.iter().find(|other| count(other) == 0) {
        return Some(format!("without {other}, which this service must share a machine with"));
    }
    None
}

/// The first constraint the machine does not meet.
fn mismatch(machine: &Machine, spec: &Service) -> Option<String> {
    let broken = spec.placement.constraints.iter().find(|constraint| !holds(machine, constraint))?;
    let sign = if broken.equal { "==" } else { "!=" };
    Some(format!("not {}{sign}{}", broken.field, broken.value))
}

fn holds(machine: &Machine, constraint: &Constraint) -> bool {
    let equal = field(machine, &constraint.field).is_some_and(|value| value.eq_ignore_ascii_case(&constraint.value));
    equal == constraint.equal
}

/// What a constraint's or spread's field says of a machine. Label fields that are not set have no value.
fn field<'a>(machine: &'a Machine, name: &str) -> Option<&'a str> {
    let node = &machine.node;
    match name {
        "node.id" => Some(&node.id),
        "node.hostname" => Some(&node.hostname),
        "node.role" => Some(&node.role),
        "node.platform.os" => Some(&node.os),
        "node.platform.arch" => Some(&node.arch),
        _ => {
            let label =
                name.strip_prefix("node.labels.").or_else(|| name.strip_prefix("engine.labels.")).unwrap_or(name);
            node.labels.get(label).map(String::as_str)
        }
    }
}

/// How many instances are wanted, and for a global service where.
pub(crate) fn slots(room: &Room<'_>, spec: &Service) -> Vec<(u32, Option<String>)> {
    match spec.mode {
        Mode::Replicated | Mode::ReplicatedJob => (1..=spec.replicas).map(|slot| (slot, None)).collect(),
        Mode::Global => room.eligible(spec).into_iter().zip(1..).map(|(node, slot)| (slot, Some(node))).collect(),
    }
}
