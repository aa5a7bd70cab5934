//! Programs 10 to 16: disks filled, links planted, places probed.

use crate::world::with_world;
use sandbox::Verdict;

#[test]
fn p10_disk_fill() {
    with_world(async |world| {
        world.run(&["disk-fill"]).await.achieved_nothing();
    });
}

#[test]
fn p11_inode_fill() {
    with_world(async |world| {
        world.run(&["inode-fill"]).await.achieved_nothing();
    });
}

#[test]
fn p11_folders_in_folders() {
    with_world(async |world| {
        world.run(&["deep-folders"]).await.achieved_nothing();
    });
}

#[test]
fn p12_sparse_file() {
    with_world(async |world| {
        world.run(&["sparse"]).await.dies_of(libc::SIGXFSZ);
        world.run(&["sparse-ignored"]).await.achieved_nothing();
    });
}

#[test]
fn p13_archives_that_climb_and_swell() {
    with_world(async |world| {
        let outside = world.folder.path().join("escaped");
        world.run(&["archives", outside.to_str().unwrap()]).await.achieved_nothing();
        assert!(!outside.exists());
    });
}

/// No result travels by a name a program could have taken: what was sent through the pipe is what counts.
#[test]
fn p14_links_at_the_runners_names() {
    with_world(async |world| {
        let outside = world.folder.path().join("precious");
        std::fs::write(&outside, "as it was").unwrap();
        let ended = world.run(&["planted-links", outside.to_str().unwrap()]).await;
        assert_eq!((ended.outcome.verdict, ended.outcome.code), (Verdict::Exited, Some(7)), "{}", ended.text());
        assert!(ended.text().contains("planted /tmp/exit.json"), "{}", ended.text());
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "as it was");
        std::fs::remove_file(&outside).unwrap();
    });
}

#[test]
fn p15_probes_of_proc_and_sys() {
    with_world(async |world| {
        world.run(&["probes"]).await.achieved_nothing();
    });
}

#[test]
fn p16_writes_to_what_is_the_machines() {
    with_world(async |world| {
        world.run(&["writes"]).await.achieved_nothing();
    });
}
