//! HTTP/2 on both sides, and TLS in front of it.

use crate::bed::{Bed, Body, HANG, Instance, SERVICE, endpoints, listener, route, text, until};
use bytes::Bytes;
use gateway::{Limits, ListenerKind, Route, Speaks, Table};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pki::{Authority, Certificate};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire::spec::{Redirect, Rules};
use world::task::Task;

fn now_s() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn issue(authority: &Authority, names: &[&str]) -> Arc<Certificate> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(authority.issue(&names, now_s()).unwrap())
}

fn table(ids: &[&str], certificates: Vec<Arc<Certificate>>) -> Table {
    let mut listener = listener(ListenerKind::Routed, Speaks::Http);
    listener.tls = true;
    Table {
        listeners: vec![listener],
        routes: vec![route(&[], "/", SERVICE)],
        services: BTreeMap::from([(SERVICE.to_owned(), endpoints(ids))]),
        certificates,
        ..Table::default()
    }
}

/// A gateway that serves TLS, and whom its clients trust.
struct Secure {
    bed: Bed,
    authority: Authority,
}

impl Secure {
    async fn new(instance: &Instance) -> Secure {
        let authority = Authority::create("test", now_s()).unwrap();
        let certificates = vec![issue(&authority, &["shop.test"]), issue(&authority, &["*.wild.test"])];
        let bed = Bed::start(Limits::default(), table(&["a"], certificates)).await;
        bed.doors.set("a", instance.address);
        Secure { bed, authority }
    }

    async fn try_connect(&self, host: &str, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let own =
            Certificate::from_der(issue(&self.authority, &["x"]).chain.clone(), &issue(&self.authority, &["x"]).key());
        roots.add(own.unwrap().chain[1].clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(self.bed.address).await.unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn connect(&self, alpn: &[&str]) -> TlsStream<TcpStream> {
        self.try_connect("shop.test", alpn).await.expect("a handshake")
    }

    async fn many(&self) -> Many {
        let stream = self.connect(&["h2", "http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Many::over(TokioIo::new(stream)).await
    }
}

type Sending = http_body_util::combinators::BoxBody<Bytes, Infallible>;

fn empty() -> Sending {
    Full::new(Bytes::new()).boxed()
}

/// A client connection of HTTP/2.
struct Many {
    sender: http2::SendRequest<Sending>,
    _task: Task,
}

impl Many {
    async fn over(io: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static) -> Many {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let task = world::task::spawn("test client", async move { drop(connection.await) });
        Many { sender, _task: task }
    }

    async fn send(&mut self, request: Request<Sending>) -> Response<Incoming> {
        let sent = tokio::time::timeout(HANG, self.sender.send_request(request));
        sent.await.expect("an answer before the hang guard").expect("an answer")
    }

    async fn get(&mut self, path: &str) -> (StatusCode, String) {
        let response = self.send(get(path)).await;
        assert_eq!(response.version(), Version::HTTP_2);
        let status = response.status();
        (status, body_of(response).await)
    }
}

fn get(path: &str) -> Request<Sending> {
    Request::get(format!("https://shop.test{path}")).body(empty()).unwrap()
}

async fn body_of(response: Response<Incoming>) -> String {
    let bytes = tokio::time::timeout(HANG, response.into_body().collect()).await.expect("a body").unwrap().to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn http_1_over_tls_is_told_to_the_instance() {
    let mirror = Instance::mirror().await;
    let world = Secure::new(&mirror).await;
    let stream = world.connect(&["http/1.1"]).await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let _task = world::task::spawn("test client", async move { drop(connection.await) });
    let request = Request::get("/").header("host", "shop.test").header("x-forwarded-proto", "gopher").body(empty());
    let said = body_of(sender.send_request(request.unwrap()).await.unwrap()).await;
    assert!(said.contains("x-forwarded-proto: https\n") && said.contains("proto=https\n"), "{said}");
    assert!((world.bed.counted("bramble_gateway_tls_handshakes_total", "full") - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn what_came_within_tls_is_not_lost_when_the_connection_is_put_away() {
    let mirror = Instance::mirror().await;
    let world = Secure::new(&mirror).await;
    let mut client = world.connect(&["http/1.1"]).await;
    for round in 0..3 {
        // Two at once, longer than what is read at a time.
        let padding = "x".repeat(3_000);
        let request = format!("GET /{round} HTTP/1.1\r\nhost: shop.test\r\nx-padding: {padding}\r\n\r\n");
        client.write_all(request.repeat(2).as_bytes()).await.unwrap();
        let mut read = String::new();
        while read.matches(&padding).count() < 2 {
            let mut some = vec![0; 16 << 10];
            let length = tokio::time::timeout(HANG, client.read(&mut some)).await.expect("an answer").unwrap();
            assert!(length > 0, "{read}");
            read.push_str(std::str::from_utf8(&some[..length]).unwrap());
        }
        world.bed.counts("bramble_gateway_resting_connections", "", 1.0).await;
    }
}

#[tokio::test]
async fn the_certificate_changes_under_open_connections() {
    let named = Instance::named("one").await;
    let world = Secure::new(&named).await;
    assert!(world.try_connect("a.wild.test", &["h2"]).await.is_ok());
    assert!(world.try_connect("other.test", &["h2"]).await.is_err(), "shown another name's");
    let mut before = world.many().await;
    assert_eq!(before.get("/").await.1, "one");

    let other = vec![issue(&world.authority, &["other.test"])];
    let applied = world.bed.gateway.apply(table(&["a"], other)).await;
    assert_eq!((applied.failed, applied.unusable), (vec![], vec![]));
    assert!(world.try_connect("other.test", &["h2"]).await.is_ok());
    assert!(world.try_connect("shop.test", &["h2"]).await.is_err());
    assert_eq!(before.get("/").await.1, "one", "what is open stays open");
}

#[tokio::test]
async fn what_is_not_tls_is_turned_away() {
    let named = Instance::named("one").await;
    let world = Secure::new(&named).await;
    let mut stream = TcpStream::connect(world.bed.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let read = tokio::time::timeout(HANG, stream.read_to_end(&mut said)).await.expect("an end before the hang guard");
    assert!(read.is_err() || !said.starts_with(b"HTTP"), "{}", said.escape_ascii());
    until(|| world.bed.counted("bramble_gateway_tls_handshakes_total", "failed") > 0.5).await;
    assert_eq!(world.many().await.get("/").await.1, "one");
}

#[tokio::test]
async fn a_hundred_streams_share_a_connection() {
    let mirror = Instance::mirror().await;
    let world = Secure::new(&mirror).await;
    let client = world.many().await;
    let asked = (0..100).map(|number| {
        let mut sender = client.sender.clone();
        async move {
            let request = Request::get(format!("https://shop.test/{number}"))
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(empty())
                .unwrap();
            let said = body_of(sender.send_request(request).await.unwrap()).await;
            assert!(said.starts_with(&format!("GET /{number}\n")), "{said}");
            assert!(said.contains("cookie: a=1; b=2\n") && said.contains("host: shop.test\n"), "{said}");
        }
    });
    tokio::time::timeout(HANG, futures::future::join_all(asked)).await.expect("all before the hang guard");
}

#[tokio::test]
async fn http_2_is_understood_without_tls_too() {
    let mirror = Instance::mirror().await;
    let bed = Bed::new(&[("a", &mirror)]).await;
    let stream = TcpStream::connect(bed.address).await.unwrap();
    let mut client = Many::over(TokioIo::new(stream)).await;
    let request = Request::post("http://shop.test/up").body(Full::new(Bytes::from("carried")).boxed()).unwrap();
    let said = body_of(client.send(request).await).await;
    assert!(said.starts_with("POST /up\n") && said.ends_with("carried"), "{said}");
    assert!(said.contains("x-forwarded-proto: http\n"), "{said}");
    assert_eq!(bed.client().await.get("/").await.status, 200, "beside HTTP/1.1");
}

#[tokio::test]
async fn a_stream_that_is_reset_takes_its_request_along() {
    let waiting = Arc::new(AtomicUsize::new(0));
    let instance = Instance::waiting(Arc::clone(&waiting)).await;
    let world = Secure::new(&instance).await;
    let client = world.many().await;
    let (mut first, mut second) = (client.sender.clone(), client.sender.clone());
    let left = world::task::spawn("left", async move { drop(first.send_request(get("/")).await) });
    let _stays = world::task::spawn("stays", async move { drop(second.send_request(get("/")).await) });
    until(|| waiting.load(Ordering::SeqCst) == 2).await;
    drop(left);
    until(|| waiting.load(Ordering::SeqCst) == 1).await;
    drop(client);
    drop(_stays);
    until(|| waiting.load(Ordering::SeqCst) == 0).await;
}

/// Says back each message it is sent, then ends with a status in trailers, as gRPC does.
async fn echo_service() -> Instance {
    Instance::raw(|stream| async move {
        let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.headers()["te"], "trailers");
            assert_eq!(request.uri().authority().map(http::uri::Authority::as_str), Some("shop.test"));
            let (frames, body) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
            let mut incoming = request.into_body();
            world::task::spawn("echo", async move {
                while let Some(Ok(frame)) = incoming.frame().await {
                    if let Ok(data) = frame.into_data()
                        && frames.send(Ok(Frame::data(data))).await.is_err()
                    {
                        return;
                    }
                }
                let status = http::HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    http::HeaderValue::from_static("0"),
                )]);
                drop(frames.send(Ok(Frame::trailers(status))).await);
            })
            .detach();
            let body = StreamBody::new(futures::stream::unfold(body, |mut body| async {
                body.recv().await.map(|frame| (frame, body))
            }));
            Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(serving.serve_connection(TokioIo::new(stream), service).await);
    })
    .await
}

#[tokio::test]
async fn grpc_streams_both_ways_and_ends_with_trailers() {
    let service = echo_service().await;
    let world = Secure::new(&service).await;
    let mut client = world.many().await;
    for round in 0..3 {
        let (frames, sending) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
        let body = StreamBody::new(futures::stream::unfold(sending, |mut sending| async {
            sending.recv().await.map(|frame| (frame, sending))
        }));
        let request = Request::post("https://shop.test/echo.Echo/Say")
            .header("content-type", "application/grpc+proto")
            .header("te", "trailers")
            .body(BodyExt::boxed(body))
            .unwrap();
        let response = client.send(request).await;
        assert_eq!(response.status(), 200);
        let mut answer = response.into_body();
        for message in ["one", "two", "three"] {
            // The next is sent when the last has come back: nothing on the way may wait for more.
            frames.send(Ok(Frame::data(Bytes::from(message)))).await.unwrap();
            let frame = tokio::time::timeout(HANG, answer.frame()).await.expect("a frame").unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), message);
        }
        drop(frames);
        let last = tokio::time::timeout(HANG, answer.frame()).await.expect("a frame").unwrap().unwrap();
        assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
        assert_eq!(world.bed.doors.dials("a"), 1, "round {round}: one connection carries all");
    }
}

/// A gateway over TLS with these routes to one instance.
async fn ruled(instance: &Instance, routes: Vec<Route>) -> Secure {
    let world = Secure::new(instance).await;
    let certificates = vec![issue(&world.authority, &["shop.test"])];
    world.bed.gateway.apply(Table { routes, ..table(&["a"], certificates) }).await;
    world
}

fn with(rules: Rules) -> Route {
    Route { rules: Some(Box::new(rules)), ..route(&[], "/", SERVICE) }
}

#[tokio::test]
async fn rules_know_what_came_with_tls() {
    let named = Instance::named("shop").await;
    let to_https = || {
        let redirect = Redirect { to: "https://{host}{path}".to_owned(), status: 308, plain_only: true };
        with(Rules { redirect: Some(redirect), ..Rules::default() })
    };
    let world = ruled(&named, vec![to_https()]).await;
    assert_eq!(world.many().await.get("/").await, (StatusCode::OK, "shop".to_owned()), "it is there already");
    // As Traefik's labels say it: one router for each of the two, the guards on that for https.
    let mut plain = to_https();
    plain.conditions.plain = true;
    let guarded = with(Rules { deny: vec!["127.0.0.0/8".to_owned()], ..Rules::default() });
    let world = ruled(&named, vec![plain, guarded]).await;
    assert_eq!(world.many().await.get("/").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_body_in_a_stream_is_cut_off_too() {
    let reading = Instance::raw(|stream| async move {
        let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
            let read = request.into_body().collect().await.map(|body| body.to_bytes().len());
            let said = read.map_or_else(|_| "cut".to_owned(), |length| length.to_string());
            Ok::<_, Infallible>(Response::new(text(said)))
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(serving.serve_connection(TokioIo::new(stream), service).await);
    })
    .await;
    let world = ruled(&reading, vec![with(Rules { body_bytes_max: Some(10), ..Rules::default() })]).await;
    let mut client = world.many().await;
    for (parts, expected) in [(2, 200), (3, 413)] {
        let frames = (0..parts).map(|_| Ok(Frame::data(Bytes::from_static(b"12345"))));
        let body = BodyExt::boxed(StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>())));
        let request = Request::post("https://shop.test/").header("content-type", "application/grpc");
        let response = client.send(request.body(body).unwrap()).await;
        assert_eq!(response.status(), expected, "{}", body_of(response).await);
    }
}

#[tokio::test]
async fn a_deadline_of_grpc_that_passes_is_told_in_grpc() {
    let silent = Instance::raw(|stream| async move {
        let service = hyper::service::service_fn(|_: Request<Incoming>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(serving.serve_connection(TokioIo::new(stream), service).await);
    })
    .await;
    let world = Secure::new(&silent).await;
    let mut client = world.many().await;
    let request = Request::post("https://shop.test/echo.Echo/Say")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "50m");
    let response = client.send(request.body(empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "4");
}

#[tokio::test]
async fn an_instance_without_http_2_is_said_to_be_broken() {
    let named = Instance::http(|_| async { Response::new(text("plain")) }).await;
    let world = Secure::new(&named).await;
    let mut client = world.many().await;
    let request = Request::post("https://shop.test/echo.Echo/Say").header("content-type", "application/grpc");
    let response = client.send(request.body(empty()).unwrap()).await;
    assert_eq!(response.status(), 502, "{}", body_of(response).await);
}

#[tokio::test]
async fn a_websocket_goes_within_a_stream() {
    let echo = Instance::raw(|mut stream| async move {
        let head = crate::proxy::read_head(&mut stream).await;
        assert!(head.starts_with("GET /socket HTTP/1.1\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
        assert!(head.contains("sec-websocket-key: ") && head.contains("sec-websocket-version: 13\r\n"), "{head}");
        let agreed = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                      sec-websocket-accept: x\r\nsec-websocket-protocol: chat\r\n\r\n";
        stream.write_all(agreed.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    })
    .await;
    let world = Secure::new(&echo).await;
    let mut client = world.many().await;
    for round in ["one", "two"] {
        let request = Request::builder()
            .method("CONNECT")
            .uri("https://shop.test/socket")
            .extension(hyper::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "chat")
            .body(empty())
            .unwrap();
        let response = client.send(request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let mut socket = TokioIo::new(hyper::upgrade::on(response).await.expect("both ends"));
        socket.write_all(round.as_bytes()).await.unwrap();
        let mut said = [0; 3];
        tokio::time::timeout(HANG, socket.read_exact(&mut said)).await.expect("an echo").unwrap();
        assert_eq!(said, round.as_bytes());
        assert_eq!(world.bed.gateway.in_flight("a"), 1);
        drop(socket);
        until(|| world.bed.gateway.in_flight("a") == 0).await;
    }
}
