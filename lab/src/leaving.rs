//! A client that leaves: how soon the work ends that it caused two services further on.
//!
//! Owns the services: the first asks the second, which works until whoever asked is gone, and says when that was. The
//! way is client → gateway → first → the network between services → second.

use crate::{Node, wait};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Passes a request on and the answer back, and leaves when whoever asked has left.
const FIRST: &str = r#"
import select, socket, threading
def serve(client):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = client.recv(4096)
        if not more: return
        head += more
    second = socket.create_connection(("second", 8000))
    second.sendall(head)
    while True:
        for ready in select.select([client, second], [], [])[0]:
            try: data = ready.recv(4096)
            except OSError: data = b""
            if not data: return client.close(), second.close()
            (second if ready is client else client).sendall(data)
listener = socket.create_server(("0.0.0.0", 8000))
while True: threading.Thread(target=serve, args=(listener.accept()[0],)).start()
"#;

/// Works, a piece at a time, until the one who asked is gone.
const SECOND: &str = r#"
import select, socket, threading, time
def serve(client):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = client.recv(4096)
        if not more: return
        head += more
    name = [line.split(b"-")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"traceparent:")][0].decode()
    speaks = b"/speaks" in head
    if speaks: client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    print("began", name, flush=True)
    try:
        while True:
            end = time.monotonic() + 0.002
            while time.monotonic() < end: pass
            if speaks: client.sendall(b"x" * 100)
            if select.select([client], [], [], 0)[0] and not client.recv(4096): break
    except OSError: pass
    print("stopped", name, int(time.time() * 1e6), flush=True)
listener = socket.create_server(("0.0.0.0", 8000))
while True: threading.Thread(target=serve, args=(listener.accept()[0],)).start()
"#;

/// What became of one request whose client left.
#[derive(Debug, Clone)]
pub struct Left {
    /// From the client's leaving to the end of the work, by the second service's own clock, which is this machine's.
    pub stopped_after: Duration,
    /// The gateway's part of the trace.
    pub record: Value,
}

/// Deploys both services.
pub fn deploy(node: &Node) {
    // JSON's strings are YAML's too; a dollar sign would be a variable.
    let command = |program: &str| format!("[python3, -c, {}]", Value::from(program.replace('$', "$$")));
    let file = format!(
        "services:\n  first:\n    image: host\n    command: {}\n    x-bramble: {{routes: [{{host: leave.test, port: 8000}}]}}\n  second:\n    image: host\n    command: {}\n    expose: ['8000']\n",
        command(FIRST),
        command(SECOND)
    );
    node.deployed("leave", &file);
}

/// Asks, waits until the second service works, leaves, and looks when that was noticed. With `speaks`, the answer is
/// under way by then.
///
/// # Panics
/// When it is not noticed at all.
pub fn leave(node: &Node, trace: &str, speaks: bool) -> Left {
    let mut client = TcpStream::connect(node.http).expect("the gateway listens");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    let path = if speaks { "/speaks" } else { "/silent" };
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: leave.test\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\n\r\n");
    client.write_all(head.as_bytes()).expect("the gateway reads");
    node.says("leave", "second", &format!("began {trace}"));
    if speaks {
        client.read_exact(&mut [0; 64]).expect("the answer is under way");
    }
    let left_us = u128::from(world::clock::unix_ms()) * 1_000;
    drop(client);
    let stopped = node.says("leave", "second", &format!("stopped {trace}"));
    let stopped_us: u128 = stopped.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a time");
    let stopped_after = Duration::from_micros(u64::try_from(stopped_us.saturating_sub(left_us)).unwrap_or(u64::MAX));
    let record = wait::until("the trace tells of it", 10, || {
        let answer = node.call("GET", &format!("/v1/gateway/requests?trace={trace}"), "");
        answer.text().lines().next().and_then(|line| serde_json::from_str(line).ok())
    });
    Left { stopped_after, record }
}
