//! Following: what is there, what comes, through rotations, new instances and slow readers.

use super::{Bed, everything};
use std::fs;
use std::time::Duration;
use telemetry::logs::{FOLLOW_LINES, FOLLOWS_MAX, Follow, Logs, Query, QueryError};

/// A follow that has nothing to say within this is stuck: the test fails instead of hanging.
const STUCK: Duration = Duration::from_secs(20);

async fn next(follow: &mut Follow) -> String {
    tokio::time::timeout(STUCK, follow.next()).await.expect("a line comes").expect("the follow goes on").line
}

async fn check(follow: &mut Follow, expected: &[&str]) {
    for text in expected {
        assert_eq!(next(follow).await, *text);
    }
}

fn follow(bed: &Bed, query: Query) -> Follow {
    bed.logs.follow("stack", "web", query).expect("can be followed")
}

#[tokio::test]
async fn new_lines_come_after_those_that_are_there() {
    let bed = Bed::new();
    bed.append("a", "current", "1 o one\n2 o two\n");
    let mut lines = follow(&bed, Query { tail: Some(1), ..everything() });
    check(&mut lines, &["two"]).await;
    bed.append("a", "current", "3 o three\n");
    check(&mut lines, &["three"]).await;
    bed.logs.note("stack", "web", "a", "noted").expect("writes");
    check(&mut lines, &["noted"]).await;
}

#[tokio::test]
async fn a_line_is_shown_when_it_is_whole() {
    let bed = Bed::new();
    bed.append("a", "current", "1 o one\n2 o half");
    let mut lines = follow(&bed, everything());
    check(&mut lines, &["one"]).await;
    bed.append("a", "current", " whole\n3 o three\n");
    check(&mut lines, &["half whole", "three"]).await;
}

#[tokio::test]
async fn rotation_loses_and_repeats_nothing() {
    let bed = Bed::new();
    bed.append("a", "current", "1 o 1\n");
    let mut lines = follow(&bed, everything());
    check(&mut lines, &["1"]).await;
    for round in 0..5 {
        bed.append("a", "current", format!("2 o last of {round}\n"));
        bed.rotate("a");
        bed.append("a", "current", format!("3 o first after {round}\n"));
        check(&mut lines, &[&format!("last of {round}"), &format!("first after {round}")]).await;
    }
}

#[tokio::test]
async fn a_file_that_ends_within_a_line_gives_it_up_when_it_is_turned() {
    let bed = Bed::new();
    bed.append("a", "current", "1 o 1\n");
    let mut lines = follow(&bed, everything());
    check(&mut lines, &["1"]).await;
    bed.append("a", "current", "2 o torn");
    bed.rotate("a");
    bed.append("a", "current", "3 o whole\n");
    check(&mut lines, &["torn", "whole"]).await;
}

#[tokio::test]
async fn a_service_that_is_not_there_yet_is_waited_for() {
    let bed = Bed::new();
    let mut lines = follow(&bed, everything());
    bed.append("a", "current", "1 o first\n");
    check(&mut lines, &["first"]).await;
    bed.append("b", "current", "2 o of another\n");
    check(&mut lines, &["of another"]).await;
    bed.append("a", "current", "3 o again\n");
    check(&mut lines, &["again"]).await;
}

#[tokio::test]
async fn logs_that_were_removed_and_come_back_are_followed() {
    let bed = Bed::new();
    bed.append("a", "current", "1 o one\n");
    let mut lines = follow(&bed, everything());
    check(&mut lines, &["one"]).await;
    fs::remove_dir_all(bed.dir.path().join("logs/stack")).expect("removes");
    bed.append("a", "current", "2 o two\n");
    check(&mut lines, &["two"]).await;
    for round in 0..50 {
        fs::remove_dir_all(bed.dir.path().join("logs/stack/web/a")).expect("removes");
        bed.append("a", "current", format!("3 o new {round}\n"));
        check(&mut lines, &[&format!("new {round}")]).await;
        bed.append("a", "current", format!("4 o more {round}\n"));
        check(&mut lines, &[&format!("more {round}")]).await;
    }
}

#[tokio::test]
async fn only_what_was_asked_for_is_shown() {
    let bed = Bed::new();
    let only = Query { instance: Some("b".to_owned()), grep: Some("/yes$/".to_owned()), ..everything() };
    let mut lines = follow(&bed, only);
    bed.append("a", "current", "1 o a yes\n");
    bed.append("b", "current", "2 o b no\n3 o b yes\n");
    check(&mut lines, &["b yes"]).await;
}

#[tokio::test]
async fn a_slow_reader_gets_every_line_in_the_end() {
    let bed = Bed::new();
    let mut lines = follow(&bed, Query { tail: Some(0), ..everything() });
    let count = FOLLOW_LINES * 20;
    for part in (0..count).collect::<Vec<_>>().chunks(100) {
        let text: String = part.iter().map(|at| format!("{at} o line {at}\n")).collect();
        bed.append("a", "current", text);
    }
    for at in 0..count {
        assert_eq!(next(&mut lines).await, format!("line {at}"));
    }
}

#[tokio::test]
async fn lines_rotated_away_unread_are_mentioned() {
    let bed = Bed::new();
    bed.append("a", "current", "1 o seen\n");
    let mut lines = follow(&bed, everything());
    check(&mut lines, &["seen"]).await;
    // More than the channel and a turn hold, so that the follow stands still within this file.
    let many: String = (0..10_000).map(|at| format!("2 o {at}\n")).collect();
    bed.append("a", "current", many);
    check(&mut lines, &["0"]).await;
    for round in 0..3 {
        bed.rotate("a");
        bed.append("a", "current", format!("3 o after {round}\n"));
    }
    for at in 1..10_000 {
        assert_eq!(next(&mut lines).await, at.to_string());
    }
    let missed = next(&mut lines).await;
    assert!(missed.starts_with("lines were missed here"), "{missed}");
    check(&mut lines, &["after 1", "after 2"]).await;
}

#[tokio::test]
async fn a_huge_line_is_cut_and_the_next_one_whole() {
    let bed = Bed::new();
    bed.append("a", "current", "1 o first\n");
    let mut lines = follow(&bed, everything());
    check(&mut lines, &["first"]).await;
    bed.append("a", "current", format!("2 o {}\n3 o next\n", "x".repeat(500_000)));
    let long = next(&mut lines).await;
    assert!(long.starts_with("xxx") && long.len() <= 64 << 10);
    check(&mut lines, &["next"]).await;
}

#[tokio::test]
async fn follows_are_bounded_and_a_dropped_one_makes_room() {
    let bed = Bed::new();
    let logs: &Logs = &bed.logs;
    let mut held = Vec::new();
    for _ in 0..FOLLOWS_MAX {
        match logs.follow("stack", "web", everything()) {
            Ok(follow) => held.push(follow),
            // Other programs of this user may hold some of the kernel's.
            Err(error) => return assert!(matches!(error, QueryError::Watch { .. }), "{error}"),
        }
    }
    assert!(matches!(logs.follow("stack", "web", everything()), Err(QueryError::TooMany)));
    drop(held.pop());
    while logs.follow("stack", "web", everything()).is_err() {
        tokio::task::yield_now().await;
    }
}

/// A writer that never waits, as shims do: whatever the reader misses is mentioned, the rest is in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_rotates_all_the_time_is_followed() {
    const LINES: usize = 20_000;
    let bed = Bed::new();
    bed.append("a", "current", "1 o first\n");
    let mut lines = follow(&bed, everything());
    check(&mut lines, &["first"]).await;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for from in (0..LINES).step_by(100) {
                let text: String = (from..from + 100).map(|at| format!("2 o {at}\n")).collect();
                bed.append("a", "current", text);
                if from % 1_000 == 900 {
                    bed.rotate("a");
                }
            }
            bed.append("a", "current", "3 o end\n");
        });
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                let mut expected = 0;
                loop {
                    let line = next(&mut lines).await;
                    if line == "end" {
                        break;
                    }
                    if line.starts_with("lines were missed") {
                        expected = usize::MAX;
                        continue;
                    }
                    let at: usize = line.parse().expect("a number");
                    assert!(
                        at == expected || (expected == usize::MAX && at.is_multiple_of(1_000)),
                        "{at} after {expected}"
                    );
                    expected = at + 1;
                }
                assert!(expected == LINES || expected == usize::MAX, "{expected}");
            });
        });
    });
}
