//! Why a machine does not take an instance, and how many machines do not for which reason.

use crate::machine::Shut;
use std::cmp::Reverse;
use wire::api::Refused;
use wire::spec::{Constraint, Service};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal<'s> {
    Shut(Shut),
    Mismatch(&'s Constraint),
    Device(&'s str),
    Port(u16),
    /// Runs a service that must be apart.
    Beside(&'s str),
    /// Does not run a service that must be there.
    Without(&'s str),
    AtMost(u32),
    /// Each with what is left.
    Memory(u64),
    MemoryUsed(u64),
    Cpu(u64),
}

impl<'s> Refusal<'s> {
    /// The same reason, whatever is left; and what is left.
    fn kind(self) -> (Refusal<'s>, u64) {
        match self {
            Refusal::Memory(left) => (Refusal::Memory(0), left),
            Refusal::MemoryUsed(left) => (Refusal::MemoryUsed(0), left),
            Refusal::Cpu(left) => (Refusal::Cpu(0), left),
            Refusal::Shut(_)
            | Refusal::Mismatch(_)
            | Refusal::Device(_)
            | Refusal::Port(_)
            | Refusal::Beside(_)
            | Refusal::Without(_)
            | Refusal::AtMost(_) => (self, 0),
        }
    }
}

/// Machines that refused, by reason.
#[derive(Debug, Default)]
pub(crate) struct Tally<'s>(Vec<Counted<'s>>);

#[derive(Debug)]
struct Counted<'s> {
    kind: Refusal<'s>,
    machines: u32,
    left_min: u64,
    left_max: u64,
}

impl<'s> Tally<'s> {
    pub(crate) fn add(&mut self, refusal: Refusal<'s>) {
        let (kind, left) = refusal.kind();
        match self.0.iter_mut().find(|counted| counted.kind == kind) {
            Some(counted) => {
                counted.machines += 1;
                counted.left_min = counted.left_min.min(left);
                counted.left_max = counted.left_max.max(left);
            }
            None => self.0.push(Counted { kind, machines: 1, left_min: left, left_max: left }),
        }
    }

    /// The commonest first.
    pub(crate) fn told(&self, spec: &Service) -> Vec<Refused> {
        let mut told: Vec<Refused> =
            self.0.iter().map(|one| Refused { reason: one.told(spec), machines: one.machines }).collect();
        told.sort_by(|one, other| (Reverse(one.machines), &one.reason).cmp(&(Reverse(other.machines), &other.reason)));
        told
    }

    /// One sentence for a slot that has no machine.
    pub(crate) fn sentence(&self, machines: usize, spec: &Service) -> String {
        if machines == 0 {
            return "no machine is up".to_owned();
        }
        let told: Vec<String> =
            self.told(spec).iter().map(|one| format!("{} of {machines} {}", one.machines, one.reason)).collect();
        format!("no machine fits: {}", told.join("; "))
    }
}

impl Counted<'_> {
    /// The end of "2 of 3 …".
    fn told(&self, spec: &Service) -> String {
        let mebibytes = |bytes: u64| bytes >> 20;
        let up_to = if self.left_min == self.left_max { "" } else { "up to " };
        let wants = &spec.resources;
        match self.kind {
            Refusal::Shut(shut) => shut.told().to_owned(),
            Refusal::Mismatch(broken) => unmet(broken),
            Refusal::Device(device) => format!("without the device {device}"),
            Refusal::Port(port) => format!("with port {port} taken"),
            Refusal::Beside(other) => format!("runs {other}, which this service must not share a machine with"),
            Refusal::Without(other) => format!("without {other}, which this service must share a machine with"),
            Refusal::AtMost(most) => format!("at max_replicas_per_node {most}"),
            Refusal::Memory(_) => format!(
                "short of memory ({} MiB reserved by the service, {up_to}{} MiB unreserved)",
                mebibytes(wants.memory_reserved_bytes),
                mebibytes(self.left_max)
            ),
            Refusal::MemoryUsed(_) => format!(
                "short of memory ({} MiB reserved by the service, {up_to}{} MiB really free)",
                mebibytes(wants.memory_reserved_bytes),
                mebibytes(self.left_max)
            ),
            Refusal::Cpu(_) => format!(
                "short of CPU ({}m reserved by the service, {up_to}{}m unreserved)",
                wants.cpu_reserved_millis, self.left_max
            ),
        }
    }
}

/// `not node.labels.disk==ssd`.
pub(crate) fn unmet(broken: &Constraint) -> String {
    let sign = if broken.equal { "==" } else { "!=" };
    format!("not {}{sign}{}", broken.field, broken.value)
}
