//! The disk is full: what runs goes on, what is asked is refused with the reason, what was acknowledged stays.

use crate::deploying::{address, web};
use crate::probe;
use lab::{Node, Settings, http, node, process, wait};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk of its own. Gone with its owner.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new(size: &str) -> Disk {
        let disk = Disk { folder: tempfile::tempdir().expect("a temporary folder") };
        std::fs::create_dir(disk.data()).expect("a fresh folder takes another");
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(disk.data()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "root may mount a tmpfs");
        disk
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn filler(&self) -> PathBuf {
        self.data().join("filler")
    }

    /// Takes what [`Disk::free`] will give back at least: what services log until the disk is full is up to the machine.
    fn reserve(&self) {
        std::fs::write(self.filler(), vec![0; RESERVED_BYTES]).expect("a fresh disk has room");
    }

    /// Takes every byte that is left.
    fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).expect("a file can be made");
        for piece in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("our own file");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a box that is still ending may hold it.
        let _ = Command::new("umount").arg("-l").arg(self.data()).status();
    }
}

/// Half of the disk.
const RESERVED_BYTES: usize = 12 << 20;

/// Counts in its log as fast as it can, and tells over HTTP how far it is.
const CHATTY: &str = "
import os, threading
class Count: at, quiet = 0, False
def talk():
    while not Count.quiet:
        print('line', Count.at, 'x' * 200, flush=True)
        Count.at += 1
threading.Thread(target=talk, daemon=True).start()
__import__('builtins').Count = Count
";

fn counted(port: u16) -> u64 {
    probe::run(port, "say(Count.at)").trim().parse().expect("a number")
}

/// The newest revision of the stack that only changes.
fn current(node: &Node) -> u64 {
    node.json(&["stack", "show", "churn"])["summary"]["revision"].as_u64().expect("a number")
}

/// What is held in reserve takes some changes, ever smaller ones; then no more is promised than can be kept. Gives the
/// last one promised.
fn change_until_refused(node: &Node, disk: &Disk) -> u64 {
    let mut promised = 0;
    for size in [200 << 10, 8 << 10, 1] {
        let refused = (0..CHANGES_MAX).find(|round| {
            disk.fill();
            let large = format!("{round} {}", "x".repeat(size));
            let idle = format!("image: host, command: [sleep, '1'], scale: 0, environment: {{LARGE: '{large}'}}");
            let body = json!({"source": format!("services: {{idle: {{{idle}}}}}"), "directory": "/"}).to_string();
            let answer = node.call("PUT", "/v1/stacks/churn", &body);
            if answer.status != 200 {
                assert_eq!(answer.status, 507, "{}", answer.text());
                assert!(answer.text().contains("B0301") && answer.text().contains("free space"), "{}", answer.text());
                return true;
            }
            let deployed: Value = serde_json::from_slice(&answer.body).expect("JSON");
            promised = deployed["revision"].as_u64().expect("a number");
            false
        });
        assert!(refused.is_some(), "{CHANGES_MAX} changes of {size} bytes fit a full disk");
    }
    promised
}

/// More than what may be held in reserve.
const CHANGES_MAX: u32 = 150;

#[test]
fn a_full_disk_stops_changes_only_and_loses_nothing() {
    if !process::is_root() {
        eprintln!("skipped: only root can mount a small disk");
        return;
    }
    let disk = Disk::new("24m");
    let mut node = Node::with(Settings { data: Some(disk.data()), ..Settings::default() });
    let (port, chatty, third) = (node::free_port(), node::free_port(), node::free_port());
    node.deployed("shop", &web(port, "one", 1));
    disk.reserve();
    let talker = probe::service_after(CHATTY, chatty, "logging: {options: {max-size: 64m}}");
    node.deployed("talk", &format!("services:\n  talker:\n{talker}"));
    let acknowledged = node.json(&["stack", "ls"]).as_array().map(Vec::len);
    assert_eq!(acknowledged, Some(2));

    disk.fill();
    let promised = change_until_refused(&node, &disk);
    let file = node.file("third.yml", web(third, "three", 1));
    let said = node.refused(&["deploy", "-f", &file.to_string_lossy(), "third"]);
    assert!(said.contains("[B0301]") && said.contains("full") && said.contains("hint: "), "{said}");
    let scale = node.call("POST", "/v1/services/shop/web/scale", "{\"replicas\": 3}");
    assert_eq!(scale.status, 507, "{}", scale.text());

    assert!(http::get(address(port), "/").expect("it still answers").text().starts_with("one "));
    let before = counted(chatty);
    wait::until("a service that logs goes on", 10, || (counted(chatty) > before + 5_000).then_some(()));
    assert_eq!(node.call("GET", "/v1/stacks", "").status, 200, "reading goes on");
    let metrics = node.call("GET", "/metrics", "").text();
    let failures = metrics.lines().find_map(|line| line.strip_prefix("bramble_control_commit_failures_total "));
    assert!(failures.is_some_and(|count| count != "0"), "the failures are counted: {failures:?}");

    let names = |node: &Node| -> Vec<String> {
        let stacks = node.json(&["stack", "ls"]);
        stacks.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(names(&node), ["churn", "shop", "talk"]);
    node.kill();
    node.launch();
    assert_eq!(names(&node), ["churn", "shop", "talk"], "killed on a full disk, it comes back");
    assert_eq!(current(&node), promised, "with what it had acknowledged, and not with what it had refused");
    let answer = wait::until("the port answers again", 10, || http::get(address(port), "/").ok());
    assert!(answer.text().starts_with("one "));

    // What is freed is not for the log to take.
    probe::run(chatty, "Count.quiet = True");
    disk.free();
    wait::until("changes are taken again", 10, || {
        let answer = node.call("POST", "/v1/services/churn/idle/restart", "");
        if answer.status != 200 {
            eprintln!("not yet: {} {}", answer.status, answer.text());
        }
        (answer.status == 200).then_some(())
    });
    node.deployed("third", &web(third, "three", 1));
    assert!(http::get(address(third), "/").expect("it answers").text().starts_with("three "));
    node.kill();
    node.launch();
    assert_eq!(names(&node), ["churn", "shop", "talk", "third"]);
    assert_eq!(node.json(&["stack", "history", "third"])[0]["current"], json!(true));
    for (port, text) in [(port, "one "), (third, "three ")] {
        let answer = wait::until("the port answers again", 10, || http::get(address(port), "/").ok());
        assert!(answer.text().starts_with(text), "{}", answer.text());
    }
}

#[test]
fn a_full_disk_at_the_start_is_said_clearly() {
    if !process::is_root() {
        eprintln!("skipped: only root can mount a small disk");
        return;
    }
    let disk = Disk::new("256k");
    disk.fill();
    let up = |data: &Path| {
        let api = format!("127.0.0.1:{}", node::free_port());
        let serving = format!("127.0.0.1:{}", node::free_port());
        Command::new(node::binary("bramble"))
            .args(["up", "--api", &api, "--http", &serving, "--data"])
            .arg(data)
            .output()
            .expect("the binary runs")
    };
    let output = up(&disk.data());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left") && said.contains("hint: ") && !said.contains("panicked"), "{said}");
}
