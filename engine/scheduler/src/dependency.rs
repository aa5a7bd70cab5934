//! `depends_on`: whether a service may start yet.

use crate::Input;
use crate::census::Census;
use crate::memory::completed;
use wire::resource::{Phase, Status};
use wire::spec::{DependencyCondition, Service};

/// The first dependency that is not there yet, as a sentence; `None` when the service may start.
pub(crate) fn unmet(input: &Input<'_>, census: &Census<'_>, stack: &str, service: &Service) -> Option<String> {
    for (name, dependency) in &service.depends_on {
        let known = input.stacks.get(stack).is_some_and(|wanted| wanted.revision.stack.services.contains_key(name));
        if !known {
            continue;
        }
        let mut seats = census.seats(stack, name).iter().filter(|seat| seat.wanted);
        let mut any = |met: fn(&Status) -> bool| {
            seats.any(|seat| seat.status.is_some_and(|status| met(status) && (seat.reachable || completed(status))))
        };
        let (met, condition) = match dependency.condition {
            DependencyCondition::Started => (any(started), "to start"),
            DependencyCondition::Healthy => (any(|status| status.ready), "to be healthy"),
            DependencyCondition::CompletedSuccessfully => (any(completed), "to complete"),
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
