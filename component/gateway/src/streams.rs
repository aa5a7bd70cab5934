//! One client connection that speaks HTTP/2: every request is a stream of its own.
//!
//! Owns the bounds of the protocol and the connection's end. A stream that is reset, or whose connection ends, takes
//! along what it caused. Does not know how a request is answered: `exchange` does.

use crate::answer::Refusal;
use crate::asking::ClientBody;
use crate::body::AnswerBody;
use crate::exchange;
use crate::header;
use crate::listener::Phase;
use crate::pulse::{ClientStream, Pulse};
use crate::reused::{Kept, Outcome, Reused};
use crate::session::{self, Session};
use crate::settings::Limits;
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread::LocalKey;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Requests at once on one connection: nginx's and the recommendation's (RFC 9113, section 6.5.2) lower bound.
const STREAMS_MAX: u32 = 128;
/// Streams the client may reset before they were answered and again at once, before the connection is closed: what
/// the rapid reset attack (CVE-2023-44487) lives from.
const RESETS_MAX: usize = 32;
/// What a client may send of one body, and of all, before it is asked for: a round trip of 100 ms at 40 Mbit/s.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// What is kept of answers for one stream that the client does not take.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// A silent client with streams under way is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// Starts streams as tasks, so that those of one connection use all cores.
#[derive(Clone, Copy)]
pub(crate) struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, stream: F) {
        // It ends with its answer, or with its connection.
        world::task::spawn("gateway stream", stream).detach();
    }
}

/// Serves the connection to its end. When its listener's phase says drain, streams under way are finished; when it says cut, nothing
/// is.
pub(crate) async fn serve(session: Arc<Session>, stream: ClientStream) {
    let mut phase = session.watch();
    session.pulse.multiplexes();
    let limits = session.ground.limits.clone();
    let streams = phase.clone();
    let begun = Notify::new();
    // Only a connection that has begun can be told in order that it ends; one that has not would just be cut off.
    let mut leaving = *phase.borrow_and_update() == Phase::Leave;
    let service = service_fn(|request| {
        begun.notify_one();
        let (session, phase) = (Arc::clone(&session), streams.clone());
        Reused::new(answer(session, request, phase))
    });
    let mut builder = http2::Builder::new(Tasks);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut alarm = pin!(tokio::time::sleep(limits.idle_deadline));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(client = %session.client, %error, "client connection ended");
                }
                return;
            }
            () = alarm.as_mut() => match session.pulse.next_check(&limits) {
                Some(pause) => alarm.as_mut().reset(tokio::time::Instant::now() + pause),
                None => {
                    tracing::debug!(client = %session.client, "client connection closed at a deadline");
                    return;
                }
            },
            // The client is told, and what it had on the way by then is answered (RFC 9113, section 6.8).
            () = begun.notified(), if leaving => {
                leaving = false;
                connection.as_mut().graceful_shutdown();
            }
            changed = phase.changed() => match (changed.is_ok(), *phase.borrow()) {
                (true, Phase::Open) => {}
                (true, Phase::Leave) => leaving = true,
                (true, Phase::Drain) => connection.as_mut().graceful_shutdown(),
                (true, Phase::Tunnels) if session.pulse.has_tunnels() => {}
                (true, Phase::Tunnels | Phase::Cut) | (false, _) => return,
            },
        }
    }
}

/// The answer to a stream.
type Answered = Result<Response<AnswerBody>, Infallible>;

impl Outcome for Answered {
    fn kept() -> &'static LocalKey<Kept<Answered>> {
        thread_local! {
            static KEPT: Kept<Answered> = const { RefCell::new(Vec::new()) };
        }
        &KEPT
    }
}

/// Answers one stream's request, and looks at its clock once in a while.
async fn answer(session: Arc<Session>, mut request: Request<Incoming>, phase: watch::Receiver<Phase>) -> Answered {
    let pulse = Arc::new(Pulse::new());
    let place = Place::take(&session.pulse);
    let stream = Arc::new(session.stream(Arc::clone(&pulse)));
    let end = header::opens_websocket(&request).then(|| hyper::upgrade::on(&mut request));
    let uploads = !request.body().is_end_stream() && end.is_none();
    let mut admitted = match exchange::begin(&stream, request.map(ClientBody::Stream), end) {
        Ok(admitted) => admitted,
        Err(mut response) => {
            session.offer_other_way(response.headers_mut());
            return Ok(response.map(|body| body.holding(place)));
        }
    };
    let answered = {
        let upload = uploads.then(|| session.ground.crowd.watch_upload(session.client.ip(), &pulse));
        let (_seat, shed) = upload.unzip();
        let running = pin!(admitted.run(&stream));
        attentively(&pulse, &session.ground.limits, shed.map(Box::pin), running).await
    };
    let mut response = admitted.finish(&stream, answered);
    session.offer_other_way(response.headers_mut());
    let Some(switch) = stream.take_switch() else { return Ok(response.map(|body| body.holding(place))) };
    header::to_websocket_answer(&mut response);
    let pulse = Arc::clone(&session.pulse);
    // It ends with the stream, and so with its connection.
    let tunnel = async move {
        pulse.tunnel_begins();
        session::join_stream(switch, phase).await;
        pulse.tunnel_ends();
        drop(place);
    };
    world::task::spawn("gateway stream", tunnel).detach();
    Ok(response)
}

/// Does `work`, and looks at the stream's clock once in a while. Gives up when the request's body does not come, or when
/// `shed` says so.
pub(crate) async fn attentively<T>(
    pulse: &Pulse,
    limits: &Limits,
    mut shed: Option<Pin<Box<impl Future<Output = ()>>>>,
    mut work: Pin<&mut impl Future<Output = Result<T, Refusal>>>,
) -> Result<T, Refusal> {
    let mut alarm = pin!(tokio::time::sleep(limits.head_deadline));
    loop {
        let told = async {
            match &mut shed {
                Some(told) => told.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work.as_mut() => return done,
            // There is no room for those whose bodies do not come.
            () = told => return Err(Refusal::Slow),
            () = alarm.as_mut() => {
                if pulse.is_slow(limits) {
                    return Err(Refusal::Slow);
                }
                // Marks an answer that is late; whether the client is there is the connection's to see.
                let pause = pulse.next_check(limits).unwrap_or(limits.head_deadline);
                alarm.as_mut().reset(tokio::time::Instant::now() + pause);
            }
        }
    }
}

/// A stream under way, counted until its answer is through.
pub(crate) struct Place {
    pulse: Arc<Pulse>,
}

impl Place {
    pub(crate) fn take(pulse: &Arc<Pulse>) -> Place {
        pulse.stream_begins();
        Place { pulse: Arc::clone(pulse) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pulse.stream_ends();
    }
}
