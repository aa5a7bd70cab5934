//! Rollouts over whole lives.

use crate::world::{World, web};
use proptest::prelude::*;
use std::sync::Arc;
use wire::resource::{Health, Phase, RolloutState, Status};
use wire::spec::{Constraint, Dependency, DependencyCondition, Mount, MountSource, Service, UpdateOrder, UpdatePolicy};

#[test]
fn a_new_service_fills_all_slots_at_once() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 5))]);
    world.step();
    assert_eq!(world.instances.len(), 5);
    world.settle();
    assert_eq!((world.ready(), world.rollout().state), (5, RolloutState::Done));
}

#[test]
fn scaling_restarts_nothing_and_takes_the_highest_slots() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 3))]);
    world.settle();
    world.deploy(&[("web", web("a", 5))]);
    world.settle();
    assert_eq!((world.made, world.ready()), (5, 5));
    world.deploy(&[("web", web("a", 1))]);
    world.settle();
    let left: Vec<u32> = world.instances.values().map(|instance| instance.slot).collect();
    assert_eq!((left, world.made), (vec![1], 5));
}

#[test]
fn a_rolling_update_never_serves_with_fewer() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 3))]);
    world.settle();
    world.deploy(&[("web", web("b", 3))]);
    world.watch();
    world.settle();
    assert_eq!((world.ready_min, world.running_max), (3, 4));
    assert_eq!(world.images(), ["b", "b", "b"]);
}

#[test]
fn one_instance_with_a_volume_is_stopped_first() {
    let mut world = World::new(1);
    let mount = Mount { source: MountSource::Volume { name: "v".into() }, target: "/v".into(), read_only: false };
    let with_data = |image| Service { mounts: vec![mount.clone()], ..web(image, 1) };
    world.deploy(&[("web", with_data("a"))]);
    world.settle();
    world.deploy(&[("web", with_data("b"))]);
    world.watch();
    world.settle();
    assert_eq!((world.running_max, world.images()), (1, vec!["b"]));
}

#[test]
fn stop_first_keeps_to_its_parallelism() {
    let mut world = World::new(1);
    let update = UpdatePolicy { order: Some(UpdateOrder::StopFirst), parallelism: 2, ..UpdatePolicy::default() };
    let service = |image| Service { update: update.clone(), ..web(image, 5) };
    world.deploy(&[("web", service("a"))]);
    world.settle();
    world.deploy(&[("web", service("b"))]);
    world.watch();
    world.settle();
    assert_eq!((world.ready_min, world.running_max), (3, 5));
    assert_eq!(world.images(), ["b"; 5]);
}

#[test]
fn a_failing_update_goes_back_and_old_instances_serve_throughout() {
    let mut world = World::new(1);
    world.broken = vec!["bad"];
    world.deploy(&[("web", web("a", 3))]);
    world.settle();
    world.deploy(&[("web", web("bad", 3))]);
    world.watch();
    world.settle();
    assert_eq!((world.ready_min, world.images()), (3, vec!["a", "a", "a"]));
    assert_eq!((world.rollout().state, world.rollout().rolling_back), (RolloutState::Done, true));
    assert_eq!(world.stacks["s"].revision.number, 3);
}

#[test]
fn a_bad_update_right_after_a_deploy_goes_back_too() {
    let mut world = World::new(1);
    world.broken = vec!["bad"];
    world.deploy(&[("web", web("a", 2))]);
    for _ in 0..3 {
        world.step();
    }
    assert_eq!((world.ready(), world.rollout().state), (2, RolloutState::Running));
    world.deploy(&[("web", web("bad", 2))]);
    world.settle();
    assert_eq!(world.images(), ["a", "a"]);
}

#[test]
fn a_first_deploy_that_fails_says_so_and_goes_on_trying() {
    let mut world = World::new(1);
    world.broken = vec!["bad"];
    world.deploy(&[("web", web("bad", 1))]);
    for _ in 0..20 {
        world.step();
    }
    assert_eq!(
        (world.rollout().state, world.rollout().reason.as_str()),
        (RolloutState::Failed, "web.1: exited with 1")
    );
    world.broken.clear();
    world.settle();
    assert_eq!((world.rollout().state, world.ready()), (RolloutState::Done, 1));
}

#[test]
fn an_unhealthy_new_instance_counts_as_failed() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 1))]);
    world.settle();
    world.deploy(&[("web", web("b", 1))]);
    world.step();
    let new = world.instances.values().find(|instance| instance.spec.image == "b").expect("it was made").id.clone();
    let sick =
        Status { phase: Phase::Running, health: Health::Unhealthy, message: "exit 7".into(), ..Status::default() };
    world.statuses.insert(new, Arc::new(sick));
    world.settle();
    assert_eq!(world.images(), ["a"]);
}

#[test]
fn what_no_machine_can_take_waits_with_the_reason() {
    let mut world = World::new(2);
    let mut service = web("a", 1);
    service.placement.constraints =
        vec![Constraint { field: "node.labels.disk".into(), equal: true, value: "ssd".into() }];
    world.deploy(&[("web", service)]);
    world.step();
    assert_eq!(world.rollout().reason, "no machine fits: 2 of 2 not node.labels.disk==ssd");
    let mut big = web("a", 1);
    big.resources.memory_reserved_bytes = 2 << 30;
    world.deploy(&[("web", big)]);
    world.step();
    assert!(world.rollout().reason.contains("short of memory (2048 MiB reserved by the service, 1024 MiB unreserved)"));
}

#[test]
fn instances_spread_over_machines_and_move_from_a_lost_one() {
    let mut world = World::new(3);
    world.deploy(&[("web", web("a", 6))]);
    world.settle();
    for machine in ["m1", "m2", "m3"] {
        assert_eq!(world.instances.values().filter(|instance| instance.node == machine).count(), 2);
    }
    world.machines.remove("m2");
    world.settle();
    assert_eq!(world.ready(), 6);
    assert!(world.instances.values().all(|instance| instance.node != "m2"));
}

#[test]
fn a_dependent_waits_until_its_dependency_is_healthy() {
    let mut world = World::new(1);
    let mut app = web("a", 1);
    let dependency = Dependency { condition: DependencyCondition::Healthy, restart: false, required: true };
    app.depends_on.insert("db".into(), dependency);
    world.deploy(&[("web", app), ("db", web("d", 1))]);
    world.step();
    assert_eq!(world.images(), ["d"]);
    assert_eq!(world.rollout().reason, "waits for db to be healthy");
    world.settle();
    assert_eq!(world.ready(), 2);
}

#[test]
fn a_removed_stack_leaves_nothing() {
    let mut world = World::new(1);
    world.deploy(&[("web", web("a", 3))]);
    world.settle();
    world.stacks.get_mut("s").expect("deployed").removing = true;
    for _ in 0..10 {
        world.step();
    }
    assert!(world.stacks.is_empty() && world.instances.is_empty());
}

#[test]
fn stacking_constraints_share_and_separate_machines() {
    let mut world = World::new(2);
    let mut apart = web("b", 1);
    apart.placement.without = vec!["web".into()];
    let mut together = web("c", 1);
    together.placement.with = vec!["web".into()];
    world.deploy(&[("web", web("a", 1)), ("apart", apart), ("together", together)]);
    world.settle();
    let node = |service: &str| world.instances.values().find(|i| i.service == service).map(|i| i.node.clone());
    assert_ne!(node("apart"), node("web"));
    assert_eq!(node("together"), node("web"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever is deployed in whatever order, with lost steps and dying instances, it settles on what was asked last.
    #[test]
    fn settles_on_the_last_wish(wishes in prop::collection::vec((0usize..3, 0u32..6, 0usize..6), 1..6)) {
        let mut world = World::new(2);
        for (image, replicas, rounds) in &wishes {
            world.deploy(&[("web", web(["a", "b", "c"][*image], *replicas))]);
            for _ in 0..*rounds {
                world.step();
            }
        }
        world.settle();
        let (image, replicas, _) = wishes[wishes.len() - 1];
        prop_assert_eq!(world.ready(), replicas as usize);
        prop_assert!(world.images().iter().all(|found| *found == ["a", "b", "c"][image]));
    }
}
