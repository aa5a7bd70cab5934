//! The planner: asks the scheduler what is to be done now and writes its steps to control.
//!
//! It plans only when its view has caught up with its own last write, so that nothing is created twice. Its death is
//! harmless: the next planner starts from the space alone.

use crate::view::{Snapshot, View};
use crate::{Compare, Space, SpaceError, Txn, stacks};
use scheduler::{Input, New, StackWanted, Step};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::api::ServiceWhy;
use wire::resource::{Fence, Instance, Member, Rollout, RolloutState, StackRevision, Wanted, key};
use wire::spec::Service;

/// Pause after the state of record refused a write, for example because the disk is full.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Operations of one transaction: a first deploy of 50 instances is one write, far from the space's own bound.
const STEPS_PER_TXN: usize = 60;

/// Between looks whether it is this member's turn to plan.
const LEAD_LOOK: Duration = Duration::from_millis(250);

/// Plans while this member leads its group, until the view closes. Owner: the boot list. May be dropped at any await.
pub async fn run(space: Space, mut view: View, meter: meter::Meter) {
    let plans = meter.counter("bramble_planner_plans_total", "Times the planner decided.", &[]);
    let steps = meter.counter("bramble_planner_steps_total", "Steps the planner wrote.", &[]);
    let failures = meter.counter("bramble_planner_write_failures_total", "Times steps could not be written.", &[]);
    let fences =
        meter.counter("bramble_planner_fences_total", "Instances that were to be fenced before others start.", &[]);
    let mut must_reach = 0;
    let mut memory = scheduler::Memory::default();
    loop {
        let snapshot = view.borrow_and_update().clone();
        let mut wake = None;
        if !space.leads() {
            wake = Some(LEAD_LOOK);
        } else if snapshot.revision >= must_reach {
            let now_ms = world::clock::unix_ms();
            let plan = decide(&snapshot, &mut memory, now_ms);
            plans.inc();
            steps.add(plan.steps.len() as u64);
            fences.add(plan.steps.iter().filter(|step| matches!(step, Step::Fence { .. })).count() as u64);
            wake = plan.wake_at_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms).max(1)));
            match carry_out(&space, &snapshot, plan.steps, now_ms).await {
                Ok(reached) => must_reach = must_reach.max(reached),
                Err(error) => {
                    failures.inc();
                    tracing::warn!(%error, "planner cannot write its steps");
                    wake = Some(RETRY_PAUSE);
                }
            }
        }
        let alarm = async {
            match wake {
                Some(wake) => tokio::time::sleep(wake).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = another_plan(&mut view, &snapshot) => if changed.is_err() { return },
            () = alarm => {}
        }
    }
}

/// Until something changed by which another plan may come out than for `planned`.
async fn another_plan(view: &mut View, planned: &Snapshot) -> Result<(), watch::error::RecvError> {
    loop {
        view.changed().await?;
        let now = view.borrow_and_update();
        if now.plan_generation != planned.plan_generation || now.waits_for_room() {
            return Ok(());
        }
    }
}

fn decide(snapshot: &Snapshot, memory: &mut scheduler::Memory, now_ms: u64) -> scheduler::Plan {
    // A planner that has just started would take for lost what runs on machines it has not heard of yet. Each member is heard
    // of within a moment, or found to be down.
    let is_awaited = |member: &Member| !member.revoked && !snapshot.machines.contains_key(&member.id);
    if snapshot.machines.is_empty() || snapshot.members.values().any(is_awaited) {
        return scheduler::Plan::default();
    }
    let mut plan = scheduler::plan_again(&input(snapshot, &wanted(snapshot), now_ms), memory);
    // A fence is asked for in every plan until it is done, and written once.
    plan.steps.retain(|step| !matches!(step, Step::Fence { instance, .. } if snapshot.fences.contains_key(instance)));
    plan
}

/// Why a service's instances are where they are; `None` if there is no such service.
pub fn explain(snapshot: &Snapshot, stack: &str, service: &str, now_ms: u64) -> Option<ServiceWhy> {
    scheduler::explain(&input(snapshot, &wanted(snapshot), now_ms), stack, service)
}

fn wanted(snapshot: &Snapshot) -> BTreeMap<String, StackWanted> {
    snapshot
        .stacks
        .iter()
        .filter_map(|(name, wanted)| {
            let revision = Arc::clone(snapshot.current(name)?);
            Some((name.clone(), StackWanted { revision, removing: wanted.head.removing }))
        })
        .collect()
}

fn input<'a>(snapshot: &'a Snapshot, stacks: &'a BTreeMap<String, StackWanted>, now_ms: u64) -> Input<'a> {
    Input {
        now_ms,
        stacks,
        instances: &snapshot.instances,
        statuses: &snapshot.statuses,
        rollouts: &snapshot.rollouts,
        machines: &snapshot.machines,
        fenced: &snapshot.fenced,
    }
}

/// Writes steps in as few transactions as fit. Answers the revision of the last one.
async fn carry_out(space: &Space, snapshot: &Snapshot, steps: Vec<Step>, now_ms: u64) -> Result<u64, SpaceError> {
    let mut reached = 0;
    let mut txn = Txn::new();
    let mut count = 0;
    for step in steps {
        // What depends on a head goes by itself: it must not be written when somebody has moved that head meanwhile,
        // and the other steps must be written all the same.
        match write(snapshot, txn, step, now_ms) {
            Written::Together(grown) => txn = grown,
            Written::Alone(alone, kept) => {
                txn = kept;
                if let Some(alone) = alone {
                    reached = space.commit(alone).await?.revision;
                }
                continue;
            }
        }
        count += 1;
        if count == STEPS_PER_TXN {
            reached = space.commit(std::mem::take(&mut txn)).await?.revision;
            count = 0;
        }
    }
    if count > 0 {
        reached = space.commit(txn).await?.revision;
    }
    Ok(reached)
}

enum Written {
    /// The step was added to the transaction.
    Together(Txn),
    /// The step is a transaction of its own (or has become pointless); the one given is handed back.
    Alone(Option<Txn>, Txn),
}

fn write(snapshot: &Snapshot, txn: Txn, step: Step, now_ms: u64) -> Written {
    Written::Together(match step {
        Step::RollBack { stack, service, to, reason } => {
            return Written::Alone(roll_back(snapshot, &stack, &service, to, &reason, now_ms), txn);
        }
        Step::ForgetStack { stack } => return Written::Alone(Some(forget_stack(snapshot, &stack)), txn),
        Step::Create(new) => {
            let instance = instance(snapshot, *new, now_ms);
            tracing::info!(instance = instance.id, node = instance.node, "placed");
            txn.put_json(key::instance(&instance.id), &instance)
        }
        Step::Stop { instance, why } => match snapshot.instances.get(&instance) {
            None => txn,
            Some(known) => {
                tracing::info!(instance, why, "stopping");
                txn.put_json(key::instance(&instance), &Instance { wanted: Wanted::Stopped, ..known.as_ref().clone() })
            }
        },
        Step::Fence { instance, node, why } => {
            tracing::warn!(instance, node, why, "fencing");
            let at = key::fence(&instance);
            txn.put_json(at, &Fence { instance, node, demanded_ms: now_ms, done: false })
        }
        Step::Forget { instance } => {
            let txn = txn.delete(key::instance(&instance));
            if snapshot.fences.contains_key(&instance) { txn.delete(key::fence(&instance)) } else { txn }
        }
        Step::Record(rollout) => {
            let (stack, service) = (&rollout.stack, &rollout.service);
            tracing::info!(stack, service, state = ?rollout.state, reason = rollout.reason, "rollout");
            txn.put_json(key::rollout(stack, service), &rollout)
        }
    })
}

fn instance(snapshot: &Snapshot, new: New, now_ms: u64) -> Instance {
    // Six characters of 32 and the slot: a repeat within one service's life is out of reach.
    let id = format!("{}.{}.{}.{}", new.stack, new.service, new.slot, world::random::word(6));
    let hostname = snapshot.machines.get(&new.node).map_or_else(String::new, |machine| machine.node.hostname.clone());
    let context = stackfile::TemplateContext {
        stack: &new.stack,
        service: &new.service,
        slot: new.slot,
        task_id: &id,
        node_id: &new.node,
        node_hostname: &hostname,
    };
    // The parser has refused templates that cannot be filled in; an unknown one is kept as written.
    let spec = stackfile::fill_templates(&new.spec, &context).unwrap_or_else(|_| Service::clone(&new.spec));
    new.instance(id, spec, now_ms)
}

/// A new revision in which one service is what it was at `to`; `None` when that is known no longer.
fn roll_back(snapshot: &Snapshot, stack: &str, service: &str, to: u64, reason: &str, now_ms: u64) -> Option<Txn> {
    let wanted = snapshot.stacks.get(stack)?;
    let good = snapshot.revisions.get(&(stack.to_owned(), to))?;
    let current = snapshot.current(stack)?;
    let spec = good.stack.services.get(service)?;
    let from = wanted.head.revision;
    tracing::warn!(stack, service, from, to, reason, "rolling back");
    let mut undone = current.stack.clone();
    undone.services.insert(service.to_owned(), spec.clone());
    let revision = StackRevision {
        stack: undone,
        number: from + 1,
        created_ms: now_ms,
        source: good.source.clone(),
        cause: format!("rollback of {service} from {from}: {reason}"),
    };
    let rollout = Rollout {
        stack: stack.to_owned(),
        service: service.to_owned(),
        revision: revision.number,
        state: RolloutState::Running,
        reason: reason.to_owned(),
        started_ms: now_ms,
        changed_ms: now_ms,
        shape: scheduler::shape(spec),
        failed: Vec::new(),
        good_revision: Some(to),
        rolling_back: true,
    };
    Some(stacks::advance(wanted.mod_revision, &revision).put_json(key::rollout(stack, service), &rollout))
}

fn forget_stack(snapshot: &Snapshot, stack: &str) -> Txn {
    let at = snapshot.stacks.get(stack).map_or(0, |wanted| wanted.mod_revision);
    Txn::new()
        .when(Compare::mod_revision(key::stack(stack), at))
        .delete(key::stack(stack))
        .delete_prefix(key::revisions(stack))
        .delete_prefix(key::rollout(stack, ""))
        .delete_prefix(key::address(stack, ""))
}
