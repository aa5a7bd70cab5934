//! What a server does with calls: the trait its methods are behind, and what they are given.

use crate::failure::{Code, Failure};
use crate::head::{Shape, Trace};
use crate::inflow::Inflow;
use crate::outflow::Item;
use crate::pipe::{PipeReader, pipe};
use crate::settings::MESSAGE_BYTES_MAX;
use crate::tunnel::Tunnel;
use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use wire::identity::{ClusterId, NodeId};

/// A method at work. It is dropped where it waits when its deadline passes or whoever called has gone.
pub type Working<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Answers calls. Of the three each method needs the one of its shape.
pub trait Handler: Send + Sync + 'static {
    /// Every method there is; read once, when the server begins.
    fn methods(&self) -> Vec<Method>;

    fn call(&self, call: Call) -> Working<'_, Answer> {
        Box::pin(async move { Err(unimplemented(call.method)) })
    }

    /// Sends messages until it returns.
    fn watch(&self, call: Call, _to: Messages) -> Working<'_, ()> {
        Box::pin(async move { Err(unimplemented(call.method)) })
    }

    /// Accepts the tunnel or fails. What it does then ends with it, or with the tunnel.
    fn tunnel(&self, call: Call, _opening: Opening) -> Working<'_, ()> {
        Box::pin(async move { Err(unimplemented(call.method)) })
    }
}

/// Something that can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// `room/verb`: lower-case letters, digits, `.`, `_`, `/` and `-`.
    pub name: &'static str,
    pub shape: Shape,
    pub access: Access,
}

/// Who may call a method, before it is asked itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Machines with a certificate of this cluster.
    Members,
    /// Those without one too: for what makes them members. Calls only.
    Anyone,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// By its certificate. The address is where the connection comes from, and proves nothing.
    Node { node: NodeId, cluster: ClusterId, address: SocketAddr },
    /// Without a certificate.
    Stranger { address: SocketAddr },
}

/// A call as its method gets it.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: &'static str,
    pub request: Bytes,
    pub caller: Caller,
    /// When the method is dropped. Calls always have one; a tunnel's is for accepting it.
    pub deadline: Option<Instant>,
    pub trace: Option<Trace>,
}

/// What a call comes back with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    pub bytes: Bytes,
    pub trace: Option<Trace>,
}

/// Where a watch's messages go.
#[derive(Debug)]
pub struct Messages(pub(crate) mpsc::Sender<Item>);

/// A tunnel that waits to be accepted.
#[derive(Debug)]
pub struct Opening {
    inflow: Inflow,
    accepted: oneshot::Sender<PipeReader>,
}

impl Method {
    pub const fn call(name: &'static str) -> Method {
        Method { name, shape: Shape::Call, access: Access::Members }
    }

    /// A call that machines without certificates may make.
    pub const fn open_call(name: &'static str) -> Method {
        Method { name, shape: Shape::Call, access: Access::Anyone }
    }

    pub const fn watch(name: &'static str) -> Method {
        Method { name, shape: Shape::Watch, access: Access::Members }
    }

    pub const fn tunnel(name: &'static str) -> Method {
        Method { name, shape: Shape::Tunnel, access: Access::Members }
    }
}

impl Caller {
    pub fn address(&self) -> SocketAddr {
        match self {
            Caller::Node { address, .. } | Caller::Stranger { address } => *address,
        }
    }

    /// `None` for a stranger.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Caller::Node { node, .. } => Some(*node),
            Caller::Stranger { .. } => None,
        }
    }
}

impl Call {
    /// What is left until the deadline, to pass on to whoever is called next.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(world::clock::monotonic()))
    }
}

impl From<Bytes> for Answer {
    fn from(bytes: Bytes) -> Answer {
        Answer { bytes, trace: None }
    }
}

impl From<Vec<u8>> for Answer {
    fn from(bytes: Vec<u8>) -> Answer {
        Answer { bytes: bytes.into(), trace: None }
    }
}

impl Messages {
    /// Waits until the one before is on its way. May be dropped: the message is then not sent.
    ///
    /// # Errors
    /// [`Code::ResourceExhausted`] for what is larger than [`MESSAGE_BYTES_MAX`], [`Code::Cancelled`] when nobody listens
    /// any more.
    pub async fn send(&self, message: impl Into<Bytes>) -> Result<(), Failure> {
        let message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            let text = format!("a message of {} bytes is larger than {MESSAGE_BYTES_MAX}", message.len());
            return Err(Failure::new(Code::ResourceExhausted, text));
        }
        let gone = |_| Failure::new(Code::Cancelled, "whoever watched has gone");
        self.0.send(Item::Message(message)).await.map_err(gone)
    }
}

impl Opening {
    pub(crate) fn new(inflow: Inflow, accepted: oneshot::Sender<PipeReader>) -> Opening {
        Opening { inflow, accepted }
    }

    /// Takes the tunnel. Until then its other end waits, and a failure is the answer it gets.
    pub fn accept(self) -> Tunnel {
        let (writer, reader) = pipe();
        // When nobody waits any more the tunnel is a broken one.
        drop(self.accepted.send(reader));
        Tunnel::new(self.inflow, writer, None)
    }
}

fn unimplemented(method: &str) -> Failure {
    Failure::new(Code::Unimplemented, format!("there is no method {method}"))
}
