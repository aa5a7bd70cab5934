//! What is wrong is told without anybody asking: alerts from series, end to end.

use lab::{Node, registry::Registry, wait};
use serde_json::Value;

fn alert(node: &Node, name: &str) -> Option<Value> {
    let alerts: Vec<Value> = serde_json::from_slice(&node.call("GET", "/v1/alerts", "").body).expect("a list");
    alerts.into_iter().find(|alert| alert["name"] == name && alert["labels"]["service"] != "pull")
}

#[test]
fn an_instance_that_keeps_ending_and_an_image_that_is_not_there_raise_alerts() {
    let node = Node::start();
    let registry = Registry::start();
    let missing = format!("{}/shop/none:1", registry.address);
    // It lives for long enough to be tried again after the same short pause.
    let crash =
        "image: host, command: [sh, -c, 'sleep 0.2; exit 1'], deploy: {restart_policy: {delay: 200ms, window: 100ms}}";
    let file = format!("services:\n  crash: {{{crash}}}\n  pull: {{image: '{missing}'}}\n");
    let path = node.file("shop.yml", file);
    assert!(node.cli(&["deploy", "-f", &path.to_string_lossy(), "shop", "--detach"]).status.success());

    // Series are sampled every five seconds.
    let restarting = wait::until("the restarts raise an alert", 40, || {
        alert(&node, "instance_restarting").filter(|alert| alert["labels"]["service"] == "crash")
    });
    assert_eq!((&restarting["firing"], &restarting["labels"]["stack"]), (&true.into(), &"shop".into()));
    let summary = restarting["summary"].as_str().expect("a sentence");
    assert!(summary.contains("shop.crash.1.") && summary.contains("log"), "{summary}");
    assert!(restarting["value"].as_f64().is_some_and(|value| value >= 3.0), "{restarting}");

    let pulling = wait::until("the pull raises an alert", 20, || alert(&node, "image_pull_failing"));
    assert_eq!(pulling["firing"], true);
    // It has to hold for a minute before it fires; that it holds is told at once.
    let degraded = wait::until("the missing instance is seen", 20, || alert(&node, "service_degraded"));
    assert_eq!(degraded["labels"]["stack"], "shop");
    assert!(degraded["since_ms"].as_u64().is_some_and(|since| since > 0));
    let metrics = node.call("GET", "/metrics", "").text();
    let firing =
        metrics.lines().find_map(|line| line.strip_prefix("bramble_alerts_firing{alert=\"instance_restarting\"} "));
    assert!(firing.is_some_and(|count| count != "0"), "{firing:?}");
    assert!(alert(&node, "control_failing").is_none() && alert(&node, "agent_memory").is_none());
}
