//! Those who are no members, and what they send: each is turned away for a reason that can be counted.

use crate::room::{Cluster, Event, LONG, Pair, Stage, now_s, until};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pki::MachineKey;
use rpc::{CallError, Patience, Terms};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Believes everybody.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A client that keeps to no rule: TLS as it likes it.
async fn client(address: SocketAddr, alpn: &[&[u8]], shown: Option<Shown>) -> std::io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match shown {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("peer").unwrap(), stream).await
}

/// What the server has to say to whoever comes so: nothing, or an error.
async fn turned_away(address: SocketAddr, alpn: &[&[u8]], shown: Option<Shown>) -> String {
    match client(address, alpn, shown).await {
        Err(error) => error.to_string(),
        // With TLS 1.3 a client is done before it hears what is thought of its certificate.
        Ok(mut stream) => match tokio::time::timeout(LONG, stream.read(&mut [0])).await.unwrap() {
            Err(error) => error.to_string(),
            Ok(count) => format!("{count} bytes"),
        },
    }
}

const OURS: &[&[u8]] = &[b"bramble/1"];

fn shown(cluster: &Cluster, since_s: i64) -> Shown {
    let key = MachineKey::create().unwrap();
    (cluster.certify(&key, since_s).chain, key.der())
}

#[tokio::test]
async fn certificates_that_are_none_of_ours_are_refused() {
    let pair = Pair::new().await;
    let address = pair.serving.address();
    let check = async |shown: Shown, reason: &str, alert: &str| {
        let said = turned_away(address, OURS, Some(shown)).await;
        assert!(said.contains(alert), "{reason}: {said}");
        pair.server.until_failed("server", reason).await;
    };
    let year_s = 365 * 86_400;
    check(shown(&Cluster::of("another"), now_s()), "unknown-authority", "UnknownCA").await;
    // Of the same name, but another key.
    check(shown(&Cluster::of("test"), now_s()), "unknown-authority", "DecryptError").await;
    check(shown(&pair.cluster, now_s() - year_s), "expired", "CertificateExpired").await;
    check(shown(&pair.cluster, now_s() + year_s), "not-yet-valid", "CertificateExpired").await;
    let certificate = pair.cluster.authority.issue(&["web.test".to_owned()], now_s()).unwrap();
    let said = turned_away(address, OURS, Some((certificate.chain.clone(), certificate.key()))).await;
    assert!(said.contains("UnsupportedCertificate"), "for servers only: {said}");
    let Pair { cluster, server, serving, .. } = pair;
    let other = Cluster { id: "othercluster".parse().unwrap(), authority: cluster.authority };
    let said = turned_away(serving.address(), OURS, Some(shown(&other, now_s()))).await;
    assert!(said.contains("AccessDenied"), "{said}");
    server.until_failed("server", "other-cluster").await;
}

#[tokio::test]
async fn a_client_is_told_what_is_wrong_with_its_certificate() {
    let cluster = Cluster::new();
    let server = cluster.machine();
    let (stage, _events) = Stage::new();
    let serving = server.serve(stage).await;
    let check = async |since_s: i64, expected: &str| {
        let client = cluster.machine_since(since_s);
        let peers = client.peers_with(&server, serving.address());
        let error = peers.call(server.node(), "test/echo", "", Terms::within(LONG)).await.unwrap_err();
        let CallError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
        assert!(source.to_string().contains(expected), "{source}");
    };
    check(now_s() - 30 * 86_400, "turned this machine away: its certificate is out of time, by the peer's clock").await;
    let elsewhere = Cluster::new();
    let foreigner = elsewhere.machine();
    let peers = foreigner.peers_with(&server, serving.address());
    let error = peers.call(server.node(), "test/echo", "", Terms::within(LONG)).await.unwrap_err();
    let CallError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("does not belong to this cluster"), "{source}");
}

#[tokio::test]
async fn a_peer_out_of_time_is_told_apart_from_a_stranger() {
    let cluster = Cluster::new();
    let client = cluster.machine();
    let check = async |since_s: i64, reason: &str, expected: &str| {
        let server = cluster.machine_since(since_s);
        let (stage, _events) = Stage::new();
        let serving = server.serve(stage).await;
        let peers = client.peers_with(&server, serving.address());
        let error = peers.call(server.node(), "test/echo", "", Terms::within(LONG)).await.unwrap_err();
        let CallError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
        assert!(source.to_string().contains(expected), "{source}");
        assert!(error.hint().starts_with("set the clock"));
        assert!(client.failed("client", reason) > 0.0);
    };
    check(now_s() + 366 * 86_400, "not-yet-valid", "will be valid in 365 days, by this machine's clock").await;
    check(now_s() - 8 * 86_400 - 60, "expired", "expired 1 day ago, by this machine's clock").await;
}

#[tokio::test]
async fn who_speaks_another_protocol_is_turned_away() {
    let pair = Pair::new().await;
    let address = pair.serving.address();
    let said = turned_away(address, &[b"bramble/2"], Some(shown(&pair.cluster, now_s()))).await;
    assert!(said.contains("NoApplicationProtocol"), "{said}");
    pair.server.until_failed("server", "version").await;
    turned_away(address, &[], Some(shown(&pair.cluster, now_s()))).await;
    until(|| pair.server.failed("server", "version") > 1.9, "without a protocol").await;
}

#[tokio::test]
async fn what_is_not_tls_is_turned_away() {
    let pair = Pair::new().await;
    let mut counted = 0.0;
    for words in
        [b"GET / HTTP/1.1\r\nhost: peer\r\n\r\n".as_slice(), &[0xA5; 4_096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(pair.serving.address()).await.unwrap();
        stream.write_all(words).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
        counted += 0.9;
        until(|| pair.server.failed("server", "not-tls") > counted, "not-tls").await;
    }
    pair.call("test/echo", "undisturbed").await.unwrap();
}

#[tokio::test]
async fn who_says_nothing_is_sent_away() {
    let patience = Patience { handshake: Duration::from_millis(50), ..Patience::default() };
    let pair = Pair::patient(patience).await;
    let mut silent = TcpStream::connect(pair.serving.address()).await.unwrap();
    let closed = tokio::time::timeout(LONG, silent.read(&mut [0])).await.expect("the connection is closed");
    assert_eq!(closed.unwrap_or(0), 0);
    pair.server.until_failed("server", "slow").await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = Cluster::new();
    let (server, mut client) = (cluster.machine(), cluster.machine());
    client.patience.handshake = Duration::from_millis(50);
    let peers = client.peers_with(&server, listener.local_addr().unwrap());
    let error = peers.call(server.node(), "test/echo", "", Terms::within(LONG)).await.unwrap_err();
    let CallError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().ends_with("no connection within 50ms"), "{source}");
    // A deadline is kept even before there is a connection.
    client.patience.handshake = LONG;
    let peers = client.peers_with(&server, listener.local_addr().unwrap());
    let terms = Terms::within(Duration::from_millis(50));
    let error = peers.call(server.node(), "test/echo", "", terms).await.unwrap_err();
    assert!(matches!(error, CallError::Late { was_sent: false, .. }), "{error:?}");
}

type Sender = SendRequest<Full<Bytes>>;

async fn speaks_http(stream: TlsStream<TcpStream>) -> Sender {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    world::task::spawn("test", async move { drop(connection.await) }).detach();
    sender
}

fn greeting() -> http::request::Builder {
    Request::post("http://peer/-/greeting").header("bramble-versions", "1-1").header("bramble-time-ms", "0")
}

#[tokio::test]
async fn heads_have_a_bound() {
    let pair = Pair::new().await;
    let stream = client(pair.serving.address(), OURS, Some(shown(&pair.cluster, now_s()))).await.unwrap();
    let mut sender = speaks_http(stream).await;
    let huge = greeting().header("bramble-hint", "x".repeat(60_000)).body(Full::default()).unwrap();
    match sender.send_request(huge).await {
        Ok(response) => assert_eq!(response.status(), http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(error) => assert!(!error.is_timeout(), "{error:?}"),
    }
    pair.call("test/echo", "undisturbed").await.unwrap();
}

#[tokio::test]
async fn a_connection_begins_with_a_greeting() {
    let pair = Pair::new().await;
    let stream = client(pair.serving.address(), OURS, Some(shown(&pair.cluster, now_s()))).await.unwrap();
    let mut sender = speaks_http(stream).await;
    let call = || Request::post("http://peer/test/echo").header("bramble-shape", "call").body(Full::default()).unwrap();
    let code = |response: &Response<_>| response.headers()["bramble-code"].to_str().unwrap().to_owned();
    assert_eq!(code(&sender.send_request(call()).await.unwrap()), "failed-precondition");
    let later = Request::post("http://peer/-/greeting")
        .header("bramble-versions", "3-4")
        .header("bramble-time-ms", "0")
        .body(Full::default());
    let response = sender.send_request(later.unwrap()).await.unwrap();
    assert_eq!(code(&response), "failed-precondition");
    let message = response.headers()["bramble-message"].to_str().unwrap();
    assert_eq!(message, "this peer speaks a later version (3 to 4) than this program knows (1)");
    assert_eq!(code(&sender.send_request(call()).await.unwrap()), "failed-precondition");
    let garbled = Request::post("http://peer/-/greeting").body(Full::default()).unwrap();
    assert_eq!(code(&sender.send_request(garbled).await.unwrap()), "invalid-argument");
    assert_eq!(code(&sender.send_request(greeting().body(Full::default()).unwrap()).await.unwrap()), "ok");
    assert_eq!(code(&sender.send_request(call()).await.unwrap()), "ok");
}

#[tokio::test]
async fn a_deadline_is_kept_for_clients_that_do_not() {
    let mut pair = Pair::new().await;
    let stream = client(pair.serving.address(), OURS, Some(shown(&pair.cluster, now_s()))).await.unwrap();
    let mut sender = speaks_http(stream).await;
    sender.send_request(greeting().body(Full::default()).unwrap()).await.unwrap();
    let call =
        Request::post("http://peer/test/hold").header("bramble-shape", "call").header("bramble-deadline-ms", "20");
    let response = sender.send_request(call.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["bramble-code"], "deadline-exceeded");
    assert_eq!(response.headers()["bramble-message"], "test/hold was not answered within 20ms");
    assert_eq!(pair.event().await, Event::Began("test/hold"));
    assert_eq!(pair.event().await, Event::Dropped("test/hold"));
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// The head of a request without a body, in frames.
fn head(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    // POST and http are in the static table; path and authority have their names there.
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.bytes());
    block.extend([0x01, 4]);
    block.extend(b"peer");
    for (name, value) in more {
        block.extend([0, u8::try_from(name.len()).unwrap()]);
        block.extend(name.bytes());
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.bytes());
    }
    frame(1, 0x5, stream, &block)
}

/// The next frame: kind, stream, content.
async fn next_frame(stream: &mut TlsStream<TcpStream>) -> (u8, u32, Vec<u8>) {
    let mut start = [0; 9];
    tokio::time::timeout(LONG, stream.read_exact(&mut start)).await.unwrap().unwrap();
    let mut content = vec![0; u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize];
    stream.read_exact(&mut content).await.unwrap();
    (start[3], u32::from_be_bytes([start[5], start[6], start[7], start[8]]), content)
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused() {
    const REFUSED_STREAM: u32 = 7;
    let mut pair = Pair::new().await;
    let mut stream = client(pair.serving.address(), OURS, Some(shown(&pair.cluster, now_s()))).await.unwrap();
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    stream.write_all(&begin).await.unwrap();
    let hello = head(1, "/-/greeting", &[("bramble-versions", "1-1"), ("bramble-time-ms", "0")]);
    stream.write_all(&hello).await.unwrap();
    while next_frame(&mut stream).await.1 != 1 {}
    let calls: Vec<u8> = (0..600).flat_map(|at| head(3 + 2 * at, "/test/hold", &[("bramble-shape", "call")])).collect();
    stream.write_all(&calls).await.unwrap();
    let mut refused = 0;
    while refused < 600 - 512 {
        let (kind, _, content) = next_frame(&mut stream).await;
        if kind == 3 {
            assert_eq!(u32::from_be_bytes(content.try_into().unwrap()), REFUSED_STREAM);
            refused += 1;
        }
    }
    for _ in 0..512 {
        assert_eq!(pair.event().await, Event::Began("test/hold"));
    }
    assert!(pair.events.try_recv().is_err(), "no more than the bound has begun");
    drop(stream);
    for _ in 0..512 {
        assert_eq!(pair.event().await, Event::Dropped("test/hold"));
    }
}

#[tokio::test]
async fn strangers_are_few() {
    let patience = Patience { stranger: LONG, ..Patience::default() };
    let pair = Pair::patient(patience).await;
    let mut strangers = Vec::new();
    for _ in 0..16 {
        strangers.push(speaks_http(client(pair.serving.address(), OURS, None).await.unwrap()).await);
    }
    let full = || pair.server.counted("bramble_rpc_connections", &[("side", "server")]) > 15.9;
    until(full, "all are in").await;
    turned_away(pair.serving.address(), OURS, None).await;
    pair.server.until_failed("server", "crowded").await;
    pair.call("test/echo", "members have their own seats").await.unwrap();
}

#[tokio::test]
async fn strangers_leave_soon() {
    let patience = Patience { stranger: Duration::from_millis(50), ..Patience::default() };
    let pair = Pair::patient(patience).await;
    let mut stranger = client(pair.serving.address(), OURS, None).await.unwrap();
    let mut heard = Vec::new();
    let _ = tokio::time::timeout(LONG, stranger.read_to_end(&mut heard)).await.expect("the connection is closed");
    pair.server.until_failed("server", "slow").await;
}

/// A member in another time: its certificate and its clock agree with each other.
pub(crate) async fn out_of_time(cluster: &Cluster, key: &MachineKey, since_s: i64, now_ms: u64) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(cluster.certify(key, since_s).chain, key.der())
        .unwrap();
    config.alpn_protocols = vec![OURS[0].to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return };
        let service = hyper::service::service_fn(move |_| async move {
            let greeting = Response::builder()
                .header("bramble-code", "ok")
                .header("bramble-versions", "1-1")
                .header("bramble-time-ms", now_ms);
            greeting.body(Full::<Bytes>::default())
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(builder.serve_connection(TokioIo::new(stream), service).await);
    };
    world::task::spawn("test", serving).detach();
    address
}
