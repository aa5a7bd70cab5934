//! HTTP/3 beside TLS over TCP.

use crate::bed::{Bed, HANG, Instance, SERVICE, endpoints, listener, route, text, until};
use bytes::{Buf, Bytes};
use gateway::{AccessSink, Gateway, Left, Limits, ListenerKind, Settings, Speaks, Table};
use h3::client::{RequestStream, SendRequest};
use h3_quinn::OpenStreams;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use pki::{Authority, Certificate};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wire::api::RequestRecord;
use wire::spec::{AccessLog, ClientCertificates, Rules};
use world::task::Task;

const LONG: Duration = Duration::from_secs(60);

fn now_s() -> i64 {
    i64::try_from(world::clock::unix_ms() / 1_000).unwrap()
}

fn issue(authority: &Authority, names: &[&str]) -> Arc<Certificate> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(authority.issue(&names, now_s()).unwrap())
}

fn table(certificates: Vec<Arc<Certificate>>) -> Table {
    let mut listener = listener(ListenerKind::Routed, Speaks::Http);
    listener.tls = true;
    Table {
        listeners: vec![listener],
        routes: vec![route(&[], "/", SERVICE)],
        services: BTreeMap::from([(SERVICE.to_owned(), endpoints(&["a"]))]),
        certificates,
        ..Table::default()
    }
}

/// A gateway that serves HTTP/3, and whom its clients trust.
struct Wide {
    bed: Bed,
    authority: Authority,
}

/// A client connection. It ends when dropped.
struct Client {
    sender: SendRequest<OpenStreams, Bytes>,
    quic: quinn::Connection,
    _driver: Task,
    _endpoint: quinn::Endpoint,
}

type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// An answer as it came.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Wide {
    async fn new(instance: &Instance) -> Wide {
        Wide::with(instance, Settings::default(), |table| table).await
    }

    async fn with(instance: &Instance, settings: Settings, change: impl FnOnce(Table) -> Table) -> Wide {
        let authority = Authority::create("test", now_s()).unwrap();
        let table = change(table(vec![issue(&authority, &["shop.test", "card.test"])]));
        let bed = Bed::start_with(settings, table).await;
        bed.doors.set("a", instance.address);
        let world = Wide { bed, authority };
        world.offered().await;
        world
    }

    /// Waits until answers over TCP say that there is HTTP/3.
    async fn offered(&self) {
        let offer = format!("alt-svc: h3=\":{}\"; ma=3600\r\n", self.bed.address.port());
        let offered = async { while !self.refused_by_tcp().await.contains(&offer) {} };
        tokio::time::timeout(HANG, offered).await.expect("an offer before the hang guard");
    }

    fn tls(&self, alpn: &[u8]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }

    /// What HTTP/1 is answered that names no host. No instance is asked.
    async fn refused_by_tcp(&self) -> String {
        let stream = TcpStream::connect(self.bed.address).await.unwrap();
        let name = ServerName::try_from("shop.test").unwrap();
        let tls = TlsConnector::from(Arc::new(self.tls(b"http/1.1")));
        let mut stream = tls.connect(name, stream).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\nhost: no/host\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn quic(&self, host: &str) -> Result<(quinn::Connection, quinn::Endpoint), quinn::ConnectionError> {
        let crypto = QuicClientConfig::try_from(self.tls(b"h3")).unwrap();
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        let connecting = endpoint.connect(self.bed.address, host).unwrap();
        let connection = tokio::time::timeout(HANG, connecting).await.expect("an end before the hang guard")?;
        Ok((connection, endpoint))
    }

    async fn client(&self) -> Client {
        let (quic, endpoint) = self.quic("shop.test").await.expect("a handshake");
        let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await.unwrap();
        let driver = world::task::spawn("test client", async move { drop(driver.wait_idle().await) });
        Client { sender, quic, _driver: driver, _endpoint: endpoint }
    }
}

impl Client {
    async fn send(&mut self, request: Request<()>) -> Stream {
        self.sender.send_request(request).await.unwrap()
    }

    async fn ask(&mut self, request: Request<()>, body: impl Into<Bytes>) -> Answer {
        let mut stream = self.send(request).await;
        let body = body.into();
        if !body.is_empty() {
            stream.send_data(body).await.unwrap();
        }
        stream.finish().await.unwrap();
        answer(&mut stream).await
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.ask(get(path), "").await
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://shop.test{path}")).body(()).unwrap()
}

async fn answer(stream: &mut Stream) -> Answer {
    let answering = async {
        let head = stream.recv_response().await.unwrap();
        let mut body = Vec::new();
        while let Some(mut data) = stream.recv_data().await.unwrap() {
            body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        Answer { status: head.status(), headers: head.headers().clone(), body }
    };
    tokio::time::timeout(HANG, answering).await.expect("an answer before the hang guard")
}

#[derive(Default)]
struct Log(Mutex<Vec<RequestRecord>>);

impl AccessSink for Log {
    fn write(&self, records: &[RequestRecord]) {
        self.0.lock().unwrap().extend_from_slice(records);
    }
}

#[tokio::test]
async fn a_request_goes_the_way_of_all_others() {
    let mirror = Instance::mirror().await;
    let log = Arc::new(Log::default());
    let access = Some(Arc::clone(&log) as Arc<dyn AccessSink>);
    let settings = Settings { access, access_log: Some(AccessLog::All), ..Settings::default() };
    let world = Wide::with(&mirror, settings, |table| table).await;
    let mut client = world.client().await;
    let answer = client.get("/here?q=1").await;
    let said = answer.text();
    assert_eq!(answer.status, 200);
    assert!(said.starts_with("GET /here?q=1\n") && said.ends_with("\n\n"), "no body: {said}");
    assert!(said.contains("host: shop.test\n") && said.contains("x-forwarded-proto: https\n"), "{said}");
    assert!(!said.contains("transfer-encoding"), "{said}");
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string().as_str());
    assert!(answer.headers.contains_key("date") && !answer.headers.contains_key("connection"));
    world.bed.gateway.told().await;
    let told = log.0.lock().unwrap().clone();
    let told = told.iter().find(|record| record.path == "/here?q=1").unwrap();
    assert_eq!((told.version.as_str(), told.status), ("HTTP/3", 200));
    assert!(world.bed.counted("bramble_gateway_connections", "").abs() > 0.5);

    let answer = client.ask(Request::head("https://shop.test/").body(()).unwrap(), "").await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    let answer = client.ask(Request::post("https://shop.test/up").body(()).unwrap(), "carried").await;
    assert!(answer.text().starts_with("POST /up\n") && answer.text().ends_with("\n\ncarried"), "{}", answer.text());
    let request = Request::put("https://shop.test/up").header("content-length", 7).body(()).unwrap();
    let said = client.ask(request, "carried").await.text();
    assert!(said.contains("content-length: 7\n") && said.ends_with("\n\ncarried"), "{said}");
}

/// Answers with what it was sent, and trailers.
async fn echo() -> Instance {
    Instance::raw(|stream| async move {
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
            Ok::<_, std::convert::Infallible>(
                Response::builder().header("content-type", "application/grpc").body(request.into_body()).unwrap(),
            )
        });
        let serving = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        drop(serving.serve_connection(TokioIo::new(stream), service).await);
    })
    .await
}

#[tokio::test]
async fn grpc_streams_both_ways_and_ends_with_trailers() {
    let echo = echo().await;
    let world = Wide::new(&echo).await;
    let mut client = world.client().await;
    let request = Request::post("https://shop.test/echo.Echo/Say")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let mut stream = client.send(request).await;
    for message in ["one", "two", "three"] {
        // The next is sent when the last has come back: nothing on the way may wait for more.
        stream.send_data(Bytes::from(message)).await.unwrap();
        if message == "one" {
            assert_eq!(stream.recv_response().await.unwrap().status(), 200);
        }
        let mut came = tokio::time::timeout(HANG, stream.recv_data()).await.expect("a message").unwrap().unwrap();
        assert_eq!(came.copy_to_bytes(came.remaining()), message);
    }
    let status =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))]);
    stream.send_trailers(status).await.unwrap();
    stream.finish().await.unwrap();
    assert!(stream.recv_data().await.unwrap().is_none());
    assert_eq!(stream.recv_trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn large_bodies_and_many_streams_share_a_connection() {
    let instance = Instance::http(|request| async move {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Response::new(text(body))
    })
    .await;
    let world = Wide::new(&instance).await;
    let client = world.client().await;
    // More than any window, both ways.
    let large: Bytes = (0..6_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let asked = (0..60).map(|number| {
        let mut sender = client.sender.clone();
        let body = if number == 0 { large.clone() } else { Bytes::from(format!("body {number}")) };
        async move {
            let stream = sender.send_request(Request::post("https://shop.test/").body(()).unwrap()).await.unwrap();
            let (mut sending, mut receiving) = stream.split();
            let expected = body.clone();
            let send = async move {
                sending.send_data(body).await.unwrap();
                sending.finish().await.unwrap();
            };
            let receive = async move {
                let head = receiving.recv_response().await.unwrap();
                let mut came = Vec::new();
                while let Some(mut data) = receiving.recv_data().await.unwrap() {
                    came.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                }
                assert_eq!((head.status(), came == expected), (StatusCode::OK, true), "stream {number}");
            };
            futures::future::join(send, receive).await;
        }
    });
    tokio::time::timeout(HANG, futures::future::join_all(asked)).await.expect("all before the hang guard");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_requests_along() {
    let waiting = Arc::new(AtomicUsize::new(0));
    let instance = Instance::waiting(Arc::clone(&waiting)).await;
    let world = Wide::new(&instance).await;
    let mut client = world.client().await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = client.send(get("/")).await;
        stream.finish().await.unwrap();
        streams.push(stream);
    }
    until(|| waiting.load(Ordering::SeqCst) == 2).await;
    streams[0].stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    until(|| waiting.load(Ordering::SeqCst) == 1).await;
    client.quic.close(quinn::VarInt::from_u32(0x100), b"");
    until(|| waiting.load(Ordering::SeqCst) == 0).await;
    until(|| world.bed.gateway.connections() == 0).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    let instance = Instance::raw(|mut stream| async move {
        let mut asked = [0; 1 << 10];
        drop(stream.read(&mut asked).await);
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await);
    })
    .await;
    let world = Wide::new(&instance).await;
    let mut client = world.client().await;
    let mut stream = client.send(get("/")).await;
    stream.finish().await.unwrap();
    let head = tokio::time::timeout(HANG, stream.recv_response()).await.expect("an end before the hang guard");
    let broken = async {
        head?;
        while stream.recv_data().await?.is_some() {}
        Ok::<_, h3::error::StreamError>(())
    };
    let broken = tokio::time::timeout(HANG, broken).await.expect("an end before the hang guard");
    assert!(broken.is_err());
}

#[tokio::test]
async fn certificates_go_by_name_as_over_tcp() {
    let named = Instance::named("shop").await;
    let certificates = |host: &str, authority: &Authority| {
        let authority = authority.certificate_pem().to_owned();
        let asked = ClientCertificates { authority, optional: true };
        let rules = Rules { client_certificates: Some(asked), ..Rules::default() };
        gateway::Route { rules: Some(Box::new(rules)), ..route(&[host], "/", SERVICE) }
    };
    let cards = Authority::create("cards", now_s()).unwrap();
    let world = Wide::with(&named, Settings::default(), |mut table| {
        table.routes.insert(0, certificates("card.test", &cards));
        table
    })
    .await;
    assert!(world.quic("shop.test").await.is_ok());
    assert!(world.quic("other.test").await.is_err(), "shown another name's");
    assert!(world.quic("card.test").await.is_err(), "certificates of clients are asked for over TCP only");
    until(|| world.bed.counted("bramble_gateway_tls_handshakes_total", "failed") > 0.5).await;
    assert_eq!(world.client().await.get("/").await.text(), "shop");
}

#[tokio::test]
async fn many_who_come_at_once_get_in() {
    let named = Instance::named("shop").await;
    let world = Wide::new(&named).await;
    // More than are believed where they are: the others have to show it.
    let come = futures::future::join_all((0..100).map(|_| world.quic("shop.test"))).await;
    assert!(come.iter().all(Result::is_ok));
    assert_eq!(world.bed.gateway.connections(), 100);
    drop(come);
    assert_eq!(world.client().await.get("/").await.text(), "shop");
}

#[tokio::test]
async fn heads_have_the_bound_of_all_others() {
    let named = Instance::named("shop").await;
    let world = Wide::new(&named).await;
    let mut client = world.client().await;
    let with = |bytes: usize| Request::get("https://shop.test/").header("x-long", "x".repeat(bytes)).body(()).unwrap();
    let most = Limits::default().head_bytes_max;
    assert_eq!(client.ask(with(most / 2), "").await.status, 200);
    assert_eq!(client.ask(with(most + 1), "").await.status, 431);
    // What a client says it will send is not waited for.
    let (mut sending, mut receiving) = client.quic.open_bi().await.unwrap();
    sending.write_all(&[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
    let stopped = tokio::time::timeout(HANG, sending.stopped()).await.expect("an end before the hang guard");
    assert_eq!(stopped.unwrap().map(quinn::VarInt::into_inner), Some(0x107));
    assert!(receiving.read_to_end(1 << 10).await.is_err());
    assert_eq!(client.get("/").await.text(), "shop", "the others go on");
}

#[tokio::test]
async fn what_has_no_form_is_not_passed_on() {
    let mirror = Instance::mirror().await;
    let world = Wide::new(&mirror).await;
    let mut client = world.client().await;
    let post = || Request::post("https://shop.test/");
    for request in [
        post().header("transfer-encoding", "chunked"),
        post().header("connection", "close"),
        post().header("content-length", "1").header("content-length", "4"),
    ] {
        let mut stream = client.send(request.body(()).unwrap()).await;
        drop(stream.send_data(Bytes::from("body")).await);
        drop(stream.finish().await);
        let failed = tokio::time::timeout(HANG, stream.recv_response()).await.expect("an end before the hang guard");
        assert!(failed.is_err(), "{failed:?}");
    }
    for length in [3, 5] {
        let answer = client.ask(post().header("content-length", length).body(()).unwrap(), "body").await;
        assert_eq!(answer.status, 400, "a body that is not {length} bytes long");
    }
    assert_eq!(client.get("/").await.status, 200, "the others go on");
}

/// The head of a POST in a frame of its own, all of it from QPACK's table but the host (RFC 9204, appendix A).
const POST: [u8; 18] = *b"\x01\x10\x00\x00\xd4\xd7\xc1\x50\x09shop.test";

#[tokio::test]
async fn a_stream_that_ends_too_early_or_means_nothing_hurts_no_other() {
    let panics = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&panics);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::SeqCst);
        before(panic);
    }));
    let mirror = Instance::mirror().await;
    let world = Wide::new(&mirror).await;
    let post = |rest: &[u8]| [&POST[..], rest].concat();
    let mut sent = vec![
        (post(b""), true),
        (post(b"\x00\x02ab"), true),
        // Data that is announced and does not come, or not all of it; the same of trailers.
        (post(b"\x00\x40\x64"), false),
        (post(b"\x00\x40\x64some"), false),
        (post(b"\x00\x02ab\x01\x05x"), false),
        (post(b"\x00"), false),
        (b"\x01\x40\x40ab".to_vec(), false),
        (Vec::new(), false),
    ];
    // What nobody writes on purpose, from a fixed seed.
    let mut seed = 7_u64;
    let mut noise = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    for _ in 0..400 {
        let mut bytes = POST.to_vec();
        let [at, value, more, ..] = noise();
        bytes[usize::from(at) % POST.len()] = value;
        bytes.extend(noise().into_iter().cycle().take(usize::from(more) % 24));
        sent.push((bytes, false));
    }
    for (bytes, is_whole) in sent {
        let (quic, _endpoint) = world.quic("shop.test").await.expect("a handshake");
        let exchanged = async {
            let (mut sending, mut receiving) = quic.open_bi().await.ok()?;
            sending.write_all(&bytes).await.ok()?;
            sending.finish().ok()?;
            receiving.read_to_end(64 << 10).await.ok()
        };
        let came = tokio::time::timeout(HANG, exchanged).await.expect("an end before the hang guard");
        assert!(came.is_some_and(|came| !came.is_empty()) || !is_whole, "{}", bytes.escape_ascii());
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
    assert_eq!(world.client().await.get("/").await.status, 200);
}

#[tokio::test]
async fn connections_have_the_bounds_of_all_others() {
    let named = Instance::named("shop").await;
    let limits =
        Limits { idle_deadline: Duration::from_millis(200), connections_per_client_max: 4, ..Limits::default() };
    let world = Wide::with(&named, Settings { limits, ..Settings::default() }, |table| table).await;
    until(|| world.bed.gateway.connections() == 0).await;
    let mut open = Vec::new();
    let refused = loop {
        match world.quic("shop.test").await {
            Ok(client) => open.push(client),
            Err(error) => break error,
        }
        assert!(open.len() < 100);
    };
    assert!(matches!(refused, quinn::ConnectionError::ConnectionClosed(_)), "{refused}");
    for (client, _endpoint) in &open {
        let closed = tokio::time::timeout(HANG, client.closed()).await.expect("an end before the hang guard");
        assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "asks nothing: {closed}");
    }
}

#[tokio::test]
async fn an_answer_under_way_is_finished_when_the_gateway_leaves() {
    let waiting = Arc::new(AtomicUsize::new(0));
    let go = Arc::new(tokio::sync::Notify::new());
    let instance = {
        let (waiting, go) = (Arc::clone(&waiting), Arc::clone(&go));
        Instance::http(move |_| {
            let (waiting, go) = (Arc::clone(&waiting), Arc::clone(&go));
            async move {
                waiting.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Response::new(text("whole"))
            }
        })
        .await
    };
    let world = Wide::new(&instance).await;
    let mut client = world.client().await;
    let mut stream = client.send(get("/")).await;
    stream.finish().await.unwrap();
    until(|| waiting.load(Ordering::SeqCst) == 1).await;
    world.bed.gateway.leave().await;
    let refused = async {
        let mut stream = client.sender.send_request(get("/next")).await?;
        stream.finish().await?;
        stream.recv_response().await
    };
    let refused = tokio::time::timeout(HANG, refused).await.expect("an end before the hang guard");
    assert!(refused.is_err() && waiting.load(Ordering::SeqCst) == 1, "the next is for another gateway: {refused:?}");
    go.notify_one();
    assert_eq!(answer(&mut stream).await.text(), "whole");
    let left = world.bed.gateway.finish(LONG, LONG).await;
    assert_eq!(left, Left::default(), "nobody is left");
    let closed = tokio::time::timeout(HANG, client.quic.closed()).await.expect("an end before the hang guard");
    assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
}

#[tokio::test]
async fn the_next_gateway_takes_the_port_when_this_one_is_through() {
    let named = Instance::named("shop").await;
    let world = Wide::new(&named).await;
    let mut client = world.client().await;
    assert_eq!(client.get("/").await.status, 200);
    let inherited = world.bed.gateway.sockets().await;
    let settings = Settings { inherited, ..Settings::default() };
    let next = Gateway::start(settings, Arc::clone(&world.bed.doors) as _, meter::Meter::new());
    let applied = next.apply(table(vec![issue(&world.authority, &["shop.test"])])).await;
    assert_eq!((applied.failed, applied.listening[0].1), (vec![], world.bed.address), "it does not wait for UDP");
    world.bed.gateway.leave().await;
    assert_eq!(world.bed.gateway.finish(LONG, LONG).await, Left::default(), "nobody is left");
    world.offered().await;
    assert_eq!(world.client().await.get("/").await.text(), "shop");
    assert_eq!(next.connections(), 1);
}
