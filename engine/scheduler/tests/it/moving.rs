//! Drain, cordon, balance, and machines whose owners come first.

use crate::world::{World, web};
use proptest::prelude::*;
use scheduler::{Machine, Pressure};
use wire::resource::{Considerate, Hours, Load};
use wire::spec::{Constraint, Mode, Service};

#[test]
fn a_drained_machine_is_left_without_serving_with_fewer() {
    let mut world = World::new(3);
    world.deploy(&[("web", web("a", 6))]);
    world.settle();
    world.machine("m1").node.drained = true;
    world.watch();
    world.settle();
    assert_eq!((world.ready_min, world.running_max, world.made), (6, 7, 8), "one after the other, started first");
    assert_eq!(world.nodes("web"), ["m2", "m2", "m2", "m3", "m3", "m3"]);
    let moved = world.instances.values().find(|one| !one.placed.moved_from.is_empty()).expect("some were moved");
    assert_eq!((moved.placed.moved_from.as_str(), moved.placed.cause.as_str()), ("m1", "its machine is drained"));
}

#[test]
fn what_has_nowhere_to_go_stays_and_says_why() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 2))]);
    world.settle();
    world.machine("m1").node.drained = true;
    world.settle();
    assert_eq!((world.ready(), world.made), (2, 2));
    assert_eq!(world.rollout().reason, "no machine fits: 1 of 1 drained");
    world.machine("m1").node.drained = false;
    world.settle();
    assert_eq!(world.rollout().reason, "");
}

#[test]
fn a_cordoned_machine_keeps_what_it_has() {
    let mut world = World::new(2);
    world.deploy(&[("web", web("a", 2))]);
    world.settle();
    world.machine("m1").node.cordoned = true;
    world.deploy(&[("web", web("a", 4))]);
    world.settle();
    assert_eq!((world.nodes("web"), world.made), (vec!["m1", "m2", "m2", "m2"], 4));
}

#[test]
fn a_constraint_written_later_moves_what_breaks_it() {
    let mut world = World::new(2);
    world.machine("m2").node.labels.insert("disk".into(), "ssd".into());
    world.deploy(&[("web", web("a", 2))]);
    world.settle();
    let mut service = web("a", 2);
    service.placement.constraints =
        vec![Constraint { field: "node.labels.disk".into(), equal: true, value: "ssd".into() }];
    world.deploy(&[("web", service)]);
    world.settle();
    assert_eq!(world.nodes("web"), ["m2", "m2"]);
}

#[test]
fn a_service_on_every_machine_keeps_its_slots_when_one_joins_or_goes() {
    let mut world = World::new(3);
    world.machines.remove("m2");
    world.deploy(&[("web", Service { mode: Mode::Global, ..web("a", 1) })]);
    world.settle();
    assert_eq!(world.nodes("web"), ["m1", "m3"]);
    let machine = World::new(2).machines.remove("m2").expect("made");
    world.machines.insert("m2".into(), machine);
    world.settle();
    assert_eq!((world.nodes("web"), world.made), (vec!["m1", "m2", "m3"], 3));
    world.down("m1");
    world.settle();
    assert_eq!((world.nodes("web"), world.made), (vec!["m1", "m2", "m3"], 3), "it is not wanted elsewhere");
    world.machine("m3").node.drained = true;
    world.settle();
    assert_eq!((world.nodes("web"), world.made), (vec!["m1", "m2"], 3));
}

#[test]
fn a_machine_that_joins_gets_its_share_slowly() {
    let mut world = World::new(2);
    world.deploy(&[("web", web("a", 6))]);
    world.settle();
    let machine = World::new(3).machines.remove("m3").expect("made");
    world.machines.insert("m3".into(), machine);
    world.watch();
    for _ in 0..300 {
        world.step();
    }
    assert_eq!((world.nodes("web"), world.made), (vec!["m1", "m1", "m2", "m2", "m3", "m3"], 8));
    assert_eq!((world.ready_min, world.running_max), (6, 7));
}

#[test]
fn a_difference_of_one_moves_nothing() {
    let mut world = World::new(2);
    world.deploy(&[("web", web("a", 2)), ("x", web("x", 1))]);
    world.settle();
    let machine = World::new(3).machines.remove("m3").expect("made");
    world.machines.insert("m3".into(), machine);
    for _ in 0..300 {
        world.step();
    }
    assert_eq!(world.made, 3);
}

#[test]
fn reserved_shares_that_differ_much_are_evened_out() {
    let mut world = World::new(1);
    let heavy = |image| {
        let mut service = web(image, 1);
        service.resources.memory_reserved_bytes = 200 << 20;
        service
    };
    world.deploy(&[("a", heavy("a")), ("b", heavy("b")), ("c", heavy("c")), ("web", heavy("d"))]);
    world.settle();
    let machine = World::new(2).machines.remove("m2").expect("made");
    world.machines.insert("m2".into(), machine);
    for _ in 0..400 {
        world.step();
    }
    let there = world.instances.values().filter(|one| one.node == "m2").count();
    assert_eq!((there, world.made), (2, 6));
}

fn considerate<'w>(world: &'w mut World, id: &str, owner: Considerate) -> &'w mut Machine {
    let machine = world.machine(id);
    machine.node.considerate = Some(owner);
    machine
}

#[test]
fn what_the_owner_uses_is_not_given_away() {
    let mut world = World::new(1);
    world.now_ms = 1;
    let machine = considerate(&mut world, "m1", Considerate::default());
    machine.node.memory_bytes = 1 << 30;
    machine.node.cores = 2;
    machine.load = Some(Load { memory_available_bytes: 500 << 20, owner_memory_bytes: 424 << 20, ..Load::default() });
    let mut service = web("a", 4);
    service.resources.memory_reserved_bytes = 200 << 20;
    world.deploy(&[("web", service)]);
    world.step();
    world.step();
    assert_eq!(world.instances.len(), 2, "600 MiB are the cluster's, and 500 really free");
    assert!(world.rollout().reason.contains("100 MiB really free"), "{}", world.rollout().reason);
}

#[test]
fn under_pressure_one_instance_leaves_at_a_time() {
    let mut world = World::new(2);
    world.machine("m2").node.cordoned = true;
    world.deploy(&[("a", web("a", 1)), ("b", web("b", 1)), ("web", web("c", 1))]);
    world.settle();
    world.machine("m2").node.cordoned = false;
    let since_ms = world.now_ms;
    considerate(&mut world, "m1", Considerate::default()).pressure = Pressure::Pressed { since_ms };
    for _ in 0..20 {
        world.step();
    }
    let here = |world: &World| world.instances.values().filter(|one| one.node == "m1").count();
    assert_eq!(here(&world), 2);
    for _ in 0..20 {
        world.step();
    }
    assert_eq!((here(&world), world.ready()), (1, 3));
    world.machine("m1").pressure = Pressure::Easing { pressed_since_ms: since_ms, since_ms };
    for _ in 0..60 {
        world.step();
    }
    assert_eq!(here(&world), 1);
}

#[test]
fn a_machine_is_left_before_its_hours_end_and_comes_back_with_them() {
    let mut world = World::new(2);
    // Thursday, 00:00 UTC: the epoch.
    let thursday = 3 * 24 * 60;
    let hours = vec![Hours { from_minute: thursday, to_minute: thursday + 60 }];
    considerate(&mut world, "m1", Considerate { hours, leave_ms: 600_000, ..Considerate::default() });
    world.deploy(&[("web", web("a", 2))]);
    world.settle();
    assert_eq!(world.nodes("web"), ["m1", "m2"]);
    assert_eq!(world.plan().wake_at_ms, Some(50 * 60_000));
    world.now_ms = 50 * 60_000;
    world.watch();
    world.settle();
    assert_eq!((world.nodes("web"), world.ready_min), (vec!["m2", "m2"], 2));
    assert_eq!(world.plan().wake_at_ms, Some(60 * 60_000));
    let week_ms = 7 * 24 * 3_600_000;
    world.now_ms = week_ms - 1;
    assert_eq!(world.plan().wake_at_ms, Some(week_ms));
    world.now_ms = week_ms;
    for _ in 0..100 {
        world.step();
    }
    assert_eq!(world.nodes("web"), ["m1", "m2"]);
}

/// What machines say of themselves for a while: owners come and go, and none goes on for long enough to be given way to.
fn noise() -> impl Strategy<Value = Vec<Vec<(u32, u64, u64)>>> {
    let load = (0u32..100, 0u64..2_000, 0u64..60);
    prop::collection::vec(prop::collection::vec(load, 60), 3)
}

proptest! {
    // Each is ten minutes of a cluster's life.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn noise_moves_nothing(noise in noise()) {
        let mut world = World::new(3);
        let mut heavy = web("a", 1);
        heavy.resources.memory_reserved_bytes = 20 << 20;
        heavy.resources.cpu_reserved_millis = 50;
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let services: Vec<(&str, Service)> = names.iter().map(|name| (*name, heavy.clone())).collect();
        world.deploy(&[&[("web", web("a", 5))], services.as_slice()].concat());
        world.settle();
        for machine in world.machines.values_mut() {
            machine.node.considerate = Some(Considerate::default());
            (machine.node.memory_bytes, machine.node.cores) = (1 << 30, 2);
        }
        for _ in 0..200 {
            world.step();
        }
        let made = world.made;
        for second in 0..600 {
            for (machine, noise) in world.machines.values_mut().zip(&noise) {
                let (mut psi_percent, owner_cpu_millis, used_percent) = noise[second / 10];
                // Twenty seconds of half a minute are more than the bound, at most.
                if second / 10 % 3 == 2 {
                    psi_percent %= 20;
                }
                let used = (1 << 30) / 100 * used_percent;
                let load = Load {
                    at_ms: world.now_ms,
                    cpu_busy_millis: owner_cpu_millis,
                    owner_cpu_millis,
                    memory_available_bytes: (1 << 30) - used,
                    owner_memory_bytes: used,
                    psi_percent,
                    ..Load::default()
                };
                machine.pressure = machine.pressure.next(&load, &Considerate::default());
                (machine.load, machine.load_heard_ms) = (Some(load), world.now_ms);
            }
            world.step();
            prop_assert_eq!(world.made, made, "after {} s", second);
        }
    }
}
