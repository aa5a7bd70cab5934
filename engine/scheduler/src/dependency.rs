//! `depends_on`: whether a service may start yet.

use crate::Input;
use wire::resource::{Phase, Status, Wanted};
use wire::spec::{DependencyCondition, Service};

/// The first dependency that is not there yet, as a sentence; `None` when the service may start.
pub(crate) fn unmet(input: &Input<'_>, stack: &str, service: &Service) -> Option<String> {
    for (name, dependency) in &service.depends_on {
        let known = input.stacks.get(stack).is_some_and(|wanted| wanted.revision.stack.services.contains_key(name));
        if !known {
            continue;
        }
        let mut statuses = input
            .instances
            .values()
            .filter(|instance| {
                instance.stack == stack && instance.service == *name && instance.wanted == Wanted::Running
            })
            .filter_map(|instance| input.statuses.get(&instance.id))
            .map(AsRef::as_ref);
        let (met, condition) = match dependency.condition {
            DependencyCondition::Started => (statuses.any(started), "to start"),
            DependencyCondition::Healthy => (statuses.any(|status| status.ready), "to be healthy"),
            DependencyCondition::CompletedSuccessfully => (statuses.any(completed), "to complete"),
        };
        if !met {
            return Some(format!("waits for {name} {condition}"));
        }
    }
    None
}

fn started(status: &Status) -> bool {
    match status.phase {
        Phase::Running => true,
        Phase::Exited => completed(status),
        Phase::Waiting | Phase::Pulling | Phase::Starting | Phase::BackingOff | Phase::Stopping | Phase::Failed => {
            false
        }
    }
}

/// Ran to its end and said 0.
pub(crate) fn completed(status: &Status) -> bool {
    status.phase == Phase::Exited && status.exit.as_ref().is_some_and(|exit| exit.code == 0)
}
