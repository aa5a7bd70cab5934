//! Machines as the view knows them: what they report, what was declared, and what was judged.

use control::view::{self, Snapshot, View};
use control::{Soft, Space, Txn};
use scheduler::Pressure;
use std::sync::Arc;
use wire::resource::{Considerate, Fence, Load, Node, Presence, Verdict, key};

/// The first snapshot for which something holds.
async fn once(view: &mut View, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    Arc::clone(&*view.wait_for(|snapshot| holds(snapshot)).await.unwrap())
}

#[tokio::test]
async fn a_machine_under_a_verdict_stays_known_when_it_reports_no_longer() {
    let (space, soft) = (Space::ephemeral(), Soft::new());
    let (mut view, _task) = view::follow(space.clone(), soft.clone());
    let node = Node { id: "m1".into(), cores: 4, memory_bytes: 1 << 30, ..Node::default() };
    soft.put_json(key::node("m1"), &node).unwrap();
    once(&mut view, |now| now.machines.get("m1").is_some_and(|one| one.presence == Presence::Up)).await;
    let verdict = Verdict { node: "m1".into(), presence: Presence::Down { since_ms: 7 } };
    space.commit(Txn::new().put_json(key::verdict("m1"), &verdict)).await.unwrap();
    once(&mut view, |now| now.machines["m1"].presence == verdict.presence).await;
    soft.delete(&key::node("m1"));
    let declared = Node { zone: "a".into(), cordoned: true, ..Node::default() };
    space.commit(Txn::new().put_json(key::node("m1"), &declared)).await.unwrap();
    let now = once(&mut view, |now| now.machines.get("m1").is_some_and(|one| one.node.cordoned)).await;
    let machine = &now.machines["m1"];
    assert_eq!((machine.node.cores, machine.node.zone.as_str()), (4, "a"));
    assert_eq!(machine.presence, verdict.presence);
}

#[tokio::test]
async fn reports_of_load_lead_to_pressure_where_the_owner_has_set_a_bound() {
    let (space, soft) = (Space::ephemeral(), Soft::new());
    let (mut view, _task) = view::follow(space.clone(), soft.clone());
    let node = Node { considerate: Some(Considerate::default()), ..Node::default() };
    soft.put_json(key::node("m1"), &node).unwrap();
    once(&mut view, |now| now.machines.contains_key("m1")).await;
    for (at_ms, expected) in
        [(1_000, Pressure::Rising { since_ms: 1_000 }), (31_000, Pressure::Pressed { since_ms: 31_000 })]
    {
        soft.put_json(key::load("m1"), &Load { at_ms, psi_percent: 40, ..Load::default() }).unwrap();
        let now = once(&mut view, |now| now.machines["m1"].load.as_ref().is_some_and(|load| load.at_ms == at_ms)).await;
        assert_eq!(now.machines["m1"].pressure, expected);
    }
}

#[tokio::test]
async fn only_loads_that_count_lead_to_a_plan() {
    let (space, soft, meter) = (Space::ephemeral(), Soft::new(), meter::Meter::new());
    let (mut view, _task) = view::follow(space.clone(), soft.clone());
    let plans = meter.counter("bramble_planner_plans_total", "Times the planner decided.", &[]);
    let _planner = world::task::spawn("planner", control::planner::run(space, view.clone(), meter.clone()));
    let planned_after = async |before: u64| {
        while plans.value() <= before {
            tokio::task::yield_now().await;
        }
    };
    let node = Node { considerate: Some(Considerate::default()), ..Node::default() };
    soft.put_json(key::node("m1"), &node).unwrap();
    once(&mut view, |now| now.machines.contains_key("m1")).await;
    planned_after(0).await;
    let report = async |view: &mut View, load: Load| {
        soft.put_json(key::load("m1"), &load).unwrap();
        once(view, |now| now.machines["m1"].load.as_ref().is_some_and(|known| known.at_ms == load.at_ms)).await;
    };
    for at_ms in 1..=100 {
        report(&mut view, Load { at_ms, cpu_busy_millis: at_ms * 7, psi_percent: 19, ..Load::default() }).await;
    }
    let before = plans.value();
    assert!(before < 10, "{before} plans for a hundred reports by which nothing is decided");
    report(&mut view, Load { at_ms: 101, psi_percent: 40, ..Load::default() }).await;
    planned_after(before).await;
}

#[tokio::test]
async fn only_a_fence_that_is_done_counts() {
    let (space, soft) = (Space::ephemeral(), Soft::new());
    let (mut view, _task) = view::follow(space.clone(), soft);
    let fence = Fence { instance: "s.db.1.a".into(), node: "m1".into(), demanded_ms: 1, done: false };
    space.commit(Txn::new().put_json(key::fence("s.db.1.a"), &fence)).await.unwrap();
    let now = once(&mut view, |now| now.fences.contains_key("s.db.1.a")).await;
    assert!(now.fenced.is_empty());
    space.commit(Txn::new().put_json(key::fence("s.db.1.a"), &Fence { done: true, ..fence })).await.unwrap();
    once(&mut view, |now| now.fenced.contains("s.db.1.a")).await;
}
