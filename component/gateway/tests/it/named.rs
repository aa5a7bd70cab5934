//! What the name in a client's hello leads to: certificates of clients, and TLS that is carried on unopened.

use crate::bed::{Bed, HANG, Instance, SERVICE, endpoints, listener, published, route};
use gateway::{Limits, ListenerKind, Passage, Proofs, Route, Speaks, Table};
use pki::{Authority, Certificate};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use wire::spec::{ClientCertificates, Hsts, ProxyProtocol, Rules};

fn now_s() -> i64 {
    i64::try_from(world::clock::unix_ms() / 1_000).unwrap()
}

fn issue(authority: &Authority, names: &[&str]) -> Arc<Certificate> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(authority.issue(&names, now_s()).unwrap())
}

type Card = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A client's certificate by this authority.
fn card(authority: &Authority, subject: &str) -> Card {
    let issuer_key = KeyPair::from_pem(&authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(authority.certificate_pem(), issuer_key).unwrap();
    let mut params = CertificateParams::new(vec![format!("{subject}.test")]).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let signed = params.signed_by(&key, &issuer).unwrap();
    (vec![signed.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

/// A client that trusts `authority` and shows this card, if it is asked.
fn client(authority: &Authority, card: Option<Card>, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match card {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

async fn connect(address: SocketAddr, host: &str, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host.to_owned()).unwrap(), stream).await
}

/// Sends a request for `/` at `host` and gives the whole answer; empty when the connection ended instead.
async fn ask(stream: &mut TlsStream<TcpStream>, host: &str, more: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\r\n");
    let mut answer = Vec::new();
    let asked = async {
        if stream.write_all(request.as_bytes()).await.is_ok() {
            drop(stream.read_to_end(&mut answer).await);
        }
    };
    tokio::time::timeout(HANG, asked).await.expect("an end before the hang guard");
    String::from_utf8(answer).unwrap()
}

fn asking(host: &str, authority: &Authority, optional: bool) -> Route {
    let authority = authority.certificate_pem().to_owned();
    let rules = Rules { client_certificates: Some(ClientCertificates { authority, optional }), ..Rules::default() };
    Route { rules: Some(Box::new(rules)), ..route(&[host], "/", SERVICE) }
}

fn table(routes: Vec<Route>, certificates: Vec<Arc<Certificate>>) -> Table {
    let mut listener = listener(ListenerKind::Routed, Speaks::Http);
    listener.tls = true;
    let services = BTreeMap::from([(SERVICE.to_owned(), endpoints(&["a"]))]);
    Table { listeners: vec![listener], routes, services, certificates, ..Table::default() }
}

const HOSTS: [&str; 4] = ["open.test", "ann.test", "bob.test", "any.test"];

/// Hosts that ask for certificates of two authorities, one that takes any, one that asks for none.
struct Guarded {
    bed: Bed,
    server: Authority,
    ann: Authority,
    bob: Authority,
    _instance: Instance,
}

impl Guarded {
    async fn new() -> Guarded {
        let [server, ann, bob] = ["server", "ann's", "bob's"].map(|name| Authority::create(name, now_s()).unwrap());
        let routes = vec![
            route(&["open.test"], "/", SERVICE),
            asking("ann.test", &ann, false),
            asking("bob.test", &bob, false),
            asking("any.test", &ann, true),
        ];
        let bed = Bed::start(Limits::default(), table(routes, vec![issue(&server, &HOSTS)])).await;
        let instance = Instance::mirror().await;
        bed.doors.set("a", instance.address);
        Guarded { bed, server, ann, bob, _instance: instance }
    }

    /// What a client with this card is answered that connects for one host and asks for another.
    async fn asked(&self, connected: &str, host: &str, card: Option<Card>) -> String {
        let config = client(&self.server, card, &["http/1.1"]);
        match connect(self.bed.address, connected, config).await {
            Ok(mut stream) => ask(&mut stream, host, "x-forwarded-client-cert: Hash=forged\r\n").await,
            Err(_) => String::new(),
        }
    }
}

#[tokio::test]
async fn a_route_lets_in_whom_its_own_authority_vouches_for() {
    let world = Guarded::new().await;
    let check = |answer: String, status: &str, has: &str| {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(has), "{status}: {answer}");
        assert!(!answer.contains("forged"), "what a client claims of itself is never passed on: {answer}");
    };
    let ann = || Some(card(&world.ann, "ann"));
    let bob = || Some(card(&world.bob, "bob"));
    check(world.asked("ann.test", "ann.test", ann()).await, "200", ";Subject=\"CN=ann\";DNS=ann.test");
    check(world.asked("ann.test", "ann.test", None).await, "403", "B0625");
    check(world.asked("open.test", "open.test", ann()).await, "200", "");
    check(world.asked("any.test", "any.test", None).await, "200", "");
    check(world.asked("any.test", "any.test", ann()).await, "200", "Subject=\"CN=ann\"");
    // Nobody is asked for a certificate under these names, or for another's.
    check(world.asked("open.test", "ann.test", ann()).await, "421", "B0626");
    check(world.asked("bob.test", "ann.test", bob()).await, "421", "B0626");
    let refused = world.asked("ann.test", "ann.test", bob()).await;
    assert!(refused.is_empty(), "a stranger's certificate ends the handshake: {refused}");
    let open = world.asked("open.test", "open.test", None).await;
    assert!(open.starts_with("HTTP/1.1 200") && !open.contains("client-cert"), "{open}");
    crate::bed::until(|| world.bed.counted("bramble_gateway_refused_total", "certificate") >= 3.0).await;
}

#[tokio::test]
async fn a_resumed_session_is_no_way_around() {
    let world = Guarded::new().await;
    let store = Resumption::in_memory_sessions(8);
    let resumed = |card: Option<Card>| {
        let mut config = client(&world.server, card, &["http/1.1"]);
        config.resumption = store.clone();
        config
    };
    let mut first = connect(world.bed.address, "ann.test", resumed(Some(card(&world.ann, "ann")))).await.unwrap();
    assert!(ask(&mut first, "ann.test", "").await.starts_with("HTTP/1.1 200"));
    // The same table again: whoever comes back is known.
    let routes = world.bed.gateway.routes().await;
    world.bed.gateway.apply(table(routes.clone(), vec![issue(&world.server, &HOSTS)])).await;
    let mut again = connect(world.bed.address, "ann.test", resumed(None)).await.unwrap();
    let kept = ask(&mut again, "ann.test", "").await;
    assert!(kept.contains("Subject=\"CN=ann\"") || kept.starts_with("HTTP/1.1 403"), "{kept}");
    // The route trusts another authority from now on.
    let routes = vec![asking("ann.test", &world.bob, false)];
    world.bed.gateway.apply(table(routes, vec![issue(&world.server, &HOSTS)])).await;
    if let Ok(mut later) = connect(world.bed.address, "ann.test", resumed(None)).await {
        let answer = ask(&mut later, "ann.test", "").await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
}

#[tokio::test]
async fn an_authority_that_is_none_lets_nobody_in_and_is_said() {
    let server = Authority::create("server", now_s()).unwrap();
    let mut closed = asking("ann.test", &server, false);
    if let Some(wanted) = closed.rules.as_mut().and_then(|rules| rules.client_certificates.as_mut()) {
        wanted.authority = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned();
    }
    let wanted = table(vec![closed], vec![issue(&server, &HOSTS)]);
    let bed = Bed::start(Limits::default(), wanted.clone()).await;
    let applied = bed.gateway.apply(wanted).await;
    assert_eq!(applied.unusable.len(), 1);
    assert_eq!(applied.unusable[0].0, "ann.test");
    let mut stream = connect(bed.address, "ann.test", client(&server, None, &["http/1.1"])).await.unwrap();
    let answer = ask(&mut stream, "ann.test", "").await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}

/// An instance that ends TLS itself, and says what it got before it.
async fn own_tls(certificate: &Certificate, header_bytes: usize) -> Instance {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_no_client_auth();
    let acceptor =
        TlsAcceptor::from(Arc::new(builder.with_single_cert(certificate.chain.clone(), certificate.key()).unwrap()));
    Instance::raw(move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut header = vec![0; header_bytes];
            stream.read_exact(&mut header).await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut asked = [0; 5];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(&header).await.unwrap();
            stream.write_all(&asked).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await
}

async fn says(mut stream: TlsStream<TcpStream>) -> Vec<u8> {
    stream.write_all(b"hello").await.unwrap();
    let mut said = Vec::new();
    drop(tokio::time::timeout(HANG, stream.read_to_end(&mut said)).await.expect("an end before the hang guard"));
    said
}

#[tokio::test]
async fn a_passage_carries_tls_on_unopened() {
    let (ours, theirs) = (Authority::create("ours", now_s()).unwrap(), Authority::create("theirs", now_s()).unwrap());
    let inside = own_tls(&issue(&theirs, &["carried.test", "x.carried.test"]), 0).await;
    let other = Instance::named("opened").await;
    let mut wanted = table(vec![route(&[], "/", SERVICE)], vec![issue(&ours, &["opened.test"])]);
    let hosts = vec!["carried.test".to_owned(), "*.carried.test".to_owned()];
    let passage = Passage { hosts, service: "shop/inside".to_owned(), port: 443, proxy_protocol: None };
    wanted.passages.push(passage);
    wanted.services.insert("shop/inside".to_owned(), endpoints(&["inside"]));
    let bed = Bed::start(Limits::default(), wanted).await;
    bed.doors.set("inside", inside.address);
    bed.doors.set("a", other.address);
    for host in ["carried.test", "x.carried.test"] {
        let stream = connect(bed.address, host, client(&theirs, None, &[])).await.expect("the instance's certificate");
        assert_eq!(says(stream).await, b"hello");
    }
    let mut stream = connect(bed.address, "opened.test", client(&ours, None, &["http/1.1"])).await.unwrap();
    assert!(ask(&mut stream, "opened.test", "").await.ends_with("opened"));
    // A hello that comes byte by byte, and something that is none.
    let mut plain = TcpStream::connect(bed.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    drop(tokio::time::timeout(HANG, plain.read_to_end(&mut said)).await.expect("an end before the hang guard"));
    assert!(said.first().is_none_or(|kind| *kind == 21), "an alert at most: {said:?}");
}

#[tokio::test]
async fn instances_are_told_of_their_clients_by_the_proxy_protocol() {
    let authority = Authority::create("theirs", now_s()).unwrap();
    for (version, length) in [(ProxyProtocol::V1, None), (ProxyProtocol::V2, Some(28))] {
        // A line's length depends on the ports, which the first instance reads until its end.
        let tunnel = Instance::raw(|mut stream| async move {
            let mut got = Vec::new();
            drop(stream.read_to_end(&mut got).await);
            drop(stream.write_all(&got).await);
        })
        .await;
        let mut wanted = table(Vec::new(), vec![issue(&authority, &["tls.test"])]);
        wanted.listeners = vec![listener(published(), Speaks::Tcp)];
        wanted.listeners[0].proxy_protocol = Some(version);
        let bed = Bed::start(Limits::default(), wanted).await;
        bed.doors.set("a", tunnel.address);
        let mut stream = TcpStream::connect(bed.address).await.unwrap();
        let own = stream.local_addr().unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut said = Vec::new();
        drop(tokio::time::timeout(HANG, stream.read_to_end(&mut said)).await.expect("an end before the hang guard"));
        let header = said.strip_suffix(b"hello").expect("what was said comes after");
        match length {
            None => {
                let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), bed.address.port());
                assert_eq!(String::from_utf8_lossy(header), expected);
            }
            Some(length) => {
                assert_eq!(header.len(), length);
                assert_eq!(header[24..26], own.port().to_be_bytes());
            }
        }
    }
}

#[tokio::test]
async fn a_passage_tells_of_its_clients_too() {
    let theirs = Authority::create("theirs", now_s()).unwrap();
    let inside = own_tls(&issue(&theirs, &["carried.test"]), 28).await;
    let mut wanted = table(Vec::new(), Vec::new());
    let proxy_protocol = Some(ProxyProtocol::V2);
    let hosts = vec!["carried.test".to_owned()];
    wanted.passages.push(Passage { hosts, service: SERVICE.to_owned(), port: 443, proxy_protocol });
    let bed = Bed::start(Limits::default(), wanted).await;
    bed.doors.set("a", inside.address);
    let stream = connect(bed.address, "carried.test", client(&theirs, None, &[])).await.unwrap();
    let own = stream.get_ref().0.local_addr().unwrap();
    let said = says(stream).await;
    assert_eq!(said[24..26], own.port().to_be_bytes());
    assert_eq!(said[28..], *b"hello");
}

#[tokio::test]
async fn a_published_port_ends_tls() {
    let authority = Authority::create("ours", now_s()).unwrap();
    let echo = Instance::raw(|mut stream| async move {
        let mut got = [0; 5];
        if stream.read_exact(&mut got).await.is_ok() {
            drop(stream.write_all(&got).await);
        }
    })
    .await;
    let mut wanted = table(Vec::new(), vec![issue(&authority, &["db.test"])]);
    wanted.listeners = vec![listener(published(), Speaks::Detect)];
    wanted.listeners[0].tls = true;
    let bed = Bed::start(Limits::default(), wanted).await;
    bed.doors.set("a", echo.address);
    let stream = connect(bed.address, "db.test", client(&authority, None, &[])).await.unwrap();
    assert_eq!(says(stream).await, b"hello");
    let web = Instance::named("web").await;
    bed.doors.set("a", web.address);
    let mut stream = connect(bed.address, "db.test", client(&authority, None, &["http/1.1"])).await.unwrap();
    assert!(ask(&mut stream, "db.test", "").await.ends_with("web"));
}

#[tokio::test]
async fn browsers_are_told_to_come_with_tls_only_where_they_did() {
    let authority = Authority::create("ours", now_s()).unwrap();
    let hsts = Hsts { max_age_s: 31_536_000, include_subdomains: true, preload: false };
    let rules = Rules { hsts: Some(hsts), ..Rules::default() };
    let route = Route { rules: Some(Box::new(rules)), ..route(&[], "/", SERVICE) };
    let mut wanted = table(vec![route], vec![issue(&authority, &["shop.test"])]);
    wanted.listeners.push(listener(ListenerKind::Routed, Speaks::Http));
    let bed = Bed::start(Limits::default(), wanted.clone()).await;
    let plain = bed.gateway.apply(wanted).await.listening[1].1;
    let web = Instance::named("web").await;
    bed.doors.set("a", web.address);
    let mut stream = connect(bed.address, "shop.test", client(&authority, None, &["http/1.1"])).await.unwrap();
    let answer = ask(&mut stream, "shop.test", "").await;
    assert!(answer.contains("strict-transport-security: max-age=31536000; includeSubDomains\r\n"), "{answer}");
    let answer = crate::bed::Client::connect(plain).await.get("/").await;
    assert_eq!(answer.headers.get("strict-transport-security"), None);
}

#[tokio::test]
async fn proofs_for_authorities_come_before_routes_and_redirects() {
    let authority = Authority::create("ours", now_s()).unwrap();
    let bed = Bed::start(Limits::default(), table(Vec::new(), vec![issue(&authority, &["shop.test"])])).await;
    let proof = pki::proving("shop.test", &[7; 32], now_s()).unwrap();
    let shown = proof.chain[0].clone();
    let connect = || async {
        let mut config = client(&authority, None, &["acme-tls/1"]);
        let trusting = Arc::new(Trusting);
        config.dangerous().set_certificate_verifier(trusting);
        connect(bed.address, "shop.test", config).await
    };
    assert!(connect().await.is_err(), "nothing is being proven");
    bed.gateway.prove(Proofs { certificates: vec![Arc::new(proof)], ..Proofs::default() });
    let mut stream = connect().await.expect("a handshake");
    assert_eq!(stream.get_ref().1.peer_certificates().map(|chain| chain[0].clone()), Some(shown));
    let answer = ask(&mut stream, "shop.test", "").await;
    assert!(answer.is_empty(), "nothing is served on it: {answer}");
    let usual = client(&authority, None, &["http/1.1"]);
    assert!(self::connect(bed.address, "shop.test", usual).await.is_ok(), "others see the usual one meanwhile");
}

/// Believes everybody: an authority that looks for a proof judges for itself.
#[derive(Debug)]
struct Trusting;

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
