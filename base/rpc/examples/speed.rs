//! How fast machines speak to each other on one machine: calls over one connection, and bytes through tunnels. Prints
//! figures; judges none.

use meter::Meter;
use pki::{Authority, MachineKey};
use rpc::{
    Answer, Call, Credentials, Failure, Handler, Identity, Method, Opening, Patience, Peers, Revoked, Server, Terms,
    Working,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::identity::NodeId;

/// Long enough to forget the beginning, short enough to be run at a whim.
const LENGTH: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(30);

struct Echo;

impl Handler for Echo {
    fn methods(&self) -> Vec<Method> {
        vec![Method::call("speed/echo"), Method::tunnel("speed/sink"), Method::tunnel("speed/carry")]
    }

    fn call(&self, call: Call) -> Working<'_, Answer> {
        Box::pin(async move { Ok(call.request.into()) })
    }

    fn tunnel(&self, call: Call, opening: Opening) -> Working<'_, ()> {
        Box::pin(async move {
            let lost = |error: std::io::Error| Failure::new(rpc::Code::Unavailable, error.to_string());
            if call.method == "speed/carry" {
                let to = String::from_utf8_lossy(&call.request).into_owned();
                let connection = TcpStream::connect(to).await.map_err(lost)?;
                return opening.accept().carry(connection).await.map_err(lost);
            }
            let (mut reader, mut writer) = opening.accept().into_split();
            let mut count = 0_u64;
            while let Some(bytes) = reader.chunk().await.map_err(lost)? {
                count += bytes.len() as u64;
            }
            writer.write_all(&count.to_be_bytes()).await.map_err(lost)?;
            writer.shutdown().await.map_err(lost)
        })
    }
}

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<(), Failed> {
    let authority = Authority::create("speed", i64::try_from(world::clock::unix_ms() / 1_000)?)?;
    let (server, node) = identity(&authority)?;
    let (client, _) = identity(&authority)?;
    let (meter, patience) = (Meter::new(), Patience::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let serving = Server::serve(listener, server, Revoked::new(), Arc::new(Echo), patience, &meter)?;
    let peers = Peers::new(client, Revoked::new(), patience, &meter);
    peers.set_addresses(node, &[serving.address()]);
    for (at_once, bytes) in [(1, 100), (16, 100), (128, 100), (16, 64 << 10)] {
        calls(&peers, node, at_once, bytes).await?;
    }
    for at_once in [1, 4] {
        tunnels(&peers, node, at_once).await?;
    }
    carried(&peers, node).await
}

fn identity(authority: &Authority) -> Result<(Identity, NodeId), Failed> {
    let key = MachineKey::create()?;
    let now_s = i64::try_from(world::clock::unix_ms() / 1_000)?;
    let certificate = authority.enrol(&"speedcluster".parse()?, &key.request()?, None, now_s)?;
    let roots = vec![certificate.chain[1].clone()];
    Ok((Identity::new(Credentials::new(certificate.chain, key.der(), roots)?), key.node()))
}

async fn calls(peers: &Peers, node: NodeId, at_once: usize, bytes: usize) -> Result<(), Failed> {
    let began = world::clock::monotonic();
    let callers: Vec<_> = (0..at_once)
        .map(|_| {
            let (peers, request) = (peers.clone(), bytes::Bytes::from(vec![7; bytes]));
            world::task::spawn("speed", async move {
                let mut latencies = Vec::new();
                while began.elapsed() < LENGTH {
                    let sent = world::clock::monotonic();
                    if peers.call(node, "speed/echo", request.clone(), Terms::within(LIMIT)).await.is_err() {
                        break;
                    }
                    latencies.push(sent.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.join().await.ok_or("a caller panicked")?);
    }
    latencies.sort();
    let rate = latencies.len() as f64 / began.elapsed().as_secs_f64();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!("calls of {bytes} bytes, {at_once} at once: {rate:.0}/s, p50 {:?}, p99 {:?}", at(0.5), at(0.99));
    Ok(())
}

async fn tunnels(peers: &Peers, node: NodeId, at_once: usize) -> Result<(), Failed> {
    let began = world::clock::monotonic();
    let writers: Vec<_> = (0..at_once)
        .map(|_| {
            let peers = peers.clone();
            world::task::spawn("speed", async move {
                let mut tunnel = peers.tunnel(node, "speed/sink", "", Terms::within(LIMIT)).await.ok()?;
                let piece = vec![7; 64 << 10];
                while began.elapsed() < LENGTH {
                    tunnel.write_all(&piece).await.ok()?;
                }
                tunnel.shutdown().await.ok()?;
                tunnel.read_u64().await.ok()
            })
        })
        .collect();
    let mut bytes = 0;
    for writer in writers {
        bytes += writer.join().await.flatten().ok_or("a tunnel broke")?;
    }
    println!("{at_once} tunnels: {:.0} MB/s", rate_mb(bytes, began));
    Ok(())
}

/// A connection of TCP, through a tunnel, to another: as a service's is carried between machines.
async fn carried(peers: &Peers, node: NodeId) -> Result<(), Failed> {
    let (door, service) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let (entry, target) = (door.local_addr()?, service.local_addr()?.to_string());
    let carrying = peers.clone();
    let carrier = world::task::spawn("speed", async move {
        let (connection, _) = door.accept().await.ok()?;
        let tunnel = carrying.tunnel(node, "speed/carry", target, Terms::within(LIMIT)).await.ok()?;
        tunnel.carry(connection).await.ok()
    });
    let sink = world::task::spawn("speed", async move {
        let (mut connection, _) = service.accept().await.ok()?;
        tokio::io::copy(&mut connection, &mut tokio::io::sink()).await.ok()
    });
    let mut app = TcpStream::connect(entry).await?;
    let (began, piece) = (world::clock::monotonic(), vec![7; 64 << 10]);
    while began.elapsed() < LENGTH {
        app.write_all(&piece).await?;
    }
    app.shutdown().await?;
    let bytes = sink.join().await.flatten().ok_or("the connection broke")?;
    println!("a connection carried: {:.0} MB/s", rate_mb(bytes, began));
    carrier.join().await.flatten().ok_or("the carrier broke")?;
    Ok(())
}

fn rate_mb(bytes: u64, began: Instant) -> f64 {
    bytes as f64 / 1e6 / began.elapsed().as_secs_f64()
}
