//! A program to put behind a gateway: this one, started again inside a box as `lab program PORT`.
//!
//! Speaks HTTP/1, HTTP/2 in clear, tunnels after an upgrade, and enough of gRPC to stream. What it is told to suffer from
//! is in a file of its own beside others' (`MOODS/SLOT`): a test makes one of ten ill while all are under load.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// The first argument that means this.
pub const PROGRAM: &str = "program";
/// Where a service with this program is told what it suffers from.
pub const MOODS: &str = "/moods";
/// What a client that wants a tunnel sends (RFC 6455, section 1.3), and the only answer to it that some proxies pass on.
pub const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const WEBSOCKET_ACCEPT: http::HeaderValue = http::HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// How long a `/paced` answer takes: long beside what a busy machine adds.
const PACE: Duration = Duration::from_millis(20);
/// Of a `/drip`: pieces, and the time between two.
const PIECES: usize = 20;
const PIECE_PAUSE: Duration = Duration::from_millis(100);

/// The keys of a service that runs this program, which the caller's binary is beside; `more` are further lines.
pub fn service(more: &str) -> String {
    let program = crate::node::binary("lab");
    let folder = program.parent().expect("a file is in a folder").display().to_string();
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "    image: host\n    command: [/app/lab, {PROGRAM}, '8000']\n    volumes: ['{folder}:/app:ro']\n    \
         environment: {{SLOT: '{{{{.Task.Slot}}}}'}}\n{more}"
    )
}

/// What an instance suffers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Takes half a second.
    Slow,
    /// Answers 500 at once.
    Failing,
    /// Is well for a second and refuses for the next.
    Flapping,
}

struct Program {
    slot: String,
    mood: PathBuf,
}

/// Serves until killed.
pub fn run(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let Some(port) = arguments.next().and_then(|port| port.parse::<u16>().ok()) else {
        eprintln!("usage: lab {PROGRAM} PORT [SLOT]");
        return ExitCode::from(2);
    };
    #[expect(clippy::disallowed_methods, reason = "a program in a box is told by its environment who it is")]
    let slot = arguments.next().or_else(|| std::env::var("SLOT").ok()).unwrap_or_default();
    let program = Arc::new(Program { mood: PathBuf::from(MOODS).join(&slot), slot });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let listener = TcpListener::bind(("0.0.0.0", port)).await.expect("the port of an empty box is free");
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            world::task::spawn("connection", serve(Arc::clone(&program), stream)).detach();
        }
    })
}

async fn serve(program: Arc<Program>, stream: TcpStream) {
    let mut first = [0; 3];
    let _ = stream.set_nodelay(true);
    if !matches!(stream.peek(&mut first).await, Ok(1..)) {
        return;
    }
    let service = service_fn(move |request| {
        let program = Arc::clone(&program);
        async move { Ok::<_, Infallible>(program.answer(request).await) }
    });
    if &first == b"PRI" {
        let _ended = http2::Builder::new(Tasks).serve_connection(TokioIo::new(stream), service).await;
    } else {
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        let _ended = serving.await;
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, work: F) {
        world::task::spawn("stream", work).detach();
    }
}

impl Program {
    fn mood(&self) -> Mood {
        match std::fs::read_to_string(&self.mood).unwrap_or_default().trim() {
            "slow" => Mood::Slow,
            "failing" => Mood::Failing,
            "flapping" => Mood::Flapping,
            _ => Mood::Well,
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Told> {
        match self.mood() {
            Mood::Well => {}
            Mood::Slow => tokio::time::sleep(Duration::from_millis(500)).await,
            Mood::Failing => return self.fail(),
            Mood::Flapping if (world::clock::unix_ms() / 1_000).is_multiple_of(2) => return self.fail(),
            Mood::Flapping => {}
        }
        let grpc = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/grpc");
        if grpc {
            let mut response = Response::new(Told::Back(request.into_body(), false));
            response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
            return response;
        }
        match request.uri().path() {
            "/tunnel" => {
                let upgrading = hyper::upgrade::on(&mut request);
                world::task::spawn("tunnel", async move {
                    let Ok(upgraded) = upgrading.await else { return };
                    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                    let _ended = tokio::io::copy(&mut read, &mut write).await;
                })
                .detach();
                let mut response = Response::new(Told::nothing());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
                response.headers_mut().insert(UPGRADE, http::HeaderValue::from_static("websocket"));
                response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, WEBSOCKET_ACCEPT);
                response
            }
            "/upload" => {
                let mut body = request.into_body();
                let mut bytes = 0;
                while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    match frame.map(Frame::into_data) {
                        Ok(Ok(data)) => bytes += data.len(),
                        Ok(Err(_trailers)) => {}
                        Err(_) => return self.fail(),
                    }
                }
                Response::new(Told::text(&bytes.to_string()))
            }
            "/paced" => {
                tokio::time::sleep(PACE).await;
                Response::new(Told::text(&format!("slot {}", self.slot)))
            }
            "/drip" => Response::new(Told::drip()),
            _ => Response::new(Told::text(&format!("slot {}", self.slot))),
        }
    }

    fn fail(&self) -> Response<Told> {
        let mut response = Response::new(Told::text("ill"));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }
}

/// A body that is told.
pub(crate) enum Told {
    Pieces(VecDeque<Bytes>),
    Drip(usize, Pin<Box<tokio::time::Sleep>>),
    /// What comes, and then once that all was well.
    Back(Incoming, bool),
}

impl Told {
    /// A piece every moment, for two seconds.
    pub(crate) fn drip() -> Told {
        Told::Drip(PIECES, Box::pin(tokio::time::sleep(PIECE_PAUSE)))
    }

    pub(crate) fn nothing() -> Told {
        Told::Pieces(VecDeque::new())
    }

    pub(crate) fn text(text: &str) -> Told {
        Told::Pieces(VecDeque::from([Bytes::copy_from_slice(text.as_bytes())]))
    }
}

impl Body for Told {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Told::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            Told::Drip(0, _) => Poll::Ready(None),
            Told::Drip(left, pause) => {
                std::task::ready!(pause.as_mut().poll(cx));
                pause.as_mut().reset(tokio::time::Instant::now() + PIECE_PAUSE);
                *left -= 1;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"drip ")))))
            }
            Told::Back(_, true) => Poll::Ready(None),
            Told::Back(body, said) => match std::task::ready!(Pin::new(body).poll_frame(cx)) {
                Some(frame) => Poll::Ready(Some(frame)),
                None => {
                    *said = true;
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Told::Pieces(pieces) => pieces.is_empty(),
            Told::Drip(left, _) => *left == 0,
            Told::Back(_, said) => *said,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Told::Pieces(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Told::Drip(..) | Told::Back(..) => SizeHint::default(),
        }
    }
}
