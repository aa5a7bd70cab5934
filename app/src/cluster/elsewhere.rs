//! Connections to instances of other machines: through a tunnel to the machine that has the instance.
//!
//! Promises that an instance of this machine is never looked for elsewhere, and that a connection is carried by at most
//! one other machine: that one looks only at home.

use containers::{Boxes, Elsewhere};
use control::view::View;
use rpc::{Call, Code, Failure, Opening, Peers, Terms};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use wire::identity::NodeId;
use world::net::Dialing;

/// The method behind it.
pub const DIAL: &str = "instance/dial";
/// As long as a connection to an instance of this machine may take in the worst case, and a way through the house.
const DIALLED_WITHIN: Duration = Duration::from_secs(3);

/// Whereto a tunnel goes.
#[derive(Debug, Serialize, Deserialize)]
struct Whereto {
    instance: String,
    port: u16,
    #[serde(default)]
    client: Option<SocketAddr>,
}

/// The way to other machines' instances.
pub struct Others {
    me: String,
    peers: Peers,
    view: View,
}

impl Others {
    pub fn new(me: &str, peers: Peers, view: View) -> Arc<Others> {
        Arc::new(Others { me: me.to_owned(), peers, view })
    }

    /// Which machine has `instance`, if it is another one.
    fn holder(&self, instance: &str) -> Option<NodeId> {
        let snapshot = self.view.borrow();
        let holder = &snapshot.instances.get(instance)?.node;
        if *holder == self.me {
            return None;
        }
        Some(snapshot.members.get(holder)?.node)
    }
}

impl Elsewhere for Others {
    fn dial(self: Arc<Self>, instance: String, port: u16, client: Option<SocketAddr>) -> Option<Dialing<'static>> {
        let node = self.holder(&instance)?;
        Some(Box::pin(async move {
            let whereto = Whereto { instance: instance.clone(), port, client };
            let opening = serde_json::to_vec(&whereto).map_err(io::Error::other)?;
            let tunnel = self.peers.tunnel(node, DIAL, opening, Terms::within(DIALLED_WITHIN)).await;
            let tunnel = tunnel.map_err(io::Error::other)?;
            let (near, far) = pair().await?;
            // It ends with either of its ends.
            world::task::spawn("connection to another machine", async move {
                if let Err(error) = tunnel.carry(far).await {
                    tracing::debug!(instance, %error, "a connection to another machine broke");
                }
            })
            .detach();
            Ok(near)
        }))
    }
}

/// Two ends of one connection. Whoever serves wants a socket, and a tunnel is none.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    loop {
        let (far, from) = listener.accept().await?;
        // Another program of this machine may have been faster.
        if from == near.local_addr()? {
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
}

/// Carries another machine's connection to an instance of this one.
pub async fn carry(boxes: &Arc<Boxes>, call: Call, opening: Opening) -> Result<(), Failure> {
    let whereto: Whereto = serde_json::from_slice(&call.request)
        .map_err(|error| Failure::new(Code::InvalidArgument, format!("read whereto a connection is to go: {error}")))?;
    let Whereto { instance, port, client } = whereto;
    let dialled = boxes.dial_here(&instance, port, client).await;
    let stream = dialled.map_err(|error| {
        Failure::new(Code::Unavailable, format!("connect to port {port} of {instance} on its machine: {error}"))
    })?;
    // A break is the two ends' business, and both see it.
    drop(opening.accept().carry(stream).await);
    Ok(())
}
