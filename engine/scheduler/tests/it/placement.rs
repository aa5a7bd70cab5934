//! Which machine is chosen, compared to what asking every machine would find.

use crate::world::{World, web};
use proptest::prelude::*;
use scheduler::{Machine, Step};
use std::collections::BTreeMap;
use wire::resource::Load;
use wire::spec::{Constraint, Service};

fn zoned(zones: &[&str]) -> World {
    let mut world = World::new(zones.len());
    for (machine, zone) in world.machines.values_mut().zip(zones) {
        machine.node.zone = (*zone).to_owned();
    }
    world
}

/// Instances of `web` by zone.
fn by_zone(world: &World) -> BTreeMap<&str, u32> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for node in world.nodes("web") {
        *counts.entry(world.machines[node].node.zone.as_str()).or_default() += 1;
    }
    counts
}

#[test]
fn a_service_is_spread_over_zones_before_machines() {
    let mut world = zoned(&["a", "a", "a", "b"]);
    world.deploy(&[("web", web("a", 4))]);
    world.settle();
    assert_eq!(by_zone(&world), BTreeMap::from([("a", 2), ("b", 2)]));
    world.deploy(&[("web", web("b", 4))]);
    world.settle();
    assert_eq!(by_zone(&world), BTreeMap::from([("a", 2), ("b", 2)]), "an update spreads as well");
}

#[test]
fn what_is_preferred_comes_before_the_zone() {
    let mut world = zoned(&["a", "b", "a", "b"]);
    for (number, machine) in world.machines.values_mut().enumerate() {
        machine.node.labels.insert("rack".into(), if number == 3 { "r2" } else { "r1" }.into());
    }
    let mut service = web("a", 4);
    service.placement.spread = vec!["node.labels.rack".into()];
    world.deploy(&[("web", service)]);
    world.settle();
    assert_eq!(world.nodes("web").iter().filter(|node| **node == "m4").count(), 2);
    assert_eq!(by_zone(&world), BTreeMap::from([("a", 1), ("b", 3)]));
}

#[test]
fn what_must_be_apart_is_so_whoever_says_it() {
    let mut world = World::new(2);
    let mut shy = web("a", 1);
    shy.placement.without = vec!["web".into()];
    world.deploy(&[("a", shy.clone())]);
    world.settle();
    world.deploy(&[("a", shy), ("web", web("w", 3))]);
    world.settle();
    assert_eq!((world.nodes("a"), world.nodes("web")), (vec!["m1"], vec!["m2", "m2", "m2"]));
}

#[test]
fn machines_without_a_device_or_with_the_port_taken_are_left_out() {
    let mut world = World::new(3);
    world.machine("m1").node.devices = vec!["/dev/dri".into()];
    world.machine("m2").node.devices = vec!["/dev/dri".into()];
    world.machine("m2").node.ports_taken = vec![53];
    let mut service = web("a", 2);
    service.placement.devices = vec!["/dev/dri".into()];
    service.placement.host_ports = vec![53];
    world.deploy(&[("web", service)]);
    world.step();
    world.step();
    assert_eq!(world.nodes("web"), ["m1"]);
    assert_eq!(
        world.rollout().reason,
        "no machine fits: 2 of 3 with port 53 taken; 1 of 3 without the device /dev/dri"
    );
}

#[test]
fn the_machine_that_is_really_idle_is_preferred_without_being_flooded() {
    let mut world = World::new(2);
    for (id, free) in [("m1", 300), ("m2", 900)] {
        let machine = world.machine(id);
        machine.node.memory_bytes = 1 << 30;
        machine.node.cores = 2;
        machine.load = Some(Load { memory_available_bytes: free << 20, ..Load::default() });
    }
    world.now_ms = 1;
    let names: Vec<String> = (0..12).map(|number| format!("s{number:02}")).collect();
    let services: Vec<(&str, Service)> = names.iter().map(|name| (name.as_str(), web("a", 1))).collect();
    world.deploy(&services);
    world.step();
    let there = world.instances.values().filter(|one| one.node == "m2").count();
    assert!((9..12).contains(&there), "{there}: until both are about as full, by what such instances usually take");
}

#[test]
fn a_service_that_fills_its_machines_is_updated_in_place() {
    let mut world = World::new(2);
    let full = |image| {
        let mut service = web(image, 2);
        service.placement.replicas_per_node_max = Some(1);
        service
    };
    world.deploy(&[("web", full("a"))]);
    world.settle();
    world.deploy(&[("web", full("b"))]);
    world.watch();
    world.settle();
    assert_eq!((world.images(), world.ready_min), (vec!["b", "b"], 1));
}

#[test]
fn every_slot_and_every_refusal_is_explained() {
    let mut world = World::new(4);
    world.machine("m2").node.drained = true;
    world.machine("m3").node.cordoned = true;
    world.down("m4");
    let mut service = web("a", 2);
    service.placement.replicas_per_node_max = Some(1);
    world.deploy(&[("web", service)]);
    world.settle();
    let why = scheduler::explain(&world.input(), "s", "web").expect("it exists");
    let slots: Vec<(u32, &str, &str)> =
        why.slots.iter().map(|slot| (slot.slot, slot.node.as_str(), slot.note.as_str())).collect();
    let waits = "no machine fits: 1 of 4 at max_replicas_per_node 1; 1 of 4 cordoned; 1 of 4 down; 1 of 4 drained";
    assert_eq!(slots, [(1, "m1", ""), (2, "", waits)]);
    let refused: Vec<(&str, u32)> = why.refused.iter().map(|one| (one.reason.as_str(), one.machines)).collect();
    assert_eq!(refused, [("at max_replicas_per_node 1", 1), ("cordoned", 1), ("down", 1), ("drained", 1)]);
    assert_eq!((why.machines, why.fitting_count), (4, 0));
    assert_eq!(scheduler::explain(&world.input(), "s", "nothing"), None);
}

/// A cluster and services as a test draws them.
#[derive(Debug, Clone)]
struct Drawn {
    /// Zone, label, memory in units, and real use in percent if it is told.
    machines: Vec<(u8, u8, u64, Option<u64>)>,
    /// Replicas, memory in units, most on one machine, whether it is bound to a label, whether it prefers the label.
    services: Vec<(u32, u64, Option<u32>, bool, bool)>,
}

const UNIT: u64 = 100 << 20;

fn drawn() -> impl Strategy<Value = Drawn> {
    let machine = (0u8..3, 0u8..2, 1u64..8, prop::option::of(0u64..100));
    let service = (0u32..8, 0u64..4, prop::option::of(1u32..4), any::<bool>(), any::<bool>());
    (prop::collection::vec(machine, 1..7), prop::collection::vec(service, 1..5))
        .prop_map(|(machines, services)| Drawn { machines, services })
}

fn built(drawn: &Drawn) -> World {
    let mut world = World::new(0);
    for (number, (zone, label, units, used)) in drawn.machines.iter().enumerate() {
        let mut machine = Machine { memory_usable_bytes: units * UNIT, cpu_usable_millis: 2000, ..Machine::default() };
        machine.node.id = format!("m{number}");
        machine.node.zone = format!("z{zone}");
        machine.node.labels.insert("l".into(), label.to_string());
        machine.node.memory_bytes = units * UNIT;
        machine.node.cores = 2;
        machine.load_heard_ms = 1;
        machine.load =
            used.map(|used| Load { memory_available_bytes: units * UNIT / 100 * (100 - used), ..Load::default() });
        world.machines.insert(format!("m{number}"), machine);
    }
    let names: Vec<String> = (0..drawn.services.len()).map(|number| format!("s{number}")).collect();
    let services: Vec<(&str, Service)> = names
        .iter()
        .zip(&drawn.services)
        .map(|(name, (replicas, units, most, bound, prefers))| {
            let mut service = web("a", *replicas);
            service.resources.memory_reserved_bytes = units * UNIT;
            service.placement.replicas_per_node_max = *most;
            if *bound {
                service.placement.constraints =
                    vec![Constraint { field: "node.labels.l".into(), equal: true, value: "1".into() }];
            }
            if *prefers {
                service.placement.spread = vec!["node.labels.l".into()];
            }
            (name.as_str(), service)
        })
        .collect();
    world.deploy(&services);
    world
}

/// What placing one after the other gives when every machine is asked each time.
#[derive(Default, Clone)]
struct Exhaustive {
    reserved: BTreeMap<String, u64>,
    unseen: BTreeMap<String, u64>,
    instances: BTreeMap<String, u32>,
}

impl Exhaustive {
    fn service(&mut self, world: &World, service: &Service) -> Vec<Option<String>> {
        let mut same: BTreeMap<String, u32> = BTreeMap::new();
        (0..service.replicas).map(|_| self.one(world, service, &mut same)).collect()
    }

    fn one(&mut self, world: &World, service: &Service, same: &mut BTreeMap<String, u32>) -> Option<String> {
        let wants = service.resources.memory_reserved_bytes;
        let at = |map: &BTreeMap<String, u64>, id: &str| map.get(id).copied().unwrap_or(0);
        let few = |map: &BTreeMap<String, u32>, id: &str| map.get(id).copied().unwrap_or(0);
        let best = world
            .machines
            .iter()
            .filter(|(id, machine)| {
                let label = &machine.node.labels["l"];
                let unreserved = machine.memory_usable_bytes - at(&self.reserved, id);
                let free = machine.load.as_ref().map_or(u64::MAX, |load| load.memory_available_bytes);
                (service.placement.constraints.is_empty() || label == "1")
                    && wants <= unreserved
                    && wants <= free.saturating_sub(at(&self.unseen, id))
                    && service.placement.replicas_per_node_max.is_none_or(|most| few(same, id) < most)
            })
            .min_by_key(|(id, machine)| {
                let alike = |by: &dyn Fn(&Machine) -> (String, String)| -> u32 {
                    let others = world.machines.iter().filter(|(_, other)| by(other) == by(machine));
                    others.map(|(other, _)| few(same, other)).sum()
                };
                let label = |machine: &Machine| machine.node.labels["l"].clone();
                let zone = |machine: &Machine| machine.node.zone.clone();
                let spread = if service.placement.spread.is_empty() {
                    vec![alike(&|machine| (zone(machine), String::new()))]
                } else {
                    vec![
                        alike(&|machine| (label(machine), String::new())),
                        alike(&|machine| (label(machine), zone(machine))),
                    ]
                };
                let share = |bytes: u64| bytes * 1000 / machine.memory_usable_bytes;
                let reserved = share(at(&self.reserved, id));
                let used = match &machine.load {
                    None => reserved,
                    Some(load) => {
                        let used = machine.memory_usable_bytes - load.memory_available_bytes;
                        let cpu = u64::from(few(&self.instances, id)) * 50 * 1000 / 2000;
                        share(used + at(&self.unseen, id)).max(cpu)
                    }
                };
                (spread, few(same, id), used / 50, reserved, few(&self.instances, id), (*id).clone())
            })
            .map(|(id, _)| id.clone())?;
        *same.entry(best.clone()).or_default() += 1;
        *self.reserved.entry(best.clone()).or_default() += wants;
        *self.instances.entry(best.clone()).or_default() += 1;
        if world.machines[&best].load.is_some() {
            *self.unseen.entry(best.clone()).or_default() += wants.max(64 << 20);
        }
        Some(best)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_choice_is_what_asking_every_machine_would_find(drawn in drawn()) {
        let world = built(&drawn);
        let mut chosen: BTreeMap<(String, u32), String> = BTreeMap::new();
        for step in world.plan().steps {
            if let Step::Create(new) = step {
                chosen.insert((new.service.clone(), new.slot), new.node.clone());
            }
        }
        let mut exhaustive = Exhaustive::default();
        for (name, service) in &world.stacks["s"].revision.stack.services {
            let expected = exhaustive.service(&world, service);
            let found: Vec<Option<String>> =
                (1..=service.replicas).map(|slot| chosen.get(&(name.clone(), slot)).cloned()).collect();
            prop_assert_eq!(found, expected, "{}", name);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is deployed after whatever, and whatever machines go: nothing is promised twice, and all settles.
    #[test]
    fn no_machine_gets_more_than_it_has(first in drawn(), second in drawn(), gone in 0usize..6) {
        let mut world = built(&first);
        for _ in 0..3 {
            world.step();
        }
        let next = built(&second);
        let services: Vec<(String, Service)> = next.stacks["s"].revision.stack.services.clone().into_iter().collect();
        let services: Vec<(&str, Service)> = services.iter().map(|(name, one)| (name.as_str(), one.clone())).collect();
        world.deploy(&services);
        let id = format!("m{gone}");
        if world.machines.contains_key(&id) {
            world.down(&id);
        }
        for _ in 0..60 {
            world.step();
            for (id, machine) in &world.machines {
                let here = || world.instances.values().filter(|one| one.node == *id);
                let reserved: u64 = here().map(|one| one.spec.resources.memory_reserved_bytes).sum();
                prop_assert!(reserved <= machine.memory_usable_bytes, "{} of {id}", reserved);
            }
        }
        // Moves for balance are a minute apart, and come to an end.
        for _ in 0..30 {
            world.now_ms += 60_000;
            (0..6).for_each(|_| {
                world.step();
            });
        }
        let settled = world.plan().steps;
        prop_assert!(settled.is_empty(), "{:?}", settled);
    }

}

proptest! {
    // Each is many minutes of a cluster's life.
    #![proptest_config(ProptestConfig::with_cases(10))]

    /// Where every machine has room, zones and machines of a service differ by one at most, after updates too.
    #[test]
    fn with_room_enough_the_spread_is_even(
        zones in prop::collection::vec(0u8..4, 1..8), replicas in 0u32..20, then in 0u32..20,
    ) {
        let names: Vec<String> = zones.iter().map(|zone| format!("z{zone}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut world = zoned(&names);
        for (image, replicas) in [("a", replicas), ("b", replicas), ("b", then)] {
            world.deploy(&[("web", web(image, replicas))]);
            world.settle();
            for _ in 0..130 * 3 {
                world.step();
            }
            let counts = by_zone(&world);
            let of = |zone: &&str| counts.get(*zone).copied().unwrap_or(0);
            let (least, most) = (names.iter().map(of).min(), names.iter().map(of).max());
            prop_assert!(most <= least.map(|least| least + 1), "{:?}", counts);
            for zone in &names {
                let machines = world.machines.iter().filter(|(_, machine)| machine.node.zone == *zone);
                let nodes = world.nodes("web");
                let on: Vec<usize> =
                    machines.map(|(id, _)| nodes.iter().filter(|node| **node == id.as_str()).count()).collect();
                prop_assert!(on.iter().max() <= on.iter().min().map(|least| least + 1).as_ref(), "{:?}", on);
            }
        }
    }
}
