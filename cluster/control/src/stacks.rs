//! Stacks and their revisions: apply, history, diff, revert, scale, restart, remove.
//!
//! Every change of a stack is a new revision that is never altered; the head names the wanted one. A change is one
//! transaction against the head as it was read, so that two people deploying at once get one after the other.

use crate::{Compare, Space, SpaceError, Txn, difference};
use std::collections::{BTreeMap, BTreeSet};
use wire::api::{Plan, RevisionSummary};
use wire::resource::{Address, StackHead, StackRevision, key};
use wire::spec::{Protocol, Stack};

/// Revisions kept per stack: a year of weekly deploys, and small enough to list at once.
pub const REVISIONS_MAX: u64 = 100;
/// How often a change is tried again when another one came between.
const ATTEMPTS_MAX: u32 = 8;
/// 198.18.0.0/15 without its first and last address.
const ADDRESSES: u32 = (1 << 17) - 2;
const ADDRESS_FIRST: u32 = 0xC612_0001;
/// Ports given to services that publish without saying where: below what the kernel gives to outgoing connections.
const CHOSEN_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Stacks in a key space.
#[derive(Clone)]
pub struct Stacks {
    space: Space,
}

/// A change that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    pub revision: u64,
    /// False when nothing was to change: the revision is the one there already.
    pub changed: bool,
    pub plan: Plan,
}

/// Why a stack was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("stack {0} does not exist")]
    NoStack(String),
    #[error("stack {stack} has no service {service}")]
    NoService { stack: String, service: String },
    #[error("stack {stack} has no revision {number}")]
    NoRevision { stack: String, number: u64 },
    #[error("stack {0} is being removed")]
    Removing(String),
    #[error("port {port}/{protocol} of service {service} is published by {owner} already")]
    PortTaken { port: u16, protocol: &'static str, service: String, owner: String },
    #[error("service {service} is a global service and has one instance on every machine")]
    Global { service: String },
    #[error("stack {0} changed while this change was made")]
    Contended(String),
    #[error("all addresses for services are taken")]
    NoAddress,
    #[error("all ports from 30000 to 32767 are taken")]
    NoPort,
    #[error("could not reach the state of record")]
    Space(#[from] SpaceError),
}

impl Stacks {
    pub fn new(space: Space) -> Stacks {
        Stacks { space }
    }

    /// Makes `stack` wanted as a new revision. A stack equal to the current one changes nothing.
    pub async fn apply(&self, asked: Stack, source: &str, cause: &str, now_ms: u64) -> Result<Applied, ApplyError> {
        let name = asked.name.clone();
        for _ in 0..ATTEMPTS_MAX {
            let head = self.head(&name).await?;
            if head.as_ref().is_some_and(|(head, _)| head.removing) {
                return Err(ApplyError::Removing(name));
            }
            let before = match &head {
                Some((head, _)) => Some(self.revision(&name, head.revision).await?),
                None => None,
            };
            let taken = self.ports_of_others(&name).await?;
            let mut stack = asked.clone();
            choose_ports(&mut stack, before.as_ref().map(|revision| &revision.stack), &taken)?;
            let plan = difference::plan(before.as_ref().map(|revision| &revision.stack), &stack);
            if let Some(before) = before.filter(|before| before.stack == stack) {
                return Ok(Applied { revision: before.number, changed: false, plan });
            }
            check_ports(&stack, &taken)?;
            let number = head.as_ref().map_or(1, |(head, _)| head.revision + 1);
            let (source, cause) = (source.to_owned(), cause.to_owned());
            let revision = StackRevision { stack: stack.clone(), number, created_ms: now_ms, source, cause };
            let txn = advance(head.as_ref().map_or(0, |(_, at)| *at), &revision);
            let txn = self.with_addresses(txn, &stack).await?;
            if self.space.commit(txn).await?.succeeded {
                return Ok(Applied { revision: number, changed: true, plan });
            }
        }
        Err(ApplyError::Contended(name))
    }

    /// What applying `stack` would do.
    pub async fn plan(&self, stack: &Stack) -> Result<Plan, ApplyError> {
        let before = match self.head(&stack.name).await? {
            Some((head, _)) => Some(self.revision(&stack.name, head.revision).await?.stack),
            None => None,
        };
        let taken = self.ports_of_others(&stack.name).await?;
        check_ports(stack, &taken)?;
        let mut stack = stack.clone();
        choose_ports(&mut stack, before.as_ref(), &taken)?;
        Ok(difference::plan(before.as_ref(), &stack))
    }

    /// The wanted revision of a stack.
    pub async fn current(&self, name: &str) -> Result<(StackHead, StackRevision), ApplyError> {
        let (head, _) = self.head(name).await?.ok_or_else(|| ApplyError::NoStack(name.to_owned()))?;
        let revision = self.revision(name, head.revision).await?;
        Ok((head, revision))
    }

    /// Every stack with its wanted revision.
    pub async fn all(&self) -> Result<Vec<(StackHead, StackRevision)>, ApplyError> {
        let mut stacks = Vec::new();
        for entry in self.space.list(key::STACKS).await?.entries {
            let head: StackHead = entry.json()?;
            let revision = self.revision(&head.name, head.revision).await?;
            stacks.push((head, revision));
        }
        Ok(stacks)
    }

    pub async fn revision(&self, name: &str, number: u64) -> Result<StackRevision, ApplyError> {
        let entry = self.space.get(&key::revision(name, number)).await?;
        let missing = || ApplyError::NoRevision { stack: name.to_owned(), number };
        Ok(entry.ok_or_else(missing)?.json()?)
    }

    /// Newest first.
    pub async fn history(&self, name: &str) -> Result<Vec<RevisionSummary>, ApplyError> {
        let (head, _) = self.head(name).await?.ok_or_else(|| ApplyError::NoStack(name.to_owned()))?;
        let mut history = Vec::new();
        for entry in self.space.list(&key::revisions(name)).await?.entries {
            let revision: StackRevision = entry.json()?;
            history.push(RevisionSummary {
                number: revision.number,
                created_ms: revision.created_ms,
                cause: revision.cause,
                current: revision.number == head.revision,
            });
        }
        history.reverse();
        Ok(history)
    }

    /// Makes an earlier revision's content wanted again; without a number the one before the current.
    pub async fn revert(&self, name: &str, to: Option<u64>, now_ms: u64) -> Result<Applied, ApplyError> {
        let (head, _) = self.current(name).await?;
        let number =
            match to {
                Some(number) => number,
                None => {
                    self.history(name).await?.into_iter().map(|old| old.number).find(|old| *old < head.revision).ok_or(
                        ApplyError::NoRevision { stack: name.to_owned(), number: head.revision.saturating_sub(1) },
                    )?
                }
            };
        let old = self.revision(name, number).await?;
        self.apply(old.stack, &old.source, &format!("revert to {number}"), now_ms).await
    }

    pub async fn scale(&self, name: &str, service: &str, replicas: u32, now_ms: u64) -> Result<Applied, ApplyError> {
        let (_, current) = self.current(name).await?;
        let mut stack = current.stack;
        let spec = find(&mut stack, service)?;
        match spec.mode {
            wire::spec::Mode::Global => return Err(ApplyError::Global { service: service.to_owned() }),
            wire::spec::Mode::Replicated | wire::spec::Mode::ReplicatedJob => spec.replicas = replicas,
        }
        self.apply(stack, &current.source, &format!("scale {service} to {replicas}"), now_ms).await
    }

    /// Replaces every instance of a service, by its update policy.
    pub async fn restart(&self, name: &str, service: &str, now_ms: u64) -> Result<Applied, ApplyError> {
        let (_, current) = self.current(name).await?;
        let mut stack = current.stack;
        find(&mut stack, service)?.restart_count += 1;
        self.apply(stack, &current.source, &format!("restart {service}"), now_ms).await
    }

    /// Takes one service out of its stack.
    pub async fn remove_service(&self, name: &str, service: &str, now_ms: u64) -> Result<Applied, ApplyError> {
        let (_, current) = self.current(name).await?;
        let mut stack = current.stack;
        find(&mut stack, service)?;
        stack.services.remove(service);
        self.apply(stack, &current.source, &format!("remove {service}"), now_ms).await
    }

    /// Stops everything of a stack and forgets it. Named volumes stay.
    pub async fn remove(&self, name: &str) -> Result<(), ApplyError> {
        for _ in 0..ATTEMPTS_MAX {
            let (head, at) = self.head(name).await?.ok_or_else(|| ApplyError::NoStack(name.to_owned()))?;
            if head.removing {
                return Ok(());
            }
            let head = StackHead { removing: true, ..head };
            let txn = Txn::new().when(Compare::mod_revision(key::stack(name), at)).put_json(key::stack(name), &head);
            if self.space.commit(txn).await?.succeeded {
                return Ok(());
            }
        }
        Err(ApplyError::Contended(name.to_owned()))
    }

    async fn head(&self, name: &str) -> Result<Option<(StackHead, u64)>, ApplyError> {
        match self.space.get(&key::stack(name)).await? {
            Some(entry) => Ok(Some((entry.json()?, entry.mod_revision))),
            None => Ok(None),
        }
    }

    /// Published ports of every stack but this one, with the service that has each.
    async fn ports_of_others(&self, stack: &str) -> Result<Taken, ApplyError> {
        let mut taken = Taken::new();
        for (head, revision) in self.all().await? {
            if head.name == stack || head.removing {
                continue;
            }
            for (name, service) in &revision.stack.services {
                for port in service.ports.iter().filter_map(|port| Some((port.published?, port.protocol))) {
                    taken.insert(port, format!("{}/{name}", head.name));
                }
            }
        }
        Ok(taken)
    }

    /// Gives every service that has none an address, kept for as long as the stack.
    async fn with_addresses(&self, mut txn: Txn, stack: &Stack) -> Result<Txn, ApplyError> {
        let mut taken = BTreeSet::new();
        let mut known = BTreeSet::new();
        for entry in self.space.list(key::ADDRESSES).await?.entries {
            let address: Address = entry.json()?;
            taken.insert(address.ip.clone());
            known.insert((address.stack, address.service));
        }
        for service in stack.services.keys() {
            if known.contains(&(stack.name.clone(), service.clone())) {
                continue;
            }
            let ip = free_address(&stack.name, service, &taken).ok_or(ApplyError::NoAddress)?;
            taken.insert(ip.clone());
            let at = key::address(&stack.name, service);
            let address = Address { stack: stack.name.clone(), service: service.clone(), ip };
            txn = txn.when(Compare::absent(&at)).put_json(&at, &address);
        }
        Ok(txn)
    }
}

/// A published port and the service that has it.
type Taken = BTreeMap<(u16, Protocol), String>;

/// Two stacks cannot publish one port: the gateway listens on it once.
fn check_ports(stack: &Stack, taken: &Taken) -> Result<(), ApplyError> {
    for (name, service) in &stack.services {
        for port in &service.ports {
            let Some(published) = port.published else { continue };
            if let Some(owner) = taken.get(&(published, port.protocol)) {
                let protocol = match port.protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                };
                let (service, owner) = (name.clone(), owner.clone());
                return Err(ApplyError::PortTaken { port: published, protocol, service, owner });
            }
        }
    }
    Ok(())
}

/// Gives each port that names no published one a free one, the same as before where there was one.
fn choose_ports(stack: &mut Stack, before: Option<&Stack>, taken: &Taken) -> Result<(), ApplyError> {
    let mut used: BTreeSet<(u16, Protocol)> = taken.keys().copied().collect();
    for service in stack.services.values() {
        used.extend(service.ports.iter().filter_map(|port| Some((port.published?, port.protocol))));
    }
    for (name, service) in &mut stack.services {
        let known = before.and_then(|before| before.services.get(name));
        for port in service.ports.iter_mut().filter(|port| port.published.is_none()) {
            let had = known.into_iter().flat_map(|known| &known.ports);
            let had = had.filter(|old| old.target == port.target && old.protocol == port.protocol);
            let had = had.filter_map(|old| old.published).find(|number| !used.contains(&(*number, port.protocol)));
            let free = || CHOSEN_PORTS.clone().find(|number| !used.contains(&(*number, port.protocol)));
            let number = had.or_else(free).ok_or(ApplyError::NoPort)?;
            used.insert((number, port.protocol));
            port.published = Some(number);
        }
    }
    Ok(())
}

/// The transaction that makes `revision` the wanted one, if the head is still as it was read.
pub(crate) fn advance(head_at: u64, revision: &StackRevision) -> Txn {
    let name = &revision.stack.name;
    let head = StackHead { name: name.clone(), revision: revision.number, removing: false };
    let mut txn = Txn::new()
        .when(Compare::mod_revision(key::stack(name), head_at))
        .put_json(key::stack(name), &head)
        .put_json(key::revision(name, revision.number), revision);
    if let Some(old) = revision.number.checked_sub(REVISIONS_MAX).filter(|old| *old > 0) {
        txn = txn.delete(key::revision(name, old));
    }
    txn
}

fn find<'a>(stack: &'a mut Stack, service: &str) -> Result<&'a mut wire::spec::Service, ApplyError> {
    let name = stack.name.clone();
    let missing = ApplyError::NoService { stack: name, service: service.to_owned() };
    stack.services.get_mut(service).ok_or(missing)
}

/// Starts from a place the names decide, so that the same stack tends to get the same addresses everywhere.
fn free_address(stack: &str, service: &str, taken: &BTreeSet<String>) -> Option<String> {
    let start = stack
        .bytes()
        .chain([b'/'])
        .chain(service.bytes())
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..ADDRESSES)
        .map(|step| std::net::Ipv4Addr::from(ADDRESS_FIRST + (start % ADDRESSES + step) % ADDRESSES).to_string())
        .find(|ip| !taken.contains(ip))
}
