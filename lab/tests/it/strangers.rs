//! Somebody on the machines' network who is none of them: floods of garbage, of pieces and of repetitions of what they said to
//! each other, at the ports for machines. They go on as before.

use crate::alerts::alert;
use crate::cluster::{known, machines, web};
use lab::load::Load;
use lab::{Machines, Node, wait};
use std::process::{Child, Command, Stdio};

/// Writes so many datagrams that machine 1 was sent, as frames in hexadecimal.
const LISTEN: &str = r#"
import socket, sys
port, path, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((port, 0))
frames = []
while len(frames) < wanted:
    frame = s.recv(2048)
    if len(frame) > 42 and frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == (7701).to_bytes(2, "big"):
        frames.append(frame.hex())
open(path, "w").write("\n".join(frames))
"#;

/// Who takes another's hardware address as well gets its frames, whatever that machine runs: this one keeps its own.
/// Sends until it is killed: bytes from a generator with a seed, whole and cut datagrams that were heard, as itself and as who sent
/// them, and connections that say garbage, a piece of a greeting, or nothing.
const FLOOD: &str = r#"
import random, socket, sys, threading
path, targets = sys.argv[1], sys.argv[2:]
frames = [bytes.fromhex(line) for line in open(path)]
def datagrams():
    dice = random.Random(1)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind(("v0", 0))
    mac = raw.getsockname()[4]
    while True:
        to = (dice.choice(targets), 7701)
        heard = dice.choice(frames)[42:]
        kind = dice.randrange(5)
        try:
            if kind == 0: udp.sendto(dice.randbytes(dice.randrange(1400)), to)
            elif kind == 1: udp.sendto(heard[:dice.randrange(len(heard))], to)
            elif kind == 2: udp.sendto(heard, to)
            elif kind == 3:
                changed = bytearray(heard)
                changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
                udp.sendto(changed, to)
            else:
                frame = dice.choice(frames)
                raw.send(frame[:6] + mac + frame[12:])
            udp.sendto(dice.randbytes(dice.randrange(600)), (to[0], 7702))
        except OSError: pass
def connections():
    dice = random.Random(2)
    silent = []
    hello = bytes.fromhex("1603010200010001fc0303")
    while True:
        try:
            tcp = socket.create_connection((dice.choice(targets), 7701), 2)
            kind = dice.randrange(4)
            if kind == 0: tcp.send(dice.randbytes(1 + dice.randrange(4000)))
            elif kind == 1: tcp.send(hello + dice.randbytes(dice.randrange(500)))
            elif kind == 2: tcp.send(hello[:dice.randrange(1, 11)])
            silent.append(tcp)
            if len(silent) > 50: silent.pop(0).close()
        except OSError: pass
for work in [datagrams, connections, connections]:
    threading.Thread(target=work).start()
"#;

/// Dropped, it ends.
struct Flood(Child);

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.kill().expect("our own child can be killed");
        self.0.wait().expect("our own child can be waited for");
    }
}

fn python(script: &str, arguments: &[String]) -> Child {
    let mut python = Command::new("python3");
    python.args(["-c", script]).args(arguments).stdin(Stdio::null()).spawn().expect("python runs")
}

/// How often it has counted this.
fn counted(node: &Node, name: &str) -> f64 {
    let metrics = node.call("GET", "/metrics", "").text();
    let values = metrics.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[test]
fn a_flood_of_garbage_and_of_repetitions_disturbs_nobody() {
    let Some(mut cluster) = Machines::in_network(3) else { return };
    wait::until("three vote", 60, || cluster.node(1).log().contains("voters=3").then_some(()));
    cluster.node(1).deployed("shop", &web(3));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let heard = folder.path().join("frames").to_string_lossy().into_owned();
    let mut listening = python(LISTEN, &["p1".to_owned(), heard.clone(), "100".to_owned()]);
    assert!(listening.wait().expect("our own child can be waited for").success());
    let stranger = cluster.stranger().expect("it finds a place");
    let targets = (1..=3).map(|number| cluster.node(number).peers.ip().to_string());
    let arguments: Vec<String> = std::iter::once(heard).chain(targets).collect();
    let load = Load::start(2, cluster.node(1).http, "web.test");
    let flood = Flood(stranger.inside(|| python(FLOOD, &arguments)));
    for number in 1..=3 {
        let node = cluster.node(number);
        wait::until("it has refused thousands of datagrams", 60, || {
            (counted(node, "bramble_gossip_refused_total") > 5_000.0).then_some(())
        });
        wait::until("strangers at its door are an alert", 60, || alert(node, "machines_refused"));
    }
    for replicas in [4, 3] {
        let scaled = cluster.node(2).cli(&["service", "scale", "shop/web", &replicas.to_string()]);
        assert!(scaled.status.success(), "{}", String::from_utf8_lossy(&scaled.stderr));
    }
    wait::until("all know of it", 40, || (1..=3).all(|number| machines(cluster.node(number)).len() == 3).then_some(()));
    drop(flood);
    let report = load.stop();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!((known(cluster.node(3)), cluster.count_up()), (3, 3));
    for number in 1..=3 {
        let log = cluster.node(number).log();
        assert!(!log.contains("a machine is down") && !log.contains("panicked"), "{log}");
    }
}
