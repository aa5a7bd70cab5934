//! The beginning of a TLS connection: whether it is ours to open, with which configuration, and what came of it.
//!
//! Owns the order: the name is read without taking it from the socket, a passage is taken, else TLS is spoken as the
//! name's door wants it. All within the deadline for a request's head.

use crate::caller::Caller;
use crate::hello::{self, HELLO_BYTES_MAX, Hello};
use crate::listener::Floor;
use crate::metrics::Handshake;
use crate::named::Passage;
use crate::peek;
use crate::pulse::Transport;
use crate::tls;
use rustls::HandshakeKind;
use rustls::server::Acceptor;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

/// What a connection to a port with TLS turned out to be.
pub(crate) enum Shaken {
    /// It is carried on as it is.
    Passage(TcpStream, Passage),
    Ours {
        stream: Transport,
        http_2: bool,
        caller: Option<Arc<Caller>>,
    },
}

/// `None` when it came to nothing. Passages are those of the shared port only.
pub(crate) async fn shake(stream: TcpStream, client: SocketAddr, floor: &Floor, shared: bool) -> Option<Shaken> {
    let began = tokio::time::timeout(floor.ground.limits.head_deadline, begin(stream, floor, shared)).await;
    let (mut stream, caller) = match began.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(Began::Passage(stream, passage)) => return Some(Shaken::Passage(stream, passage)),
        Ok(Began::Tls(stream, caller)) => (stream, caller),
        Err(error) => {
            tracing::debug!(%client, %error, "a TLS handshake failed");
            floor.meters.handshake(Handshake::Failed);
            return None;
        }
    };
    let session = stream.get_ref().1;
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let (http_2, is_proof) = (tls::is_http_2(session.alpn_protocol()), tls::is_proof(session.alpn_protocol()));
    floor.meters.handshake(if resumed { Handshake::Resumed } else { Handshake::Full });
    if is_proof {
        if let Err(error) = stream.shutdown().await {
            tracing::debug!(%client, %error, "who came for a proof has left already");
        }
        return None;
    }
    Some(Shaken::Ours { stream: Transport::Tls(stream), http_2, caller: caller.map(Arc::new) })
}

enum Began {
    Passage(TcpStream, Passage),
    Tls(Box<TlsStream<TcpStream>>, Option<Caller>),
}

async fn begin(stream: TcpStream, floor: &Floor, shared: bool) -> io::Result<Began> {
    let named = floor.named.get();
    if shared && named.has_passages() {
        let name = spoken_name(&stream).await?;
        if let Some(passage) = name.and_then(|name| named.passage(&name).cloned()) {
            return Ok(Began::Passage(stream, passage));
        }
    }
    if !named.has_doors() {
        let acceptor = TlsAcceptor::from(Arc::clone(&floor.tls.config));
        return Ok(Began::Tls(Box::new(acceptor.accept(stream).await?), None));
    }
    let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let door = named.door(begun.client_hello().server_name()).cloned();
    let config = door.as_ref().map_or(&floor.tls.config, |door| &door.config);
    let stream = Box::new(begun.into_stream(Arc::clone(config)).await?);
    let caller = door.map(|door| door.caller(stream.get_ref().1.peer_certificates()));
    Ok(Began::Tls(stream, caller))
}

/// The name a client asks for; the bytes are left to be read.
async fn spoken_name(stream: &TcpStream) -> io::Result<Option<String>> {
    let mut seen = vec![0; HELLO_BYTES_MAX];
    let mut known = 0;
    loop {
        known = peek::more(stream, known, &mut seen).await?;
        match hello::read(seen.get(..known).unwrap_or_default()) {
            Hello::Read { name } => return Ok(name),
            Hello::Bad => return Ok(None),
            Hello::Unsure => {}
        }
    }
}
