//! A client's connection over its whole life: a task of its own while it is used, and little more than its socket while
//! nobody says anything.
//!
//! Owns that change, the places a connection takes, and what comes before its first request. Promises that a connection
//! at rest costs about half of one in use, ends as one in use does, and is served again with its next byte. Does not know
//! HTTP.

use crate::crowd::Seat;
use crate::handshake::{self, Shaken};
use crate::http1::SharedWire;
use crate::listener::{Floor, TargetKind};
use crate::peek;
use crate::proxied::{self, Header};
use crate::published::{self, Arrival};
use crate::pulse::{AtRest, ClientStream, Pulse, Transport};
use crate::session::{self, Session};
use crate::threads::Share;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// What a connection takes of the house. Dropped, others have it.
pub(crate) struct Places {
    pub(crate) seat: Seat,
    pub(crate) _place: OwnedSemaphorePermit,
    pub(crate) _share: Share,
}

/// How a connection begins. Most are silent most of the time, so what is held of one is small: what only some need is
/// made for those.
pub(crate) enum Start {
    Http(Arc<Session>, SharedWire),
    Other(Box<Arrival>, Arc<Floor>),
}

impl Start {
    fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(match self {
            Start::Http(session, ..) => &session.pulse,
            Start::Other(arrival, _) => &arrival.pulse,
        })
    }
}

/// Serves a connection on the current thread. It ends with its client, with its instance, to make room for others, or when
/// its listener's phase says so.
pub(crate) fn begin(start: Start, mut places: Places) {
    // Not a function of its own: what is given to one is held twice.
    let attending = async move {
        let ended = {
            let mut shed = pin!(places.seat.watch(&start.pulse()));
            let serving = async {
                match start {
                    Start::Http(session, wire) => session::serve(session, wire).await,
                    Start::Other(arrival, floor) => Box::pin(serve(*arrival, floor, &mut places.seat)).await,
                }
            };
            tokio::select! {
                biased;
                ended = serving => Some(ended),
                () = shed.as_mut() => None,
            }
        };
        match ended {
            Some(None) => {}
            Some(Some(arrival)) => {
                let resting = Box::new(Resting { _count: arrival.stream.count_rest(), arrival: *arrival, places });
                world::task::spawn("gateway resting connection", rest(resting)).detach();
            }
            None => {
                let client = places.seat.client();
                tracing::debug!(?client, "client connection closed to make room for others");
            }
        }
    };
    world::task::spawn("gateway client connection", attending).detach();
}

/// All there is of a connection while nobody says anything.
struct Resting {
    arrival: Arrival,
    places: Places,
    _count: AtRest,
}

impl Resting {
    /// Its listener is there, its time is not up, and it is not told to make room.
    fn may_go_on(&self) -> bool {
        let Arrival { phase, pulse, ground, .. } = &self.arrival;
        let makes_room = pulse.is_told() && self.places.seat.is_useless(pulse);
        phase.borrow().may_begin() && pulse.next_check(&ground.limits).is_some() && !makes_room
    }
}

/// Waits until the client says something. Whatever else may end the connection nudges its pulse.
async fn rest(resting: Box<Resting>) {
    let mut is_known = false;
    while resting.may_go_on() {
        let has_begun = poll_fn(|cx| match resting.arrival.stream.poll_ready(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => resting.arrival.pulse.poll_nudged(cx, &mut is_known).map(|()| false),
        });
        if has_begun.await {
            let Resting { arrival, places, .. } = *resting;
            let (session, wire) = arrival.into_http();
            return begin(Start::Http(session, wire), places);
        }
    }
    tracing::debug!(client = %resting.arrival.client, "a client connection at rest is closed");
}

async fn serve(arrival: Arrival, floor: Arc<Floor>, seat: &mut Seat) -> Option<Box<Arrival>> {
    let mut arrival = Box::pin(open(arrival, &floor, seat)).await?;
    match arrival.published() {
        Some(port) => published::serve(arrival, port).await,
        None => arrival.serve_http(None).await,
    }
}

/// What comes before the first byte that is meant for us: a balancer's word, and TLS. `None` when that came to nothing.
async fn open(mut arrival: Arrival, floor: &Floor, seat: &mut Seat) -> Option<Arrival> {
    let client = arrival.client;
    let mut stream = arrival.stream.into_plain()?;
    if arrival.trusted.is_some() {
        let spoken = tokio::time::timeout(floor.ground.limits.head_deadline, behind(&mut stream)).await;
        match spoken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(Some(named)) => {
                seat.count(floor.seat(Some(named.ip()))?);
                (arrival.client, arrival.load) = (named, seat.load());
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%client, %error, "a balancer in front of us said nothing that could be read");
                return None;
            }
        }
    }
    let transport = if arrival.secure {
        let shared = matches!(arrival.target.get().kind, TargetKind::Routed(_));
        match handshake::shake(stream, arrival.client, floor, shared).await? {
            Shaken::Passage(stream, passage) => {
                arrival.passage = Some(Box::new(passage));
                Transport::Plain(stream)
            }
            Shaken::Ours { stream, http_2, caller } => {
                (arrival.http_2, arrival.caller) = (http_2, caller);
                stream
            }
        }
    } else {
        Transport::Plain(stream)
    };
    arrival.stream = ClientStream::new(transport, Arc::clone(&arrival.pulse), &floor.meters);
    Some(arrival)
}

/// Whom a balancer speaks for, if it says so by the PROXY protocol. What follows is left to be read.
async fn behind(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut seen = vec![0; proxied::HEADER_BYTES_MAX];
    let mut known = 0;
    loop {
        known = peek::more(stream, known, &mut seen).await?;
        match proxied::read(seen.get(..known).unwrap_or_default()) {
            Header::Read { bytes, client } => {
                stream.read_exact(seen.get_mut(..bytes).unwrap_or_default()).await?;
                return Ok(client);
            }
            Header::Absent => return Ok(None),
            Header::Bad(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
            Header::Unsure => {}
        }
    }
}
