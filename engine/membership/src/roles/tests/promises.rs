//! What must hold in every state of the model, at every step of a plan, and at the end when nothing more fails.

use super::world::{Action, Hashed, Model, Roles, Set, World, has};
use crate::roles::{Change, Lease};

/// Rounds of a calm cluster until nothing changes. The longest seen is told by [`super::explore::Explored`].
const ROUNDS_MAX: u32 = 60;

/// In every state.
pub(super) fn always(world: &World) -> Result<(), String> {
    let roles = &world.roles;
    if world.active.count_ones() > 1 {
        return Err(format!("two active gateways: {:b}", world.active));
    }
    if roles.voters.count_ones().is_multiple_of(2) {
        return Err(format!("an even number of voters: {:b}", roles.voters));
    }
    if roles.voters & roles.learners != 0 {
        return Err("a voter that is a learner".to_owned());
    }
    let mut seen: Set = 0;
    for pair in roles.pairs {
        if pair.count_ones() > 2 || pair & seen != 0 {
            return Err(format!("assigners that are no pairs: {:?}", roles.pairs));
        }
        seen |= pair;
    }
    Ok(())
}

/// Of every step of a plan, by what the plan knew: it takes nothing away that is needed.
pub(super) fn step(model: &Model, world: &World, change: &Change, after: &Roles) -> Result<(), String> {
    let before = &world.roles;
    let staying = match world.up & !world.draining {
        0 => world.up,
        staying => staying,
    };
    let count = |roles: &Roles| (roles.monitors & staying).count_ones();
    let floor = u32::try_from(model.spec.monitors).expect("small").min(staying.count_ones());
    if count(after) < count(before).min(floor) {
        return Err(format!("a monitor less than the floor: {change}"));
    }
    for (old, new) in before.pairs.iter().zip(after.pairs) {
        let kept = old & new & world.up;
        let replaced = new != 0 && old & world.up != 0 && kept == 0;
        if replaced {
            return Err(format!("no assigner that knows what is under way: {change}"));
        }
    }
    let assigners = |roles: &Roles| roles.pairs.iter().fold(0, |all, pair| all | pair) & staying;
    if assigners(before) != 0 && assigners(after) == 0 {
        return Err(format!("no assigner is left: {change}"));
    }
    if (before.voters ^ after.voters).count_ones() > 2 {
        return Err(format!("more than one vote replaced: {change}"));
    }
    if (after.voters & world.up).count_ones() * 2 <= after.voters.count_ones() && before.voters != after.voters {
        return Err(format!("a majority of the voters is down: {change}"));
    }
    if after.voters & !before.voters & !world.caught_up != 0 {
        return Err(format!("a voter that lacks some of the log: {change}"));
    }
    if matches!(change, Change::Grant { .. }) && before.gateway != u8::MAX && world.lease == Lease::Held {
        return Err(format!("granted while the lease runs: {change}"));
    }
    Ok(())
}

/// How calm worlds end.
#[derive(Debug, Default)]
pub(super) struct Ends {
    known: Hashed<World, ()>,
    pub(super) rounds_most: u32,
    pub(super) steps_most: usize,
    pub(super) without_majority: usize,
}

impl Ends {
    /// From here nothing fails any more, and what is broken stays broken: does all come to rest, as the spec wants it?
    pub(super) fn calm(&mut self, model: &Model, from: &World) -> Result<(), String> {
        let mut world = World { late: None, failures: 0, ..*from };
        let (mut path, mut steps) = (Vec::new(), 0);
        for rounds in 0..ROUNDS_MAX {
            if self.known.contains_key(&world) {
                self.known.extend(path.into_iter().map(|world| (world, ())));
                return Ok(());
            }
            path.push(world);
            self.rounds_most = self.rounds_most.max(rounds);
            self.steps_most = self.steps_most.max(steps);
            let Some((next, carried)) = round(model, &world)? else {
                self.without_majority += 1;
                return Ok(());
            };
            steps += carried;
            if next == world {
                satisfied(model, &world)?;
                self.known.extend(path.into_iter().map(|world| (world, ())));
                return Ok(());
            }
            world = next;
        }
        Err(format!("no rest after {ROUNDS_MAX} rounds and {steps} steps: {world:?}"))
    }

    /// From here nobody learns anything: do plans end by themselves?
    pub(super) fn unknowing(&mut self, model: &Model, from: &World) -> Result<(), String> {
        let reached = model.reached(from);
        if reached == 0 {
            return Ok(());
        }
        let mut world =
            World { late: None, failures: 0, active: 0, running: model.all(), beyond: 0, frozen: 0, ..*from };
        let mut path = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if self.known.contains_key(&world) || world.leader == u8::MAX {
                self.known.extend(path.into_iter().map(|world| (world, ())));
                return Ok(());
            }
            path.push(world);
            let plan = model.plan(&world);
            if plan.is_empty() && world.settled {
                self.known.extend(path.into_iter().map(|world| (world, ())));
                return Ok(());
            }
            for planned in plan.iter() {
                if model.carry(&mut world, *planned).is_none() {
                    break;
                }
            }
            world.settled = true;
        }
        Err(format!("plans go on for ever: {world:?}"))
    }
}

/// Everything that has to happen, once, in a fair order. `None` when nobody can lead.
fn round(model: &Model, from: &World) -> Result<Option<(World, usize)>, String> {
    let mut world = *from;
    let every = |world: &mut World, action: &dyn Fn(u8) -> Action| {
        for machine in 0..model.machines {
            if model.actions(world).contains(&action(machine))
                && let Some(next) = model.act(world, action(machine))
            {
                *world = next;
            }
        }
    };
    every(&mut world, &Action::Stop);
    if model.reached(&world) == 0 {
        let Some(leader) = (0..model.machines).find(|machine| model.may_lead(&world, *machine)) else {
            return Ok(None);
        };
        world = model.act(&world, Action::Elect(leader)).unwrap_or(world);
    }
    every(&mut world, &Action::Verdict);
    every(&mut world, &Action::CatchUp);
    every(&mut world, &|_| Action::HandBack);
    every(&mut world, &Action::Take);
    every(&mut world, &|_| Action::Expire);
    let plan = model.plan(&world);
    let mut carried = 0;
    for planned in plan.iter() {
        step(model, &world, &model.change(planned.change), &planned.after)?;
        if model.carry(&mut world, *planned).is_none() {
            break;
        }
        carried += 1;
        always(&world)?;
        if world.leader == u8::MAX {
            break;
        }
    }
    world.settled = true;
    Ok(Some((world, carried)))
}

/// At rest: the spec's floors, as far as there are machines.
fn satisfied(model: &Model, world: &World) -> Result<(), String> {
    let roles = &world.roles;
    let reached = model.reached(world);
    let staying = match reached & !world.draining {
        0 => reached,
        staying => staying,
    };
    let machines = staying.count_ones() as usize;
    let fail = |what: &str| Err(format!("at rest, {what}: {world:?}"));

    let assigners = roles.pairs.iter().fold(0, |all, pair| all | pair);
    if (roles.monitors | roles.workers | assigners | roles.learners) & !staying != 0 {
        return fail("a machine that is gone or draining has a role");
    }
    if roles.monitors.count_ones() as usize != model.spec.monitors.min(machines) {
        return fail("not as many monitors as there are to be");
    }
    let whole = roles.pairs.iter().filter(|pair| pair.count_ones() == 2).count();
    let alone = roles.pairs.iter().filter(|pair| pair.count_ones() == 1).count();
    let wanted = if machines == 1 { (0, 1) } else { (model.spec.pairs.min(machines / 2), 0) };
    if (whole, alone) != wanted {
        return fail("not as many pairs as there are to be");
    }
    if machines >= model.spec.monitors + 2 * model.spec.pairs && roles.monitors & assigners != 0 {
        return fail("a monitor is an assigner, though there are machines enough");
    }
    let few = machines <= model.spec.monitors + 2 * model.spec.pairs;
    let may_work = if model.spec.apart && !few { staying & !(roles.monitors | assigners) } else { staying };
    let workers = model.spec.workers.min(may_work.count_ones());
    if roles.workers & !may_work != 0 || roles.workers.count_ones() < workers {
        return fail("not as many workers as there are to be");
    }
    if world.active.count_ones() != 1 || !has(world.active, roles.gateway) || !has(staying, roles.gateway) {
        return fail("no active gateway");
    }
    voters_satisfied(model, world, staying, roles.monitors | assigners).or_else(|what| fail(&what))
}

fn voters_satisfied(model: &Model, world: &World, staying: Set, orchestrators: Set) -> Result<(), String> {
    let roles = &world.roles;
    let good = orchestrators & staying & !model.slow;
    if good != 0 && good & !(roles.voters | roles.learners) != 0 {
        return Err("an orchestrator that may has no copy of the log".to_owned());
    }
    if good & !roles.voters != 0 && roles.voters & !good != 0 {
        return Err("a voter that is gone was not replaced by a learner".to_owned());
    }
    let most = (good.count_ones() as usize).min(model.spec.voters_max);
    if (roles.voters.count_ones() as usize) + 2 <= most {
        return Err("there are two learners more that could vote".to_owned());
    }
    // Only what is down keeps a seat, and only as long as it is not replaced.
    let seats = good | (roles.voters & !world.up & !world.draining & !model.slow);
    // Machines that drain keep their votes too, where without them most of the voters left would be down.
    let alive = (seats & world.up).count_ones() * 2 > seats.count_ones();
    if good != 0 && alive && roles.voters.count_ones() > seats.count_ones() {
        return Err("more voters than there are seats".to_owned());
    }
    if !model.plan(world).is_empty() { Err("there is still something to do".to_owned()) } else { Ok(()) }
}
