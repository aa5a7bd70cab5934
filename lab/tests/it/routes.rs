//! What a stack file says about routes, asked for as a browser or curl would.

use lab::Node;
use lab::http::{self, Answer};

/// Says back the request line, its headers and how long its body was; `name` tells the services apart.
fn service(name: &str, routes: &str) -> String {
    let routes: String = routes.trim().lines().map(|line| format!("        {line}\n")).collect();
    format!(
        r#"
  {name}:
    image: host
    command:
      - python3
      - -c
      - |
        import http.server, time
        class H(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def answer(self):
                length = len(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                if self.path == "/slow":
                    time.sleep(5)
                lines = ["{name}", self.command + " " + self.path, str(length)]
                lines += [k.lower() + ": " + v for k, v in self.headers.items()]
                body = "\n".join(lines).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Powered-By", "python")
                self.end_headers()
                self.wfile.write(body)
            do_GET = do_POST = do_PUT = do_OPTIONS = answer
            def log_message(self, *a): pass
        http.server.ThreadingHTTPServer(("0.0.0.0", 8000), H).serve_forever()
    expose: ["8000"]
    x-bramble:
      routes:
{routes}"#
    )
}

fn ask(node: &Node, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    http::request(node.http, method, path, headers, body).expect("the gateway answers")
}

#[track_caller]
fn check(answer: &Answer, status: u16, has: &[&str]) {
    let whole = format!("{}\n\n{}", answer.head.to_lowercase(), answer.text());
    assert_eq!(answer.status, status, "{whole}");
    for part in has {
        assert!(whole.contains(part), "`{part}` is missing from {whole}");
    }
}

#[test]
fn routes_choose_change_and_guard_what_a_stack_serves() {
    let node = Node::start();
    // The hash is of `secret`.
    let api = r#"
- {host: shop.test, path: /api, strip_prefix: true, add_prefix: /v1, request_headers: {X-A: "1", X-Secret: ""}, response_headers: {X-Powered-By: ""}}
- {host: shop.test, path: /api/old, redirect: {to: "https://new.test{path}", status: 301}}
- {host: shop.test, path: /api/office, allow: [10.99.0.0/16]}
- {host: shop.test, path: /api/private, basic_auth: {users: {ann: "$$2y$$04$$P6wIgCSN38XRY0s63Vq8C.0CN8TgU2k.wT5jehAHTpNzA4oSI3.qa"}}}
- {host: shop.test, path: /api/rare, rate_limit: {requests: 1, period: 1h, burst: 2}}
- {host: shop.test, path: /api/small, body_max: 1k}
- {host: shop.test, path: /slow, exact: true, timeout: 200ms}
- {host: shop.test, path: /api/closed, maintenance: back at noon}
- {host: shop.test, path: /api/shared, cors: {origins: ["https://app.test"], headers: [X-Token]}}
"#;
    let web = "- {host: shop.test}\n- {host: shop.test, path: /half, weight: 1}";
    let beta = "- {host: shop.test, headers: {X-Beta: yes}}\n- {host: shop.test, methods: [PUT]}\n- {host: shop.test, path: /half, weight: 1}";
    let stack = format!("services:{}{}{}", service("api", api), service("web", web), service("beta", beta));
    node.deployed("shop", &stack);
    let host = ("host", "shop.test");
    let get = |path: &str, more: &[(&str, &str)]| ask(&node, "GET", path, &[&[host], more].concat(), b"");

    check(&get("/", &[]), 200, &["\n\nweb\n"]);
    check(&get("/", &[("x-beta", "yes")]), 200, &["\n\nbeta\n"]);
    check(&ask(&node, "PUT", "/", &[host], b""), 200, &["\n\nbeta\n"]);
    let mut halves: Vec<String> =
        (0..60).map(|_| get("/half", &[]).text().lines().next().unwrap_or_default().to_owned()).collect();
    halves.sort();
    halves.dedup();
    assert_eq!(halves, ["beta", "web"], "both of them serve, unless a coin falls on one side sixty times");

    let changed = get("/api/x?q=1", &[("x-secret", "s")]);
    check(&changed, 200, &["\n\napi\nGET /v1/x?q=1\n", "\nx-a: 1"]);
    assert!(!changed.text().contains("x-secret") && !changed.head.to_lowercase().contains("x-powered-by"));
    check(&get("/api/old/a?b", &[]), 301, &["location: https://new.test/api/old/a?b"]);
    check(&get("/api/office", &[]), 403, &["B0620"]);
    check(&get("/api/%6Fffice/x", &[]), 403, &["B0620"]);
    check(&get("/api/private", &[]), 401, &["www-authenticate: basic realm=\"restricted\"", "B0621"]);
    check(&get("/api/private", &[("authorization", "Basic YW5uOnNlY3JldA==")]), 200, &["\n\napi\n"]);
    check(&get("/api/private", &[("authorization", "Basic YW5uOndyb25n")]), 401, &[]);
    check(&get("/api/rare", &[]), 200, &[]);
    check(&get("/api/rare", &[]), 200, &[]);
    check(&get("/api/rare", &[]), 429, &["retry-after: 3", "B0622"]);
    check(&ask(&node, "POST", "/api/small", &[host], &[b'x'; 1_024]), 200, &["\n1024\n"]);
    check(&ask(&node, "POST", "/api/small", &[host], &[b'x'; 1_025]), 413, &["B0623"]);
    check(&get("/slow", &[]), 504, &["B0606"]);
    check(&get("/api/closed", &[]), 503, &["retry-after: 60", "back at noon"]);
    let preflight = [host, ("origin", "https://app.test"), ("access-control-request-method", "POST")];
    let allowed = ["access-control-allow-origin: https://app.test", "access-control-allow-headers: x-token"];
    check(&ask(&node, "OPTIONS", "/api/shared", &preflight, b""), 204, &allowed);
    check(&get("/api/shared", &[("origin", "https://app.test")]), 200, &["\n\napi\n", allowed[0]]);

    // Changing what a route does starts nothing anew.
    let before = node.instances();
    let opened = stack.replace("maintenance: back at noon", "maintenance: false");
    node.deployed("shop", &opened);
    check(&get("/api/closed", &[]), 200, &["\n\napi\n"]);
    assert_eq!(node.instances(), before);
}
