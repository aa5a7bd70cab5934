//! Every state that a small cluster can reach, breadth first.
//!
//! A search of our own: `stateright` brings eleven crates and a web server, has no features to leave them out, and its
//! "eventually" looks at paths that end, while what matters here is that every state leads to rest once failures stop.

use super::promises::{Ends, always, step};
use super::world::{Action, Hashed, Lie, Model, World};
use crate::roles::Spec;

#[derive(Debug, Default)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) transitions: usize,
    pub(super) rounds_most: u32,
    pub(super) steps_most: usize,
    /// From how many states nobody can lead for good, so that nothing is promised but safety.
    pub(super) without_majority: usize,
}

/// Looks at every state that can be reached from `start`; at the first that breaks a promise, says how to get there.
pub(super) fn explore(model: &Model, start: World, states_max: usize) -> Result<Explored, String> {
    let honest = model.lie == Lie::None;

    let mut explored = Explored::default();
    let mut seen: Hashed<World, ()> = Hashed::from_iter([(start, ())]);
    let mut queue: Vec<(World, usize, Option<Action>)> = vec![(start, 0, None)];
    let (mut calm, mut unknowing) = (Ends::default(), Ends::default());
    let mut at = 0;
    while let Some((world, _, _)) = queue.get(at).copied() {
        let told = |fault: String| trace(model, &queue, at, &fault);
        always(&world).map_err(told)?;
        // Nothing but safety is asked where promises are broken on purpose.
        if honest {
            if let Some(planned) = model.plan(&world).first() {
                step(model, &world, &model.change(planned.change), &planned.after).map_err(told)?;
            }
            calm.calm(model, &world).map_err(told)?;
            unknowing.unknowing(model, &world).map_err(told)?;
        }
        for action in model.actions(&world) {
            let Some(next) = model.act(&world, action) else { continue };
            explored.transitions += 1;
            if seen.insert(next, ()).is_none() {
                queue.push((next, at, Some(action)));
            }
        }
        at += 1;
        assert!(queue.len() <= states_max, "more than {states_max} states: bound the failures");
    }
    explored.states = queue.len();
    explored.rounds_most = calm.rounds_most;
    explored.steps_most = calm.steps_most;
    explored.without_majority = calm.without_majority;
    Ok(explored)
}

fn trace(model: &Model, queue: &[(World, usize, Option<Action>)], mut at: usize, fault: &str) -> String {
    let mut lines = Vec::new();
    while let Some((world, before, Some(action))) = queue.get(at) {
        let plan = queue.get(*before).map(|(world, _, _)| model.plan(world));
        let planned = plan.and_then(|plan| plan.first().map(|planned| model.change(planned.change).to_string()));
        let plans = matches!(action, Action::Carry | Action::Delay | Action::DelaySecond);
        lines.push(if plans { format!("{action:?} {planned:?}") } else { format!("{action:?}") });
        at = *before;
        if lines.len() > 200 {
            return format!("{world:?}");
        }
    }
    lines.reverse();
    format!("{fault}\nafter\n  {}", lines.join("\n  "))
}

/// The spec that gives small clusters every role apart from one another.
fn slight() -> Spec {
    Spec { monitors: 1, pairs: 1, workers: 1, apart: true, voters_max: 3 }
}

/// The state in which `model` comes to rest by itself, with so many failures to come.
fn at_rest(model: &Model, failures: u8) -> World {
    super::histories::rest(model, model.founded(0)).map(|world| World { failures, ..world }).expect("it comes to rest")
}

fn check(name: &str, model: &Model, start: World) {
    match explore(model, start, 20_000_000) {
        Ok(explored) => eprintln!("{name}: {explored:?}"),
        Err(fault) => panic!("{name}: {fault}"),
    }
}

fn founded(machines: u8, failures: u8) {
    let model = Model::new(machines, Spec::default());
    check(&format!("{machines} machines from their founding, {failures} failures"), &model, model.founded(failures));
}

fn rested(machines: u8, failures: u8, spec: Spec) {
    let model = Model::new(machines, spec);
    check(&format!("{machines} machines at rest, {failures} failures"), &model, at_rest(&model, failures));
}

#[test]
fn every_state_of_one_machine_keeps_the_promises() {
    founded(1, 3);
}

/// With whatever comes late or twice, also what is refused for ever.
#[test]
fn every_state_of_two_machines_keeps_the_promises() {
    let mut model = Model::new(2, Spec::default());
    model.keeps_void = true;
    check("2 machines, void steps kept", &model, model.founded(1));
}

#[test]
fn every_state_of_three_machines_keeps_the_promises() {
    let mut model = Model::new(3, Spec::default());
    model.keeps_void = true;
    check("3 machines at rest, 1 failure, void steps kept", &model, at_rest(&model, 1));
}

#[test]
fn every_state_of_four_machines_keeps_the_promises() {
    rested(4, 1, Spec::default());
}

#[test]
fn every_state_of_five_machines_keeps_the_promises() {
    rested(5, 1, Spec::default());
}

#[test]
fn every_state_of_five_machines_with_spare_ones_keeps_the_promises() {
    rested(5, 1, slight());
}

#[test]
#[ignore = "minutes with optimization; the numbers are in docs/roles.md"]
fn more_states_keep_the_promises() {
    founded(2, 2);
    founded(3, 1);
    rested(3, 2, Spec::default());
    founded(4, 0);
    founded(5, 0);
}

/// The promises of those around the engine are needed, and the check sees when one is broken.
#[test]
fn the_check_finds_what_the_engine_leans_on() {
    let gateways = "two active gateways";
    for (lie, expected) in [
        // The first that is met. Two gateways come later.
        (Lie::AnyRevision, "a voter that is a learner"),
        (Lie::AnyTerm, gateways),
        (Lie::EarlyExpiry, gateways),
        (Lie::RenewsBeforeLead, gateways),
        (Lie::RenewsExpired, gateways),
    ] {
        let mut model = Model::new(3, Spec::default());
        let start = at_rest(&model, 0);
        model.lie = lie;
        model.keeps_void = true;
        let fault = (1..=2).find_map(|failures| explore(&model, World { failures, ..start }, 2_000_000).err());
        let fault = fault.expect("two failures are enough");
        assert!(fault.contains(expected), "{lie:?}: {fault}");
    }
}
