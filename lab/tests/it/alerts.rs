//! What is wrong is told without anybody asking: alerts from series, end to end.

use lab::{Node, http, registry::Registry, wait};
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

/// Answers as the path says.
const FAILING: &str = r#"
import http.server, time
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if "slow" in self.path: time.sleep(5.5)
        self.send_response(500 if "bad" in self.path else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), H).serve_forever()
"#;

#[test]
fn what_clients_meet_raises_alerts() {
    let node = Node::start();
    let folder = node.data().join("certificates");
    // A certificate that ends in five days, as people make them by hand.
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "5"])
        .args(["-subj", "/CN=ending.test", "-addext", "subjectAltName=DNS:ending.test", "-keyout"])
        .arg(folder.join("ending.key"))
        .arg("-out")
        .arg(folder.join("ending.crt"))
        .output();
    let has_certificate = made.is_ok_and(|made| made.status.success());
    let command = crate::probe::python(FAILING);
    let routes = "[{host: shop.test, port: 8000}]";
    let web = format!("  web:\n    image: host\n    command: {command}\n    x-bramble: {{routes: {routes}}}\n");
    let none = "  none:\n    image: host\n    command: [sleep, '1000']\n    deploy: {replicas: 0}\n    x-bramble: {routes: [{host: none.test, port: 8000}]}\n";
    node.deployed("shop", &format!("services:\n{web}{none}"));
    let get = |host: &str, path: &str| {
        http::request(node.http, "GET", path, &[("Host", host)], b"").expect("an answer").status
    };
    let firing_or_held = |name: &str| wait::until(&format!("{name} is told"), 40, || alert(&node, name));
    std::thread::scope(|scope| {
        // Nobody is ready: held for as long as a request is, then refused. That fires at once.
        scope.spawn(|| assert_eq!(get("none.test", "/"), 503));
        scope.spawn(|| assert_eq!(get("shop.test", "/slow"), 200));
        for _ in 0..30 {
            assert_eq!(get("shop.test", "/bad"), 500);
        }
    });
    let unreachable = firing_or_held("service_unreachable");
    assert_eq!((&unreachable["firing"], &unreachable["labels"]["service"]), (&true.into(), &"shop/none".into()));
    // These have to hold for minutes before they fire; that they hold is told at once.
    let errors = firing_or_held("service_errors");
    assert_eq!(errors["labels"]["service"], "shop/web");
    assert!(errors["value"].as_f64().is_some_and(|share| share > 0.9), "{errors}");
    if has_certificate {
        let ending = firing_or_held("certificate_ending");
        assert_eq!(ending["labels"]["name"], "ending.test");
    }
    let requests = node.json(&["gateway", "log", "--service", "shop/web", "--status", "5xx", "-n", "1"]);
    assert_eq!(requests["status"], 500, "and the log says which they were");
}
