//! What is wrong is told without anybody asking: alerts from series, end to end.

use lab::{Node, http, node::Settings, registry::Registry, wait};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

/// The alert of this name, whether it fires or only holds so far.
pub fn alert(node: &Node, name: &str) -> Option<Value> {
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

/// Answers as the path says; who was called sick fails from then on.
const FAILING: &str = r#"
import http.server, time
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sick = False
    def do_GET(self):
        if "slow" in self.path: time.sleep(5.5)
        if "sick" in self.path: H.sick = True
        self.send_response(500 if "bad" in self.path or H.sick else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), H).serve_forever()
"#;

/// A certificate for `ending.test` that ends in five days, as people make them by hand. False without openssl.
fn ending_certificate(node: &Node) -> bool {
    let folder = node.data().join("certificates");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "5"])
        .args(["-subj", "/CN=ending.test", "-addext", "subjectAltName=DNS:ending.test", "-keyout"])
        .arg(folder.join("ending.key"))
        .arg("-out")
        .arg(folder.join("ending.crt"))
        .output();
    made.is_ok_and(|made| made.status.success())
}

/// A node whose alerts do not wait for minutes: that they do is tested where minutes cost nothing.
fn hasty(files_max: Option<u32>) -> Node {
    let arguments = ["--alerts-after", "1"].map(str::to_owned).to_vec();
    Node::with(Settings { files_max, arguments, ..Settings::default() })
}

fn fires(node: &Node, name: &str) -> Value {
    wait::until(&format!("{name} fires"), 40, || alert(node, name).filter(|alert| alert["firing"] == true))
}

fn get(node: &Node, host: &str, path: &str) -> u16 {
    http::request(node.http, "GET", path, &[("Host", host)], b"").expect("an answer").status
}

#[test]
fn what_clients_meet_raises_alerts() {
    let node = hasty(None);
    let has_certificate = ending_certificate(&node);
    std::fs::write(node.data().join("certificates/broken.crt"), "not a certificate").expect("our own folder");
    let command = crate::probe::python(FAILING);
    let service = |name: &str, more: &str| {
        let routes = format!("[{{host: {name}.test, port: 8000}}]");
        format!("  {name}:\n    image: host\n    command: {command}\n    {more}\n    x-bramble: {{routes: {routes}}}\n")
    };
    let none = "  none:\n    image: host\n    command: [sleep, '1000']\n    deploy: {replicas: 0}\n    x-bramble: {routes: [{host: none.test, port: 8000}]}\n";
    let (bad, slow) = (service("bad", ""), service("slow", ""));
    let half = service("half", "deploy: {replicas: 2}");
    node.deployed("shop", &format!("services:\n{bad}{slow}{half}{none}"));
    std::thread::scope(|scope| {
        // Nobody is ready: held for as long as a request is, then refused.
        scope.spawn(|| assert_eq!(get(&node, "none.test", "/"), 503));
        scope.spawn(|| assert_eq!(get(&node, "slow.test", "/slow"), 200));
        for _ in 0..30 {
            assert_eq!(get(&node, "bad.test", "/bad"), 500);
        }
        assert_eq!(get(&node, "half.test", "/sick"), 500);
        wait::until("the sick instance is left out", 20, || {
            get(&node, "half.test", "/");
            left_out(&node)
        });
    });
    more_than_is_told_of(&node);
    let of = |alert: &Value| alert["labels"]["service"].as_str().map(str::to_owned);
    let errors = fires(&node, "service_errors");
    assert!(errors["value"].as_f64().is_some_and(|share| share > 0.9), "{errors}");
    assert_eq!(of(&errors).as_deref(), Some("shop/bad"));
    let slow = fires(&node, "service_slow");
    assert!(slow["value"].as_f64().is_some_and(|seconds| seconds > 5.0), "{slow}");
    assert_eq!(of(&slow).as_deref(), Some("shop/slow"));
    assert_eq!(of(&fires(&node, "service_unreachable")).as_deref(), Some("shop/none"));
    let out = fires(&node, "instance_left_out");
    assert_eq!(out["labels"]["instance"], left_out(&node).expect("it is still sick")["instance"]);
    let shown = String::from_utf8(node.cli(&["gateway", "endpoints"]).stdout).expect("text");
    assert!(shown.contains(": errors") && shown.contains("shop/slow"), "{shown}");
    assert!(node.refused(&["gateway", "endpoints", "shop/nowhere"]).contains("is served"));
    fires(&node, "requests_not_told");
    assert_eq!(fires(&node, "certificate_unusable")["value"], 1.0);
    if has_certificate {
        assert_eq!(fires(&node, "certificate_ending")["labels"]["name"], "ending.test");
    }
    let requests = node.json(&["gateway", "log", "--service", "shop/bad", "--status", "5xx", "-n", "1"]);
    assert_eq!(requests["status"], 500, "and the log says which they were");
}

/// More failures than are told of. Two hundred in a second are; how many a slow machine makes in one is not known.
fn more_than_is_told_of(node: &Node) {
    let lost = || {
        let metrics = node.call("GET", "/metrics", "").text();
        let lines = metrics.lines().filter(|line| line.starts_with("bramble_gateway_log_dropped_total{"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    wait::until("more fail than are told of", 20, || {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| assert_eq!(get(node, "nobody.test", "/"), 404)));
            }
        });
        (lost() > 0.0).then_some(())
    });
}

/// The instance that is left out, as the API tells of it.
fn left_out(node: &Node) -> Option<Value> {
    let half = &node.json(&["gateway", "endpoints", "shop/half"])[0];
    let endpoints = half["endpoints"].as_array().expect("a list");
    assert_eq!((endpoints.len(), &half["port"]), (2, &8000.into()), "{half}");
    let out = endpoints.iter().find(|endpoint| endpoint["breaker"] != "closed")?;
    assert_eq!(out["why"], "errors", "{out}");
    assert!(out["since_ms"].as_u64().is_some_and(|since_ms| since_ms > 0), "{out}");
    Some(out.clone())
}

/// Leaves the node's front door some forty places.
const FEW_FILES: u32 = 572;
const MANY: usize = 38;

#[test]
fn a_front_door_with_hardly_a_place_left_raises_an_alert() {
    let node = hasty(Some(FEW_FILES));
    let connect = || {
        let mut connection = TcpStream::connect(node.http).expect("there are places");
        connection.write_all(b"GET / HTTP/1.1\r\nhost: none.test\r\n\r\n").expect("it takes a request");
        assert!(connection.read(&mut [0; 1_024]).is_ok_and(|read| read > 0), "it answers");
        connection
    };
    let open: Vec<TcpStream> = (0..MANY).map(|_| connect()).collect();
    let saturated = fires(&node, "gateway_saturated");
    assert!(saturated["value"].as_f64().is_some_and(|share| share > 0.9 && share <= 1.0), "{saturated}");
    drop(open);
    wait::until("it is over once they are gone", 40, || alert(&node, "gateway_saturated").is_none().then_some(()));
}
