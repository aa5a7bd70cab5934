//! The door and the gateway from both ends: who reaches whom, by which name, and what everybody else gets.

use crate::deploying::address;
use crate::probe::{self, python, run};
use lab::{Node, http, node, wait};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Speaks first: who it is, and whom it sees.
const GREETER: &str = r#"
import os, socket, threading
def serve(port):
    listener = socket.create_server(("0.0.0.0", port))
    while True:
        client, seen = listener.accept()
        client.sendall(f"{os.environ['NAME']} at {port} to {seen[0]}".encode())
        client.close()
for port in (9001, 9002): threading.Thread(target=serve, args=(port,)).start()
"#;

/// Talks all the time to everybody, and says to who asks what each of the last twenty said before it left.
const FLOODER: &str = r#"
import queue, socket, threading
heard = queue.Queue()
def flood(client):
    try:
        while True: client.sendall(b"x" * 65536)
    except OSError: pass
def hear(client):
    said = b""
    try:
        while more := client.recv(99): said += more
    except OSError: pass
    heard.put(said)
def answer():
    listener = socket.create_server(("0.0.0.0", 9002))
    while True:
        client, _ = listener.accept()
        client.sendall(b",".join(heard.get() for _ in range(20)))
        client.close()
threading.Thread(target=answer).start()
listener = socket.create_server(("0.0.0.0", 9001))
while True:
    client, _ = listener.accept()
    for work in (flood, hear): threading.Thread(target=work, args=(client,)).start()
"#;

/// Answers each datagram with itself and its sender.
const ECHO: &str = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 5300))
while True:
    data, sender = s.recvfrom(65536)
    s.sendto(data + b" to " + sender[0].encode(), sender)
"#;

fn greeter(name: &str, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    let command = python(GREETER);
    format!(
        "  {name}:\n    image: host\n    command: {command}\n    environment: {{NAME: '{name}{{{{.Task.Slot}}}}'}}\n    expose: ['9001']\n{more}"
    )
}

/// What a greeter says to the probe, or how connecting fails.
fn greeted(port: u16, host: &str, at: u16) -> String {
    run(
        port,
        &format!(
            "import socket\ns = socket.create_connection(({host:?}, {at}), 20)\nsay(s.recv(99).decode() or 'nothing')"
        ),
    )
}

#[test]
fn services_meet_by_name_on_shared_networks_and_nowhere_else() {
    let node = Node::start();
    let port = node::free_port();
    let front = probe::service(port, "networks: [inner, shared]");
    let shop = format!(
        "services:\n  front:\n{front}{}{}networks: {{inner: {{}}, hidden: {{}}, shared: {{external: true, name: square}}}}\n",
        greeter("db", "networks: {inner: {aliases: [storage]}}"),
        greeter("vault", "networks: [hidden]"),
    );
    let far = format!(
        "services:\n{}{}networks: {{square: {{external: true}}}}\n",
        greeter("api", "networks: [square]"),
        greeter("own", "")
    );
    node.deployed("shop", &shop);
    node.deployed("far", &far);
    for name in ["db", "storage", "db.shop", "db.shop.internal", "DB", "shop_db"] {
        assert_eq!(greeted(port, name, 9001), "db1 at 9001 to 127.0.0.1", "{name}");
    }
    assert!(greeted(port, "db", 9002).starts_with("db1 at 9002"), "a port nobody declared is reached too");
    assert!(greeted(port, "api.far.internal", 9001).starts_with("api1 "), "another stack's, over a shared network");
    assert!(run(port, "import socket\nsay(socket.gethostbyname('db'))").starts_with("198.1"));
    // Nothing listens there: refused as on any machine, at once.
    let refused = greeted(port, "db", 9003);
    assert!(refused.starts_with("Connection"), "{refused}");

    for (stack, service) in [("shop", "vault"), ("far", "own")] {
        let named = greeted(port, &format!("{service}.{stack}.internal"), 9001);
        assert!(named.starts_with("gaierror"), "not even its name is told: {named}");
        let detail = node.json(&["service", "show", &format!("{stack}/{service}")]);
        let ip = detail["summary"]["address"].as_str().expect("an address").to_owned();
        let refused = greeted(port, &ip, 9001);
        assert!(refused.starts_with("ConnectionResetError") || refused == "nothing", "{refused}");
        node.says("shop", "front", &format!("{stack}/{service} is on none of this service's networks"));
    }
}

#[test]
fn connections_to_a_name_are_spread_over_its_instances() {
    let node = Node::start();
    let port = node::free_port();
    let front = probe::service(port, "");
    node.deployed("shop", &format!("services:\n  front:\n{front}{}", greeter("db", "deploy: {replicas: 3}")));
    let said = run(
        port,
        "import socket\nfor _ in range(30): say(socket.create_connection(('db', 9001), 20).recv(99).decode())",
    );
    let who: BTreeSet<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(who, BTreeSet::from(["db1", "db2", "db3"]), "{said}");
    // One of three dies: nobody who connects by name afterwards notices. A connection at it in that very moment is lost
    // with it, so the walk begins when its death is told.
    let id = node.instances().iter().find_map(|one| {
        let id = one["instance"]["id"].as_str()?;
        id.starts_with("shop.db.").then(|| id.to_owned())
    });
    let id = id.expect("an instance");
    assert_eq!(node.call("POST", &format!("/v1/instances/{id}/kill"), "").status, 202);
    wait::until("its death is told", 10, || {
        let status = node.instances().into_iter().find(|one| one["instance"]["id"] == id.as_str())?["status"].clone();
        (status["ready"] == false || status["restarts"].as_u64() > Some(0)).then_some(())
    });
    let said = run(
        port,
        "import socket\nfor _ in range(30): say(socket.create_connection(('db', 9001), 20).recv(99).decode())",
    );
    assert_eq!(said.lines().filter(|line| line.starts_with("db")).count(), 30, "{said}");
}

/// A connection that is left in the midst of much that comes is reset, behind what was said last.
#[test]
fn the_last_words_of_who_leaves_in_the_middle_of_much_arrive() {
    let node = Node::start();
    let port = node::free_port();
    let (front, command) = (probe::service(port, ""), python(FLOODER));
    node.deployed(
        "talk",
        &format!(
            "services:\n  front:\n{front}  much:\n    image: host\n    command: {command}\n    expose: ['9001']\n"
        ),
    );
    let said = run(
        port,
        r#"
import socket
for _ in range(20):
    s = socket.create_connection(("much", 9001), 20)
    s.recv(65536)
    s.sendall(b"bye")
    s.close()
say(socket.create_connection(("much", 9002), 20).recv(999).decode())"#,
    );
    assert_eq!(said, ["bye"; 20].join(","));
}

/// An address of this machine that is not loopback, if it has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only says which address it would be sent from.
    socket.connect("192.0.2.77:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[test]
fn nothing_leaves_that_is_not_declared() {
    let Some(ip) = own_address() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let listener = TcpListener::bind((ip, 0)).expect("our own address has free ports");
    let at = listener.local_addr().expect("a listener has an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"outside");
        }
    });
    let node = Node::start();
    let port = node::free_port();
    let deploy =
        |egress: &str| node.deployed("shop", &format!("services:\n  front:\n{}", probe::service(port, egress)));
    let out = || greeted(port, &ip.to_string(), at);
    deploy("");
    let refused = out();
    assert!(refused.starts_with("ConnectionResetError") || refused == "nothing", "{refused}");
    node.says("shop", "front", &format!("egress to {ip}:{at}"));
    assert!(run(port, "import socket\nsocket.gethostbyname('example.org')").starts_with("gaierror"));
    node.says("shop", "front", "name example.org refused: not declared under x-bramble.egress");
    assert!(node.call("GET", "/metrics", "").text().contains("bramble_door_refused_total{service=\"shop/front\"}"));

    deploy(&format!("x-bramble: {{egress: ['{ip}/32:{at}']}}"));
    assert_eq!(out(), "outside");
    deploy(&format!("x-bramble: {{egress: ['{ip}/32:{}']}}", at.wrapping_add(1)));
    assert_ne!(out(), "outside");
    deploy("x-bramble: {egress: ['*']}");
    assert_eq!(out() == "outside", !is_private(ip), "the whole Internet is not somebody's home");
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64,
        IpAddr::V6(_) => true,
    }
}

#[test]
fn datagrams_go_between_services_and_through_published_ports() {
    let node = Node::start();
    let (port, published) = (node::free_port(), node::free_port());
    let command = python(ECHO);
    let front = probe::service(port, "");
    let echo =
        format!("  echo:\n    image: host\n    command: {command}\n    ports: ['0.0.0.0:{published}:5300/udp']\n");
    node.deployed("shop", &format!("services:\n  front:\n{front}{echo}"));

    let ask = |from: &str, to: SocketAddr, text: &str| {
        let socket = UdpSocket::bind(from).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a deadline");
        // The program may not have bound its socket when the first datagrams come: they are lost, as datagrams are.
        wait::until(&format!("{} bytes come back from {to} to {from}", text.len()), 10, || {
            socket.send_to(text.as_bytes(), to).ok()?;
            let mut answer = [0; 65_536];
            let (length, _) = socket.recv_from(&mut answer).ok()?;
            Some(String::from_utf8_lossy(&answer[..length]).into_owned())
        })
    };
    assert_eq!(ask("127.0.0.1:0", address(published), "ping"), "ping to 127.0.0.1");
    let large = "x".repeat(20_000);
    assert_eq!(ask("127.0.0.1:0", address(published), &large).len(), large.len() + " to 127.0.0.1".len());
    if let Some(ip) = own_address() {
        let from = SocketAddr::new(ip, 0).to_string();
        assert_eq!(
            ask(&from, SocketAddr::new(ip, published), "who"),
            format!("who to {ip}"),
            "the client's own address"
        );
    }
    let inside = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(5)\ns.sendto(b'hello', ('echo', 5300))\nsay(s.recv(99).decode())";
    assert!(run(port, inside).starts_with("hello to "), "{}", run(port, inside));
}

/// Reads what comes within the deadline, up to `length` bytes.
fn read(stream: &mut TcpStream, length: usize) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    let mut text = vec![0; length];
    let mut at = 0;
    while at < length {
        match stream.read(&mut text[at..]) {
            Ok(0) | Err(_) => break,
            Ok(more) => at += more,
        }
    }
    String::from_utf8_lossy(&text[..at]).into_owned()
}

/// Changes protocols, then says everything back in upper case.
const UPGRADER: &str = r#"
import http.server, socketserver
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("Upgrade") != "websocket":
            body = str(self.headers).encode() + self.client_address[0].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return self.wfile.write(body)
        self.connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := self.connection.recv(4096): self.connection.sendall(data.upper())
        self.close_connection = True
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), H).serve_forever()
"#;

#[test]
fn a_published_port_carries_whatever_is_spoken() {
    let node = Node::start();
    let (first, web) = (node::free_port(), node::free_port());
    let published = format!("ports: ['127.0.0.1:{first}:9001']");
    let command = python(UPGRADER);
    let file = format!(
        "services:\n{}  web:\n    image: host\n    command: {command}\n    ports: ['0.0.0.0:{web}:8000']\n    x-bramble: {{routes: [{{host: shop.example, port: 8000}}]}}\n",
        greeter("db", &published)
    );
    node.deployed("shop", &file);
    let mut stream = TcpStream::connect(address(first)).expect("the port is open");
    assert!(read(&mut stream, 99).starts_with("db1 at 9001"), "whoever speaks second hears the server first");

    for (to, host) in [(address(web), "localhost"), (node.http, "shop.example")] {
        let mut stream = TcpStream::connect(to).expect("the port is open");
        let head = format!(
            "GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("it is read");
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            let more = read(&mut stream, 1);
            assert!(!more.is_empty(), "{host}: {answer}");
            answer.push_str(&more);
        }
        assert!(answer.starts_with("HTTP/1.1 101"), "{host}: {answer}");
        for word in ["one", "two"] {
            stream.write_all(word.as_bytes()).expect("it is read");
            assert_eq!(read(&mut stream, 3), word.to_uppercase(), "{host}");
        }
    }

    let forged = [("Host", "shop.example"), ("X-Forwarded-For", "203.0.113.9")];
    let seen = http::request(node.http, "GET", "/", &forged, b"").expect("an answer").text();
    let told = seen.lines().find(|line| line.to_ascii_lowercase().starts_with("x-forwarded-for:"));
    assert_eq!(told.map(str::trim_end).map(|line| line.ends_with("127.0.0.1")), Some(true), "{seen}");
    assert!(seen.to_ascii_lowercase().contains("x-forwarded-proto: http"), "{seen}");
    if let Some(ip) = own_address() {
        let seen = http::get(SocketAddr::new(ip, web), "/").expect("an answer").text();
        assert!(
            seen.contains(&format!("or: {ip}")) || seen.ends_with(&ip.to_string()),
            "the client's own address: {seen}"
        );
    }
    assert_eq!(
        http::request(node.http, "GET", "/", &[("Host", "nobody.example")], b"").expect("an answer").status,
        404
    );
}
