//! One connection to a peer, from the client's side: made, greeted, and used by many calls at once.
//!
//! Owns the steps until it is of use: TCP, TLS with the right machine, HTTP/2, greeting. Several addresses are tried
//! overlapping, and the first that is of use is kept. Knows no pool.

use crate::error::{AttemptError, ConnectError};
use crate::greeting;
use crate::head::Greeting;
use crate::identity::{ALPN, Clock, TLS_VERSIONS};
use crate::line::{Ending, Line, tls_error};
use crate::meters::Meters;
use crate::outflow::Outflow;
use crate::settings::{
    ADDRESSES_MAX, CONNECTION_WINDOW_BYTES, HEAD_BYTES_MAX, Patience, SEND_BUFFER_BYTES, STAGGER, STREAM_WINDOW_BYTES,
    STREAMS_MAX,
};
use crate::streams::Tasks;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use meter::Held;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use world::task::Task;

/// A connection in use. Dropped, it takes no more calls; those under way end by themselves.
pub(crate) struct Connection {
    pub(crate) sender: http2::SendRequest<Outflow>,
    /// One for each stream it may have.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) ending: Arc<Ending>,
    /// What the peer said of itself.
    pub(crate) greeting: Greeting,
    pub(crate) address: SocketAddr,
    _dispatch: Task<()>,
    _counted: Held,
}

/// How connections to a peer are made.
pub(crate) struct Manner {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) patience: Patience,
    pub(crate) meters: Arc<Meters>,
}

/// TLS as a client speaks it, to whom `verifier` takes; `own` is what it shows of itself.
pub(crate) fn config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    own: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, rustls::Error> {
    let config = ClientConfig::builder_with_details(provider, Arc::new(Clock))
        .with_protocol_versions(TLS_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Peers are known by their certificates, and a name would tell onlookers something.
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Connects to whichever of `addresses` answers first as it should. Each is begun a little after the one before, or when
/// that has failed. May be dropped.
pub(crate) async fn connect(addresses: &[SocketAddr], manner: &Manner) -> Result<Connection, ConnectError> {
    let mut left = addresses.iter().take(ADDRESSES_MAX);
    let mut trying = FuturesUnordered::new();
    let mut attempts = Vec::new();
    loop {
        let next = left.next();
        if let Some(address) = next {
            trying.push(async move { (*address, attempt(*address, manner).await) });
        }
        let more = left.len() > 0;
        tokio::select! {
            ended = trying.next() => match ended {
                Some((_, Ok(connection))) => return Ok(connection),
                Some((address, Err(error))) => {
                    manner.meters.fail(error.mishap());
                    attempts.push((address, error));
                }
                None => return Err(ConnectError { attempts }),
            },
            () = tokio::time::sleep(STAGGER), if more => {}
        }
    }
}

async fn attempt(address: SocketAddr, manner: &Manner) -> Result<Connection, AttemptError> {
    let limit = manner.patience.handshake;
    let opening = Box::pin(open(address, manner));
    tokio::time::timeout(limit, opening).await.unwrap_or(Err(AttemptError::Slow { limit }))
}

async fn open(address: SocketAddr, manner: &Manner) -> Result<Connection, AttemptError> {
    let connect = |source| AttemptError::Connect { source };
    let stream = TcpStream::connect(address).await.map_err(connect)?;
    stream.set_nodelay(true).map_err(connect)?;
    // Not sent, and not looked at: the verifier knows whom it wants.
    let name = ServerName::IpAddress(address.ip().into());
    let tls = TlsConnector::from(Arc::clone(&manner.config)).connect(name, stream).await.map_err(shaken)?;
    if tls.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(AttemptError::Alpn);
    }
    let ending = Arc::new(Ending::default());
    let line = Line::new(tls, Arc::clone(&ending), manner.meters.traffic.clone());
    let ended = |error: Option<hyper::Error>, ending: &Ending| match ending.tls() {
        Some(tls) => AttemptError::of_tls(tls),
        None => AttemptError::Ended { source: error.map(Into::into) },
    };
    let shaking = builder(&manner.patience).handshake::<_, Outflow>(TokioIo::new(line)).await;
    let (mut sender, dispatching) = shaking.map_err(|error| ended(Some(error), &ending))?;
    let dispatch = world::task::spawn("rpc dispatch", async move {
        // Its failure reaches whoever waits for an answer.
        drop(dispatching.await);
    });
    let response = sender.send_request(greeting::request(manner.patience.versions)).await;
    let response = response.map_err(|error| ended(Some(error), &ending))?;
    let theirs = Greeting::read(response.headers()).ok_or(AttemptError::Nonsense)?;
    let ours = manner.patience.versions;
    if ours.shared(theirs.versions).is_none() {
        return Err(AttemptError::Version { ours, theirs: theirs.versions });
    }
    Ok(Connection {
        sender,
        places: Arc::new(Semaphore::new(STREAMS_MAX as usize)),
        ending,
        greeting: theirs,
        address,
        _dispatch: dispatch,
        _counted: Held::new(&manner.meters.connections),
    })
}

fn shaken(error: io::Error) -> AttemptError {
    match tls_error(&error) {
        Some(tls) => AttemptError::of_tls(tls),
        None => AttemptError::Ended { source: Some(error.into()) },
    }
}

fn builder(patience: &Patience) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(Tasks);
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(patience.ping_every)
        .keep_alive_timeout(patience.pong_within)
        .keep_alive_while_idle(false);
    builder
}

impl Connection {
    /// Whether it takes calls.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.ending.is_cut()
    }

    /// Nothing goes through it.
    pub(crate) fn is_unused(&self) -> bool {
        self.places.available_permits() == STREAMS_MAX as usize
    }
}
