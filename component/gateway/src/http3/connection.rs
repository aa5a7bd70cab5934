//! One client connection that speaks HTTP/3: every request is a stream of its own.
//!
//! Owns the connection's bounds and its end. A stream that is given up, or whose connection ends, takes along what it
//! caused. Does not know how a request is answered.

use super::STREAMS_BAD_MAX;
use super::request;
use super::transport::{Wire, number};
use crate::listener::Phase;
use crate::session::Session;
use crate::streams::Place;
use bytes::Bytes;
use h3::error::{Code, ConnectionError};
use h3::frame::FrameStream;
use h3::server;
use h3::stream::BufRecvStream;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

type Http = server::Connection<Wire, Bytes>;

/// What the streams of one connection share.
struct Streams {
    session: Arc<Session>,
    quic: quinn::Connection,
    /// Those under way.
    open: TaskTracker,
    /// How many came to nothing.
    bad: Arc<AtomicUsize>,
}

/// Serves the connection to its end. When `phase` says leave or drain, streams under way are finished; when it says cut,
/// nothing is.
pub(super) async fn serve(session: Arc<Session>, quic: quinn::Connection, mut phase: watch::Receiver<Phase>) {
    session.pulse.multiplexes();
    let limits = session.ground.limits.clone();
    let head_bytes_max = u64::try_from(limits.head_bytes_max).unwrap_or(u64::MAX);
    let mut builder = server::builder();
    // Twice what is allowed is read, so that who sends too much can be told.
    builder.max_field_section_size(head_bytes_max.saturating_mul(2)).send_grease(false);
    let mut http: Http = match builder.build(Wire::new(quic.clone(), head_bytes_max.saturating_mul(2))).await {
        Ok(http) => http,
        Err(error) => return tracing::debug!(client = %session.client, %error, "client connection ended"),
    };
    let streams = Streams { session: Arc::clone(&session), quic, open: TaskTracker::new(), bad: Arc::default() };
    let mut leaving = false;
    let mut alarm = pin!(tokio::time::sleep(limits.idle_deadline));
    let mut due = *phase.borrow_and_update() != Phase::Open;
    loop {
        if due && !leaving {
            (due, leaving) = (false, true);
            streams.open.close();
            if let Err(error) = goodbye(&mut http).await {
                return tracing::debug!(client = %session.client, %error, "client connection ended");
            }
        }
        tokio::select! {
            biased;
            came = poll_fn(|cx| http.poll_accept_request_stream(cx)) => match came {
                // It was told that these are not answered.
                Ok(Some(stream)) if leaving => stream.reject(),
                Ok(Some(stream)) => {
                    let through = stream.through();
                    let resolver = http.create_resolver(FrameStream::new(BufRecvStream::new(stream)));
                    streams.begin(resolver, through);
                }
                Ok(None) => return,
                Err(error) => return tracing::debug!(client = %session.client, %error, "client connection ended"),
            },
            () = streams.open.wait(), if leaving => return,
            () = alarm.as_mut() => match session.pulse.next_check(&limits) {
                Some(pause) => alarm.as_mut().reset(tokio::time::Instant::now() + pause),
                None => {
                    tracing::debug!(client = %session.client, "client connection closed at a deadline");
                    return;
                }
            },
            changed = phase.changed() => match (changed.is_ok(), *phase.borrow()) {
                (true, Phase::Open) => {}
                (true, Phase::Leave | Phase::Drain) => due = true,
                (true, Phase::Tunnels | Phase::Cut) | (false, _) => return,
            },
        }
    }
}

/// Tells the client which of its requests are the last to be answered. `h3` counts from the last it took, and what it
/// names has to be the first it does not take (RFC 9114, section 5.2).
async fn goodbye(http: &mut Http) -> Result<(), ConnectionError> {
    http.shutdown(1).await
}

impl Streams {
    fn begin(
        &self,
        resolver: server::RequestResolver<Wire, Bytes>,
        through: impl Future<Output = impl Send> + Send + 'static,
    ) {
        let (session, quic, bad) = (Arc::clone(&self.session), self.quic.clone(), Arc::clone(&self.bad));
        let open = self.open.token();
        // It ends with its answer, or with its connection.
        let answering = async move {
            let _place = Place::take(&session.pulse);
            let understood = request::serve(&session, resolver, through).await;
            // What the rapid reset attack (CVE-2023-44487) lives from; and `h3` remembers each of them.
            if !understood && bad.fetch_add(1, Ordering::Relaxed) >= STREAMS_BAD_MAX {
                quic.close(number(Code::H3_EXCESSIVE_LOAD.value()), b"too many streams that carry no request");
            }
            drop(open);
        };
        world::task::spawn("gateway stream", answering).detach();
    }
}
