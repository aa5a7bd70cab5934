//! What the tests stand on: an authority, machines, and a handler whose methods tell what happens to them.

use bytes::Bytes;
use meter::{Meter, Value};
use pki::{Authority, MachineKey, NodeCertificate};
use rpc::{
    Access, Answer, Call, Caller, Code, Credentials, Failure, Handler, Identity, Messages, Method, Opening, Patience,
    Peers, Revoked, Server, Shape, Terms, Working,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use wire::identity::{ClusterId, NodeId};

/// Long enough for a machine that is busy with other things; no test waits for it.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) fn now_s() -> i64 {
    i64::try_from(world::clock::unix_ms() / 1_000).unwrap()
}

pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) authority: Authority,
}

pub(crate) struct Machine {
    pub(crate) key: MachineKey,
    pub(crate) identity: Identity,
    pub(crate) revoked: Revoked,
    pub(crate) meter: Meter,
    pub(crate) patience: Patience,
}

impl Cluster {
    pub(crate) fn new() -> Cluster {
        Cluster::of("test")
    }

    /// Signed for by an authority of this name.
    pub(crate) fn of(authority: &str) -> Cluster {
        let authority = Authority::create(authority, now_s()).unwrap();
        Cluster { id: "testcluster".parse().unwrap(), authority }
    }

    pub(crate) fn certify(&self, key: &MachineKey, now_s: i64) -> NodeCertificate {
        self.authority.enrol(&self.id, &key.request().unwrap(), None, now_s).unwrap()
    }

    pub(crate) fn credentials(&self, key: &MachineKey, now_s: i64) -> Credentials {
        let certificate = self.certify(key, now_s);
        let root = certificate.chain[1].clone();
        Credentials::new(certificate.chain, key.der(), vec![root]).unwrap()
    }

    pub(crate) fn machine(&self) -> Machine {
        self.machine_since(now_s())
    }

    /// One with a certificate of that time.
    pub(crate) fn machine_since(&self, now_s: i64) -> Machine {
        let key = MachineKey::create().unwrap();
        let identity = Identity::new(self.credentials(&key, now_s));
        Machine { key, identity, revoked: Revoked::new(), meter: Meter::new(), patience: Patience::default() }
    }
}

impl Machine {
    pub(crate) fn node(&self) -> NodeId {
        self.key.node()
    }

    pub(crate) async fn serve(&self, handler: Arc<dyn Handler>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.serve_at(listener, handler)
    }

    pub(crate) fn serve_at(&self, listener: TcpListener, handler: Arc<dyn Handler>) -> Server {
        let (identity, revoked) = (self.identity.clone(), self.revoked.clone());
        Server::serve(listener, identity, revoked, handler, self.patience, &self.meter).unwrap()
    }

    pub(crate) fn peers(&self) -> Peers {
        Peers::new(self.identity.clone(), self.revoked.clone(), self.patience, &self.meter)
    }

    /// The way to one other machine.
    pub(crate) fn peers_with(&self, other: &Machine, address: SocketAddr) -> Peers {
        let peers = self.peers();
        peers.set_addresses(other.node(), &[address]);
        peers
    }

    /// How many connections came to nothing at this machine for that reason.
    pub(crate) fn failed(&self, side: &str, reason: &str) -> f64 {
        self.counted("bramble_rpc_handshakes_failed_total", &[("side", side), ("reason", reason)])
    }

    /// Waits until some have.
    pub(crate) async fn until_failed(&self, side: &str, reason: &str) {
        until(|| self.failed(side, reason) > 0.0, &format!("{side}: {reason}")).await;
    }

    pub(crate) fn counted(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.meter.samples();
        let found = samples.iter().find(|sample| {
            sample.name == name
                && labels.iter().all(|(name, value)| sample.labels.iter().any(|(n, v)| n == name && &**v == *value))
        });
        match found.map(|sample| &sample.value) {
            Some(Value::Counter(value) | Value::Gauge(value)) => *value,
            Some(Value::Histogram { .. }) | None => 0.0,
        }
    }
}

/// Waits for what happens by itself and tells nobody.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool, what: &str) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "{what}");
}

/// Methods for every purpose.
pub(crate) struct Stage {
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// Lets `hold` go on.
    pub(crate) release: Notify,
    /// What `count` counts to.
    pub(crate) count_to: watch::Sender<u32>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Began(&'static str),
    Dropped(&'static str),
    /// Messages a watch has got rid of.
    Sent(u32),
    /// How a tunnel ended for its method.
    Read(Result<Vec<u8>, std::io::ErrorKind>),
    /// What came over a connection that a tunnel carried, and whether it broke.
    Heard {
        heard: Vec<u8>,
        broke: bool,
    },
}

impl Stage {
    pub(crate) fn new() -> (Arc<Stage>, mpsc::UnboundedReceiver<Event>) {
        let (events, heard) = mpsc::unbounded_channel();
        (Arc::new(Stage { events, release: Notify::new(), count_to: watch::Sender::new(3) }), heard)
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// Tells when what holds it is dropped.
struct Bell(mpsc::UnboundedSender<Event>, &'static str);

impl Drop for Bell {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Dropped(self.1));
    }
}

pub(crate) const CLOSED: Method = Method::call("test/closed");

impl Handler for Stage {
    fn methods(&self) -> Vec<Method> {
        let calls = ["test/echo", "test/hold", "test/fail", "test/panic", "test/who", "test/large"].map(Method::call);
        let watches = ["test/count", "test/flood", "test/endless"].map(Method::watch);
        let tunnels =
            ["test/loop", "test/refuse", "test/sink", "test/drop", "test/half", "test/carry"].map(Method::tunnel);
        let open = Method { name: "test/open", shape: Shape::Call, access: Access::Anyone };
        calls.into_iter().chain(watches).chain(tunnels).chain([CLOSED, open]).collect()
    }

    fn call(&self, call: Call) -> Working<'_, Answer> {
        Box::pin(async move {
            match call.method {
                "test/echo" => Ok(Answer { bytes: call.request, trace: call.trace }),
                "test/hold" => {
                    let _bell = Bell(self.events.clone(), call.method);
                    self.tell(Event::Began(call.method));
                    self.release.notified().await;
                    Ok(Answer::default())
                }
                "test/fail" => {
                    Err(Failure::new(Code::NotFound, "there is no such thing: ü").with_hint("look elsewhere"))
                }
                "test/panic" => panic!("on purpose"),
                "test/large" => Ok(vec![7; rpc::MESSAGE_BYTES_MAX].into()),
                "test/who" | "test/open" => Ok(match call.caller {
                    Caller::Node { node, .. } => node.to_string().into_bytes().into(),
                    Caller::Stranger { .. } => b"stranger".to_vec().into(),
                }),
                other => Err(Failure::new(Code::Unimplemented, other)),
            }
        })
    }

    fn watch(&self, call: Call, to: Messages) -> Working<'_, ()> {
        Box::pin(async move {
            let _bell = Bell(self.events.clone(), call.method);
            match call.method {
                "test/count" => {
                    let mut wanted = self.count_to.subscribe();
                    let mut at = 0;
                    loop {
                        while at < *wanted.borrow_and_update() {
                            at += 1;
                            to.send(at.to_be_bytes().to_vec()).await?;
                        }
                        if at >= 10 {
                            return Err(Failure::new(Code::FailedPrecondition, "cannot count any further"));
                        }
                        if at >= 5 {
                            return Ok(());
                        }
                        wanted.changed().await.unwrap();
                    }
                }
                "test/flood" => {
                    for sent in 1.. {
                        to.send(vec![0; 64 << 10]).await?;
                        self.tell(Event::Sent(sent));
                    }
                    Ok(())
                }
                _ => std::future::pending().await,
            }
        })
    }

    fn tunnel(&self, call: Call, opening: Opening) -> Working<'_, ()> {
        Box::pin(async move {
            let _bell = Bell(self.events.clone(), call.method);
            let broken = |error: std::io::Error| Failure::new(Code::Internal, error.to_string());
            match call.method {
                "test/loop" => {
                    let mut tunnel = opening.accept();
                    tunnel.write_all(&call.request).await.map_err(broken)?;
                    let (mut reader, mut writer) = tunnel.into_split();
                    while let Some(bytes) = reader.chunk().await.map_err(broken)? {
                        writer.write_all(&bytes).await.map_err(broken)?;
                    }
                    writer.shutdown().await.map_err(broken)
                }
                "test/refuse" => Err(Failure::new(Code::Unavailable, "nobody listens at web:80").with_hint("later")),
                "test/half" => {
                    // Says its half first, and hears the other to the end.
                    let (mut reader, mut writer) = opening.accept().into_split();
                    writer.write_all(b"all I have to say").await.map_err(broken)?;
                    writer.shutdown().await.map_err(broken)?;
                    let mut heard = Vec::new();
                    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut heard).await;
                    self.tell(Event::Read(read.map(|_| heard).map_err(|error| error.kind())));
                    Ok(())
                }
                "test/carry" => {
                    // Somebody at the end of a connection who talks all the time, and tells what it heard.
                    let (app, carried) = connection().await;
                    let (mut hears, mut talks) = app.into_split();
                    let mut heard = Vec::new();
                    let talk = async move { while talks.write_all(&[b'x'; 1 << 16]).await.is_ok() {} };
                    let listen = async { while matches!(hears.read_buf(&mut heard).await, Ok(1..)) {} };
                    let (carried, (), ()) = tokio::join!(opening.accept().carry(carried), talk, listen);
                    // A break is told as one: what was heard is not all there was.
                    self.tell(Event::Heard { heard, broke: carried.is_err() });
                    Ok(())
                }
                "test/drop" => {
                    let mut tunnel = opening.accept();
                    tunnel.write_all(b"half a wo").await.map_err(broken)?;
                    self.release.notified().await;
                    Ok(())
                }
                _ => {
                    // Reads nothing until it is told to.
                    let (mut reader, _writer) = opening.accept().into_split();
                    self.tell(Event::Began(call.method));
                    self.release.notified().await;
                    let mut heard = Vec::new();
                    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut heard).await;
                    self.tell(Event::Read(read.map(|_| heard).map_err(|error| error.kind())));
                    Ok(())
                }
            }
        })
    }
}

/// A connection of TCP: both its ends.
pub(crate) async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A server, a client of it, and the way between.
pub(crate) struct Pair {
    pub(crate) cluster: Cluster,
    pub(crate) server: Machine,
    pub(crate) client: Machine,
    pub(crate) peers: Peers,
    pub(crate) serving: Server,
    pub(crate) stage: Arc<Stage>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
}

impl Pair {
    pub(crate) async fn new() -> Pair {
        Pair::patient(Patience::default()).await
    }

    pub(crate) async fn patient(patience: Patience) -> Pair {
        let cluster = Cluster::new();
        let (mut server, mut client) = (cluster.machine(), cluster.machine());
        server.patience = patience;
        client.patience = patience;
        let (stage, events) = Stage::new();
        let serving = server.serve(Arc::clone(&stage) as Arc<dyn Handler>).await;
        let peers = client.peers_with(&server, serving.address());
        Pair { cluster, server, client, peers, serving, stage, events }
    }

    pub(crate) async fn call(&self, method: &'static str, request: impl Into<Bytes>) -> Result<Answer, rpc::CallError> {
        self.peers.call(self.server.node(), method, request, Terms::within(LONG)).await
    }

    pub(crate) async fn event(&mut self) -> Event {
        tokio::time::timeout(LONG, self.events.recv()).await.expect("something happens").expect("the stage stands")
    }
}
