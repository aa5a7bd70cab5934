//! TLS and HTTP/2 at the front, seen by clients that nobody here wrote.

use crate::probe;
use lab::{Node, Settings, http, node, wait};
use std::path::Path;
use std::process::Command;

/// A node that serves TLS, with one service at `shop.test`.
struct World {
    node: Node,
    https: u16,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let https = node::free_port();
        let arguments = vec!["--https".to_owned(), format!("127.0.0.1:{https}")];
        let node = Node::with(Settings { arguments, ..Settings::default() });
        let route = "x-bramble: {routes: [{host: shop.test, port: 8000}]}";
        node.deployed("shop", &format!("services:\n  web:\n{}", probe::service(node::free_port(), route)));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let world = World { node, https, folder };
        let authority = world.node.json(&["certificate", "authority"]);
        let pem = authority["pem"].as_str().expect("a certificate");
        std::fs::write(world.authority(), pem).expect("a fresh folder takes a file");
        world
    }

    fn authority(&self) -> std::path::PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// What curl says of `https://HOST/`, trusting `authority`; `None` when it refuses.
    fn curl(&self, host: &str, authority: &Path, more: &[&str]) -> Option<String> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--output", "/dev/null", "--cacert"])
            .arg(authority)
            .args(["--write-out", "%{http_version} %{http_code}", "--resolve"])
            .arg(format!("{host}:{}:127.0.0.1", self.https))
            .args(more)
            .arg(format!("https://{host}:{}/", self.https))
            .output()
            .expect("curl runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn lacks(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    !there
}

#[test]
fn curl_trusts_the_nodes_authority_in_both_versions_of_http() {
    if lacks("curl") {
        return;
    }
    let world = World::new();
    let authority = world.authority();
    for (version, expected) in [("--http1.1", "1.1 200"), ("--http2", "2 200")] {
        let said = wait::until("the service answers", 10, || {
            world.curl("shop.test", &authority, &[version]).filter(|said| said.ends_with("200"))
        });
        assert_eq!(said, expected);
    }
    assert_eq!(world.curl("other.test", &authority, &[]), None, "no certificate is for that name");
    let only = "x-bramble: {routes: [{host: only.test, port: 8000, tls: true}]}";
    world.node.deployed("only", &format!("services:\n  web:\n{}", probe::service(node::free_port(), only)));
    let answer = http::request(world.node.http, "GET", "/a?b", &[("host", "only.test")], b"").expect("an answer");
    assert_eq!(answer.status, 308);
    let place = format!("location: https://only.test:{}/a?b\r\n", world.https);
    assert!(answer.head.contains(&place), "{}", answer.head);
    assert_eq!(world.curl("only.test", &authority, &[]).as_deref(), Some("2 200"));
    let plain = format!("http://{}/", world.node.http);
    let output = Command::new("curl")
        .args(["--silent", "--output", "/dev/null", "--http2-prior-knowledge", "--header", "host: shop.test"])
        .args(["--write-out", "%{http_version} %{http_code}", &plain])
        .output()
        .expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 200");
}

#[test]
fn a_certificate_put_into_the_folder_is_shown_without_a_restart() {
    if lacks("curl") || lacks("openssl") {
        return;
    }
    let world = World::new();
    let folder = world.node.data().join("certificates");
    let (certificate, key) = (folder.join("shop.crt"), folder.join("shop.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=shop.test", "-addext", "subjectAltName=DNS:shop.test"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let said = wait::until("the new certificate is shown", 10, || world.curl("shop.test", &certificate, &[]));
    assert_eq!(said, "2 200");
    let listed = |source: &str| {
        let all = world.node.json(&["certificate", "ls"]);
        all.as_array().and_then(|all| all.iter().find(|one| one["source"] == source).cloned())
    };
    assert_eq!(listed("shop.crt").expect("it is listed")["names"][0], "shop.test");

    std::fs::remove_file(&key).expect("our own file");
    let problem = wait::until("the missing key is said", 10, || {
        listed("shop.crt").and_then(|one| one["problem"].as_str().filter(|said| !said.is_empty()).map(str::to_owned))
    });
    assert!(problem.contains("key"), "{problem}");
    let authority = world.authority();
    let said = wait::until("the node's own is shown again", 10, || world.curl("shop.test", &authority, &[]));
    assert_eq!(said, "2 200");
}

#[test]
fn h2load_runs_a_hundred_streams() {
    if lacks("h2load") {
        return;
    }
    let world = World::new();
    let output = Command::new("h2load")
        .args(["--requests=2000", "--clients=1", "--max-concurrent-streams=100", "--connect-to"])
        .arg(format!("127.0.0.1:{}", world.https))
        .arg("https://shop.test/")
        .output()
        .expect("h2load runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
}
