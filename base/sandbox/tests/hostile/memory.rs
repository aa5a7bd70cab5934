//! Programs 4 to 9: more memory, in all the places it can be in.

use crate::world::{program, usual, with_world};
use sandbox::{RunLimits, Verdict};

const MIB: u64 = 1 << 20;

fn memory(bytes: u64) -> RunLimits {
    RunLimits { memory_bytes: Some(bytes), ..usual() }
}

#[test]
fn p04_malloc_bomb() {
    with_world(async |world| {
        world.run_within(&["malloc-bomb"], memory(128 * MIB)).await.ends_killed_for(Verdict::Memory);
    });
}

/// Where nobody watches, the limit on address space of each process ends it.
#[test]
fn p04_malloc_bomb_against_address_space() {
    with_world(async |world| {
        let mut spec = world.spec();
        for (name, soft, hard) in &mut spec.limits.rlimits {
            if name == "as" {
                (*soft, *hard) = (256 * MIB, 256 * MIB);
            }
        }
        let limits = RunLimits { memory_bytes: None, ..usual() };
        let ended = world.run_in(&spec, program(&["malloc-bomb"]), limits.clone()).await.unwrap().exits_with(0);
        assert_eq!(ended.text(), "MiB in one process: 240\n");
        world.run_in(&spec, program(&["address-bomb"]), limits).await.unwrap().achieved_nothing();
    });
}

#[test]
fn p05_memory_bomb_over_twenty_processes() {
    with_world(async |world| {
        world.run_within(&["memory-bomb-shared-out"], memory(512 * MIB)).await.ends_killed_for(Verdict::Memory);
    });
}

/// With a control group the kernel itself kills, and the watch has nothing to do.
#[test]
fn p05_memory_bomb_in_a_control_group() {
    with_world(async |world| {
        if !sandbox::capabilities().memory_limit {
            println!("no control group here: the watch holds, which p05_memory_bomb_over_twenty_processes shows");
            return;
        }
        let mut spec = world.spec();
        spec.limits.memory_bytes = Some(64 * MIB);
        let limits = RunLimits { memory_bytes: None, ..usual() };
        let ended = world.run_in(&spec, program(&["malloc-bomb"]), limits).await.unwrap();
        let ended = ended.ends_killed_for(Verdict::Memory);
        assert!(ended.outcome.memory_peak_bytes <= 65 * MIB, "{:?}", ended.outcome);
    });
}

#[test]
fn p06_memfd_bomb() {
    with_world(async |world| {
        world.run(&["memfd-bomb"]).await.achieved_nothing();
    });
}

/// Where a control group counts, it counts these pages too.
#[test]
fn p06_shared_memory_taken_out_of_the_page_table_in_a_control_group() {
    with_world(async |world| {
        if !sandbox::capabilities().memory_limit {
            println!("no control group here: p06_shared_memory_taken_out_of_the_page_table is about that");
            return;
        }
        let mut spec = world.spec();
        spec.limits.memory_bytes = Some(256 * MIB);
        let limits = RunLimits { memory_bytes: None, ..usual() };
        world.run_in(&spec, program(&["hidden-bomb"]), limits).await.unwrap().ends_killed_for(Verdict::Memory);
    });
}

#[test]
fn p06_shared_memory_taken_out_of_the_page_table() {
    with_world(async |world| {
        world.run_within(&["hidden-bomb"], memory(256 * MIB)).await.ends_killed_for(Verdict::Memory);
    });
}

#[test]
fn p07_system_v_shared_memory() {
    with_world(async |world| {
        world.run(&["shm-bomb"]).await.achieved_nothing();
    });
}

#[test]
fn p08_hoard_of_pipes_and_sockets() {
    with_world(async |world| {
        world.run(&["buffer-hoard"]).await.achieved_nothing();
        world.run(&["socket-hoard"]).await.achieved_nothing();
    });
}

/// Kernel memory behind sockets is in no process's account: without a control group the bound is processes times
/// descriptors, and whoever sets the two limits decides it.
#[test]
fn p08_hoard_of_sockets_over_twenty_processes() {
    with_world(async |world| {
        let said = world.run(&["socket-hoard-shared-out"]).await.achieved_nothing().text();
        println!("documented as bounded by limits alone: {said}");
    });
}

#[test]
fn p09_hoard_of_descriptors() {
    with_world(async |world| {
        world.run(&["descriptor-hoard"]).await.achieved_nothing();
    });
}
