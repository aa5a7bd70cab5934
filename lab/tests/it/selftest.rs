//! A core that computes wrong: its machine is emptied and says why, until it is right again.

use crate::alerts::alert;
use lab::{Node, Settings, program, wait};
use serde_json::Value;
use std::path::Path;

fn web() -> String {
    let service = program::service("expose: ['8000']\ndeploy: {replicas: 4, update_config: {monitor: 100ms}}");
    format!("services:\n  web:\n{service}")
}

/// Where ready instances are.
fn machines(node: &Node) -> Vec<String> {
    let ready = |one: &Value| one["status"]["ready"] == true && one["instance"]["wanted"] == "running";
    let instances = node.instances();
    let on = instances.iter().filter(|one| ready(one)).filter_map(|one| one["instance"]["node"].as_str());
    on.map(str::to_owned).collect()
}

/// The last of the cores we may be on.
fn core() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells of us");
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("of our cores too");
    cores.trim().rsplit([',', '-']).next().expect("one at least").to_owned()
}

fn with_core(file: &Path, text: &str) {
    std::fs::write(file, text).expect("a file can be written");
}

/// The one machine that is not `other`, as `node` sees it.
fn seen(node: &Node, id: &str) -> Value {
    node.json(&["node", "show", id])["node"].clone()
}

#[test]
fn a_machine_with_a_core_that_is_wrong_is_drained_until_it_is_right_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cores");
    with_core(&file, "");
    let first = Node::start();
    let arguments = ["--selftest-lab", &file.to_string_lossy()].map(str::to_owned).to_vec();
    let mut second = Node::with(Settings { token: Some(first.join_token(&[])), arguments, ..Settings::default() });
    let id = second.id();
    first.deployed("shop", &web());
    wait::until("each machine has some", 20, || machines(&first).contains(&id).then_some(()));
    wait::until("its cores are tested", 20, || {
        let metrics = second.call("GET", "/metrics", "").text();
        metrics.contains("bramble_selftest_runs_total{test=\"memory\"}").then_some(())
    });
    assert!(alert(&first, "core_wrong").is_none() && seen(&first, &id)["faults"] == serde_json::json!([]));

    let core = core();
    with_core(&file, &format!("{core} float 3fdf62dee40eedb2\n"));
    let wrong = wait::until("it is an alert at the other machine", 30, || alert(&first, "core_wrong"));
    let (labels, summary) = (&wrong["labels"], wrong["summary"].as_str().expect("a sentence"));
    assert_eq!(wrong["firing"], true);
    let told = ["machine", "core", "test", "got"].map(|name| labels[name].as_str().expect("a text"));
    assert_eq!(told, [id.as_str(), &core, "float", "3fdf62dee40eedb2"]);
    assert!(
        summary.contains(&core) && summary.contains("3fdf62dee40eedb2") && summary.contains("activate"),
        "{summary}"
    );
    wait::until("what ran there has moved", 40, || {
        let on = machines(&first);
        (on.len() == 4 && !on.contains(&id)).then_some(())
    });
    let node = seen(&first, &id);
    assert!(node["drained"] == true && node["faults"][0]["elsewhere"] == false, "{node}");
    let listed = String::from_utf8_lossy(&first.cli(&["node", "ls"]).stdout).into_owned();
    assert!(listed.contains(&format!("drained: core {core} is wrong")), "{listed}");
    let metrics = second.call("GET", "/metrics", "").text();
    assert!(
        metrics.contains(&format!("bramble_selftest_failures_total{{core=\"{core}\",test=\"float\"}}")),
        "{metrics}"
    );

    // It outlives the process. Activated although nothing was mended, it is drained again: by the test that this has begun, or
    // by what the new process found out by itself in that moment.
    let found_ms = |node: &Value| node["faults"][0]["found_ms"].as_u64().expect("when it was found");
    let before = found_ms(&node);
    second.kill();
    second.launch();
    assert!(first.cli(&["node", "activate", &id]).status.success());
    wait::until("it is drained again", 30, || {
        let node = seen(&first, &id);
        (node["drained"] == true && found_ms(&node) > before).then_some(())
    });
    with_core(&file, "");
    wait::until("it is activated", 20, || first.cli(&["node", "activate", &id]).status.success().then_some(()));
    wait::until("it is right again", 30, || {
        let node = seen(&first, &id);
        (node["drained"] == false && node["faults"] == serde_json::json!([])).then_some(())
    });
    wait::until("the alert has ended", 40, || alert(&first, "core_wrong").is_none().then_some(()));
    assert!(first.cli(&["service", "scale", "shop/web", "8"]).status.success());
    assert!(machines(&first).contains(&id), "it takes work again");
}
