//! What is wrong is refused: with its place, with what to do, and without harm to anything else.

use crate::deploying::{address, web};
use lab::http::{self, Answer};
use lab::registry::Registry;
use lab::{Node, image, node, process, wait};
use serde_json::{Value, json};

fn problem(answer: &Answer) -> Value {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("not JSON: {}", answer.text()));
    let code = problem["code"].as_str().unwrap_or_default();
    assert!(code.len() == 5 && code.starts_with('B'), "a code: {problem}");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
    assert!(std::path::Path::new(page).join(format!("{code}.md")).exists(), "{code} has a page");
    assert!(problem["message"].as_str().is_some_and(|message| !message.is_empty()), "a message: {problem}");
    assert!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "a hint: {problem}");
    problem
}

/// Checks a file, which must have an error at this line whose message or hint holds `text`; deploying it says the same.
fn check(node: &Node, file: &[u8], line: u64, text: &str) {
    let path = node.file("bad.yml", file);
    let path = path.to_string_lossy();
    let output = node.cli(&["stack", "check", &path, "--json"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
    assert_eq!(keys(&report), Some(["errors", "ok", "warnings"].map(str::to_owned).to_vec()));
    assert_eq!(report["ok"], false);
    let errors = report["errors"].as_array().expect("a list");
    for error in errors.iter().chain(report["warnings"].as_array().expect("a list")) {
        assert_eq!(keys(error), Some(["column", "hint", "line", "message", "path"].map(str::to_owned).to_vec()));
    }
    let found = errors.iter().find(|error| {
        error["line"] == line && [&error["message"], &error["hint"]].iter().any(|said| said.to_string().contains(text))
    });
    assert!(found.is_some(), "no error at line {line} says {text:?}: {report:#}");

    let said = node.refused(&["deploy", "-f", &path, "bad"]);
    assert!(said.contains(text), "deploying says {text:?} too: {said}");
    assert!(line == 0 || said.contains(&format!("bad.yml:{line}:")), "deploying names the line: {said}");
}

#[test]
fn every_error_of_a_file_names_its_place() {
    let node = Node::start();
    check(&node, b"services:\n  web:\n    image: \"host\n", 4, "quotes");
    check(&node, b"services:\n  web:\n   image: host\n    command: x\n", 4, "");
    check(&node, b"services:\n  web: {image: host, imagee: x}\n", 2, "imagee");
    let ring = b"services:\n  a: {image: host, depends_on: [b]}\n  b: {image: host, depends_on: [c]}\n  c: {image: host, depends_on: [a]}\n";
    check(&node, ring, 2, "ring");
    let ports = b"services:\n  a: {image: host, ports: ['7000:80']}\n  b: {image: host, ports: ['7000:81']}\n";
    check(&node, ports, 3, "7000");
    check(&node, b"services:\n  web: {image: host}\n  web: {image: host}\n", 3, "web");
    check(&node, b"services:\n  web: {image: 'a b'}\n", 2, "");
    check(&node, b"services:\n  web: {image: host, deploy: {replicas: 4000000000}}\n", 2, "whole number");
    check(&node, b"services:\n  web: {image: host, deploy: {replicas: -1}}\n", 2, "");
    check(&node, b"services:\n  web: {image: host, networks: [nowhere]}\n", 2, "nowhere");
    check(&node, b"services:\n  web: {image: host, environment: {A: \"x\0y\"}}\n", 2, "");
    check(&node, b"services:\n  web: {image: host, command: \"\xff\xfe\"}\n", 2, "UTF-8");
    check(&node, b"", 0, "");
    check(&node, b"- just\n- a list\n", 1, "");
    let mut large = b"services:\n  web: {image: host}\n#".to_vec();
    large.resize(10 << 20, b'x');
    check(&node, &large, 0, "split it");
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\nservices: *f\n";
    let path = node.file("bomb.yml", bomb);
    assert_eq!(node.cli(&["stack", "check", &path.to_string_lossy()]).status.code(), Some(1));
    let deep = format!("services: {}{}", "[".repeat(20_000), "]".repeat(20_000));
    let path = node.file("deep.yml", deep);
    assert_eq!(node.cli(&["stack", "check", &path.to_string_lossy()]).status.code(), Some(1));
    assert!(node.refused(&["deploy", "-f", "/no/such/file.yml"]).contains("/no/such/file.yml"));
    assert_eq!(node.json(&["stack", "ls"]), json!([]));
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_code() {
    let node = Node::start();
    let put = |name: &str, body: &str| node.call("PUT", &format!("/v1/stacks/{name}"), body);
    let good =
        json!({"source": "services: {web: {image: host, command: [sleep, '1000']}}", "directory": "/"}).to_string();
    let refusals: Vec<(u16, &str, Answer)> = vec![
        (400, "B0202", put("shop", "{")),
        (422, "B0101", put("shop", "{}")),
        (400, "B0202", put("shop", "{\"source\": 7}")),
        (400, "B0202", put("shop", "\0\0\0")),
        (400, "B0202", put("shop", &json!({"source": "services: {}", "files": {"a": "not base 64!"}}).to_string())),
        (422, "B0101", put("shop", &json!({"source": "services: ["}).to_string())),
        (422, "B0101", put("shop", &json!({"source": "x".repeat(10 << 20)}).to_string())),
        (413, "B0203", put("shop", &json!({"source": "x".repeat(25 << 20)}).to_string())),
        (422, "B0101", put("UPPER", &good)),
        (422, "B0101", put("a%2Fb", &good)),
        (422, "B0101", put("%00", &good)),
        (422, "B0101", put("..", &good)),
        (422, "B0101", put(&"n".repeat(300), &good)),
        (404, "B0102", node.call("GET", "/v1/stacks/none", "")),
        (404, "B0102", node.call("DELETE", "/v1/stacks/none", "")),
        (404, "B0102", node.call("POST", "/v1/stacks/none/revert", "{}")),
        (404, "B0102", node.call("GET", "/v1/stacks/none/diff?from=1&to=2", "")),
        (400, "B0202", node.call("GET", "/v1/stacks/none/diff?from=x", "")),
        (400, "B0202", node.call("GET", "/v1/stacks/none/revisions/x", "")),
        (404, "B0103", node.call("GET", "/v1/services/none/web", "")),
        (404, "B0102", node.call("POST", "/v1/services/none/web/scale", "{\"replicas\": 1}")),
        (400, "B0202", node.call("POST", "/v1/services/none/web/scale", "{\"replicas\": -1}")),
        (422, "B0111", node.call("POST", "/v1/services/none/web/scale", "{\"replicas\": 4000000000}")),
        (404, "B0401", node.call("GET", "/v1/instances/none", "")),
        (404, "B0401", node.call("POST", "/v1/instances/none/kill", "")),
        (404, "B0404", node.call("GET", "/v1/nodes/none", "")),
        (422, "B0501", node.call("POST", "/v1/images/pull", "{\"reference\": \"UPPER CASE\"}")),
        (404, "B0504", node.call("DELETE", "/v1/images?reference=nobody/nothing", "")),
        (400, "B0202", node.call("DELETE", "/v1/images", "")),
        (400, "B0202", node.call("GET", "/v1/series", "")),
        (400, "B0202", node.call("GET", "/v1/series?name=x&label=y", "")),
        (422, "B0701", node.call("GET", "/v1/services/none/web/logs?grep=%2F%28%2F", "")),
        (400, "B0202", node.call("GET", "/v1/services/none/web/logs?tail=many", "")),
        (404, "B0103", node.call("GET", "/v1/services/none/web/logs", "")),
        (404, "B0103", node.call("GET", "/v1/services/none/web/logs?follow=true", "")),
        (404, "B0204", node.call("GET", "/v1/nothing", "")),
        (404, "B0204", node.call("GET", "/v2/no.file", "")),
        (405, "B0205", node.call("DELETE", "/v1/stacks", "")),
        (405, "B0205", node.call("POST", "/v1/nodes", "{}")),
    ];
    for (at, (status, code, answer)) in refusals.iter().enumerate() {
        assert_eq!(
            (answer.status, &problem(answer)["code"]),
            (*status, &json!(code)),
            "refusal {at}: {}",
            answer.text()
        );
    }
    assert_eq!(put("shop", &good).status, 200, "and the node goes on");
    let unknown = node.call("POST", "/v1/stacks/shop/revert", "{\"to\": 77}");
    assert_eq!((unknown.status, &problem(&unknown)["code"]), (404, &json!("B0104")));
    let first = node.call("POST", "/v1/stacks/shop/revert", "{}");
    assert_eq!((first.status, &problem(&first)["code"]), (404, &json!("B0104")), "there is none before the first");
}

#[test]
fn nobody_without_the_token_sees_or_changes_anything() {
    let node = Node::start();
    let ask =
        |headers: &[(&str, &str)], path: &str| http::request(node.api, "GET", path, headers, b"").expect("an answer");
    for path in ["/v1/stacks", "/metrics", "/v1/openapi.json", "/v1/watch"] {
        assert_eq!(problem(&ask(&[], path))["code"], "B0201", "{path}");
        assert_eq!(ask(&[("Authorization", "Bearer wrong")], path).status, 401, "{path}");
        assert_eq!(ask(&[("Authorization", &node.token())], path).status, 401, "{path}");
    }
    let open = ask(&[], "/healthz");
    assert_eq!((open.status, open.text().trim().to_owned()), (200, "ok".to_owned()));
    let output = std::process::Command::new(node::binary("bramble"))
        .args(["stack", "ls"])
        .env("BRAMBLE_API", format!("http://{}", node.api))
        .env("BRAMBLE_TOKEN", "wrong")
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("[B0201]") && said.contains("hint: ") && said.contains("BRAMBLE_TOKEN"), "{said}");
}

#[test]
fn a_port_of_another_stack_is_refused() {
    let node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 1));
    let path = node.file("other.yml", web(port, "two", 1));
    let said = node.refused(&["deploy", "-f", &path.to_string_lossy(), "other"]);
    assert!(said.contains(&port.to_string()) && said.contains("shop/web") && said.contains("[B0106]"), "{said}");
    assert!(node.refused(&["stack", "plan", "-f", &path.to_string_lossy(), "other"]).contains("[B0106]"));
    assert!(http::get(address(port), "/").expect("it still answers").text().starts_with("one "));
}

#[test]
fn a_port_that_another_program_holds_is_said_and_served_once_it_is_free() {
    let node = Node::start();
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = other.local_addr().expect("a listener has an address").port();
    let path = node.file("shop.yml", web(port, "one", 1));
    let said = node.refused(&["deploy", "-f", &path.to_string_lossy(), "shop"]);
    assert!(said.contains(&format!("shop/web failed: cannot listen on 127.0.0.1:{port}")), "{said}");
    assert!(said.contains("hint: another program holds the port"), "{said}");
    assert_eq!(node.json(&["ps"])[0]["state"].as_str().map(|state| state.starts_with("failed: ")), Some(true));
    drop(other);
    let answer = wait::until("it is served", 15, || http::get(address(port), "/").ok());
    assert!(answer.text().starts_with("one "), "{}", answer.text());
    wait::until("all is well", 10, || (node.json(&["ps"])[0]["state"] == "running").then_some(()));
}

#[test]
fn an_image_that_is_not_there_fails_the_deploy_with_its_reason() {
    let node = Node::start();
    let registry = Registry::start();
    let missing = format!("{}/shop/none:1", registry.address);
    let said = node.refused(&["image", "pull", &missing]);
    assert!(said.contains(&missing) && said.contains("[B0502]") && said.contains("hint: "), "{said}");
    let refusing = format!("127.0.0.1:{}/shop/none:1", node::free_port());
    assert!(node.refused(&["image", "pull", &refusing]).contains("[B0502]"));

    let good = registry.add("shop/app", "1", &image::with_shell(json!({"Cmd": ["sleep", "1000"]})));
    node.deployed("shop", &format!("services: {{web: {{image: '{good}'}}}}\n"));
    for bad in [&missing, &refusing] {
        let file = node.file("worse.yml", format!("services: {{web: {{image: '{bad}'}}}}\n"));
        let said = node.refused(&["deploy", "-f", &file.to_string_lossy(), "shop", "--timeout", "30"]);
        assert!(said.contains("was undone") && said.contains("none:1"), "{said}");
        wait::until("the good one serves", 20, || {
            (node.json(&["stack", "show", "shop"])["summary"]["state"] == "running").then_some(())
        });
    }
    let instances = node.instances();
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0]["instance"]["spec"]["image"], good);

    let file = node.file("new.yml", format!("services: {{web: {{image: '{missing}'}}}}\n"));
    let said = node.refused(&["deploy", "-f", &file.to_string_lossy(), "new", "--timeout", "30"]);
    assert!(said.contains("new/web") && said.contains(&missing), "the reason is told: {said}");
}

#[test]
fn an_image_whose_bytes_are_not_its_digests_is_refused() {
    let node = Node::start();
    let registry = Registry::start();
    let image = image::with_shell(json!({"Cmd": ["sleep", "1000"]}));
    let reference = registry.add("shop/app", "1", &image);
    registry.spoil("shop/app", &image);
    let said = node.refused(&["image", "pull", &reference]);
    assert!(said.contains("damaged") && said.contains(&image.layer.digest), "{said}");
    assert_eq!(node.json(&["image", "ls"]), json!([]));
}

const NEVER_HEALTHY: &str = "
    healthcheck: {test: [CMD, 'false'], interval: 100ms, timeout: 5s, retries: 2}
";

#[test]
fn a_health_check_that_never_passes_fails_the_deploy_and_brings_the_good_revision_back() {
    let node = Node::start();
    let port = node::free_port();
    let sick = |text: &str| web(port, text, 1) + NEVER_HEALTHY.trim_start_matches('\n');
    let file = node.file("sick.yml", sick("sick"));
    let said = node.refused(&["deploy", "-f", &file.to_string_lossy(), "ill", "--timeout", "30"]);
    assert!(said.contains("ill/web") && said.contains("unhealthy") && said.contains("hint: "), "{said}");
    assert!(node.cli(&["stack", "rm", "ill"]).status.success());

    node.deployed("shop", &web(port, "good", 1));
    let said = node.refused(&["deploy", "-f", &file.to_string_lossy(), "shop", "--timeout", "30"]);
    assert!(said.contains("was undone: ") && said.contains("unhealthy"), "{said}");
    wait::until("the good one is back", 20, || {
        (node.json(&["stack", "show", "shop"])["summary"]["state"] == "running").then_some(())
    });
    assert!(http::get(address(port), "/").expect("it still answers").text().starts_with("good "));
    let history = node.json(&["stack", "history", "shop"]);
    assert!(history[0]["cause"].as_str().is_some_and(|cause| cause.starts_with("rollback of web")), "{history}");
    assert!(process::all().contains(&node.pid()));
}

#[test]
fn names_lead_nowhere_else_and_endless_files_end() {
    let node = Node::start();
    node.deployed("shop", "services: {web: {image: host, command: [sleep, '1000']}}\n");
    for name in ["shop?", "shop#", "shop/", "./shop", "../v1/stacks/shop", "shop%3f", "", ".", ".."] {
        let output = node.cli(&["stack", "rm", name, "--detach"]);
        assert_eq!(output.status.code(), Some(1), "{name:?} is not the name of the stack");
    }
    for name in ["shop/web?", "shop/../shop/web", "/shop/web", "shop/", "shop/web/"] {
        let output = node.cli(&["service", "scale", name, "0", "--detach"]);
        assert_eq!(output.status.code(), Some(1), "{name:?} is not the name of the service");
    }
    assert_eq!(node.json(&["stack", "show", "shop"])["summary"]["instances_ready"], 1);
    assert!(node.refused(&["deploy", "-f", "/dev/zero", "shop"]).contains("/dev/zero has more than"));
    assert!(node.refused(&["deploy", "-f", "/", "shop"]).contains("directory"));
    assert!(node.refused(&["logs", "shop/none"]).contains("[B0103]"));

    // What answers there is no API: the gateway of the same node.
    let other = format!("http://{}", node.http);
    let said = node.refused(&["--server", &other, "ps"]);
    assert!(said.contains(&other) && said.contains("404") && said.contains("hint: "), "{said}");
}
