//! The contract: commands, their words, their exit codes and their JSON; the open and the guarded paths of the API.

use crate::deploying::{address, web};
use lab::{Node, http, node, process, wait};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

/// The binary without anybody's environment.
fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(node::binary("bramble"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const COMMANDS: [&str; 25] = [
    "up",
    "deploy",
    "ps",
    "stack check",
    "stack plan",
    "stack deploy",
    "stack ls",
    "stack show",
    "stack history",
    "stack diff",
    "stack revert",
    "stack rm",
    "service ls",
    "service show",
    "service why",
    "service scale",
    "service restart",
    "service logs",
    "service rm",
    "logs",
    "node ls",
    "node show",
    "image ls",
    "image pull",
    "image prune",
];

#[test]
fn every_command_is_there_and_says_what_it_is_for() {
    for command in COMMANDS.into_iter().chain(["image rm"]) {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let output = bare(&words).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "{command}: {}", err(&output));
        assert!(out(&output).contains("Usage: bramble "), "{command}: {}", out(&output));
    }
    for (words, flags) in [
        (["logs", "--help"], vec!["--follow", "-f,", "--since", "--grep"]),
        (["up", "--help"], vec!["--data", "--api", "--http", "--https"]),
        (["deploy", "--help"], vec!["-f,", "[NAME]"]),
    ] {
        let text = out(&bare(&words).output().expect("the binary runs"));
        for flag in flags {
            assert!(text.contains(flag), "{words:?} has {flag}: {text}");
        }
    }
}

#[test]
fn what_is_used_wrongly_ends_with_two_and_what_fails_with_one() {
    let ends = |words: &[&str], code: i32| {
        let output = bare(words).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", err(&output));
        assert!(!err(&output).contains("panicked"), "{words:?}: {}", err(&output));
        err(&output)
    };
    for words in [
        &["nonsense"][..],
        &["stack"],
        &["stack", "nonsense"],
        &["service", "scale", "a/b", "many"],
        &[],
        &["ps", "--nope"],
    ] {
        ends(words, 2);
    }
    ends(&["logs", "a/b", "--since", "yesterday"], 2);
    let nobody = format!("http://127.0.0.1:{}", node::free_port());
    let said = ends(&["--server", &nobody, "ps"], 1);
    assert!(said.contains(&nobody) && said.contains("hint: ") && said.contains("bramble up"), "{said}");
    assert_eq!(bare(&["--version"]).output().expect("the binary runs").status.code(), Some(0));
}

#[test]
fn each_shell_gets_its_completions() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef bramble"), ("fish", "complete -c bramble")] {
        let text = out(&bare(&["completion", shell]).output().expect("the binary runs"));
        assert!(text.contains(word) && text.contains("deploy"), "{shell}");
        // Where the shell is at hand it judges for itself.
        let path = std::env::temp_dir().join(format!("bramble-completion-{}-{shell}", std::process::id()));
        std::fs::write(&path, &text).expect("a file can be written");
        if let Ok(judged) = Command::new(shell).arg("-n").arg(&path).output() {
            assert!(judged.status.success(), "{shell}: {}", err(&judged));
        }
        std::fs::remove_file(&path).expect("our own file");
    }
    assert_eq!(bare(&["completion", "cobol"]).output().expect("the binary runs").status.code(), Some(2));
}

#[test]
fn every_answer_is_json_on_demand() {
    let node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 1));
    let path = node.file("shop.yml", web(port, "two", 1));
    let file = path.to_string_lossy().into_owned();
    let host = node.json(&["node", "ls"])[0]["node"]["hostname"].as_str().expect("a host name").to_owned();

    assert_eq!(node.json(&["ps"]), node.json(&["service", "ls"]));
    assert_eq!(node.json(&["stack", "check", &file])["ok"], true);
    assert_eq!(node.json(&["stack", "plan", "-f", &file, "shop"])["services"][0]["action"], "update");
    assert_eq!(node.json(&["deploy", "-f", &file, "shop"])["revision"], 2);
    let again = node.json(&["stack", "deploy", "-f", &file, "shop"]);
    assert_eq!(
        (&again["revision"], &again["changed"]),
        (&2.into(), &false.into()),
        "a deploy of the same changes nothing"
    );
    assert_eq!(node.json(&["stack", "ls"])[0]["name"], "shop");
    assert_eq!(node.json(&["stack", "show", "shop"])["summary"]["state"], "running");
    assert_eq!(node.json(&["stack", "history", "shop"])[0]["number"], 2);
    assert_eq!(node.json(&["stack", "diff", "shop"])["from"], 1);
    assert_eq!(node.json(&["stack", "revert", "shop"])["revision"], 3);
    assert_eq!(node.json(&["stack", "revert", "shop", "2"])["revision"], 4);
    assert_eq!(node.json(&["service", "show", "shop/web"])["summary"]["service"], "web");
    assert_eq!(node.json(&["service", "show", "web"])["summary"]["stack"], "shop", "a name only one stack has");
    assert_eq!(node.json(&["service", "scale", "shop/web", "2"])["changed"], true);
    assert_eq!(node.json(&["service", "restart", "shop/web"])["changed"], true);
    assert_eq!(node.json(&["node", "show", &host])["node"]["hostname"], host.as_str());
    assert_eq!(node.json(&["image", "ls"]), Value::Array(Vec::new()));
    assert!(node.json(&["image", "prune"])["freed_bytes"].is_u64());
    for line in out(&node.cli(&["logs", "shop/web", "--json"])).lines() {
        let line: Value = serde_json::from_str(line).expect("each line is JSON");
        assert!(line["time_ms"].is_u64());
    }
    let missing = node.cli(&["stack", "show", "none", "--json"]);
    let problem: Value = serde_json::from_slice(&missing.stdout).expect("a problem is JSON too");
    assert_eq!((missing.status.code(), &problem["code"]), (Some(1), &"B0102".into()));
    let removed = node.cli(&["service", "rm", "shop/web", "--json"]);
    assert!(removed.status.success(), "{}", err(&removed));
    assert_eq!(serde_json::from_slice::<Value>(&removed.stdout).expect("JSON")["stack"], "shop");
    for words in [&["stack", "rm", "shop", "--json"][..], &["image", "prune", "--json"]] {
        let output = node.cli(words);
        assert!(output.status.success(), "{words:?}: {}", err(&output));
        serde_json::from_slice::<Value>(&output.stdout)
            .unwrap_or_else(|_| panic!("{words:?} printed {:?}", out(&output)));
    }
}

#[test]
fn logs_are_followed_searched_and_cut_by_time() {
    let node = Node::start();
    let talker = "import time\nfor n in range(10000):\n    print('line', n, 'even' if n % 2 == 0 else 'odd', flush=True)\n    time.sleep(0.02)\n";
    let file = format!("services:\n  talker:\n    image: host\n    command: {}\n", crate::probe::python(talker));
    node.deployed("talk", &file);
    node.says("talk", "talker", "line 20 even");
    let even = out(&node.cli(&["logs", "talk/talker", "--grep", "even"]));
    assert!(even.contains("line 20 even") && !even.contains("odd"), "{even}");
    let pattern = out(&node.cli(&["logs", "talker", "--grep", "/line 1[0-4] /"]));
    assert_eq!(pattern.lines().count(), 5, "{pattern}");
    assert_eq!(out(&node.cli(&["logs", "talker", "-n", "3", "--grep", "line"])).lines().count(), 3);
    assert!(out(&node.cli(&["logs", "talker", "--since", "1h"])).contains("line 0 even"));
    assert_eq!(out(&node.cli(&["logs", "talker", "--since", "2999-01-01T00:00:00Z"])), "");
    assert!(node.refused(&["logs", "talker", "--grep", "/(/"]).contains("[B0701]"));

    let mut follower = Command::new(node::binary("bramble"))
        .args(["logs", "talker", "-f", "--json"])
        .env("BRAMBLE_API", format!("http://{}", node.api))
        .env("BRAMBLE_TOKEN", node.token())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let lines = BufReader::new(follower.stdout.take().expect("it is piped")).lines();
    let mut numbers = Vec::new();
    for line in lines.map_while(Result::ok) {
        let line: Value = serde_json::from_str(&line).expect("each line is JSON");
        let text = line["line"].as_str().unwrap_or_default();
        numbers.extend(text.strip_prefix("line ").and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok()));
        if numbers.last().is_some_and(|last| *last >= 100) {
            break;
        }
    }
    follower.kill().expect("our own child can be killed");
    follower.wait().expect("our own child can be waited for");
    let whole: Vec<u32> = (numbers[0]..=100).collect();
    assert_eq!(numbers, whole, "every line once and in order, those before and those after the start");
}

#[test]
fn metrics_are_valid_and_tell_of_instances_routes_and_the_machine() {
    let node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 1));
    for _ in 0..3 {
        assert_eq!(http::get(address(port), "/").expect("an answer").status, 200);
    }
    assert_eq!(
        http::request(node.http, "GET", "/", &[("Host", "web.shop.localhost")], b"").expect("an answer").status,
        200
    );
    let text = wait::until("an instance was sampled", 15, || {
        let text = node.call("GET", "/metrics", "").text();
        text.contains("bramble_instance_memory_bytes{").then_some(text)
    });
    valid(&text);
    for series in [
        "bramble_instance_ready{",
        "bramble_instance_cpu_cores{",
        "bramble_instance_restarts_total{",
        "bramble_gateway_requests_total{",
        "bramble_node_cpu_busy",
        "bramble_node_memory_available_bytes",
        "bramble_node_disk_available_bytes",
        "bramble_service_instances_ready{",
        "bramble_service_instances_wanted{",
        "bramble_process_resident_bytes{",
        "bramble_control_commit_seconds_bucket{",
        "bramble_control_commit_failures_total",
        "bramble_image_pull_failures_total 0",
    ] {
        assert!(text.lines().any(|line| line.starts_with(series)), "{series} is there:\n{text}");
    }
    let served = text.lines().filter(|line| line.starts_with("bramble_gateway_requests_total{"));
    let served: f64 = served.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert!(served >= 4.0, "{served} requests counted");
}

/// As Prometheus reads it: every sample is of a family declared before it, families come once, no sample twice.
fn valid(text: &str) {
    let mut families = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned()), "{name} is declared once");
            family = name.to_owned();
        } else if !line.starts_with('#') && !line.is_empty() {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok() || ["+Inf", "-Inf", "NaN"].contains(&value), "{line}");
            let name = series.split('{').next().unwrap_or_default();
            let of =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).filter(|of| *of == family);
            assert_eq!(of.unwrap_or(name), family, "{line} is of its family");
            assert!(series == name || series.ends_with('}'), "{line}");
            assert!(seen.insert(series.to_owned()), "{series} comes once");
        }
    }
    assert!(families.len() > 20, "there are many families");
    assert!(text.ends_with('\n'));
}

#[test]
fn the_document_describes_what_the_api_answers() {
    let node = Node::start();
    let document: Value = serde_json::from_slice(&node.call("GET", "/v1/openapi.json", "").body).expect("JSON");
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    let paths = document["paths"].as_object().expect("paths");
    for path in
        ["/healthz", "/metrics", "/v1/stacks/{name}/revert", "/v1/services/{stack}/{service}/logs", "/v1/alerts"]
    {
        assert!(paths.contains_key(path), "{path}");
    }
    let mut asked = 0;
    for (path, operations) in paths {
        if operations.get("get").is_none() || path.contains('{') || path == "/v1/watch" {
            continue;
        }
        if path == "/v1/runs/stream" {
            let answer = node.call("GET", path, "");
            assert!(answer.status == 400 && answer.text().contains("WebSocket"), "{}", answer.text());
            continue;
        }
        let answer = node.call("GET", if path == "/v1/series" { "/v1/series?name=bramble_stacks" } else { path }, "");
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        asked += 1;
    }
    assert!(asked >= 10, "{asked} paths without parameters");
    assert_eq!(node.call("GET", "/v1/boards", "").status, 200);
}

#[test]
fn up_says_where_and_how_to_log_in_and_a_second_one_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let (api, other) = (format!("127.0.0.1:{}", node::free_port()), format!("127.0.0.1:{}", node::free_port()));
    let serving = format!("127.0.0.1:{}", node::free_port());
    let data = data.to_string_lossy().into_owned();
    let up = |data: &str, api: &str| {
        let mut command = bare(&["up", "--data", data, "--api", api, "--http", &serving]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut first = up(&data, &api).spawn().expect("the binary starts");
    let mut lines = BufReader::new(first.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let token = lines.find_map(|line| line.strip_prefix("token: ").map(str::to_owned)).expect("a line with the token");
    let login = lines.find(|line| line.contains(&token)).expect("a line with the login");
    assert!(login.contains(&format!("http://{api}/#token={token}")), "{login}");

    let words = ["ps", "--json"];
    let ask =
        |variables: &[(&str, &str)]| bare(&words).envs(variables.iter().copied()).output().expect("the binary runs");
    let (url, token) = (format!("http://{api}"), token.as_str());
    assert!(ask(&[("BRAMBLE_API", &url), ("BRAMBLE_TOKEN", token)]).status.success());
    assert!(ask(&[("BRAMBLE_API", &api), ("BRAMBLE_TOKEN", token)]).status.success(), "the scheme may be left out");
    assert_eq!(ask(&[("BRAMBLE_API", &url), ("BRAMBLE_TOKEN", "wrong")]).status.code(), Some(1));
    let named = bare(&["--server", &url, "ps"]).env("BRAMBLE_TOKEN", token).output().expect("the binary runs");
    assert!(named.status.success(), "{}", err(&named));

    let second = up(&data, &other).output().expect("the binary runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(err(&second).contains("another bramble uses") && err(&second).contains("hint: "), "{}", err(&second));
    let elsewhere = folder.path().join("other").to_string_lossy().into_owned();
    let third = up(&elsewhere, &api).output().expect("the binary runs");
    assert_eq!(third.status.code(), Some(1));
    assert!(
        err(&third).contains(&api) && err(&third).contains("hint: ") && err(&third).contains("--api"),
        "{}",
        err(&third)
    );
    let fourth = up("/proc/nothing", &other).output().expect("the binary runs");
    assert_eq!(fourth.status.code(), Some(1));
    assert!(err(&fourth).contains("/proc/nothing") && err(&fourth).contains("--data"), "{}", err(&fourth));
    let fifth = up(&elsewhere, "nonsense").output().expect("the binary runs");
    assert!(err(&fifth).contains("nonsense") && !fifth.status.success(), "{}", err(&fifth));

    process::signal(first.id(), Signal::INT);
    assert_eq!(first.wait().expect("our own child can be waited for").code(), Some(0), "Ctrl-C is no failure");
}
