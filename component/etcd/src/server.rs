//! The listener: HTTP/1 and HTTP/2 without TLS on one socket, told apart by the first bytes.
//!
//! Owns each connection from its first byte to its last, and its bounds.

use crate::desk::{Desk, Stands, Visit, closed};
use crate::meters::Meters;
use crate::methods::{self, Method};
use crate::transport::{Answer, Format, Inflow, json_answer, text_answer};
use crate::{CLUSTER_VERSION, VERSION};
use control::Space;
use http::{Request, header};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use meter::{Held, Meter, Registration};
use serde_json::json;
use std::convert::Infallible;
use std::future::Future;
use std::io::Cursor;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use world::task::Task;

/// Each holds some tens of KiB.
const CONNECTIONS_MAX: usize = 2_000;
/// Of one connection at once: etcd's clients put everything on one.
const STREAMS_MAX: u32 = 1_000;
/// Streams a client may open and reset before it is taken for an attacker.
const RESETS_MAX: usize = 100;
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// A head that has not come by then does not come.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How often a silent client is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// When the process has no descriptors left, asking again at once only takes a core as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How a client that knows it is HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// A server that runs. Dropped, it cuts its connections off; [`Server::close`] lets requests end.
pub struct Server {
    closing: watch::Sender<bool>,
    accepting: Task,
    _series: Registration,
}

impl Server {
    /// Serves `space` to whoever comes to `listener`.
    pub fn start(listener: TcpListener, space: Space, stands: Box<dyn Stands>, meter: &Meter) -> Server {
        let (closing, closes) = watch::channel(false);
        let series = Meters::keep(meter, space.clone());
        let desk = Arc::new(Desk::new(space, Meters::new(meter), closes, stands));
        let accepting = world::task::spawn("etcd server", accept(listener, desk));
        Server { closing, accepting, _series: series }
    }

    /// Takes no more requests, ends watches, and gives what is under way until `deadline`.
    pub async fn close(self, deadline: Duration) {
        self.accepting.cancel().await;
        self.closing.send_replace(true);
        // Each connection holds a receiver until it ends.
        if tokio::time::timeout(deadline, self.closing.closed()).await.is_err() {
            tracing::warn!("connections of etcd's clients were cut");
        }
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection of a client of etcd could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            desk.meters.refused.inc();
            continue;
        };
        let desk = Arc::clone(&desk);
        // It ends with its client, at one of its deadlines, or when the server closes.
        let serving = async move {
            let _held = (place, Held::new(&desk.meters.connections));
            let mut closing = desk.closing.clone();
            tokio::select! {
                () = serve(Arc::clone(&desk), stream) => {}
                // The server is gone without a goodbye.
                () = async { while closing.changed().await.is_ok() {} } => {}
            }
        };
        world::task::spawn("etcd connection", serving).detach();
    }
}

async fn serve(desk: Arc<Desk>, mut stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small answers to a client of etcd may be late");
    }
    let Ok(here) = stream.local_addr() else { return };
    let begun = tokio::time::timeout(HEAD_DEADLINE, beginning(&mut stream)).await;
    let Ok(Some((is_h2, begin))) = begun else { return };
    let mut closing = desk.closing.clone();
    let late = Arc::new(Notify::new());
    let visit = Arc::new(Visit { desk, here, late: Arc::clone(&late) });
    let service = service_fn(move |request| {
        let visit = Arc::clone(&visit);
        async move { Ok::<_, Infallible>(route(visit, request).await) }
    });
    let (from, to) = stream.into_split();
    let io = TokioIo::new(tokio::io::join(Cursor::new(begin).chain(from), to));
    let ended = if is_h2 {
        let mut builder = http2::Builder::new(Tasks);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_pending_accept_reset_streams(RESETS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN);
        let mut connection = pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = late.notified() => return cut(here),
            () = closed(&mut closing) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
        let mut connection = pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = late.notified() => return cut(here),
            () = closed(&mut closing) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of a client of etcd ended");
    }
}

/// Of a stream alone hyper says nothing while its client does not take it: the connection goes with it.
fn cut(here: SocketAddr) {
    tracing::info!(%here, "a connection of a client of etcd was cut: it did not take what it had asked for");
}

/// Reads until it can be told whether the client begins as one of HTTP/2 does, and what was read; `None` when it ends before.
async fn beginning(stream: &mut (impl AsyncRead + Unpin)) -> Option<(bool, Vec<u8>)> {
    let mut begin = Vec::with_capacity(PREFACE.len());
    while PREFACE.starts_with(&begin) {
        if begin.len() == PREFACE.len() {
            return Some((true, begin));
        }
        let rest = (PREFACE.len() - begin.len()) as u64;
        let count = (&mut *stream).take(rest).read_buf(&mut begin).await.ok()?;
        if count == 0 {
            return None;
        }
    }
    Some((false, begin))
}

/// Starts streams as tasks, so that those of one connection use all cores.
#[derive(Clone, Copy)]
struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, stream: F) {
        // It ends with its stream, or with its connection.
        world::task::spawn("etcd stream", stream).detach();
    }
}

async fn route(visit: Arc<Visit>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    // A page in somebody's browser may ask any address it likes, and names itself. No client of etcd does.
    if head.headers.contains_key(header::ORIGIN) {
        return json_answer(403, &json!({"error": "bramble: browsers are not served"}));
    }
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/grpc") {
        let method = Method::of_grpc(head.uri.path());
        let inflow = Inflow::new(Arc::clone(&visit.desk), Format::Grpc, body);
        return methods::answer(visit, method, Format::Grpc, inflow).await;
    }
    match (head.uri.path(), Method::of_json(head.uri.path())) {
        ("/version", _) => json_answer(200, &json!({"etcdserver": VERSION, "etcdcluster": CLUSTER_VERSION})),
        ("/health", _) => match visit.desk.space.barrier().await {
            Ok(()) => json_answer(200, &json!({"health": "true"})),
            Err(error) => json_answer(503, &json!({"health": "false", "reason": error.to_string()})),
        },
        (_, Some(_)) if head.method != http::Method::POST => text_answer(405, "Method Not Allowed\n"),
        (_, Some(method)) => {
            let inflow = Inflow::new(Arc::clone(&visit.desk), Format::Json, body);
            methods::answer(visit, method, Format::Json, inflow).await
        }
        (path, None) if path.starts_with("/v3") => text_answer(404, "Not Found\n"),
        (_, None) => text_answer(404, "404 page not found\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_beginning_is_told_in_whatever_pieces_it_comes() {
        let cases: [(&[u8], Option<bool>); 5] = [
            (b"PRI * HTTP/2.0\r\n\r\nSM", Some(true)),
            (b"POST /v3/kv/range HTTP/1.1", Some(false)),
            (b"PRI / HTTP/1.1", Some(false)),
            (b"PRI * HT", None),
            (b"", None),
        ];
        for (sent, expected) in cases {
            for piece in 1..=sent.len().max(1) {
                let mut pieces = pieces_of(sent, piece);
                let found = beginning(&mut pieces).await;
                assert_eq!(found.as_ref().map(|(is_h2, _)| *is_h2), expected, "in pieces of {piece}");
                let mut all = found.map(|(_, begin)| begin).unwrap_or_default();
                if expected.is_some() {
                    pieces.read_to_end(&mut all).await.expect("the rest is there");
                    assert_eq!(all, sent, "nothing is lost");
                }
            }
        }
    }

    /// Gives at most `piece` bytes at once.
    fn pieces_of(sent: &[u8], piece: usize) -> tokio::io::DuplexStream {
        let (from, mut to) = tokio::io::duplex(piece);
        let sent = sent.to_vec();
        world::task::spawn("pieces", async move { drop(to.write_all(&sent).await) }).detach();
        from
    }
}
