//! Durable writes of the state of record beside etcd: three members each, on the same disk, with the same load through the
//! same API, one after the other in the same run.

use super::figures::{median, milliseconds};
use super::report::{Goal, Row};
use super::{Measured, Options};
use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http::header::{CONTENT_TYPE, TE};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::node::free_port;
use lab::{Node, Settings, wait};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

const MEMBERS: usize = 3;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);
/// Before each round, so that connections and caches are there.
const WARM: Duration = Duration::from_millis(500);
const CLIENTS: [usize; 3] = [1, 16, 128];
const VALUE_BYTES: usize = 256;
const KEYS: u64 = 10_000;
const PUT: &str = "/etcdserverpb.KV/Put";
const RATE_GOAL: f64 = 1.0;

/// One round's outcome.
#[derive(Debug, Clone, Default)]
struct Round {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// What is told of rounds: its name, its unit, where it is, and what it is to be.
type Figure = (&'static str, &'static str, fn(&Round) -> f64, Goal);

pub(super) fn run(_options: &Options) -> Measured {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let ours = Ours::start();
    let theirs = Theirs::start();
    if theirs.is_none() {
        println!("etcd is not installed (Debian: etcd-server): ours alone");
    }
    let mut rows = Vec::new();
    for clients in CLIENTS {
        let (mut own, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            own.push(runtime.block_on(round(&ours.addresses, clients)));
            if let Some(theirs) = &theirs {
                peer.push(runtime.block_on(round(&theirs.addresses, clients)));
            }
        }
        let of = |rounds: &[Round], read: fn(&Round) -> f64| median(&rounds.iter().map(read).collect::<Vec<_>>());
        let figures: [Figure; 3] = [
            ("durable puts", "puts/s", |round| round.per_second, Goal::LeastTimesPeer(RATE_GOAL)),
            ("put, median", "ms", |round| round.p50_ms, Goal::None),
            ("put, p99", "ms", |round| round.p99_ms, Goal::TimesPeer(1.0 / RATE_GOAL)),
        ];
        for (what, unit, read, goal) in figures {
            let goal = if theirs.is_some() { goal } else { Goal::None };
            let mut row = Row::new(format!("{what}, {clients} clients"), unit, of(&own, read), Goal::None);
            row.goal = goal;
            rows.push(if theirs.is_some() { row.beside("etcd", of(&peer, read)) } else { row });
        }
    }
    Measured::Rows(rows)
}

struct Ours {
    _nodes: Vec<Node>,
    addresses: Vec<SocketAddr>,
}

impl Ours {
    fn start() -> Ours {
        let addresses: Vec<SocketAddr> = (0..MEMBERS).map(|_| (Ipv4Addr::LOCALHOST, free_port()).into()).collect();
        let mut nodes: Vec<Node> = Vec::new();
        for address in &addresses {
            let token = nodes.first().map(|first| first.join_token(&[]));
            let arguments = vec!["--etcd".to_owned(), address.to_string()];
            nodes.push(Node::with(Settings { token, arguments, ..Settings::default() }));
        }
        wait::until("three vote", 60, || nodes[0].log().contains("voters=3").then_some(()));
        Ours { _nodes: nodes, addresses }
    }
}

struct Theirs {
    _folder: tempfile::TempDir,
    members: Vec<Child>,
    addresses: Vec<SocketAddr>,
}

impl Theirs {
    /// Beside our data: the same disk.
    fn start() -> Option<Theirs> {
        let folder = tempfile::Builder::new().prefix("bramble-lab-").tempdir().expect("a temporary folder");
        let ports: Vec<(u16, u16)> = (0..MEMBERS).map(|_| (free_port(), free_port())).collect();
        let all: Vec<String> =
            ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}")).collect();
        let mut theirs = Theirs { _folder: folder, members: Vec::new(), addresses: Vec::new() };
        for (at, (client, peer)) in ports.iter().enumerate() {
            let (client_url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let member = Command::new("etcd")
                .args(["--name", &format!("m{at}"), "--initial-cluster", &all.join(",")])
                .arg("--data-dir")
                .arg(theirs._folder.path().join(format!("m{at}")))
                .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
                .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            theirs.members.push(member.ok()?);
            theirs.addresses.push((Ipv4Addr::LOCALHOST, *client).into());
        }
        for address in &theirs.addresses {
            wait::until("etcd is healthy", 30, || {
                lab::http::get(*address, "/health").ok().filter(|answer| answer.text().contains("true"))
            });
        }
        Some(theirs)
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// Each client puts one key after the other; clients are spread over the members.
async fn round(addresses: &[SocketAddr], clients: usize) -> Round {
    let mut connections = Vec::new();
    for address in addresses {
        connections.push(connect(*address).await);
    }
    let mut working = Vec::new();
    for client in 0..clients {
        let sender = connections[client % connections.len()].clone();
        working.push(world::task::spawn("client", put_on(sender, client as u64)));
    }
    let mut times = Vec::new();
    for client in working {
        times.extend(client.join().await.expect("no client fails"));
    }
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).copied().map_or(0.0, milliseconds)
    };
    Round { per_second: times.len() as f64 / ROUND.as_secs_f64(), p50_ms: at(0.5), p99_ms: at(0.99) }
}

async fn connect(address: SocketAddr) -> SendRequest<Whole> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket takes its options");
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("it speaks HTTP/2");
    world::task::spawn("connection", async move { drop(connection.await) }).detach();
    sender
}

async fn put_on(mut sender: SendRequest<Whole>, client: u64) -> Vec<Duration> {
    let began = world::clock::monotonic();
    let mut times = Vec::new();
    loop {
        let key = format!("bench/{:08}", (client.wrapping_mul(7919) + times.len() as u64 * 104_729) % KEYS);
        let asked = world::clock::monotonic();
        put(&mut sender, &key).await;
        let (took, since) = (asked.elapsed(), began.elapsed());
        if since > WARM + ROUND {
            return times;
        }
        if since > WARM {
            times.push(took);
        }
    }
}

async fn put(sender: &mut SendRequest<Whole>, key: &str) {
    let mut message = BytesMut::new();
    let field = |number: u8, value: &[u8], message: &mut BytesMut| {
        message.put_u8(number << 3 | 2);
        // Two bytes hold any length here.
        message.put_u8(u8::try_from(value.len() & 0x7f).expect("seven bits") | 0x80);
        message.put_u8(u8::try_from(value.len() >> 7).expect("a short value"));
        message.put_slice(value);
    };
    field(1, key.as_bytes(), &mut message);
    field(2, &[b'x'; VALUE_BYTES], &mut message);
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a short message"));
    frame.put_slice(&message);
    let request = Request::post(format!("http://bench{PUT}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Whole(Some(frame.freeze())))
        .expect("a request of fixed parts");
    sender.ready().await.expect("the connection stays");
    let answer = sender.send_request(request).await.expect("an answer");
    let at_once = answer.headers().get("grpc-status").cloned();
    let status = at_once.or(trailer(answer.into_body()).await).expect("a status");
    assert_eq!(status.as_bytes(), b"0", "a put is done");
}

/// Reads an answer to its end.
async fn trailer(body: Incoming) -> Option<http::HeaderValue> {
    let mut body = pin!(body);
    let mut status = None;
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        if let Ok(trailers) = frame.expect("an answer to its end").into_trailers() {
            status = trailers.get("grpc-status").cloned();
        }
    }
    status
}

/// A body of one piece.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
