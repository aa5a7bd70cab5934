//! What is taken of each machine while one plan is made, so that two placements never count the same room.

use crate::Input;
use crate::census::{Census, Spot};
use crate::machine::{Leave, Machine, Shut};
use crate::memory::{Memory, Share};
use crate::refusal::Refusal;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use wire::resource::Placed;
use wire::spec::Service;

/// What an instance that reserves nothing is taken to use, until its machine's next report has it: else all that are
/// placed at once would go to the machine that was idlest before.
const MEMORY_GUESSED_BYTES: u64 = 64 << 20;
const CPU_GUESSED_MILLIS: u64 = 50;
/// Machines whose real use differs by less than this are equally busy: finer is noise.
const USED_STEP_PER_MILLE: u32 = 50;

pub(crate) struct Room<'a> {
    pub(crate) census: Census<'a>,
    hosts: Vec<Host<'a>>,
    /// Placed by this plan, by service.
    placed: HashMap<(&'a str, &'a str), Vec<Spot>>,
    /// What machines say to a field, as numbers: equal ones are equal.
    values: BTreeMap<String, Rc<Vec<u32>>>,
}

/// One machine's account.
struct Host<'a> {
    machine: &'a Machine,
    shut: Option<Shut>,
    leave: Option<Leave>,
    memory_usable_bytes: u64,
    cpu_usable_millis: u64,
    memory_bytes: u64,
    cpu_millis: u64,
    /// Of instances younger than the machine's last report.
    memory_unseen_bytes: u64,
    cpu_unseen_millis: u64,
    instances: u32,
    ports: Vec<u16>,
    /// Thousandths really used and reserved, worked out anew with each instance that comes.
    used_per_mille: u32,
    reserved_per_mille: u32,
}

/// How one machine compares to others for one more instance; less is better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    /// Instances of the service that are to stay.
    pub(crate) same: u32,
    used_steps: u32,
    reserved_per_mille: u32,
    instances: u32,
    /// Of equals the first by id: the same input, the same plan.
    spot: Spot,
}

impl Standing {
    pub(crate) fn spot(&self) -> Spot {
        self.spot
    }
}

impl<'a> Room<'a> {
    pub(crate) fn new(input: &Input<'a>, memory: &mut Memory) -> Room<'a> {
        let mut hosts: Vec<Host<'a>> =
            input.machines.values().map(|machine| Host::new(machine, input.now_ms)).collect();
        // What was told to stop holds its memory until it has.
        let census = Census::take(input, memory, |spot, share, ports| {
            hosts[spot as usize].take(share, ports);
        });
        hosts.iter_mut().for_each(Host::weigh);
        Room { census, hosts, placed: HashMap::new(), values: BTreeMap::new() }
    }

    pub(crate) fn machines(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn machine(&self, spot: Spot) -> &'a Machine {
        self.hosts[spot as usize].machine
    }

    pub(crate) fn id(&self, spot: Spot) -> &'a str {
        self.census.machines[spot as usize].0
    }

    /// Why nothing new comes to a machine.
    pub(crate) fn shut(&self, spot: Spot) -> Option<Shut> {
        self.hosts[spot as usize].shut
    }

    /// Why what is on a machine is to leave it.
    pub(crate) fn leave(&self, spot: Spot) -> Option<Leave> {
        self.hosts[spot as usize].leave
    }

    /// Thousandths reserved of the scarcer of memory and processor, whatever its owner does at the moment: balance that
    /// went by that would move work to and fro with every program an owner starts.
    pub(crate) fn burden(&self, spot: Spot) -> u32 {
        let host = &self.hosts[spot as usize];
        host.machine.share_at_best(host.memory_bytes, host.cpu_millis)
    }

    /// Thousandths of a machine that a service's instance reserves.
    pub(crate) fn share(&self, spot: Spot, spec: &Service) -> u32 {
        let wants = &spec.resources;
        self.hosts[spot as usize].machine.share_at_best(wants.memory_reserved_bytes, wants.cpu_reserved_millis)
    }

    /// Whether an instance has room once another has left.
    pub(crate) fn fits_without(&self, spot: Spot, spec: &Service, gone: &Service) -> bool {
        let host = &self.hosts[spot as usize];
        let memory = host.memory_bytes.saturating_sub(gone.resources.memory_reserved_bytes);
        let cpu = host.cpu_millis.saturating_sub(gone.resources.cpu_reserved_millis);
        let ports = host.ports.iter().filter(|port| !gone.placement.host_ports.contains(port));
        memory.saturating_add(spec.resources.memory_reserved_bytes) <= host.memory_usable_bytes
            && cpu.saturating_add(spec.resources.cpu_reserved_millis) <= host.cpu_usable_millis
            && !ports.into_iter().any(|port| spec.placement.host_ports.contains(port))
    }

    pub(crate) fn take(&mut self, stack: &'a str, service: &'a str, spec: &Service, spot: Spot) {
        let host = &mut self.hosts[spot as usize];
        let share = Share {
            memory_bytes: spec.resources.memory_reserved_bytes,
            cpu_millis: spec.resources.cpu_reserved_millis,
            created_ms: u64::MAX,
        };
        host.take(&share, &spec.placement.host_ports);
        host.weigh();
        self.placed.entry((stack, service)).or_default().push(spot);
    }

    /// Machines on which a service runs or is about to, each as often as it does.
    pub(crate) fn runs<'r>(&'r self, stack: &'r str, service: &'r str) -> impl Iterator<Item = Spot> + 'r {
        let seats = self.census.seats(stack, service).iter().filter(|seat| seat.wanted && seat.reachable);
        let placed = self.placed.get(&(stack, service)).into_iter().flatten();
        seats.filter_map(|seat| seat.spot).chain(placed.copied())
    }

    /// What of a machine can run out while a service is placed.
    pub(crate) fn full<'s>(&self, spot: Spot, spec: &'s Service) -> Option<Refusal<'s>> {
        self.hosts[spot as usize].full(spec)
    }

    pub(crate) fn standing(&self, spot: Spot, same: u32) -> Standing {
        let host = &self.hosts[spot as usize];
        Standing {
            same,
            used_steps: host.used_per_mille / USED_STEP_PER_MILLE,
            reserved_per_mille: host.reserved_per_mille,
            instances: host.instances,
            spot,
        }
    }

    /// For the record: how a machine stood before it took the instance.
    pub(crate) fn placed(&self, spot: Spot, same: u32, spread: Vec<u32>) -> Placed {
        let host = &self.hosts[spot as usize];
        Placed {
            moved_from: String::new(),
            cause: String::new(),
            spread,
            same,
            used_per_mille: host.used_per_mille,
            reserved_per_mille: host.reserved_per_mille,
            instances: host.instances,
        }
    }

    /// For each machine a number that is equal where the field is.
    pub(crate) fn values(&mut self, field: &str) -> Rc<Vec<u32>> {
        if let Some(known) = self.values.get(field) {
            return Rc::clone(known);
        }
        let mut numbers: HashMap<Option<&str>, u32> = HashMap::new();
        let mut values = Vec::with_capacity(self.hosts.len());
        for host in &self.hosts {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            values.push(*numbers.entry(host.machine.field(field)).or_insert(next));
        }
        let values = Rc::new(values);
        self.values.insert(field.to_owned(), Rc::clone(&values));
        values
    }
}

impl Machine {
    /// Thousandths of the scarcer of memory and processor, while its owner does nothing.
    fn share_at_best(&self, memory_bytes: u64, cpu_millis: u64) -> u32 {
        let (memory, cpu) = self.usable_at_best();
        per_mille(memory_bytes, memory).max(per_mille(cpu_millis, cpu))
    }
}

impl<'a> Host<'a> {
    fn new(machine: &'a Machine, now_ms: u64) -> Host<'a> {
        let (memory_usable_bytes, cpu_usable_millis) = machine.usable();
        Host {
            machine,
            shut: machine.shut(now_ms),
            leave: machine.leave(now_ms),
            memory_usable_bytes,
            cpu_usable_millis,
            memory_bytes: 0,
            cpu_millis: 0,
            memory_unseen_bytes: 0,
            cpu_unseen_millis: 0,
            instances: 0,
            ports: machine.node.ports_taken.clone(),
            used_per_mille: 0,
            reserved_per_mille: 0,
        }
    }

    fn take(&mut self, share: &Share, ports: &[u16]) {
        let (memory, cpu) = (share.memory_bytes, share.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_add(memory);
        self.cpu_millis = self.cpu_millis.saturating_add(cpu);
        if self.machine.load.is_some() && self.machine.load_heard_ms < share.created_ms {
            self.memory_unseen_bytes = self.memory_unseen_bytes.saturating_add(memory.max(MEMORY_GUESSED_BYTES));
            self.cpu_unseen_millis = self.cpu_unseen_millis.saturating_add(cpu.max(CPU_GUESSED_MILLIS));
        }
        self.instances += 1;
        self.ports.extend(ports);
    }

    fn full<'s>(&self, spec: &'s Service) -> Option<Refusal<'s>> {
        let wants = &spec.resources;
        let memory_free = self.memory_usable_bytes.saturating_sub(self.memory_bytes);
        if wants.memory_reserved_bytes > memory_free {
            return Some(Refusal::Memory(memory_free));
        }
        if let Some(load) = &self.machine.load {
            let really_free = load.memory_available_bytes.saturating_sub(self.memory_unseen_bytes);
            if wants.memory_reserved_bytes > really_free {
                return Some(Refusal::MemoryUsed(really_free));
            }
        }
        let cpu_free = self.cpu_usable_millis.saturating_sub(self.cpu_millis);
        if wants.cpu_reserved_millis > cpu_free {
            return Some(Refusal::Cpu(cpu_free));
        }
        spec.placement.host_ports.iter().find(|port| self.ports.contains(port)).map(|port| Refusal::Port(*port))
    }

    /// What is really used, as far as it was heard; else what is reserved.
    fn weigh(&mut self) {
        let memory = per_mille(self.memory_bytes, self.memory_usable_bytes);
        self.reserved_per_mille = memory.max(per_mille(self.cpu_millis, self.cpu_usable_millis));
        let Some(load) = &self.machine.load else {
            self.used_per_mille = self.reserved_per_mille;
            return;
        };
        let memory = self.machine.node.memory_bytes.saturating_sub(load.memory_available_bytes);
        let memory = per_mille(memory.saturating_add(self.memory_unseen_bytes), self.machine.node.memory_bytes);
        let cpu = load.cpu_busy_millis.saturating_add(self.cpu_unseen_millis);
        self.used_per_mille = memory.max(per_mille(cpu, u64::from(self.machine.node.cores) * 1000));
    }
}

/// Of nothing everything is taken.
fn per_mille(part: u64, whole: u64) -> u32 {
    u32::try_from(part.saturating_mul(1000).checked_div(whole).unwrap_or(1000)).unwrap_or(u32::MAX)
}
