//! The conversation with an authority that misbehaves: what is made of it, and when it is asked again.
//!
//! That it works with one that behaves is shown with whole nodes, against an authority that others wrote.

use acme::{Account, Fault, ObtainError, Settings};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use world::task::Task;

/// An authority that gives one answer to every request but that for its directory and for nonces.
struct Authority {
    settings: Settings,
    /// Method and path of what it was asked.
    asked: Arc<Mutex<Vec<String>>>,
    _task: Task,
}

impl Authority {
    async fn start(directory: Option<String>, answer: String) -> Authority {
        let (roots, acceptor) = identity();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, at) = (Arc::clone(&asked), base.clone());
        let task = world::task::spawn("authority", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let Some(request) = request(&mut stream).await else { continue };
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                seen.lock().unwrap().push(request);
                let reply = match (path.as_str(), &directory) {
                    ("/dir", Some(directory)) => directory.clone(),
                    ("/dir", None) => {
                        let urls = format!(
                            r#"{{"newNonce":"{at}/nonce","newAccount":"{at}/account","newOrder":"{at}/order"}}"#
                        );
                        reply("200 OK", &[], &urls)
                    }
                    ("/nonce", _) => reply("200 OK", &["Replay-Nonce: one"], ""),
                    (_, _) => answer.clone(),
                };
                drop(stream.write_all(reply.as_bytes()).await);
                drop(stream.shutdown().await);
            }
        });
        let settings = Settings { directory: format!("{base}/dir"), roots: Some(roots), ..Settings::default() };
        Authority { settings, asked, _task: task }
    }

    async fn refusal(&self) -> ObtainError {
        match Account::open(&self.settings, None).await {
            Ok(_) => panic!("it opens no accounts"),
            Err(error) => error,
        }
    }
}

fn reply(status: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

fn problem(kind: &str, more: &str) -> String {
    format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}"{more}}}"#)
}

/// A server's certificate for the loopback address, and whom to believe for it.
fn identity() -> (String, TlsAcceptor) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let roots = root.self_signed(&root_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let own = own.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = builder.with_no_client_auth().with_single_cert(vec![own.der().clone()], key).unwrap();
    (roots, TlsAcceptor::from(Arc::new(config)))
}

/// The first line of a request, once all of it is there.
async fn request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return head.lines().next().map(str::to_owned);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

#[tokio::test]
async fn a_limit_is_heeded() {
    let body = problem("rateLimited", r#","detail":"too many""#);
    let authority = Authority::start(None, reply("429 Too Many Requests", &["Retry-After: 7200"], &body)).await;
    let error = authority.refusal().await;
    assert_eq!((error.fault(), error.retry_after_s()), (Fault::Crowded, Some(7_200)), "{error}");
    assert_eq!(error.to_string(), "the authority refuses: too many (rateLimited)");
    assert_eq!(authority.asked.lock().unwrap().iter().filter(|line| line.contains("/account")).count(), 1);
}

#[tokio::test]
async fn a_nonce_that_is_refused_is_replaced_a_few_times() {
    let answer = reply("400 Bad Request", &["Replay-Nonce: two"], &problem("badNonce", ""));
    let authority = Authority::start(None, answer).await;
    let error = authority.refusal().await;
    assert_eq!(error.fault(), Fault::Absent, "{error}");
    let asked = authority.asked.lock().unwrap().iter().filter(|line| line.contains("/account")).count();
    assert!((2..=5).contains(&asked), "{asked}");
}

#[tokio::test]
async fn an_authority_that_is_not_well_is_told_apart_from_one_that_refuses() {
    let check = |directory: Option<String>, answer: String, fault: Fault, says: &'static str| async move {
        let error = Authority::start(directory, answer).await.refusal().await;
        assert_eq!(error.fault(), fault, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    let page = || reply("502 Bad Gateway", &["Retry-After: 30"], "<html>");
    check(Some(page()), String::new(), Fault::Absent, "speak with the authority").await;
    check(None, page(), Fault::Absent, "speak with the authority").await;
    check(Some(reply("200 OK", &[], "{}")), String::new(), Fault::Absent, "newNonce").await;
    let internal = reply("500 Internal Server Error", &[], &problem("serverInternal", ""));
    check(None, internal, Fault::Absent, "serverInternal").await;
    let unfit = reply("403 Forbidden", &[], &problem("unauthorized", r#","subproblems":[{"detail":"not you"}]"#));
    check(None, unfit, Fault::Refused, "not you (unauthorized)").await;
    check(None, reply("201 Created", &[], "{}"), Fault::Absent, "account URL").await;
    check(None, String::new(), Fault::Absent, "speak with the authority").await;
    let long = reply("200 OK", &[], &" ".repeat(2 << 20));
    check(Some(long), String::new(), Fault::Absent, "sane length").await;
}

#[tokio::test]
async fn whom_nobody_vouches_for_is_no_authority() {
    let authority = Authority::start(None, String::new()).await;
    let (others, _) = identity();
    let settings = Settings { roots: Some(others), ..authority.settings.clone() };
    let error = match Account::open(&settings, None).await {
        Ok(_) => panic!("it is not believed"),
        Err(error) => error,
    };
    assert_eq!(error.fault(), Fault::Absent);
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(authority.asked.lock().unwrap().is_empty());
    let none = Settings { roots: Some("nothing".to_owned()), ..authority.settings.clone() };
    assert!(matches!(Account::open(&none, None).await, Err(ObtainError::Roots { .. })));
}

#[tokio::test]
async fn credentials_that_are_damaged_are_said() {
    let authority = Authority::start(None, String::new()).await;
    for kept in ["", "{}", "{\"id\":\"x\",\"key_pkcs8\":\"AAAA\",\"directory\":null}"] {
        let error = match Account::open(&authority.settings, Some(kept)).await {
            Ok(_) => panic!("they are damaged"),
            Err(error) => error,
        };
        assert!(error.is_account_gone(), "{kept}: {error}");
    }
}
