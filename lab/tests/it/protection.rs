//! What a stack file says to protect its services with, seen from outside: asked for leave, copied, compressed, banned.

use lab::http::{self, Answer};
use lab::{Node, wait};
use serde_json::Value;

/// A service that runs this Python for each request, and listens at 8000.
fn service(name: &str, answer: &str, routes: &str) -> String {
    let answer: String = answer.trim().lines().map(|line| format!("                {line}\n")).collect();
    let routes: String = routes.trim().lines().map(|line| format!("        {line}\n")).collect();
    let routes = if routes.is_empty() { String::new() } else { format!("    x-bramble:\n      routes:\n{routes}") };
    format!(
        r#"
  {name}:
    image: host
    command:
      - python3
      - -u
      - -c
      - |
        import http.server
        class H(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def say(self, status, body, **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
{answer}
            do_GET = do_POST = answer
            def log_message(self, *a): pass
        http.server.ThreadingHTTPServer(("0.0.0.0", 8000), H).serve_forever()
    expose: ["8000"]
{routes}"#
    )
}

const WEB: &str = r#"
who = self.headers.get("Remote-User") or "nobody"
if self.path == "/none":
    self.say(404, b"not here")
else:
    self.say(200, ("hello " + who + "\n").encode() * 1000, Content_Type="text/plain", ETag='"1"')
"#;
const AUTH: &str = r#"
asked = self.headers["X-Forwarded-Method"] + " " + self.headers["X-Forwarded-Uri"]
if self.headers.get("Cookie") == "session=ann":
    self.say(200, b"", Remote_User="ann")
else:
    self.say(302, asked.encode(), Location="https://login.test/")
"#;
const NEXT: &str = r#"
print("copied", self.command, self.path, body.decode())
self.say(500, b"")
"#;
const ROUTES: &str = r#"
- {host: shop.test, compress: true}
- {host: shop.test, path: /private, forward_auth: {address: "auth:8000/verify", response_headers: [Remote-User]}}
- {host: shop.test, path: /copied, mirror: "next:8000"}
- {host: shop.test, path: /none, error_pages: {404: {config: sorry}}, ban: {status: 404, times: 3, within: 10m, for: 1h}}
"#;

fn ask(node: &Node, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let headers = [&[("host", "shop.test")], headers].concat();
    http::request(node.http, method, path, &headers, body).expect("the gateway answers")
}

fn alert(node: &Node, name: &str) -> Option<Value> {
    let alerts: Vec<Value> = serde_json::from_slice(&node.call("GET", "/v1/alerts", "").body).expect("a list");
    alerts.into_iter().find(|alert| alert["name"] == name)
}

#[test]
fn a_stack_is_protected_as_its_file_says() {
    let node = Node::start();
    let stack = format!(
        "services:{}{}{}\nconfigs: {{sorry: {{content: '<h1>Nothing here</h1>'}}}}\n",
        service("web", WEB, ROUTES),
        service("auth", AUTH, ""),
        service("next", NEXT, "")
    );
    node.deployed("shop", &stack);

    let plain = ask(&node, "GET", "/", &[], b"");
    assert_eq!((plain.status, plain.body.len()), (200, 13_000), "{}", plain.head);
    let small = ask(&node, "GET", "/", &[("accept-encoding", "gzip, br")], b"");
    let head = small.head.to_lowercase();
    assert!(head.contains("content-encoding: br") && head.contains("etag: w/\"1\""), "{head}");
    assert!(small.body.len() < 1_300, "{}", small.body.len());

    let turned = ask(&node, "GET", "/private/x?y=1", &[("remote-user", "root")], b"");
    assert_eq!((turned.status, turned.text().as_str()), (302, "GET /private/x?y=1"));
    assert!(turned.head.to_lowercase().contains("location: https://login.test/"), "{}", turned.head);
    let passed = ask(&node, "GET", "/private", &[("cookie", "session=ann"), ("remote-user", "root")], b"");
    assert!(passed.status == 200 && passed.text().starts_with("hello ann\n"), "{}", passed.text());

    assert_eq!(ask(&node, "POST", "/copied/a", &[], b"the body").status, 200);
    node.says("shop", "next", "copied POST /copied/a the body");

    for _ in 0..3 {
        let none = ask(&node, "GET", "/none", &[], b"");
        assert_eq!((none.status, none.text().as_str()), (404, "<h1>Nothing here</h1>"));
    }
    let out = ask(&node, "GET", "/none", &[], b"");
    assert!(out.status == 403 && out.text().starts_with("B0631: "), "{}", out.text());
    assert_eq!(ask(&node, "GET", "/", &[], b"").status, 200, "other routes have nothing to do with it");
    let bans = node.json(&["gateway", "bans", "ls"]);
    assert_eq!((&bans[0]["client"], &bans[0]["service"]), (&"127.0.0.1".into(), &"shop/web".into()), "{bans}");
    let shown = String::from_utf8(node.cli(&["gateway", "bans", "ls"]).stdout).expect("text");
    assert!(shown.contains("127.0.0.1") && shown.contains("60 min"), "{shown}");
    let firing = wait::until("the ban raises an alert", 30, || alert(&node, "clients_banned"));
    assert_eq!((&firing["firing"], &firing["labels"]["service"]), (&true.into(), &"shop/web".into()));

    assert!(node.refused(&["gateway", "bans", "lift", "10.0.0.1"]).contains("B0628"));
    assert!(node.refused(&["gateway", "bans", "lift", "nobody"]).contains("is not an address"));
    assert!(node.cli(&["gateway", "bans", "lift", "127.0.0.1"]).status.success());
    assert_eq!(ask(&node, "GET", "/none", &[], b"").status, 404);

    let routes = node.json(&["route", "ls"]);
    let notes = routes.to_string();
    for note in ["compressed", "asks for leave", "mirrored", "pages", "bans"] {
        assert!(notes.contains(note), "{notes}");
    }
}
