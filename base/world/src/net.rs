//! The network's door to instances: who asks for a connection need not know how a container is reached.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use tokio::net::TcpStream;

/// A connection being made.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send + 'a>>;

/// Makes connections to a port of an instance, wherever it runs.
///
/// `client` is the address of whoever is served; an implementation that can makes the instance see it as
/// the peer's address. May be dropped while it waits: the connection attempt ends with it.
pub trait Dialer: Send + Sync {
    fn dial<'a>(&'a self, instance: &'a str, port: u16, client: Option<SocketAddr>) -> Dialing<'a>;
}
