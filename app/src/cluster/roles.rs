//! Who has which role, while this machine leads.
//!
//! Owns what the role engine (`membership::roles`) is told, and what becomes of the steps it asks for. Level-driven as the engine
//! is. Promises that each change is one transaction of the state of record, under the condition that nobody else changed the
//! roles meanwhile. Every member keeps a copy of the log whatever its roles are, since its agent lives by it: a step that takes
//! the copy takes only the chance of a vote.

use super::lease::Lessor;
use control::view::{Snapshot, View};
use control::{Compare, Space, SpaceError, Txn};
use membership::roles::{Assignment, Change, Duty, Id, Input, Machine, Spec, Step, Verdict, plan};
use meter::Meter;
use replication::{Group, Overview};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::resource::{Presence, key};

/// Between two looks, while nothing changes.
const LOOK: Duration = Duration::from_millis(500);
/// A copy of the log is whole when so few entries are missing: they are on their way.
const BEHIND_MAX: u64 = 64;

/// What it needs of the node.
pub struct Roles {
    pub group: Group,
    pub space: Space,
    pub view: View,
    pub lessor: Arc<Lessor>,
    pub meter: Meter,
    /// Who is to vote, by number; `None` while that is as it should be.
    pub voters: watch::Sender<Option<BTreeSet<u64>>>,
}

/// What is written down next.
struct Draft {
    assignment: Assignment,
    is_changed: bool,
}

impl Roles {
    /// Runs until it is dropped, anywhere.
    pub async fn assign(self) {
        let mut view = self.view.clone();
        let mut written = 0;
        loop {
            match self.turn(written).await {
                Ok(Some(revision)) => written = revision,
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "roles cannot be written down yet"),
            }
            tokio::select! {
                changed = view.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
                () = self.lessor.runs_out() => {}
            }
        }
    }

    /// Has what is to be done now done; the revision it was written at.
    async fn turn(&self, written: u64) -> Result<Option<u64>, SpaceError> {
        let overview = self.group.overview();
        if overview.leader != Some(overview.node) {
            self.ask_for(None);
            self.lessor.forget();
            return Ok(None);
        }
        let snapshot = self.view.borrow().clone();
        // What was written last is not seen here yet: the same would be decided again.
        if snapshot.roles_revision < written || snapshot.member_of(overview.node).is_none() {
            return Ok(None);
        }
        let mut draft = Draft { assignment: (*snapshot.roles).clone(), is_changed: false };
        draft.take_voters(&names(&snapshot, &overview.voters));
        let machines = machines(&snapshot, &overview);
        let lease = self.lessor.standing(overview.term, &snapshot);
        let planned = plan(&Input {
            now_ms: world::clock::unix_ms(),
            term: overview.term,
            spec: &snapshot.roles_wanted,
            machines: &machines,
            assignment: &draft.assignment,
            lease,
        });
        let voters = draft.carry(&planned.steps, &self.meter);
        let voters = voters.map(|voters| numbers(&snapshot, &voters));
        self.ask_for(voters);
        if !draft.is_changed {
            return Ok(None);
        }
        let txn = Txn::new().when(Compare::mod_revision(key::ROLES, snapshot.roles_revision));
        let committed = self.space.commit(txn.put_json(key::ROLES, &draft.assignment)).await?;
        Ok(committed.succeeded.then_some(committed.revision))
    }
}

impl Roles {
    /// Wakes nobody who was told so already.
    fn ask_for(&self, voters: Option<BTreeSet<u64>>) {
        self.voters.send_if_modified(|before| {
            let is_new = *before != voters;
            *before = voters;
            is_new
        });
    }
}

impl Draft {
    /// Voters are as the group has them, whatever was written before somebody was lost. While they change there is an even
    /// number of them, and nothing is taken from that.
    fn take_voters(&mut self, voters: &BTreeSet<Id>) {
        let assignment = &mut self.assignment;
        if assignment.voters == *voters || voters.len().is_multiple_of(2) {
            return;
        }
        let old = std::mem::replace(&mut assignment.voters, voters.clone());
        let leaving: Vec<Id> = old.into_iter().filter(|id| !voters.contains(id)).collect();
        assignment.learners.retain(|id| !voters.contains(id));
        let staying: Vec<Id> = leaving.into_iter().filter(|id| assignment.orchestrates(id)).collect();
        assignment.learners.extend(staying);
        assignment.revision += 1;
        self.is_changed = true;
    }

    /// Carries out what is a matter of writing it down. Votes are the group's: who is to have them, if that is to change.
    fn carry(&mut self, steps: &[Step], meter: &Meter) -> Option<BTreeSet<Id>> {
        // Later steps build on the votes as they were planned.
        let votes = |step: &Step| match &step.change {
            Change::SetVoters { voters } => Some(voters.clone()),
            Change::Lead { .. }
            | Change::Vacate { .. }
            | Change::Promote { .. }
            | Change::Demote { .. }
            | Change::Pair { .. }
            | Change::Unpair { .. }
            | Change::AddLearner { .. }
            | Change::RemoveLearner { .. }
            | Change::Grant { .. }
            | Change::HandOver => None,
        };
        let until = steps.iter().position(|step| votes(step).is_some()).unwrap_or(steps.len());
        for step in steps.iter().take(until) {
            // The revision has moved on by as many as were carried out, and by what the group has changed itself.
            let step = Step { revision: self.assignment.revision, ..step.clone() };
            if let Err(error) = self.assignment.apply(&step) {
                tracing::warn!(%error, "a change of roles is refused");
                return None;
            }
            tracing::info!(change = %step.change, why = step.why, "roles change");
            count(meter);
            self.is_changed = true;
        }
        steps.get(until).and_then(votes)
    }
}

fn count(meter: &Meter) {
    meter.counter("bramble_cluster_role_changes_total", "Changes of who has which role.", &[]).inc();
}

/// What is known of each machine that belongs to the cluster.
pub fn machines(snapshot: &Snapshot, overview: &Overview) -> BTreeMap<Id, Machine> {
    let members = snapshot.members.values().filter(|member| !member.revoked);
    let machine = |member: &wire::resource::Member| {
        let known = snapshot.machines.get(&member.id).cloned().unwrap_or_default();
        let cores = known.node.cores.max(1);
        let zone = member.zone.clone().filter(|zone| !zone.is_empty()).unwrap_or(known.node.zone);
        let behind = overview.matched.get(&member.number).map(|matched| {
            let last = overview.last_index.unwrap_or(0);
            last.saturating_sub(*matched)
        });
        let busy_millis = known.load.map_or(0, |load| load.cpu_busy_millis);
        Machine {
            verdict: match snapshot.presence(&member.id) {
                Presence::Down { .. } => Verdict::Down,
                Presence::Up | Presence::Silent { .. } => Verdict::Up,
            },
            duty: match (known.node.drained, known.node.cordoned) {
                (true, _) => Duty::Draining,
                (false, true) => Duty::Cordoned,
                (false, false) => Duty::Open,
            },
            zone: (!zone.is_empty()).then(|| zone.into()),
            cores,
            load_per_mille: u32::try_from(busy_millis / u64::from(cores)).unwrap_or(u32::MAX),
            durable: true,
            fsync_p99_us: member.fsync_p99_us,
            considerate: known.node.considerate.is_some(),
            asked: member.role.as_deref().and_then(|role| role.parse().ok()),
            caught_up: behind.is_some_and(|behind| behind <= BEHIND_MAX),
            leads: overview.leader == Some(member.number),
        }
    };
    members.map(|member| (Id::from(member.id.as_str()), machine(member))).collect()
}

/// What a machine does for the cluster, as people call it.
pub fn of(assignment: &Assignment, machine: &str) -> Vec<String> {
    let mut roles: Vec<String> = assignment.roles(machine).iter().map(ToString::to_string).collect();
    if assignment.voters.contains(machine) {
        roles.push("voter".to_owned());
    }
    roles
}

/// What a machine's roles are and why, as this machine knows it.
pub fn why(snapshot: &Snapshot, overview: &Overview, machine: &str) -> Vec<String> {
    let spec: &Spec = &snapshot.roles_wanted;
    let input = Input {
        now_ms: world::clock::unix_ms(),
        term: overview.term,
        spec,
        machines: &machines(snapshot, overview),
        assignment: &snapshot.roles,
        lease: membership::roles::Lease::Held,
    };
    membership::roles::why(&input, machine)
}

/// The machines with these numbers. One that is no member any more has its number for a name.
fn names(snapshot: &Snapshot, numbers: &BTreeSet<u64>) -> BTreeSet<Id> {
    let name = |number: &u64| {
        snapshot.member_of(*number).map_or_else(|| number.to_string().into(), |member| Id::from(member.id.as_str()))
    };
    numbers.iter().map(name).collect()
}

fn numbers(snapshot: &Snapshot, names: &BTreeSet<Id>) -> BTreeSet<u64> {
    let number = |id: &Id| snapshot.members.get(&**id).map(|member| member.number).or_else(|| id.parse().ok());
    names.iter().filter_map(number).collect()
}
