//! Logs as they are asked for and followed.

use std::fs::{self, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use telemetry::logs::{Keep, LINES_MAX, Logs, QUERIES_MAX, Query, QueryError};
use tempfile::TempDir;
use wire::api::LogLine;

mod following;
mod merging;

/// Logs in a folder of their own, written as a shim would.
struct Bed {
    dir: TempDir,
    logs: Logs,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().expect("makes a folder");
        let logs = Logs::new(&dir.path().join("logs"));
        Bed { dir, logs }
    }

    fn path(&self, instance: &str, file: &str) -> PathBuf {
        self.dir.path().join("logs/stack/web").join(instance).join(file)
    }

    fn append(&self, instance: &str, file: &str, content: impl AsRef<[u8]>) {
        let path = self.path(instance, file);
        fs::create_dir_all(path.parent().expect("has one")).expect("makes a folder");
        let mut file = OpenOptions::new().append(true).create(true).open(path).expect("opens");
        file.write_all(content.as_ref()).expect("writes");
    }

    /// As a shim does when its file is full.
    fn rotate(&self, instance: &str) {
        fs::rename(self.path(instance, "current"), self.path(instance, "previous")).expect("renames");
    }

    fn query(&self, query: Query) -> Vec<LogLine> {
        self.logs.query_blocking("stack", "web", &query).expect("can be read")
    }

    fn texts(&self, query: Query) -> Vec<String> {
        self.query(query).into_iter().map(|line| line.line).collect()
    }
}

fn everything() -> Query {
    Query::default()
}

#[test]
fn lines_of_all_instances_come_in_time_order() {
    let bed = Bed::new();
    bed.append("a", "previous", "10 o a1\n30 e a2\n");
    bed.append("a", "current", "50 b a3\n");
    bed.append("b", "current", "20 o b1\n40 o b2\n");
    let found: Vec<_> =
        bed.query(everything()).into_iter().map(|line| (line.time_ms, line.instance, line.stream, line.line)).collect();
    let expected = [
        (10, "a", "stdout", "a1"),
        (20, "b", "stdout", "b1"),
        (30, "a", "stderr", "a2"),
        (40, "b", "stdout", "b2"),
        (50, "a", "bramble", "a3"),
    ];
    let expected = expected.map(|(time, instance, stream, line)| (time, instance.into(), stream.into(), line.into()));
    assert_eq!(found, expected);
}

#[test]
fn queries_select_by_time_text_instance_and_number() {
    let bed = Bed::new();
    bed.append("a", "previous", "10 o GET /one\n20 o GET /two\n");
    bed.append("a", "current", "30 o POST /two\n40 o GET /three\n");
    bed.append("b", "current", "35 o other\n");
    let check = |query: Query, expected: &[&str]| assert_eq!(bed.texts(query.clone()), expected, "{query:?}");
    check(Query { since_ms: Some(20), until_ms: Some(30), ..everything() }, &["GET /two", "POST /two"]);
    check(Query { tail: Some(2), ..everything() }, &["other", "GET /three"]);
    check(Query { tail: Some(0), ..everything() }, &[]);
    check(Query { instance: Some("b".to_owned()), ..everything() }, &["other"]);
    check(Query { instance: Some("none".to_owned()), ..everything() }, &[]);
    check(Query { grep: Some("/two".to_owned()), ..everything() }, &["GET /two", "POST /two"]);
    check(Query { grep: Some("/^get .t/i".to_owned()), ..everything() }, &["GET /two", "GET /three"]);
    check(Query { grep: Some("GET".to_owned()), tail: Some(1), ..everything() }, &["GET /three"]);
}

#[test]
fn a_service_without_logs_has_none() {
    assert_eq!(Bed::new().query(everything()), []);
}

#[test]
fn names_that_climb_are_refused() {
    let bed = Bed::new();
    fs::create_dir_all(bed.dir.path().join("secret/x")).expect("makes a folder");
    for name in ["", ".", "..", "../secret", "a/b", "a\0b", ".hidden", "/etc"] {
        for (stack, service, instance) in [(name, "web", "a"), ("stack", name, "a"), ("stack", "web", name)] {
            let query = Query { instance: Some(instance.to_owned()), ..everything() };
            let error = bed.logs.query_blocking(stack, service, &query).expect_err("is refused");
            assert!(matches!(&error, QueryError::Name(bad) if bad == name), "{error}");
            assert!(error.is_callers_fault() && !error.hint().is_empty());
            bed.logs.note(stack, service, instance, "x").expect_err("is refused");
            let followed = bed.logs.follow(stack, service, query);
            assert!(followed.is_err(), "{name:?}");
        }
    }
}

#[test]
fn links_are_not_followed() {
    let bed = Bed::new();
    bed.append("a", "current", "1 o mine\n");
    let outside = bed.dir.path().join("outside");
    fs::create_dir_all(&outside).expect("makes a folder");
    fs::write(outside.join("current"), "2 o not mine\n").expect("writes");
    std::os::unix::fs::symlink(&outside, bed.dir.path().join("logs/stack/web/b")).expect("links");
    assert_eq!(bed.texts(everything()), ["mine"]);
}

#[test]
fn what_is_no_file_is_no_log() {
    let bed = Bed::new();
    bed.append("a", "previous", "1 o mine\n");
    fs::create_dir(bed.path("a", "current")).expect("makes a folder");
    fs::create_dir_all(bed.path("b", "")).expect("makes a folder");
    std::os::unix::fs::symlink("/etc/passwd", bed.path("b", "current")).expect("links");
    fs::write(bed.dir.path().join("logs/stack/web/file"), "2 o x\n").expect("writes");
    assert_eq!(bed.texts(everything()), ["mine"]);
    bed.logs.note("stack", "web", "b", "x").expect_err("a link is not written through");
}

#[test]
fn hostile_bytes_do_no_harm() {
    let bed = Bed::new();
    let mut content = b"5 o \xff\xfe\0nul\n".to_vec();
    content.extend_from_slice(b"no time at all\n");
    content.extend_from_slice(b"6 o 7 o forged?\n\n");
    content.extend_from_slice(b"8 o ");
    content.resize(content.len() + 300_000, b'x');
    content.extend_from_slice(b"\n99999999999999999999999999 o big\n9 e torn");
    bed.append("a", "current", &content);
    let found = bed.query(everything());
    let texts: Vec<&str> = found.iter().map(|line| &line.line[..line.line.len().min(40)]).collect();
    let long = "x".repeat(40);
    let expected = [
        "\u{fffd}\u{fffd}\u{fffd}nul",
        "no time at all",
        "7 o forged?",
        "",
        &long,
        "99999999999999999999999999 o big",
        "torn",
    ];
    assert_eq!(texts, expected);
    assert!(found[4].line.len() <= 64 << 10);
    let times: Vec<u64> = found.iter().map(|line| line.time_ms).collect();
    assert_eq!(times, [5, 6, 6, 8, 8, 9, 9]);
}

#[test]
fn a_clock_set_back_does_not_change_the_order_within_an_instance() {
    let bed = Bed::new();
    bed.append("a", "current", "100 o a1\n50 o a2\n60 o a3\n");
    bed.append("b", "current", "55 o b1\n");
    let texts = bed.texts(everything());
    let order: Vec<_> = texts.iter().filter(|text| text.starts_with('a')).collect();
    assert_eq!(order, ["a1", "a2", "a3"]);
    assert_eq!(texts.len(), 4);
}

#[test]
fn an_answer_is_bounded() {
    let bed = Bed::new();
    let many: String = (0..LINES_MAX + 50).map(|at| format!("{at} o x\n")).collect();
    bed.append("a", "current", many);
    let found = bed.query(Query { tail: Some(usize::MAX), ..everything() });
    assert_eq!((found.len(), found[0].time_ms), (LINES_MAX, 50));
    let wide: String = (0..1_000).map(|at| format!("{at} o {}\n", "y".repeat(16_000))).collect();
    bed.append("b", "current", wide);
    let found = bed.query(Query { instance: Some("b".to_owned()), ..everything() });
    let bytes: usize = found.iter().map(|line| line.line.len()).sum();
    assert!(bytes <= 8 << 20 && found.last().is_some_and(|line| line.time_ms == 999));
}

#[test]
fn a_search_through_too_much_says_where_it_stopped() {
    let mut bed = Bed::new();
    bed.logs = Logs::bounded(&bed.dir.path().join("logs"), 500_000);
    bed.append("a", "current", format!("1 o before\n2 o {}\n7 o after\n", "x".repeat(1_000_000)));
    bed.append("b", "current", "1 o older than anybody knows\n9 o newest\n");
    let found: Vec<_> =
        bed.query(everything()).into_iter().map(|line| (line.time_ms, line.stream, line.line)).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!((found[0].0, found[0].1.as_str()), (7, "bramble"));
    assert!(found[0].2.starts_with("the search stopped here"));
    assert_eq!((found[1].2.as_str(), found[2].2.as_str()), ("after", "newest"));
}

#[tokio::test]
async fn queries_that_nobody_waits_for_make_room() {
    let bed = Bed::new();
    bed.append("a", "current", "1 o x\n");
    for _ in 0..QUERIES_MAX * 4 {
        let query = bed.logs.query("stack", "web", everything());
        // Asked once, then dropped: its search has begun.
        let mut query = std::pin::pin!(query);
        std::future::poll_fn(|context| {
            let _ = query.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    let found = bed.logs.query("stack", "web", everything()).await.expect("can be read");
    assert_eq!(found.len(), 1);
}

#[test]
fn notes_stand_in_the_log_as_whole_lines() {
    let bed = Bed::new();
    bed.logs.note("stack", "web", "a", "pulling nginx").expect("writes");
    bed.append("a", "current", "7 o torn");
    bed.logs.note("stack", "web", "a", "exited with 3\nstarting again in 1 s").expect("writes");
    let found: Vec<_> = bed.query(everything()).into_iter().map(|line| (line.stream, line.line)).collect();
    let expected = [
        ("bramble", "pulling nginx"),
        ("stdout", "torn"),
        ("bramble", "exited with 3"),
        ("bramble", "starting again in 1 s"),
    ];
    assert_eq!(found, expected.map(|(stream, line)| (stream.to_owned(), line.to_owned())));
}

#[test]
fn pruning_frees_what_is_dead_and_keeps_what_is_written() {
    let bed = Bed::new();
    for instance in ["dead", "live"] {
        bed.append(instance, "previous", vec![b'x'; 1_000]);
        bed.append(instance, "current", vec![b'x'; 1_000]);
    }
    let keep = |size_bytes_max| Keep {
        stack: "stack".to_owned(),
        service: "web".to_owned(),
        size_bytes_max,
        live: ["live".to_owned()].into(),
    };
    assert_eq!(bed.logs.prune(0, &[keep(4_000)]).freed_bytes, 0);
    let pruned = bed.logs.prune(0, &[keep(2_500)]);
    assert_eq!((pruned.instances, pruned.freed_bytes), (1, 2_000));
    let pruned = bed.logs.prune(0, &[keep(10)]);
    assert_eq!((pruned.files, pruned.freed_bytes), (1, 1_000));
    assert!(bed.path("live", "current").exists() && !bed.path("dead", "current").exists());
}

#[test]
fn logs_of_a_stack_that_is_gone_go_a_day_later() {
    let bed = Bed::new();
    bed.append("a", "current", "1 o x\n");
    let now_ms = world::clock::unix_ms();
    assert_eq!(bed.logs.prune(now_ms, &[]).instances, 0);
    let pruned = bed.logs.prune(now_ms + 2 * telemetry::logs::GONE_KEPT_MS, &[]);
    assert_eq!(pruned.instances, 1);
    assert!(bed.dir.path().join("logs").exists());
}
