//! A route with a cache, on a whole node: deployed, asked, looked at, purged, and over a restart.

use lab::Node;
use lab::http;
use serde_json::Value;

const STACK: &str = r#"
services:
  web:
    image: host
    command:
      - python3
      - -c
      - |
        import http.server, os
        class H(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            count = 0
            def do_GET(self):
                H.count += 1
                body = f"{os.getpid()} {H.count}".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "max-age=3600")
                self.send_header("Cache-Tag", "front")
                self.end_headers()
                self.wfile.write(body)
            def log_message(self, *a): pass
        http.server.ThreadingHTTPServer(("0.0.0.0", 8000), H).serve_forever()
    expose: ["8000"]
    x-bramble:
      routes: [{host: shop.test, port: 8000, cache: {ignore_query: [utm]}}]
"#;

fn get(node: &Node, path: &str) -> (String, String) {
    let answer = http::request(node.http, "GET", path, &[("Host", "shop.test")], b"").expect("the gateway answers");
    assert_eq!(answer.status, 200, "{}", answer.head);
    (answer.text(), answer.head.to_lowercase())
}

#[test]
fn answers_are_kept_listed_and_purged_by_the_command_line() {
    let node = Node::start();
    node.deployed("shop", STACK);
    let (first, head) = get(&node, "/a");
    assert!(head.contains("cache-status: bramble; fwd=uri-miss; fwd-status=200; ttl="), "{head}");
    lab::wait::until("it is kept", 20, || {
        let listed = node.json(&["cache", "ls", "shop.test"]);
        (listed["answers"].as_array().is_some_and(|answers| answers.len() == 1)).then_some(())
    });
    let (second, head) = get(&node, "/a?utm=x");
    assert!(first == second && head.contains("cache-status: bramble; hit"), "{first} {second} {head}");
    let listed = node.json(&["cache", "ls", "shop/web"]);
    assert_eq!(listed["answers"][0]["address"], "http://shop.test/a");
    assert_eq!(listed["answers"][0]["hits"], 1);
    let stats = node.json(&["cache", "stats"]);
    assert_eq!(stats["services"][0]["requests"]["hit"], 1, "{stats}");
    assert_eq!((&stats["disk_lost"], &stats["disk_bytes_max"]), (&Value::Bool(false), &Value::from(1_u64 << 30)));
    for purge in
        [&["shop.test/a"][..], &["--host", "shop.test"], &["--service", "shop/web"], &["--tag", "front"], &["--all"]]
    {
        let before = get(&node, "/a").0;
        let arguments: Vec<&str> = ["cache", "purge"].iter().chain(purge).copied().collect();
        node.json(&arguments);
        assert_ne!(get(&node, "/a").0, before, "{purge:?}");
    }
    let nothing = node.cli(&["cache", "purge"]);
    assert_eq!(nothing.status.code(), Some(2), "it has to be said what");
    let wrong = node.call("POST", "/v1/cache/purge", r#"{"host": "a", "all": true}"#);
    assert!(wrong.status == 422 && wrong.text().contains("B0641"), "{}", wrong.text());
}
