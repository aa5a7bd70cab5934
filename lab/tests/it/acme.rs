//! Certificates from a public authority: a real one, which looks for proofs where this node shows them.

use crate::probe;
use lab::pebble::{self, Pebble};
use lab::{Node, Settings, http, node, wait};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

/// Base 64 for URLs, as authorities print it.
const CUSTOMERS_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
const CUSTOMER: &str = "customer-1";

/// A node that asks an authority, which does not run yet.
struct World {
    node: Node,
    pebble: Pebble,
    https: u16,
}

impl World {
    fn new(more: &[&str]) -> World {
        let (pebble, https) = (Pebble::place(), node::free_port());
        let roots = pebble.roots();
        let mut arguments = vec!["--https".to_owned(), format!("127.0.0.1:{https}")];
        arguments.extend(["--acme".to_owned(), pebble.directory()]);
        arguments.extend(["--acme-ca".to_owned(), roots.display().to_string()]);
        arguments.extend(["--acme-contact".to_owned(), "mailto:ops@example.org".to_owned()]);
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        let node = Node::with(Settings { arguments, ..Settings::default() });
        World { node, pebble, https }
    }

    fn start_authority(&mut self, life_s: Option<u64>) {
        let settings = pebble::Settings { http: self.node.http.port(), https: self.https, life_s, customer: None };
        self.pebble.start(&settings);
    }

    /// Deploys a service at this host, with TLS only.
    fn deploy(&self, host: &str) {
        let route = format!("x-bramble: {{routes: [{{host: '{host}', port: 8000, tls: true}}]}}");
        self.node.deployed("shop", &format!("services:\n  web:\n{}", probe::service(node::free_port(), &route)));
    }

    /// The row about this name.
    fn listed(&self, name: &str) -> Option<Value> {
        let all = self.node.json(&["certificate", "ls"]);
        all.as_array().and_then(|all| all.iter().find(|one| one["names"][0] == name).cloned())
    }

    fn obtained(&self, name: &str) -> Value {
        let mut seen = Value::Null;
        wait::until(&format!("{name} has a certificate"), 60, || {
            let row = self.listed(name)?;
            if row != seen {
                eprintln!("{row}");
                seen.clone_from(&row);
            }
            (row["source"] == "acme").then_some(row)
        })
    }

    /// Whether curl gets an answer from `https://HOST/` when it trusts this file.
    fn trusts(&self, host: &str, authority: &Path) -> bool {
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--max-time", "20", "--output", "/dev/null", "--cacert"])
            .arg(authority)
            .args(["--resolve", &format!("{host}:{}:127.0.0.1", self.https)])
            .arg(format!("https://{host}:{}/", self.https))
            .status();
        output.expect("curl runs").success()
    }

    /// Where the node keeps what the authority gave.
    fn kept(&self) -> PathBuf {
        let mut folders = std::fs::read_dir(self.node.data().join("acme")).expect("a folder");
        folders.next().expect("one authority").expect("readable").path()
    }
}

fn lacks() -> bool {
    let curl = Command::new("curl").arg("--version").output().is_ok();
    if !curl {
        eprintln!("skipped: curl is not installed");
    }
    !curl || !Pebble::is_there()
}

#[test]
fn an_authority_that_is_away_is_asked_again_until_it_gives_a_certificate() {
    if lacks() {
        return;
    }
    let mut world = World::new(&[]);
    world.deploy("shop.test");
    let row = wait::until("what is wrong is said", 20, || {
        world.listed("shop.test").filter(|one| one["last_error"].as_str().is_some_and(|said| !said.is_empty()))
    });
    assert_eq!(row["source"], "authority", "{row}");
    assert!(row["last_error"].as_str().is_some_and(|said| said.contains("speak with the authority")), "{row}");
    assert!(row["retry_ms"].as_u64().is_some_and(|ms| ms > row["not_before_ms"].as_u64().unwrap_or(0)), "{row}");
    let own = world.node.json(&["certificate", "authority"]);
    let own_file = world.node.file("own.pem", own["pem"].as_str().expect("a certificate"));
    assert!(world.trusts("shop.test", &own_file), "meanwhile the node's own is shown");
    let metrics = world.node.call("GET", "/metrics", "").text();
    assert!(metrics.contains("bramble_certificate_unobtainable{name=\"shop.test\"} 1"), "{metrics}");

    world.start_authority(None);
    let row = world.obtained("shop.test");
    assert!(row["issuer"].as_str().is_some_and(|issuer| issuer.contains("Pebble")), "{row}");
    assert_eq!(row["last_error"], "");
    let root = world.pebble.issuing_root();
    wait::until("it is shown", 10, || world.trusts("shop.test", &root).then_some(()));
    let metrics = world.node.call("GET", "/metrics", "").text();
    assert!(!metrics.contains("bramble_certificate_unobtainable{"), "{metrics}");
    assert!(metrics.contains("bramble_acme_attempts_total{outcome=\"issued\"} 1"), "{metrics}");

    for file in ["account.json", "shop.test.pem", "ledger.json"] {
        let about = std::fs::metadata(world.kept().join(file)).expect(file);
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{file}");
    }
    // After a restart nothing is asked: what there is, is kept.
    world.pebble.stop();
    world.node.terminate();
    world.node.launch();
    wait::until("it is shown again", 20, || world.trusts("shop.test", &root).then_some(()));
}

#[test]
fn a_name_is_proven_by_a_handshake() {
    if lacks() {
        return;
    }
    let mut world = World::new(&["--acme-challenge", "tls-alpn-01"]);
    world.start_authority(None);
    world.deploy("alpn.test");
    world.obtained("alpn.test");
    let root = world.pebble.issuing_root();
    wait::until("it is shown", 10, || world.trusts("alpn.test", &root).then_some(()));
}

#[test]
fn an_account_is_bound_to_a_customers_where_the_authority_asks_for_it() {
    if lacks() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = folder.path().join("binding.key");
    std::fs::write(&key, format!("{CUSTOMERS_KEY}\n")).expect("a fresh folder takes a file");
    let mut world = World::new(&["--acme-binding-id", CUSTOMER, "--acme-binding-key", &key.to_string_lossy()]);
    let (http, https) = (world.node.http.port(), world.https);
    let customer = Some((CUSTOMER.to_owned(), CUSTOMERS_KEY.to_owned()));
    world.pebble.start(&pebble::Settings { http, https, customer, ..pebble::Settings::default() });
    world.deploy("bound.test");
    world.obtained("bound.test");
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
    if lacks() {
        return;
    }
    let mut world = World::new(&[]);
    world.start_authority(Some(30));
    world.deploy("short.test");
    let first = world.obtained("short.test");
    let (from_ms, to_ms) = (first["not_before_ms"].as_u64(), first["not_after_ms"].as_u64());
    let (from_ms, to_ms) = (from_ms.expect("a date"), to_ms.expect("a date"));
    let second = wait::until("there is another", 40, || {
        world.listed("short.test").filter(|one| one["not_after_ms"].as_u64().is_some_and(|ms| ms > to_ms))
    });
    let renewed_ms = second["not_before_ms"].as_u64().expect("a date");
    assert!(renewed_ms >= from_ms + (to_ms - from_ms) * 2 / 3 - 1_000, "not earlier: {first} {second}");
    assert!(renewed_ms < to_ms, "not later: {first} {second}");
    assert_eq!(second["last_error"], "");
}

#[test]
fn an_authority_that_does_not_believe_us_is_left_alone_for_a_while() {
    if lacks() {
        return;
    }
    let mut world = World::new(&[]);
    // It looks at a port where nobody shows it anything.
    world.pebble.start(&pebble::Settings {
        http: node::free_port(),
        https: world.https,
        ..pebble::Settings::default()
    });
    world.deploy("lost.test");
    let row = wait::until("what is wrong is said", 30, || {
        let row = world.listed("lost.test")?;
        row["last_error"].as_str().is_some_and(|said| said.contains("does not believe")).then_some(row)
    });
    let now_ms = world::clock::unix_ms();
    let pause_ms = row["retry_ms"].as_u64().expect("a date").saturating_sub(now_ms);
    assert!(pause_ms > 30_000, "a minute, give or take: {pause_ms}");
    world.node.kill();
    world.node.launch();
    let again = wait::until("it is remembered", 20, || {
        world.listed("lost.test").filter(|one| one["last_error"] == row["last_error"])
    });
    assert_eq!(again["retry_ms"], row["retry_ms"], "when it is asked next does not change");
    assert_eq!(world.pebble.orders(), 1, "{}", world.pebble.log());
}

/// A webhook that puts records where the authority looks, once it is let.
struct Webhook {
    url: String,
    /// What it was told, each with the connection that waits for its answer.
    told: mpsc::Receiver<(Value, TcpStream)>,
}

impl Webhook {
    fn start() -> Webhook {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let url = format!("http://{}/records", listener.local_addr().expect("an address"));
        let (send, told) = mpsc::sync_channel(16);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(body) = body(&stream) else { continue };
                if send.send((body, stream)).is_err() {
                    return;
                }
            }
        });
        Webhook { url, told }
    }

    fn next(&self) -> (Value, TcpStream) {
        self.told.recv_timeout(std::time::Duration::from_secs(60)).expect("the webhook is told")
    }

    /// Does what it was told.
    fn obey(&self, (told, mut stream): (Value, TcpStream), names: SocketAddr) -> Value {
        let host = format!("{}.", told["name"].as_str().expect("a name"));
        let (path, asked) = match told["action"].as_str() {
            Some("present") => ("/set-txt", serde_json::json!({"host": host, "value": told["value"]})),
            Some("cleanup") => ("/clear-txt", serde_json::json!({"host": host})),
            other => panic!("no action: {other:?}"),
        };
        let answer = http::request(names, "POST", path, &[], asked.to_string().as_bytes()).expect("an answer");
        assert_eq!(answer.status, 200);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").expect("it waits");
        told
    }
}

fn body(stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

#[test]
fn a_wildcard_is_proven_by_records_and_an_order_survives_kill_9() {
    if lacks() {
        return;
    }
    let webhook = Webhook::start();
    let mut world = World::new(&["--acme-challenge", "dns-01", "--acme-dns-webhook", &webhook.url]);
    world.start_authority(None);
    world.deploy("*.wild.test");
    let (first, _unanswered) = webhook.next();
    assert_eq!((&first["action"], &first["name"]), (&"present".into(), &"_acme-challenge.wild.test".into()));
    let order = std::fs::read_to_string(world.kept().join("-.wild.test.order")).expect("the order is kept");
    world.node.kill();
    world.node.launch();
    let again = webhook.obey(webhook.next(), world.pebble.names());
    assert_eq!(again, first, "the same order asks for the same record");
    let cleaned = webhook.obey(webhook.next(), world.pebble.names());
    assert_eq!((&cleaned["action"], &cleaned["value"]), (&"cleanup".into(), &first["value"]));
    world.obtained("*.wild.test");
    let root = world.pebble.issuing_root();
    wait::until("it is shown", 10, || world.trusts("a.wild.test", &root).then_some(()));
    let order: Value = serde_json::from_str(&order).expect("an order");
    let kept = std::fs::read_to_string(world.kept().join("-.wild.test.pem")).expect("a certificate");
    assert!(kept.contains(order["key_pem"].as_str().expect("a key").trim()), "it is for the key of the first process");
    assert!(!world.kept().join("-.wild.test.order").exists(), "the order is through");
}
