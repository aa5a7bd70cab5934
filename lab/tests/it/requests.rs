//! What requests were: the access log, traces and examples, as people and programs ask for them.

use lab::{Node, http, leaving};
use serde_json::Value;

#[test]
fn a_client_that_leaves_ends_the_work_two_services_further() {
    let node = Node::start();
    leaving::deploy(&node);
    for (at, speaks) in [false, true, false, true].into_iter().enumerate() {
        let trace = format!("{:032x}", 0xabcd + at);
        let left = leaving::leave(&node, &trace, speaks);
        println!("speaks {speaks}: the work ended {:?} after the client had left", left.stopped_after);
        // How long it may take is for a measurement to say; here it is that it ends without anybody's asking.
        let record = &left.record;
        assert_eq!(record["end"], "left", "{record}");
        assert_eq!(record["status"], if speaks { 200 } else { 0 }, "{record}");
        assert_eq!((&record["service"], &record["sends"]), (&"leave/first".into(), &1.into()), "{record}");
        assert_eq!(
            (&record["trace"], &record["parent"]),
            (&trace.as_str().into(), &"b7ad6b7169203331".into()),
            "{record}"
        );
        assert_eq!(record["why"], if speaks { "asked" } else { "error" }, "{record}");
        let shown = node.cli(&["gateway", "trace", &trace]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("client left") && shown.contains("first byte"), "{shown}");
    }
}

/// Answers as the path says.
const PROGRAM: &str = r#"
import http.server, time
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if "slow" in self.path: time.sleep(1.2)
        self.send_response(500 if "bad" in self.path else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), H).serve_forever()
"#;

fn log(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let output = node.cli(&[&["gateway", "log", "--json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn requests_are_found_by_what_became_of_them() {
    let node = Node::with(lab::Settings {
        arguments: vec!["--access-log".to_owned(), "errors".to_owned()],
        ..lab::Settings::default()
    });
    let command = crate::probe::python(PROGRAM);
    let routes = "[{host: shop.test, port: 8000}, {host: shop.test, path: /all, port: 8000, access_log: all}, {host: shop.test, path: /off, port: 8000, access_log: off}]";
    let file =
        format!("services:\n  web:\n    image: host\n    command: {command}\n    x-bramble: {{routes: {routes}}}\n");
    node.deployed("shop", &file);
    let get = |path: &str| http::request(node.http, "GET", path, &[("Host", "shop.test")], b"").expect("an answer");
    for path in ["/fine", "/bad?token=abc", "/slow", "/all/fine", "/off/bad", "/off/slow"] {
        get(path);
    }
    http::request(node.http, "GET", "/x", &[("Host", "nobody.test")], b"").expect("an answer");
    let paths = |records: &[Value]| -> Vec<String> {
        records.iter().map(|record| record["path"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let all = lab::wait::until("all are told of", 10, || Some(log(&node, &[])).filter(|all| all.len() >= 4));
    assert_eq!(paths(&all), ["/bad?token=***", "/slow", "/all/fine", "/x"], "{all:?}");
    assert_eq!(paths(&log(&node, &["--service", "shop/web"])), ["/bad?token=***", "/slow", "/all/fine"]);
    assert_eq!(paths(&log(&node, &["--status", "5xx"])), ["/bad?token=***"]);
    assert_eq!(paths(&log(&node, &["--status", "404"])), ["/x"]);
    assert_eq!(paths(&log(&node, &["--slow", "1s"])), ["/slow"]);
    assert_eq!(paths(&log(&node, &["--route", "shop.test/all"])), ["/all/fine"]);
    assert_eq!(paths(&log(&node, &["-n", "1"])), ["/x"]);
    let slow = &log(&node, &["--slow", "1s"])[0];
    let us = |part: &str| slow["split"][part].as_u64().expect("a number");
    assert!(us("answer_us") >= 1_000_000 && us("total_us") >= us("answer_us"), "{slow}");
    assert_eq!((&slow["why"], &slow["client"]), (&"slow".into(), &"127.0.0.1".into()));

    let trace = slow["trace"].as_str().expect("a trace");
    let shown = node.cli(&["gateway", "trace", trace]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("first byte"), "{shown:?}");
    let open = http::request(
        node.api,
        "GET",
        "/metrics",
        &[("Authorization", &format!("Bearer {}", node.token())), ("Accept", "application/openmetrics-text")],
        b"",
    );
    let open = open.expect("an answer").text();
    assert!(
        open.ends_with("# EOF\n") && open.contains(&format!("# {{trace_id=\"{trace}\"}}")),
        "the slow one's example"
    );
    assert!(node.refused(&["gateway", "log", "--status", "nonsense"]).contains("is not a status"));
    assert!(node.refused(&["gateway", "trace", "none"]).contains("nothing is told of"));
}
