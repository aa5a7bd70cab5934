//! Programs made for etcd, unchanged: its own command line, Patroni's client, and etcd itself with the same requests.

use lab::node::free_port;
use lab::{Node, Settings, http, wait};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A node that serves clients of etcd.
struct Served {
    node: Node,
    address: SocketAddr,
}

impl Served {
    fn start(token: Option<String>) -> Served {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let arguments = vec!["--etcd".to_owned(), address.to_string()];
        let node = Node::with(Settings { arguments, token, ..Settings::default() });
        Served { node, address }
    }

    /// A call as etcd's gateway takes it.
    fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        let headers = [("Content-Type", "application/json")];
        let answer = http::request(self.address, "POST", path, &headers, body.to_string().as_bytes());
        let answer = answer.expect("an answer");
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.address.to_string()]).args(arguments);
        command
    }

    /// What `etcdctl` prints when it succeeds.
    fn etcdctl(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).stdin(Stdio::null()).output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned() + &errors
    }
}

fn lacks(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    !there
}

/// base64 of a key or a value.
fn b(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Beside this file's crate.
fn suite(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("real").join(name)
}

/// A program of etcd's that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        let stdout = self.0.stdout.take().expect("it was asked for");
        BufReader::new(stdout).lines().map_while(Result::ok)
    }
}

#[test]
fn etcdctl_does_what_it_does_with_etcd() {
    if lacks("etcdctl") {
        return;
    }
    let served = Served::start(None);
    let run = |arguments: &[&str]| served.etcdctl(arguments);
    assert_eq!(run(&["put", "a/1", "one"]), "OK\n");
    assert_eq!(run(&["put", "a/2", "two"]), "OK\n");
    assert_eq!(run(&["get", "a/1"]), "a/1\none\n");
    assert_eq!(run(&["get", "--prefix", "a/"]), "a/1\none\na/2\ntwo\n");
    assert_eq!(run(&["get", "--prefix", "a/", "--order", "DESCEND", "--limit", "1", "--keys-only"]), "a/2\n\n");
    assert_eq!(run(&["put", "a/1", "uno", "--prev-kv"]), "OK\na/1\none\n");
    let mut watching = served.command(&["watch", "--prefix", "a/"]);
    let watching = watching.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut watching = Running(watching.expect("it runs"));
    wait::until("the watch is there", 10, || {
        let metrics = served.node.call("GET", "/metrics", "").text();
        metrics.contains("bramble_etcd_watches 1").then_some(())
    });
    let mut lines = watching.lines();
    run(&["put", "a/3", "three"]);
    run(&["del", "a/2"]);
    let seen: Vec<String> = lines.by_ref().take(5).collect();
    assert_eq!(seen, ["PUT", "a/3", "three", "DELETE", "a/2"]);
    let mut txn = served.command(&["txn", "-i"]);
    let txn = txn.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut txn = Running(txn.expect("it runs"));
    let asked = "value(\"a/1\") = \"uno\"\n\nput a/1 eins\nget a/1\n\nput a/1 nothing\n\n";
    txn.0.stdin.take().expect("it was asked for").write_all(asked.as_bytes()).expect("it reads");
    let said: Vec<String> = txn.lines().collect();
    assert!(said.iter().any(|line| line == "SUCCESS") && said.ends_with(&["eins".to_owned()]), "{said:?}");
    let granted = run(&["lease", "grant", "60"]);
    let lease = granted.split(' ').nth(1).expect("`lease ID granted`");
    run(&["put", "a/leased", "x", "--lease", lease]);
    assert!(run(&["lease", "timetolive", lease, "--keys"]).contains("attached keys([a/leased])"));
    assert!(run(&["lease", "list"]).contains(lease));
    assert!(run(&["lease", "keep-alive", "--once", lease]).contains("TTL(60)"));
    run(&["lease", "revoke", lease]);
    assert_eq!(run(&["get", "a/leased"]), "");
    assert!(run(&["member", "list"]).contains(&format!("http://{}", served.address)));
    assert!(run(&["endpoint", "status", "-w", "json"]).contains("\"leader\":"));
    assert!(run(&["endpoint", "health"]).contains("is healthy"));
    assert_eq!(run(&["lock", "mutex", "echo", "held"]), "held\n");
    let mut electing = served.command(&["elect", "office", "me"]);
    let electing = electing.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut electing = Running(electing.expect("it runs"));
    let elected: Vec<String> = electing.lines().take(2).collect();
    assert!(elected[0].starts_with("office/") && elected[1] == "me", "{elected:?}");
    assert!(run(&["defrag"]).contains("Finished"));
    assert!(run(&["get", "--prefix", ""]).contains("office/"));
    assert!(run(&["del", "--prefix", ""]).trim().parse::<u32>().is_ok_and(|count| count >= 3));
    assert_eq!(run(&["get", "--prefix", ""]), "");
}

#[test]
fn patronis_client_leads_and_loses_as_with_etcd() {
    let built = lab::node::binary("lab");
    let python = built.parent().expect("it is in a folder").join("../tools/patroni/bin/python");
    if !python.exists() {
        eprintln!("skipped: Patroni's client is not installed (`./x test` does it)");
        return;
    }
    let served = Served::start(None);
    let output = Command::new(python).arg(suite("patroni/suite.py")).arg(served.address.to_string()).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn etcd_answers_the_same() {
    if lacks("etcd") {
        return;
    }
    let served = Served::start(None);
    let (client, peer) = (format!("127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("http://{client}");
    let etcd = Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _etcd = Running(etcd.expect("it runs"));
    let to: SocketAddr = client.parse().expect("an address");
    wait::until("etcd answers", 20, || http::get(to, "/health").ok().filter(|answer| answer.text().contains("true")));
    let ours = served.address.to_string();
    let output =
        Command::new("python3").arg(suite("etcd/compare.py")).args([&ours, &client]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn clients_never_reach_what_is_brambles() {
    let served = Served::start(None);
    // With others in the cluster its authority's key is in the space; with a stack there are stacks.
    served.node.join_token(&[]);
    served.node.deployed("mine", "services:\n  one: {image: host, command: [sleep, '1000']}\n");
    let everything = json!({"key": "AA==", "range_end": "AA=="});
    assert!(served.ask("/v3/kv/range", &everything).1.get("kvs").is_none(), "there is nothing of a client");
    for key in ["etcd", "../stack/mine", "stack/mine", "authority", "etcd-cluster", ""] {
        let asked = json!({"key": b(key), "range_end": b("\0")});
        assert!(served.ask("/v3/kv/range", &asked).1.get("kvs").is_none(), "{key}");
    }
    assert_eq!(served.ask("/v3/kv/put", &json!({"key": b("stack/mine"), "value": b("x")})).0, 200);
    let (_, deleted) = served.ask("/v3/kv/deleterange", &everything);
    assert_eq!(deleted["deleted"], "1", "only the client's own");
    assert!(served.node.cli(&["stack", "show", "mine"]).status.success(), "what is Bramble's is there");
    assert!(served.ask("/v3/lease/leases", &json!({})).1.get("leases").is_none());
    // A page in somebody's browser names itself.
    let headers = [("Content-Type", "text/plain"), ("Origin", "http://evil.test")];
    let asked = everything.to_string();
    let answer = http::request(served.address, "POST", "/v3/kv/range", &headers, asked.as_bytes());
    assert_eq!(answer.expect("an answer").status, 403);
}

#[test]
fn clients_that_take_nothing_hold_so_much_and_no_more() {
    let served = Served::start(None);
    let value = b(&"v".repeat(1024 * 1024));
    for number in 0..30 {
        let put = json!({"key": b(&format!("large/{number}")), "value": value});
        assert_eq!(served.ask("/v3/kv/put", &put).0, 200);
    }
    let everything = json!({"key": b("large/"), "range_end": b("large0")});
    let asked = everything.to_string();
    let head = format!("POST /v3/kv/range HTTP/1.1\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n", asked.len());
    // There is room for three of the largest; a little of each is read, so that it is there.
    let held = [(); 3].map(|()| {
        let mut client = TcpStream::connect(served.address).expect("it is served");
        client.write_all((head.clone() + &asked).as_bytes()).expect("it is read");
        let mut status = [0; 15];
        client.read_exact(&mut status).expect("an answer begins");
        assert_eq!(&status, b"HTTP/1.1 200 OK");
        client
    });
    let (status, refused) = served.ask("/v3/kv/range", &everything);
    assert_eq!((status, &refused["error"]), (503, &json!("etcdserver: request timed out")));
    let small = json!({"key": b("large/"), "range_end": b("large0"), "count_only": true});
    assert_eq!(served.ask("/v3/kv/range", &small).1["count"], "30", "what is small needs no room");
    drop(held);
    wait::until("there is room again", 30, || (served.ask("/v3/kv/range", &everything).0 == 200).then_some(()));
}

#[test]
fn clients_wait_while_another_process_takes_over() {
    let mut served = Served::start(None);
    let (address, going) = (served.address, std::sync::atomic::AtomicBool::new(true));
    let put = |number: u32| {
        let body = json!({ "key": b(&format!("waits/{number}")), "value": b("x") }).to_string();
        let headers = [("Content-Type", "application/json")];
        http::request(address, "POST", "/v3/kv/put", &headers, body.as_bytes())
    };
    let (answered, refused) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut answered, mut refused) = (Vec::new(), Vec::new());
            for number in 0.. {
                match put(number) {
                    Ok(answer) if answer.status == 200 => answered.push(number),
                    // What was under way when the process before ended its connections.
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => refused.push(error),
                    Err(_) => {}
                }
                if !going.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
            (answered, refused)
        });
        for _ in 0..3 {
            served.node.upgrade(None, &[]).unwrap_or_else(|error| panic!("{error}\n{}", served.node.log()));
        }
        going.store(false, std::sync::atomic::Ordering::Relaxed);
        client.join().expect("it ends")
    });
    assert!(refused.is_empty(), "{} were refused, the first: {:?}", refused.len(), refused.first());
    assert!(answered.len() > 50, "{} were answered", answered.len());
    let (status, kept) =
        served.ask("/v3/kv/range", &json!({ "key": b("waits/"), "range_end": b("waits0"), "count_only": true }));
    let kept = kept["count"].as_str().and_then(|count| count.parse::<usize>().ok());
    assert_eq!(status, 200);
    assert!(kept >= Some(answered.len()), "{kept:?} of {} that were acknowledged", answered.len());
}

#[test]
fn three_machines_are_one_and_outlive_the_one_that_leads() {
    let mut first = Served::start(None);
    let second = Served::start(Some(first.node.join_token(&[])));
    let third = Served::start(Some(first.node.join_token(&[])));
    wait::until("three vote", 60, || first.node.log().contains("voters=3").then_some(()));
    let ids = [&first, &second, &third].map(|one| {
        let (status, answer) = one.ask("/v3/kv/put", &json!({"key": b("k"), "value": b("1")}));
        assert_eq!(status, 200, "{answer}");
        (answer["header"]["cluster_id"].clone(), answer["header"]["revision"].as_str().map(str::len))
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "one cluster, whoever is asked: {ids:?}");
    let read = |from: &Served| from.ask("/v3/kv/range", &json!({"key": b("k")})).1["kvs"][0]["value"].clone();
    second.ask("/v3/kv/put", &json!({"key": b("k"), "value": b("2")}));
    assert_eq!(read(&third), b("2"), "read elsewhere right after");
    let (_, lease) = third.ask("/v3/lease/grant", &json!({"TTL": 60}));
    third.ask("/v3/kv/put", &json!({"key": b("held"), "value": b("x"), "lease": lease["ID"]}));
    first.node.cut_power();
    wait::until("written again", 20, || {
        (second.ask("/v3/kv/put", &json!({"key": b("k"), "value": b("3")})).0 == 200).then_some(())
    });
    assert_eq!(read(&third), b("3"));
    let (_, renewed) = second.ask("/v3/lease/keepalive", &json!({"ID": lease["ID"]}));
    assert_eq!(renewed["result"]["TTL"], "60", "the lease is the next leader's: {renewed}");
}

#[test]
fn an_upgrade_keeps_what_clients_had() {
    let mut served = Served::start(None);
    served.ask("/v3/kv/put", &json!({"key": b("k"), "value": b("1")}));
    let (_, lease) = served.ask("/v3/lease/grant", &json!({"TTL": 60}));
    served.node.upgrade(None, &[]).expect("it takes over");
    let (_, found) = served.ask("/v3/kv/range", &json!({"key": b("k")}));
    assert_eq!(found["kvs"][0]["value"], b("1"));
    let (_, left) = served.ask("/v3/lease/timetolive", &json!({"ID": lease["ID"]}));
    assert_eq!(left["grantedTTL"], "60", "{left}");
}
