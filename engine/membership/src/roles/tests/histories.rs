//! Long random histories of clusters too large to look at every state of.

use super::promises::{Ends, always, step};
use super::world::{Action, Model, World};
use crate::roles::Spec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Where a world ends when nothing fails.
pub(super) fn rest(model: &Model, mut world: World) -> Option<World> {
    for _ in 0..2_000 {
        let actions = [Action::Carry, Action::Settle];
        let machines = 0..model.machines;
        let others = machines.flat_map(|machine| [Action::CatchUp(machine), Action::Take(machine)]);
        let possible = model.actions(&world);
        let next = others.chain(actions).filter(|action| possible.contains(action));
        match next.filter_map(|action| model.act(&world, action)).next() {
            Some(next) => world = next,
            None => return Some(world),
        }
    }
    None
}

/// What is drawn from: the engine's work often, what breaks as rarely as it is mended.
fn kind(action: Action) -> u8 {
    match action {
        Action::Carry => 0,
        Action::Die(_) | Action::Freeze(_) | Action::Part(_) | Action::Drain(_) => 1,
        Action::Return(_) | Action::Thaw(_) | Action::Join(_) | Action::Undrain(_) => 2,
        Action::Verdict(_) | Action::CatchUp(_) => 3,
        Action::Elect(_) => 4,
        Action::Settle | Action::Take(_) | Action::Stop(_) | Action::HandBack | Action::Expire => 5,
        Action::Delay | Action::DelaySecond | Action::Arrive => 6,
    }
}

fn check(model: &Model, history: &[(u8, u16)]) -> Result<(), String> {
    let mut world = rest(model, model.founded(0)).ok_or("it does not come to rest")?;
    let mut ends = Ends::default();
    for (number, (wanted, pick)) in history.iter().enumerate() {
        world.failures = u8::MAX;
        let possible: Vec<Action> =
            model.actions(&world).into_iter().filter(|action| kind(*action) == *wanted).collect();
        let Some(action) = possible.get(usize::from(*pick) % possible.len().max(1)) else { continue };
        if *action == Action::Carry
            && let Some(planned) = model.plan(&world).first()
        {
            step(model, &world, &model.change(planned.change), &planned.after)?;
        }
        if let Some(next) = model.act(&world, *action) {
            world = next;
            always(&world).map_err(|fault| format!("{fault} after {number}: {action:?}"))?;
        }
    }
    ends.calm(model, &world)?;
    ends.unknowing(model, &world)
}

fn any_history() -> impl Strategy<Value = Vec<(u8, u16)>> {
    let kinds =
        prop_oneof![6 => Just(0u8), 2 => Just(1), 2 => Just(2), 6 => Just(3), 1 => Just(4), 4 => Just(5), 1 => Just(6)];
    proptest::collection::vec((kinds, any::<u16>()), 0..250)
}

fn any_model() -> impl Strategy<Value = Model> {
    let spec = (1usize..=5, 1usize..=3, 1u32..=40, any::<bool>(), 0usize..=3).prop_map(
        |(monitors, pairs, workers, apart, voters)| {
            let workers = if workers > 30 { u32::MAX } else { workers };
            Spec { monitors, pairs, workers, apart, voters_max: 2 * voters + 1 }
        },
    );
    let zones =
        prop_oneof![Just(vec![]), Just(vec!["a", "b"]), Just(vec!["a", "b", "c"]), Just(vec!["a", "a", "a", "b"])];
    (7u8..=30, spec, any::<u32>(), any::<u32>(), zones).prop_map(|(machines, spec, some, few, zones)| {
        let mut model = Model::new(machines, spec);
        // A quarter of the disks is slow, never the founder's.
        model.slow = some & few & model.all() & !1;
        model.zones = zones;
        model
    })
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} machines, slow {:b}, zones {:?}, {:?}", self.machines, self.slow, self.zones, self.spec)
    }
}

fn check_many(cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let histories = (any_model(), any_history());
    let checked = TestRunner::new(config).run(&histories, |(model, history)| {
        check(&model, &history).map_err(|fault| TestCaseError::fail(format!("{model:?}: {fault}")))
    });
    if let Err(fault) = checked {
        panic!("{fault}");
    }
}

#[test]
fn random_histories_keep_the_promises() {
    check_many(96);
}

#[test]
#[ignore = "minutes; the numbers are in docs/roles.md"]
fn many_random_histories_keep_the_promises() {
    check_many(5_000);
}
