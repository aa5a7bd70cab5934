//! Programs 1 to 3 and 24 to 26: too many, too long, too stubborn.

use crate::world::{program, usual, with_world};
use sandbox::{RunLimits, Verdict};

fn wall(wall_ms: u64) -> RunLimits {
    RunLimits { wall_ms: Some(wall_ms), cpu_ms: None, ..usual() }
}

#[test]
fn p01_fork_bomb_of_sleepers() {
    with_world(async |world| {
        world.run(&["fork-bomb"]).await.achieved_nothing();
    });
}

#[test]
fn p02_fork_bomb_without_end() {
    with_world(async |world| {
        world.run_within(&["fork-bomb-endless"], wall(500)).await.ends_killed_for(Verdict::Wall);
    });
}

/// The same where only a control group counts: as root, without a limit per user.
#[test]
fn p02_fork_bomb_in_a_control_group() {
    with_world(async |world| {
        if !sandbox::capabilities().pids_limit {
            println!(
                "no control group here: the limit per user namespace holds, which p02_fork_bomb_without_end shows"
            );
            return;
        }
        let mut spec = world.spec();
        spec.limits.pids = Some(64);
        spec.limits.rlimits.retain(|(name, ..)| name != "nproc");
        world.run_in(&spec, program(&["fork-bomb"]), usual()).await.unwrap().achieved_nothing();
        world.run_in(&spec, program(&["fork-bomb-endless"]), wall(500)).await.unwrap().ends_killed_for(Verdict::Wall);
    });
}

#[test]
fn p03_thread_bomb() {
    with_world(async |world| {
        world.run(&["thread-bomb"]).await.achieved_nothing();
    });
}

#[test]
fn p24_daemon_left_behind() {
    with_world(async |world| {
        world.run(&["daemon-left-behind"]).await.exits_with(0);
    });
}

#[test]
fn p25_deaf_to_every_signal() {
    with_world(async |world| {
        world.run_within(&["stubborn"], wall(300)).await.ends_killed_for(Verdict::Wall);
    });
}

#[test]
fn p26_spinning_on_every_core() {
    with_world(async |world| {
        let limits = RunLimits { cpu_ms: Some(300), ..usual() };
        world.run_within(&["spin-everywhere"], limits).await.ends_killed_for(Verdict::Cpu);
    });
}

/// What nobody waits for is in nobody's account (the kernel drops it when a parent ignores its children's end), so the
/// bound that holds for sure is the one in wall time.
#[test]
fn p26_spinning_in_children_nobody_waits_for() {
    with_world(async |world| {
        let limits = RunLimits { cpu_ms: Some(300), wall_ms: Some(1500), ..usual() };
        let ended = world.run_within(&["spin-unaccounted"], limits).await;
        assert!(matches!(ended.outcome.verdict, Verdict::Cpu | Verdict::Wall), "{:?}", ended.outcome);
        println!("ended for {:?}", ended.outcome.verdict);
    });
}
