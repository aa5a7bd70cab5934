//! A stack from a file to answered requests: deploy, scale, update, roll back, revert, remove, heal.

use lab::{Node, http, node, wait};
use std::net::{Ipv4Addr, SocketAddr};

/// A server in the host's shell tools is not there on every machine; python is, wherever tests run.
pub(crate) fn web(port: u16, text: &str, replicas: u32) -> String {
    format!(
        r#"
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
            def do_GET(self):
                body = ("{text} " + os.environ["SLOT"]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            def log_message(self, *a): pass
        http.server.ThreadingHTTPServer(("0.0.0.0", 8000), H).serve_forever()
    environment:
      SLOT: "{{{{.Task.Slot}}}}"
    ports: ["127.0.0.1:{port}:8000"]
    deploy:
      replicas: {replicas}
      update_config: {{monitor: 1s}}
"#
    )
}

pub(crate) fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[test]
fn a_stack_is_deployed_scaled_updated_reverted_and_removed() {
    let node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 2));
    let answer = http::get(address(port), "/").expect("the published port answers");
    assert!(answer.text().starts_with("one "), "{}", answer.text());

    node.json(&["service", "scale", "shop/web", "3"]);
    assert_eq!(node.instances().len(), 3);

    node.deployed("shop", &web(port, "two", 3));
    assert!(http::get(address(port), "/").expect("it still answers").text().starts_with("two "));
    let history = node.json(&["stack", "history", "shop"]);
    assert_eq!(history.as_array().map(Vec::len), Some(3));

    node.json(&["stack", "revert", "shop"]);
    assert!(http::get(address(port), "/").expect("it still answers").text().starts_with("one "));

    assert!(node.cli(&["stack", "rm", "shop"]).status.success());
    assert_eq!(node.instances().len(), 0);
    wait::until("the port is closed", 5, || http::get(address(port), "/").is_err().then_some(()));
}

#[test]
fn a_killed_instance_is_replaced() {
    let node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 1));
    let id = node.instances()[0]["instance"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(node.call("POST", &format!("/v1/instances/{id}/kill"), "").status, 202);
    let answer = http::get(address(port), "/").expect("the request waits for the next instance");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let restarts = wait::until("the restart is told", 5, || {
        node.instances()[0]["status"]["restarts"].as_u64().filter(|restarts| *restarts > 0)
    });
    assert_eq!(restarts, 1);
}

#[test]
fn a_failing_update_goes_back_by_itself() {
    let node = Node::start();
    let port = node::free_port();
    node.deployed("shop", &web(port, "one", 2));
    let broken = web(port, "two", 2).replace("serve_forever()", "no_such_method()");
    assert!(!node.deploy("shop", &broken).status.success());
    wait::until("two instances are ready", 20, || {
        let ready = node.instances().iter().filter(|one| one["status"]["ready"] == true).count();
        (ready == 2 && node.instances().len() == 2).then_some(())
    });
    assert!(http::get(address(port), "/").expect("it still answers").text().starts_with("one "));
    let history = node.json(&["stack", "history", "shop"]);
    assert!(history[0]["cause"].as_str().is_some_and(|cause| cause.starts_with("rollback of web")), "{history}");
}
