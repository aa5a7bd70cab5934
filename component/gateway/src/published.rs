//! A connection to a published TCP port, until it is known what it speaks.
//!
//! Owns the wait for whoever speaks first: the instance is dialled at once, so that a protocol in which the
//! server begins (MySQL, SMTP, SSH) loses no time; a request line makes the connection HTTP, anything else a
//! tunnel. Knows no more of either than the first line.

use crate::caller::Caller;
use crate::crowd::Load;
use crate::detect::{Verdict, judge};
use crate::http1::SharedWire;
use crate::listener::{Phase, Target, TargetKind};
use crate::named::Passage;
use crate::offer::Offer;
use crate::proxied;
use crate::pulse::{ClientStream, Pulse};
use crate::rule::Addresses;
use crate::search::Search;
use crate::session::{self, Session};
use crate::streams;
use crate::swap::Swap;
use crate::table::Speaks;
use crate::tunnel;
use crate::upstream::{Ground, Lease, Upstream};
use balancer::Outcome;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use wire::spec::ProxyProtocol;

/// How long the client of a port that has spoken HTTP may take to begin before the instance is dialled
/// anyway, in case it speaks first this time. A client that has something to say says it within a round trip.
const HEAD_START: Duration = Duration::from_millis(100);

/// A client connection as it was accepted.
pub(crate) struct Arrival {
    pub(crate) ground: Arc<Ground>,
    pub(crate) target: Arc<Swap<Target>>,
    pub(crate) stream: ClientStream,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) client: SocketAddr,
    /// What the client has under way on all its connections.
    pub(crate) load: Option<Arc<Load>>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// It came by TLS.
    pub(crate) secure: bool,
    /// What answers say of another way to the same port.
    pub(crate) offer: Option<Arc<Offer>>,
    /// It agreed on HTTP/2.
    pub(crate) http_2: bool,
    /// Set when its other end may say for whom it speaks.
    pub(crate) trusted: Option<Arc<Addresses>>,
    /// Set when it was asked for its certificate.
    pub(crate) caller: Option<Arc<Caller>>,
    /// Set when it is carried on unopened.
    pub(crate) passage: Option<Box<Passage>>,
}

/// A service that a whole connection is for.
pub(crate) struct Published {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) speaks: Speaks,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
}

/// What a connection turned out to speak.
enum Spoken {
    /// HTTP; with the connection to an instance if there is one already.
    Http(Option<(Lease, TcpStream)>),
    Other(Lease, TcpStream),
    /// It ended, or there was no instance to be had.
    Nothing,
}

/// Serves a connection to a published port to its end.
/// With `proxy_protocol` the instance is told whom it is served to before it hears anything.
/// What of it remains when it is HTTP and at rest is given back.
pub(crate) async fn serve(mut arrival: Arrival, port: Published) -> Option<Box<Arrival>> {
    let Published { upstream, speaks, proxy_protocol } = port;
    let started = world::clock::monotonic();
    let mut search = Search::new(Arc::clone(&upstream), started);
    let mut phase = arrival.phase.clone();
    // Neither side has said anything yet: such a connection need not outlive its listener.
    let ending = phase.wait_for(|phase| !phase.may_begin());
    let spoken = async {
        match speaks {
            Speaks::Http => Spoken::Http(None),
            // What was agreed in the handshake is not for an instance to find out.
            Speaks::Detect if arrival.http_2 => Spoken::Http(None),
            Speaks::Tcp => match search.connect(arrival.client).await {
                Ok((lease, stream)) => Spoken::Other(lease, stream),
                Err(refusal) => {
                    tracing::debug!(client = %arrival.client, %refusal, "connection refused");
                    Spoken::Nothing
                }
            },
            Speaks::Detect => listen(&mut arrival, &upstream, &mut search).await,
        }
    };
    let spoken = tokio::select! {
        spoken = spoken => spoken,
        _ = ending => Spoken::Nothing,
    };
    match spoken {
        Spoken::Http(first) => arrival.serve_http(first).await,
        Spoken::Other(lease, mut stream) => {
            if let Some(version) = proxy_protocol {
                let header = introduction(&arrival, version);
                if let Err(error) = stream.write_all(&header).await {
                    tracing::debug!(client = %arrival.client, %error, "an instance left before it was told of its client");
                    lease.end(Outcome::ConnectFailed);
                    return None;
                }
            }
            lease.works();
            upstream.meters.tunnel();
            tunnel::watch_peer(&arrival.stream);
            tunnel::watch_peer(&stream);
            tokio::select! {
                ended = tunnel::run(arrival.stream, stream, Bytes::new()) => drop(ended),
                _ = phase.wait_for(|phase| *phase == Phase::Cut) => {}
            }
            lease.end(Outcome::ClientGone);
            None
        }
        Spoken::Nothing => None,
    }
}

/// What the PROXY protocol says of a client.
fn introduction(arrival: &Arrival, version: ProxyProtocol) -> Vec<u8> {
    let reached = rustix::net::getsockname(&arrival.stream).ok().and_then(|name| SocketAddr::try_from(name).ok());
    // Where it came in is of little use; that there is an address of the same kind is asked by the protocol.
    proxied::write(version, arrival.client, reached.unwrap_or(SocketAddr::new(arrival.client.ip(), 0)))
}

impl Arrival {
    /// The one service that everything on this connection is for; `None` where requests are routed.
    pub(crate) fn published(&mut self) -> Option<Published> {
        if let Some(passage) = self.passage.take() {
            let Passage { upstream, proxy_protocol } = *passage;
            return Some(Published { upstream, speaks: Speaks::Tcp, proxy_protocol });
        }
        match &self.target.get().kind {
            TargetKind::Routed(_) => None,
            TargetKind::Service { upstream, speaks, proxy_protocol } => {
                let (speaks, proxy_protocol) = (*speaks, *proxy_protocol);
                Some(Published { upstream: Arc::clone(upstream), speaks, proxy_protocol })
            }
        }
    }

    /// As a connection that speaks HTTP/1, or begins with the preface of HTTP/2.
    pub(crate) fn into_http(self) -> (Arc<Session>, SharedWire) {
        let (session, stream) = self.into_session(None);
        let wire = session.speak_http_1(stream);
        (session, wire)
    }

    /// To its end, or until it is at rest: then what remains is given back.
    pub(crate) async fn serve_http(self, first: Option<(Lease, TcpStream)>) -> Option<Box<Arrival>> {
        let http_2 = self.http_2;
        let (session, stream) = self.into_session(first);
        if http_2 {
            streams::serve(session, stream).await;
            return None;
        }
        let wire = session.speak_http_1(stream);
        session::serve(session, wire).await
    }

    fn into_session(self, first: Option<(Lease, TcpStream)>) -> (Arc<Session>, ClientStream) {
        let Arrival { ground, target, stream, pulse, client, load, phase, secure, offer, trusted, caller, .. } = self;
        let mut session = Session::new(ground, target, pulse, phase, client, secure, first);
        session.trusted = trusted;
        session.caller = caller;
        session.load = load;
        session.offer = offer;
        session.tls = stream.tls().map(Arc::new);
        (Arc::new(session), stream)
    }
}

/// Finds out who speaks first, and what.
async fn listen(arrival: &mut Arrival, upstream: &Arc<Upstream>, search: &mut Search) -> Spoken {
    let mut said = BytesMut::new();
    let head_start = if upstream.spoke_http() { HEAD_START } else { Duration::ZERO };
    let client = arrival.client;
    let mut connecting = pin!(async {
        tokio::time::sleep(head_start).await;
        search.connect(client).await
    });
    let mut instance: Option<(Lease, TcpStream)> = None;
    let mut patience = pin!(tokio::time::sleep(arrival.ground.limits.head_deadline));
    let verdict = loop {
        tokio::select! {
            // In this order: what the client said counts, even if the instance just gave up.
            biased;
            read = arrival.stream.read_buf(&mut said) => match read {
                Ok(0) => break Verdict::Other,
                Ok(_) => match judge(&said) {
                    Verdict::Unsure => {}
                    verdict @ (Verdict::Http | Verdict::Other) => break verdict,
                },
                Err(_) => return Spoken::Nothing,
            },
            connected = connecting.as_mut(), if instance.is_none() => match connected {
                Ok((lease, stream)) => {
                    // Both may stay silent for long; neither may be gone for long.
                    tunnel::watch_peer(&arrival.stream);
                    tunnel::watch_peer(&stream);
                    instance = Some((lease, stream));
                }
                Err(refusal) => {
                    tracing::debug!(%client, %refusal, "connection refused");
                    return Spoken::Nothing;
                }
            },
            () = speaks(&instance) => break Verdict::Other,
            // Half a request line and then nothing: let the instance make of it what it can.
            () = patience.as_mut(), if !said.is_empty() => break Verdict::Other,
        }
    };
    arrival.stream.unread(said.freeze());
    match verdict {
        Verdict::Http => {
            upstream.note_http();
            Spoken::Http(instance)
        }
        Verdict::Other | Verdict::Unsure => match instance {
            Some((lease, stream)) => Spoken::Other(lease, stream),
            None => match connecting.await {
                Ok((lease, stream)) => Spoken::Other(lease, stream),
                Err(refusal) => {
                    tracing::debug!(%client, %refusal, "connection refused");
                    Spoken::Nothing
                }
            },
        },
    }
}

/// Waits until the instance has said something or closed.
async fn speaks(instance: &Option<(Lease, TcpStream)>) {
    match instance {
        Some((_, stream)) => drop(stream.readable().await),
        None => std::future::pending().await,
    }
}
