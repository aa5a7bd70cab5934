//! Several people and several stacks at once: each change is whole, and nobody's is another's.

use crate::deploying::{address, web};
use crate::probe;
use lab::{Node, http, node, process, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How many deploy at the same moment.
const PEOPLE: usize = 6;

#[test]
fn deploys_at_the_same_moment_come_one_after_the_other_and_the_last_one_serves() {
    let node = Node::start();
    let port = node::free_port();
    let file = |number: usize| web(port, &format!("text{number}"), 1).replace("{monitor: 1s}", "{monitor: 100ms}");
    let answers: Vec<http::Answer> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..PEOPLE)
            .map(|number| {
                let (node, body) = (&node, json!({"source": file(number), "directory": "/"}).to_string());
                scope.spawn(move || node.call("PUT", "/v1/stacks/shop", &body))
            })
            .collect();
        asked.into_iter().map(|asked| asked.join().expect("it is answered")).collect()
    });
    let mut revisions = BTreeSet::new();
    for answer in &answers {
        assert!(answer.status == 200 || answer.text().contains("B0107"), "{} {}", answer.status, answer.text());
        if answer.status == 200 {
            let deployed: Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert!(revisions.insert(deployed["revision"].as_u64().expect("a number")), "a number is given once");
        }
    }
    assert!(!revisions.is_empty());
    let newest = node.json(&["stack", "show", "shop"]);
    assert_eq!(newest["summary"]["revision"].as_u64(), revisions.last().copied());
    let source = newest["source"].as_str().expect("a file");
    let text = (0..PEOPLE).map(|number| format!("text{number}")).find(|text| source.contains(text.as_str()));
    let text = text.expect("it is one of the files");
    wait::until("the newest serves", 30, || {
        let answer = http::get(address(port), "/").ok().filter(|answer| answer.status == 200)?;
        (answer.text().starts_with(&text) && node.instances().len() == 1).then_some(())
    });
}

#[test]
fn stacks_keep_their_volumes_names_and_instances_to_themselves() {
    let node = Node::start();
    let ports = [node::free_port(), node::free_port()];
    for (stack, port) in ["one", "two"].into_iter().zip(ports) {
        let web = probe::service(port, "volumes: ['data:/data', 'common:/common']");
        let volumes = "volumes: {data: {}, common: {external: true, name: common}}\n";
        node.deployed(stack, &format!("services:\n  web:\n{web}{volumes}"));
        probe::run(port, &format!("open('/data/who', 'w').write('{stack}')\nopen('/common/{stack}', 'w')"));
    }
    for (stack, port) in ["one", "two"].into_iter().zip(ports) {
        assert_eq!(probe::run(port, "say(open('/data/who').read())"), stack);
        assert_eq!(probe::run(port, "import os\nsay(len(os.listdir('/common')))"), "2", "what is external is shared");
        // `web` is one's own, though the other stack has one too.
        let own = probe::run(port, "import socket\nsay(socket.gethostbyname('web'))");
        let detail = node.json(&["service", "show", &format!("{stack}/web")]);
        assert_eq!(detail["summary"]["address"], own.as_str());
    }
    assert!(node.cli(&["stack", "rm", "one"]).status.success());
    assert_eq!(probe::run(ports[1], "say(open('/data/who').read())"), "two", "the other stack noticed nothing");
    assert_eq!(node.instances().len(), 1);
}

fn counter(node: &Node, name: &str) -> Option<f64> {
    let metrics = node.call("GET", "/metrics", "").text();
    let line = metrics.lines().find(|line| line.starts_with(name))?.to_owned();
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn what_instances_used_is_not_counted_anew_after_a_restart_of_the_node() {
    let mut node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 1));
    for _ in 0..20 {
        assert_eq!(http::get(address(port), "/").expect("an answer").status, 200);
    }
    let received = "bramble_instance_received_bytes_total{";
    let before =
        wait::until("what was received is sampled", 15, || counter(&node, received).filter(|bytes| *bytes > 0.0));
    node.kill();
    node.launch();
    let first = wait::until("it is sampled again", 15, || counter(&node, received));
    assert!(first >= before, "{first} after {before}: a counter that falls looks like a burst");
    let series = node.call("GET", "/v1/series?name=bramble_service_instances_ready&label=stack:shop", "");
    assert_eq!(series.status, 200);
    wait::until("series go on", 15, || {
        let path = "/v1/series?name=bramble_service_instances_ready&label=stack:shop";
        let series: Value = serde_json::from_slice(&node.call("GET", path, "").body).expect("JSON");
        let points = series[0]["points"].as_array()?.clone();
        points.last().is_some_and(|point| point[1] == 1.0).then_some(())
    });
}

#[test]
fn who_waits_for_a_deploy_may_give_up_and_it_goes_on() {
    let node = Node::start();
    let slow = "import time, http.server\nprint('up', flush=True)\ntime.sleep(4)\nhttp.server.HTTPServer(('0.0.0.0', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()";
    let command = probe::python(slow);
    let file = format!(
        "services:\n  web:\n    image: host\n    command: {command}\n    x-bramble: {{healthcheck: {{tcp: 8000, interval: 200ms, start_period: 60s}}}}\n"
    );
    let path = node.file("slow.yml", file);
    let said = node.refused(&["deploy", "-f", &path.to_string_lossy(), "slow", "--timeout", "1"]);
    assert!(said.contains("does not serve yet after 1 s") && said.contains("hint: it goes on"), "{said}");
    wait::until("it serves", 20, || {
        (node.json(&["stack", "show", "slow"])["summary"]["state"] == "running").then_some(())
    });
    assert!(process::all().contains(&node.pid()));
}
