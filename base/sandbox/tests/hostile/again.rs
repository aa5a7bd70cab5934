//! Boxes that are used again: what one program leaves the next does not find.

use crate::world::{World, program, same, usual, with_world};
use sandbox::{BoxSpec, Parked};
use std::path::PathBuf;

/// What the box is like after a program that tries to leave something, if it is to be had again.
async fn after(world: &World, spec: &BoxSpec, what: &str) -> Option<Parked> {
    println!("leaving {what}");
    let parked = world.park(spec).await;
    let (ended, again) = world.run_once(parked, program(&["leave", what]), usual()).await.unwrap();
    ended.exits_with(0);
    again
}

/// Either the box is as new, or it is gone; which of both is known for some.
#[test]
fn what_is_left_is_not_found() {
    with_world(async |world| {
        let spec = world.spec();
        let fresh = world.look(world.park(&spec).await).await;
        let kept = ["nothing", "files", "daemon", "lock", "memory", "limit", "idle", "autogroup", "terminals"];
        let gone = ["names", "bytes", "deep", "mode", "nice", "disk", "lingers"];
        let either = ["closed", "mark", "flag", "processor", "connection", "ring", "label"];
        for what in kept.into_iter().chain(gone).chain(either) {
            let again = after(world, &spec, what).await;
            assert!(again.is_some() || !kept.contains(&what), "a box is given up for {what}");
            assert!(again.is_none() || !gone.contains(&what), "a box is kept for {what}");
            if let Some(again) = again {
                println!("kept after {what}");
                same(&world.look(again).await, &fresh);
            }
        }
    });
}

/// What a program used is not counted to the next.
#[test]
fn each_program_has_its_own_account() {
    with_world(async |world| {
        let again = after(world, &world.spec(), "memory").await.unwrap();
        let (ended, again) = world.run_once(again, program(&["leave", "nothing"]), usual()).await.unwrap();
        let outcome = ended.exits_with(0).outcome;
        assert!(outcome.memory_peak_bytes < 32 << 20, "{outcome:?}");
        assert!(again.is_some());
    });
}

/// A bound that a program went over ends its box.
#[test]
fn a_box_whose_program_was_ended_is_gone() {
    with_world(async |world| {
        let limits = sandbox::RunLimits { wall_ms: Some(100), ..usual() };
        let sleeps = sandbox::Command { argv: ["/bin/sleep", "100"].map(str::to_owned).to_vec(), ..program(&[]) };
        let (ended, again) = world.run_once(world.park(&world.spec()).await, sleeps, limits).await.unwrap();
        assert_eq!(ended.outcome.verdict, sandbox::Verdict::Wall);
        assert!(again.is_none());
    });
}

/// What is written where it stays is not for the next: such a box is used once.
#[test]
fn a_box_that_writes_outside_is_used_once() {
    with_world(async |world| {
        let mut spec = world.spec();
        let folder = world.folder.path().join("shared");
        std::fs::create_dir(&folder).unwrap();
        let source = sandbox::MountSource::Bind(folder.clone());
        spec.mounts.push(sandbox::Mount { source, target: PathBuf::from("/mnt"), read_only: false });
        assert!(after(world, &spec, "nothing").await.is_none());
        std::fs::remove_dir(&folder).unwrap();
    });
}

/// A box ends some time, however well it is left.
#[test]
fn a_box_is_not_used_for_ever() {
    const USES_MAX: usize = 1_000;
    with_world(async |world| {
        let mut parked = Some(world.park(&world.spec()).await);
        let mut uses = 0;
        while let Some(last) = parked.take() {
            parked = world.run_once(last, program(&["leave", "nothing"]), usual()).await.unwrap().1;
            uses += 1;
            assert!(uses < USES_MAX, "{uses} uses");
        }
        assert!(uses > 10, "{uses} uses");
    });
}
