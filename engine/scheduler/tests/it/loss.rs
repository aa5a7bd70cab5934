//! Machines that go and come back.

use crate::world::{World, web};
use scheduler::Step;
use wire::resource::{Presence, RolloutState, Wanted};
use wire::spec::{Disconnect, Mount, MountSource, Reconcile, Service, Volume};

fn with_data(image: &str, replicas: u32) -> Service {
    let mount = Mount { source: MountSource::Volume { name: "s_v".into() }, target: "/v".into(), read_only: false };
    Service { mounts: vec![mount], ..web(image, replicas) }
}

fn shared(world: &mut World) {
    world.volumes.insert("v".into(), Volume { name: "s_v".into(), shared: true, ..Volume::default() });
}

fn rounds(world: &mut World, count: usize) {
    for _ in 0..count {
        world.step();
    }
}

#[test]
fn a_silent_machine_is_waited_for_and_takes_nothing_new() {
    let mut world = World::new(2);
    world.deploy(&[("web", web("a", 2))]);
    world.settle();
    world.machine("m1").presence = Presence::Silent { since_ms: world.now_ms };
    world.deploy(&[("web", web("a", 4))]);
    world.settle();
    assert_eq!(world.nodes("web"), ["m1", "m2", "m2", "m2"]);
}

#[test]
fn a_verdict_moves_what_was_there_and_a_machine_that_returns_stops_it() {
    let mut world = World::new(3);
    world.deploy(&[("web", web("a", 3))]);
    world.settle();
    world.down("m2");
    rounds(&mut world, 4);
    assert_eq!(world.nodes("web").iter().filter(|node| **node == "m2").count(), 0);
    let told: Vec<Wanted> = world.instances.values().filter(|one| one.node == "m2").map(|one| one.wanted).collect();
    assert_eq!(told, [Wanted::Stopped], "kept, so that it is stopped there");
    world.machine("m2").presence = Presence::Up;
    rounds(&mut world, 5);
    assert!(world.instances.values().all(|one| one.wanted == Wanted::Running), "it has stopped and is forgotten");
}

#[test]
fn a_short_absence_moves_nothing_and_a_long_one_does() {
    let disconnect = Disconnect { lost_after_ms: 60_000, ..Disconnect::default() };
    let mut world = World::new(2);
    world.deploy(&[("web", Service { disconnect, ..web("a", 2) })]);
    world.settle();
    world.down("m1");
    rounds(&mut world, 3);
    assert_eq!(world.nodes("web"), ["m1", "m2"]);
    assert!(world.rollout().reason.contains("slot 1 waits: m1 is down"), "{}", world.rollout().reason);
    let down_ms = world.now_ms - 3_000;
    assert_eq!(world.plan().wake_at_ms, Some(down_ms + 60_000));
    world.now_ms = down_ms + 60_000;
    world.settle();
    assert_eq!(world.nodes("web"), ["m2", "m2"]);
}

#[test]
fn the_original_stays_where_that_is_asked_for_and_the_one_that_stood_in_goes() {
    let disconnect = Disconnect { lost_after_ms: 0, reconcile: Reconcile::KeepOriginal, ..Disconnect::default() };
    let mut world = World::new(2);
    world.deploy(&[("web", Service { disconnect, ..web("a", 2) })]);
    world.settle();
    world.down("m1");
    rounds(&mut world, 5);
    assert_eq!((world.nodes("web"), world.instances.len()), (vec!["m1", "m2", "m2"], 3));
    world.machine("m1").presence = Presence::Up;
    world.settle();
    assert_eq!((world.nodes("web"), world.made), (vec!["m1", "m2"], 3));
}

#[test]
fn an_instance_with_a_volume_of_its_machine_waits_for_it_and_says_so() {
    let mut world = World::new(2);
    world.deploy(&[("web", with_data("a", 1))]);
    world.settle();
    world.down("m1");
    rounds(&mut world, 5);
    assert_eq!(world.made, 1);
    assert_eq!(world.rollout().reason, "slot 1 waits: its volume s_v is on m1, which is down");
    world.machine("m1").presence = Presence::Up;
    world.settle();
    assert_eq!((world.made, world.ready(), world.rollout().reason.as_str()), (1, 1, ""));
}

#[test]
fn an_update_keeps_an_instance_where_its_volume_is() {
    let mut world = World::new(2);
    world.deploy(&[("web", with_data("a", 1))]);
    world.settle();
    assert_eq!(world.nodes("web"), ["m1"]);
    world.deploy(&[("web", with_data("b", 1)), ("x", web("x", 1))]);
    world.settle();
    assert_eq!((world.nodes("web"), world.made), (vec!["m1"], 3));
    world.machine("m1").node.drained = true;
    world.settle();
    assert_eq!((world.nodes("web"), world.made), (vec!["m1"], 3), "drained, but its data is nowhere else");
    assert!(world.rollout().reason.contains("its volume s_v is nowhere else"), "{}", world.rollout().reason);
}

#[test]
fn a_volume_whose_service_was_scaled_to_none_is_found_again() {
    let mut world = World::new(2);
    world.deploy(&[("web", with_data("a", 1))]);
    world.settle();
    world.machine("m1").node.volumes = vec!["s_v".into()];
    world.deploy(&[("web", with_data("a", 0)), ("x", web("x", 1))]);
    world.settle();
    world.deploy(&[("web", with_data("a", 1)), ("x", web("x", 1))]);
    world.settle();
    assert_eq!(world.nodes("web"), ["m1"]);
}

#[test]
fn one_that_must_not_run_twice_is_fenced_before_it_runs_elsewhere() {
    let mut world = World::new(2);
    shared(&mut world);
    world.deploy(&[("web", with_data("a", 1))]);
    world.settle();
    let first = world.instances.keys().next().expect("it was made").clone();
    world.down("m1");
    rounds(&mut world, 5);
    assert_eq!(world.made, 1, "not before the fence");
    assert!(!world.demanded.is_empty() && world.demanded.iter().all(|demanded| *demanded == first));
    assert!(
        world.rollout().reason.contains("until m1, which is down, has surely stopped it"),
        "{}",
        world.rollout().reason
    );
    assert_eq!(world.rollout().state, RolloutState::Done);
    world.fenced.insert(first);
    rounds(&mut world, 5);
    assert_eq!((world.nodes("web"), world.made), (vec!["m2"], 2));
}

/// As the stack file says it.
fn stops_after(replicas: u32, stop_after_ms: u64) -> Service {
    let disconnect = Disconnect { stop_after_ms: Some(stop_after_ms), ..Disconnect::default() };
    Service { disconnect, ..web("a", replicas) }
}

#[test]
fn one_that_stops_by_itself_is_replaced_once_that_is_certain() {
    let mut world = World::new(3);
    world.deploy(&[("web", stops_after(2, 10_000))]);
    world.settle();
    assert_eq!(world.nodes("web"), ["m1", "m2"]);
    let first = world.instances.values().find(|one| one.node == "m1").expect("it was made").id.clone();
    world.down("m1");
    rounds(&mut world, 5);
    assert_eq!(world.made, 2);
    assert!(world.demanded.iter().all(|demanded| *demanded == first));
    let told = scheduler::explain(&world.input(), "s", "web").expect("it is there");
    assert_eq!(told.slots[0].note, "waits until m1, which is down, has surely stopped it, at the latest in 7 s");
    world.fenced.insert(first);
    rounds(&mut world, 5);
    assert_eq!((world.nodes("web"), world.made), (vec!["m2", "m3"], 3));
}

#[test]
fn one_that_was_kept_from_running_is_not_taken_back_with_its_machine() {
    let mut world = World::new(2);
    world.deploy(&[("web", stops_after(1, 10_000))]);
    world.settle();
    let first = world.instances.keys().next().expect("it was made").clone();
    world.down("m1");
    world.step();
    world.fenced.insert(first.clone());
    world.machine("m1").presence = Presence::Up;
    world.settle();
    assert!(!world.instances.contains_key(&first));
    assert_eq!((world.made, world.ready()), (2, 1));
}

#[test]
fn one_whose_machine_is_back_before_that_goes_on() {
    let mut world = World::new(2);
    world.deploy(&[("web", stops_after(1, 10_000))]);
    world.settle();
    world.down("m1");
    rounds(&mut world, 3);
    assert!(!world.demanded.is_empty());
    world.machine("m1").presence = Presence::Up;
    world.settle();
    assert_eq!((world.nodes("web"), world.made, world.rollout().reason.as_str()), (vec!["m1"], 1, ""));
}

#[test]
fn one_whose_stack_and_machine_are_gone_is_forgotten_once_it_has_stopped() {
    let mut world = World::new(2);
    world.deploy(&[("web", stops_after(1, 10_000))]);
    world.settle();
    let first = world.instances.keys().next().expect("it was made").clone();
    world.stacks.get_mut("s").expect("it is there").removing = true;
    world.step();
    world.machines.remove("m1");
    world.statuses.clear();
    rounds(&mut world, 3);
    assert!(world.instances.contains_key(&first) && world.demanded.contains(&first));
    world.fenced.insert(first);
    rounds(&mut world, 3);
    assert!(world.instances.is_empty() && world.stacks.is_empty());
}

#[test]
fn one_with_a_volume_of_its_machine_waits_for_it_although_it_stops() {
    let mut world = World::new(2);
    let disconnect = Disconnect { stop_after_ms: Some(10_000), ..Disconnect::default() };
    world.deploy(&[("web", Service { disconnect, ..with_data("a", 1) })]);
    world.settle();
    world.down("m1");
    rounds(&mut world, 5);
    assert_eq!((world.made, world.demanded.len()), (1, 0));
    assert_eq!(world.rollout().reason, "slot 1 waits: its volume s_v is on m1, which is down");
}

#[test]
fn a_single_that_others_could_run_too_stops_by_itself_unasked() {
    let mut world = World::new(2);
    shared(&mut world);
    let lost_after = |lost_after_ms| Disconnect { lost_after_ms, ..Disconnect::default() };
    let replicas = Service { disconnect: lost_after(90_000), ..with_data("a", 2) };
    world.deploy(&[
        ("web", with_data("a", 1)),
        ("late", Service { disconnect: lost_after(90_000), ..with_data("a", 1) }),
        ("many", replicas),
        ("plain", web("a", 1)),
    ]);
    world.settle();
    let of = |service: &str| {
        let one = world.instances.values().find(|one| one.service == service).expect("it was made");
        one.spec.disconnect.stop_after_ms
    };
    assert_eq!(["web", "late", "many", "plain"].map(of), [Some(6_000), Some(90_000), None, None]);
}

#[test]
fn one_told_to_stop_on_a_machine_that_then_went_is_fenced_too() {
    let mut world = World::new(2);
    shared(&mut world);
    world.deploy(&[("web", with_data("a", 1))]);
    world.settle();
    world.deploy(&[("web", with_data("b", 1))]);
    for step in world.plan().steps {
        if let Step::Stop { .. } = step {
            world.carry_out(step);
        }
    }
    world.down("m1");
    rounds(&mut world, 5);
    assert_eq!(world.made, 1);
    let first = world.instances.keys().next().expect("it was made").clone();
    world.fenced.insert(first);
    rounds(&mut world, 5);
    assert_eq!((world.made, world.nodes("web")), (2, vec!["m2"]));
}

#[test]
fn a_machine_nobody_knows_any_longer_is_no_place_for_data_but_none_is_made_up() {
    let mut world = World::new(2);
    world.deploy(&[("web", with_data("a", 1))]);
    world.settle();
    world.machines.remove("m1");
    rounds(&mut world, 5);
    assert_eq!(world.made, 1);
    world.deploy(&[("web", with_data("a", 0))]);
    rounds(&mut world, 5);
    world.deploy(&[("web", with_data("a", 1))]);
    world.settle();
    assert_eq!(world.nodes("web"), ["m2"], "scaled to 0 and back: begun anew");
}
