//! Clients of every kind, each sending the next request as soon as the last is answered.
//!
//! They are strict: a connection that ends without having said so is a failed request, and nothing is sent again but
//! what HTTP/2 says has not been looked at.

use super::{Kind, Tally};
use crate::program::{Tasks, Told, WEBSOCKET_KEY};
use http::header::{CONTENT_TYPE, HOST, TE};
use http::{HeaderMap, Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use world::task::Task;

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(8);
/// Requests take milliseconds, those that drip two seconds.
const HANG: Duration = Duration::from_secs(30);
/// Of a tunnel that ends by itself: messages, and the time between two.
const MESSAGES: usize = 60;
const MESSAGE_PAUSE: Duration = Duration::from_millis(50);
/// A connection that is a tunnel for the gateway is used for so long.
const TUNNEL_MAX: Duration = Duration::from_secs(4);
/// At once on one connection of HTTP/2.
const STREAMS: usize = 4;
/// Dripped pieces of an upload.
const PIECES: usize = 20;
const PIECE_BYTES: usize = 5;

const KEPT: Kind = Kind { name: "http/1 kept", repeatable: true };
const FRESH: Kind = Kind { name: "http/1 fresh", repeatable: true };
const STREAM: Kind = Kind { name: "http/2", repeatable: true };
/// By a published port it is a tunnel for the gateway, and so with its instance.
const STREAM_TUNNEL: Kind = Kind { name: "http/2 tunnel", repeatable: false };
const TLS: Kind = Kind { name: "tls by curl", repeatable: true };
const GRPC: Kind = Kind { name: "grpc", repeatable: false };
const UPLOAD: Kind = Kind { name: "upload", repeatable: false };
const DRIP: Kind = Kind { name: "slow answer", repeatable: false };
const TUNNEL: Kind = Kind { name: "tunnel", repeatable: false };
const LONG: Kind = Kind { name: "long tunnel", repeatable: true };

/// Where requests go.
#[derive(Debug, Clone, Copy)]
pub struct Ways {
    /// By host name.
    pub shared: SocketAddr,
    pub published: SocketAddr,
    pub tls: Option<SocketAddr>,
    /// A service that may change, and one that never does.
    pub web: &'static str,
    pub still: &'static str,
}

/// Running clients.
pub struct Clients {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Client {
    ways: Ways,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
}

impl Clients {
    pub fn start(ways: &Ways, tally: &Arc<Tally>) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let client = Client { ways: *ways, tally: Arc::clone(tally), stop: Arc::clone(&stop) };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(client.all());
        });
        Clients { stop, thread: Some(thread) }
    }

    /// Lets every request under way end.
    pub fn stop(mut self) {
        assert!(self.end(), "clients do not panic");
    }

    fn end(&mut self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.end();
    }
}

impl Client {
    async fn all(self) {
        let mut tasks: Vec<Task> = Vec::new();
        for (count, shared) in [(2, true), (1, false)] {
            for _ in 0..count {
                tasks.push(world::task::spawn("kept", self.clone().kept(shared)));
                tasks.push(world::task::spawn("fresh", self.clone().fresh(shared)));
                tasks.push(world::task::spawn("http/2", self.clone().streams(shared)));
                tasks.push(world::task::spawn("upload", self.clone().slow(UPLOAD, shared)));
                tasks.push(world::task::spawn("drip", self.clone().slow(DRIP, shared)));
                tasks.push(world::task::spawn("tunnel", self.clone().tunnels(shared)));
            }
        }
        tasks.push(world::task::spawn("grpc", self.clone().grpc()));
        if let Some(address) = self.ways.tls {
            tasks.push(world::task::spawn("tls", self.clone().tls(address)));
        }
        tasks.push(world::task::spawn("long", self.clone().long()));
        for task in tasks {
            assert!(task.join().await.is_some(), "a client does not panic");
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn address(&self, shared: bool) -> SocketAddr {
        if shared { self.ways.shared } else { self.ways.published }
    }

    fn request(&self, path: &str, body: Told) -> Request<Told> {
        let mut request = Request::new(body);
        *request.uri_mut() = path.parse().expect("a path is a URI");
        request.headers_mut().insert(HOST, http::HeaderValue::from_static(self.ways.web));
        request
    }

    async fn kept(self, shared: bool) {
        let mut kept: Option<http1::SendRequest<Told>> = None;
        while self.goes_on() {
            let began = world::clock::monotonic();
            let how = within(async {
                let mut sender = match kept.take() {
                    Some(sender) => sender,
                    None => connect(self.address(shared)).await?,
                };
                let answer =
                    sender.send_request(self.request("/", Told::nothing())).await.map_err(|error| chain(&error))?;
                let closes = answer.headers().get(http::header::CONNECTION).is_some_and(|said| said == "close");
                slot(answer).await?;
                // An answer that did not say so promises the next.
                if !closes {
                    kept = Some(sender);
                }
                Ok(())
            })
            .await;
            self.tally.ended(KEPT, began, how);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn fresh(self, shared: bool) {
        while self.goes_on() {
            let began = world::clock::monotonic();
            let how = within(async {
                let mut sender = connect(self.address(shared)).await?;
                let answer = sender.send_request(self.request("/", Told::nothing())).await;
                slot(answer.map_err(|error| chain(&error))?).await
            })
            .await;
            self.tally.ended(FRESH, began, how);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn slow(self, kind: Kind, shared: bool) {
        while self.goes_on() {
            let began = world::clock::monotonic();
            let how = within(async {
                let mut sender = connect(self.address(shared)).await?;
                let request = if kind == UPLOAD {
                    let mut request = self.request("/upload", Told::drip());
                    *request.method_mut() = http::Method::POST;
                    request
                } else {
                    self.request("/drip", Told::nothing())
                };
                let answer = sender.send_request(request).await.map_err(|error| chain(&error))?;
                let (text, _) = read(answer).await?;
                let whole = if kind == UPLOAD {
                    text == (PIECES * PIECE_BYTES).to_string()
                } else {
                    text.len() == PIECES * PIECE_BYTES
                };
                if whole { Ok(()) } else { Err(format!("not the whole answer: {text:?}")) }
            })
            .await;
            self.tally.ended(kind, began, how);
        }
    }

    async fn tunnels(self, shared: bool) {
        while self.goes_on() {
            let began = world::clock::monotonic();
            let how = self.tunnel(self.address(shared), self.ways.web, |sent| sent < MESSAGES).await;
            self.tally.ended(TUNNEL, began, how);
        }
    }

    /// One that ends with the drill.
    async fn long(self) {
        let began = world::clock::monotonic();
        let how = self.tunnel(self.ways.shared, self.ways.still, |_| self.goes_on()).await;
        self.tally.ended(LONG, began, how);
    }

    async fn tunnel(&self, to: SocketAddr, host: &str, goes_on: impl Fn(usize) -> bool) -> Result<(), String> {
        let failed = |error: std::io::Error| error.to_string();
        let mut stream = within(async { TcpStream::connect(to).await.map_err(failed) }).await?;
        let head = format!(
            "GET /tunnel HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.map_err(failed)?;
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n\r\n") {
            let byte = within(async { stream.read_u8().await.map_err(failed) }).await;
            said.push(byte.map_err(|error| format!("at its handshake: {error}"))?);
        }
        if !said.starts_with(b"HTTP/1.1 101") {
            return Err(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned());
        }
        let mut sent = 0;
        while goes_on(sent) {
            let message = format!("message {sent:8}");
            stream.write_all(message.as_bytes()).await.map_err(failed)?;
            let mut back = vec![0; message.len()];
            let echoed = within(async { stream.read_exact(&mut back).await.map_err(failed).map(drop) }).await;
            echoed.map_err(|error| format!("after {sent} messages: {error}"))?;
            if back != message.as_bytes() {
                return Err("something else came back".to_owned());
            }
            sent += 1;
            tokio::time::sleep(MESSAGE_PAUSE).await;
        }
        Ok(())
    }

    async fn streams(self, shared: bool) {
        let mut kept: Option<http2::SendRequest<Told>> = None;
        let kind = if shared { STREAM } else { STREAM_TUNNEL };
        let mut since = world::clock::monotonic();
        while self.goes_on() {
            let began = world::clock::monotonic();
            // A tunnel ends with an instance that is replaced, after ten seconds; so this one does before.
            let old = !shared && since.elapsed() > TUNNEL_MAX;
            if old || kept.as_mut().is_none_or(|sender| sender.is_closed()) {
                since = began;
                kept = match within(connect_http_2(self.address(shared))).await {
                    Ok(sender) => Some(sender),
                    Err(error) => {
                        self.tally.ended(kind, began, Err(error));
                        continue;
                    }
                };
            }
            let Some(sender) = kept.clone() else { continue };
            let mut asked = Vec::new();
            for _ in 0..STREAMS {
                let (client, sender) = (self.clone(), sender.clone());
                asked.push(world::task::spawn("stream", async move { client.stream(sender).await }));
            }
            for task in asked {
                match task.join().await {
                    Some(Streamed::Ended(how)) => self.tally.ended(kind, began, how),
                    Some(Streamed::NotSeen) | None => kept = None,
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn stream(&self, mut sender: http2::SendRequest<Told>) -> Streamed {
        let mut request = self.request("/", Told::nothing());
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
        *request.uri_mut() = format!("http://{}/", self.ways.web).parse().expect("a name is a URI");
        if sender.ready().await.is_err() {
            return Streamed::NotSeen;
        }
        match tokio::time::timeout(HANG, sender.try_send_request(request)).await {
            Ok(Ok(answer)) => Streamed::Ended(slot(answer).await),
            // RFC 9113, section 8.7: what was never looked at may be sent again.
            Ok(Err(mut unsent)) => match unsent.take_message() {
                Some(_) => Streamed::NotSeen,
                None => Streamed::Ended(Err(chain(unsent.error()))),
            },
            Err(_) => Streamed::Ended(Err("hangs".to_owned())),
        }
    }

    async fn grpc(self) {
        while self.goes_on() {
            let began = world::clock::monotonic();
            let how = within(async {
                let mut sender = connect_http_2(self.ways.shared).await?;
                let mut request = self.request("/", Told::drip());
                *request.version_mut() = Version::HTTP_2;
                *request.method_mut() = http::Method::POST;
                *request.uri_mut() = format!("http://{}/lab.Echo/Stream", self.ways.web).parse().expect("a URI");
                let headers = request.headers_mut();
                headers.remove(HOST);
                headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
                headers.insert(TE, http::HeaderValue::from_static("trailers"));
                let answer = sender.send_request(request).await.map_err(|error| chain(&error))?;
                let (text, trailers) = read(answer).await?;
                let status = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
                match status.map(http::HeaderValue::as_bytes) {
                    Some(b"0") if text.len() == PIECES * PIECE_BYTES => Ok(()),
                    Some(_) | None => Err(format!("ended with {status:?} after {} bytes", text.len())),
                }
            })
            .await;
            self.tally.ended(GRPC, began, how);
        }
    }

    /// A new connection and handshake each time, whatever certificate is shown.
    async fn tls(self, address: SocketAddr) {
        let name = "tls.mixed.localhost";
        while self.goes_on() {
            let began = world::clock::monotonic();
            let mut command = tokio::process::Command::new("curl");
            command.args(["--silent", "--show-error", "--insecure", "--max-time", "20", "--resolve"]);
            command.arg(format!("{name}:{}:127.0.0.1", address.port()));
            command.arg(format!("https://{name}:{}/", address.port())).stdin(Stdio::null());
            let Ok(output) = command.output().await else { return };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let how = if text.starts_with("slot ") {
                Ok(())
            } else {
                Err(format!("{text} {}", String::from_utf8_lossy(&output.stderr)))
            };
            self.tally.ended(TLS, began, how);
            tokio::time::sleep(PAUSE * 10).await;
        }
    }
}

enum Streamed {
    Ended(Result<(), String>),
    /// The server was leaving before it looked at it.
    NotSeen,
}

async fn connect(to: SocketAddr) -> Result<http1::SendRequest<Told>, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| format!("connect: {error}"))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    // It ends when its sender is dropped or the server closes; the request under way tells.
    world::task::spawn("connection", async move { drop(connection.await) }).detach();
    Ok(sender)
}

async fn connect_http_2(to: SocketAddr) -> Result<http2::SendRequest<Told>, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| format!("connect: {error}"))?;
    let (sender, connection) = http2::handshake(Tasks, TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    world::task::spawn("connection", async move { drop(connection.await) }).detach();
    Ok(sender)
}

/// The whole answer to a request for `/`.
async fn slot(answer: Response<Incoming>) -> Result<(), String> {
    let (text, _) = read(answer).await?;
    if text.starts_with("slot ") { Ok(()) } else { Err(format!("something else was said: {text:?}")) }
}

async fn read(answer: Response<Incoming>) -> Result<(String, Option<HeaderMap>), String> {
    let (head, mut body) = answer.into_parts();
    let (mut bytes, mut trailers) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| format!("{} after {} bytes: {}", head.status, bytes.len(), chain(&error)))?;
        match frame.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if head.status.is_success() { Ok((text, trailers)) } else { Err(format!("{} {text}", head.status)) }
}

async fn within<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(HANG, work).await.unwrap_or_else(|_| Err("hangs".to_owned()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
