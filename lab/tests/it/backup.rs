//! All machines are lost, and there is a backup: a cluster begins anew from it.

use lab::node::binary;
use lab::{Node, Settings, program, wait};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

fn web(replicas: usize) -> String {
    let service = program::service(&format!(
        "expose: ['8000']\nx-bramble: {{routes: [{{host: web.test, port: 8000}}]}}\n\
         deploy: {{replicas: {replicas}, update_config: {{monitor: 100ms}}}}"
    ));
    format!("services:\n  web:\n{service}")
}

/// Instances of the shop that are ready, as `node` sees it, by machine.
fn ready(node: &Node) -> Vec<String> {
    let is_ready = |one: &Value| {
        one["status"]["ready"] == true && one["instance"]["wanted"] == "running" && one["instance"]["service"] == "web"
    };
    let instances = node.instances();
    let on = instances.iter().filter(|one| is_ready(one)).filter_map(|one| one["instance"]["node"].as_str());
    on.map(str::to_owned).collect()
}

/// Machines by id, with how they are.
fn machines(node: &Node) -> Vec<(String, bool)> {
    let nodes = node.json(&["node", "ls"]);
    let nodes = nodes.as_array().expect("a list").iter();
    nodes.map(|one| (one["node"]["id"].as_str().expect("an id").to_owned(), one["presence"] == "up")).collect()
}

fn restore(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("bramble"));
    command.args(["cluster", "restore"]).arg(file).args(arguments).output().expect("the binary runs")
}

fn refused(file: &Path, arguments: &[&str], expected: &[&str]) {
    let output = restore(file, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for text in expected.iter().chain(&["hint:"]) {
        assert!(said.contains(text), "{text}: {said}");
    }
}

/// Takes backups one after another while somebody changes what is wanted; the last one's file.
fn backups_under_load(node: &Node, folder: &Path) -> std::path::PathBuf {
    let over = AtomicBool::new(false);
    let file = folder.join("cluster.backup");
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut changes = 0;
            while !over.load(Ordering::Relaxed) {
                let to = if changes % 2 == 0 { "3" } else { "2" };
                changes += usize::from(node.cli(&["service", "scale", "shop/web", to, "--detach"]).status.success());
            }
            changes
        });
        let mut before = 0;
        for _ in 0..10 {
            let contents = node.json(&["cluster", "backup", &file.to_string_lossy()]);
            let revision = contents["head"]["revision"].as_u64().expect("a revision");
            assert!(revision >= before, "{contents}");
            before = revision;
            let checked = restore(&file, &["--check", "--json"]);
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
            let checked: Value = serde_json::from_slice(&checked.stdout).expect("it is JSON");
            assert_eq!(checked, contents);
        }
        over.store(true, Ordering::Relaxed);
        assert!(writing.join().expect("it does not panic") > 3, "it was written to meanwhile");
    });
    file
}

#[test]
fn a_cluster_that_lost_all_machines_begins_anew_from_a_backup() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut first = Node::start();
    let mut second = first.join();
    wait::until("both know both", 20, || (machines(&second).len() == 2).then_some(()));
    first.deployed("shop", &web(2));
    // From a machine that does not lead.
    let file = backups_under_load(&second, folder.path());
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing unfinished is left");
    let mode = std::fs::metadata(first.data().join("control")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "the authority's key is in there");
    let told = restore(&file, &["--check"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("shop") && told.contains(&first.id()) && told.contains(&second.id()), "{told}");
    wait::until("its age is measured", 20, || {
        let metrics = first.call("GET", "/metrics", "").text();
        metrics.lines().any(|line| line.starts_with("bramble_cluster_backup_age_seconds ")).then_some(())
    });
    first.deployed("late", &web(1).replace("web.test", "late.test"));
    let anew = folder.path().join("data");
    refusals(&first, &file, folder.path());
    first.cut_power();
    // Nobody leads: what this machine knows is better than nothing, when that is asked for.
    let another = folder.path().join("stale.backup").display().to_string();
    let unled = second.refused(&["cluster", "backup", &another]);
    assert!(unled.contains("B0302") && !Path::new(&another).exists(), "{unled}");
    let stale = second.json(&["cluster", "backup", &another, "--stale"]);
    assert!(stale["stacks"].as_array().is_some_and(|stacks| stacks.contains(&"late".into())), "{stale}");
    second.cut_power();
    let of_first = first.data().display().to_string();
    refused(&file, &["--yes", "--data", &of_first], &["B0803", "has the state of a machine already", "move"]);

    let arguments = ["--yes", "--data", &anew.to_string_lossy()];
    let output = restore(&file, &arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    refused(&file, &arguments, &["B0803", "has the state of a machine already"]);
    let third = Node::with(Settings { data: Some(anew), ..Settings::default() });
    let me = third.id();
    wait::until("what was deployed runs again", 60, || {
        let on = ready(&third);
        (on.len() >= 2 && on.iter().all(|machine| *machine == me)).then_some(())
    });
    wait::until("machines of before are told of as down", 20, || {
        let all = machines(&third);
        (all.len() == 3 && all.iter().all(|(id, is_up)| *is_up == (*id == me))).then_some(())
    });
    assert!(!third.cli(&["stack", "show", "late"]).status.success(), "it came after the backup");

    // One of before is back, with what it had: it finds out, gives that up and follows.
    second.launch();
    wait::until("it is told that what it has counts no longer", 40, || {
        second.log().contains("another member has taken the lead by force").then_some(())
    });
    wait::until("it follows", 60, || {
        let all = machines(&second);
        (all.len() == 3 && all.iter().filter(|(_, is_up)| *is_up).count() == 2).then_some(())
    });
    assert!(second.cli(&["service", "scale", "shop/web", "4"]).status.success());
    assert_eq!(ready(&third).len(), 4);
    assert!(!second.cli(&["stack", "show", "late"]).status.success());
    let gone = third.cli(&["node", "rm", &first.id()]);
    assert!(gone.status.success(), "{}", String::from_utf8_lossy(&gone.stderr));
    wait::until("the machine that is gone for good is", 20, || (machines(&third).len() == 2).then_some(()));
    for node in [&first, &second, &third] {
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
}

/// What is not a good file, or not a place for it.
fn refusals(running: &Node, file: &Path, folder: &Path) {
    let fresh = folder.join("never").display().to_string();
    let whole = std::fs::read(file).expect("it is there");
    let damaged = folder.join("damaged");
    let with = |bytes: &[u8]| std::fs::write(&damaged, bytes).expect("a file can be written");
    let yes = ["--yes", "--data", fresh.as_str()];
    with(&whole[..whole.len() - 1]);
    refused(&damaged, &yes, &["B0802", "cut off"]);
    refused(&damaged, &["--check"], &["B0802", "cut off"]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    with(&flipped);
    refused(&damaged, &yes, &["B0802", "damaged between"]);
    with(&[&whole[..8], &9_u32.to_le_bytes(), &whole[12..]].concat());
    refused(&damaged, &yes, &["B0802", "format version 9", "install"]);
    with(b"hello");
    refused(&damaged, &yes, &["B0802", "no backup"]);
    refused(&folder.join("nothing"), &yes, &["B0802", "read the backup"]);
    refused(file, &["--data", &fresh], &["--yes"]);
    assert!(!Path::new(&fresh).exists(), "nothing was made");
    let data = running.data().display().to_string();
    refused(file, &["--yes", "--data", &data], &["B0803", "another bramble uses", "stop it first"]);
    let passed_on = running.cli(&["cluster", "backup", "-"]);
    with(&passed_on.stdout);
    assert!(passed_on.status.success() && restore(&damaged, &["--check"]).status.success());
    let nowhere = running.refused(&["cluster", "backup", "/nowhere/at/all"]);
    assert!(nowhere.contains("B0804"), "{nowhere}");
}

#[test]
fn a_restore_that_was_cut_off_is_no_machine_and_is_done_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start();
    let _token = node.join_token(&[]);
    let file = folder.path().join("cluster.backup");
    assert!(node.cli(&["cluster", "backup", &file.to_string_lossy()]).status.success());
    let data = folder.path().join("data");
    std::fs::create_dir_all(data.join("control.restoring/log")).expect("a folder can be made");
    let up = Command::new(binary("bramble")).args(["up", "--data"]).arg(&data).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(said.contains("was cut off") && said.contains("restore` again"), "{said}");
    let output = restore(&file, &["--yes", "--data", &data.to_string_lossy()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    drop(node);
    let again = Node::with(Settings { data: Some(data), ..Settings::default() });
    // The authority is the same: who joins now is let in.
    let other = again.join();
    wait::until("both are up", 20, || (machines(&other).iter().filter(|(_, is_up)| *is_up).count() == 2).then_some(()));
}
