//! etcd's v3 API over the space, for programs made for etcd: gRPC over HTTP/2 and JSON over HTTP/1, on one socket, from one
//! implementation.
//!
//! Promises that no client reads, changes or even names what is not a client's (`keys` is the only way to a key or a
//! lease), and that answers, codes and error texts are etcd's. Never knows who the client is: whoever reaches the socket
//! may do everything that is served there. Knows no stack, no machine, nor how members agree.

mod codec;
mod desk;
mod keys;
mod kv;
mod meters;
mod methods;
mod room;
mod server;
mod status;
mod transport;
mod watch;
mod words;

pub use desk::{Standing, Stands};
pub use server::Server;

/// Which etcd this is like: clients choose by it what they may ask.
pub const VERSION: &str = "3.4.23";
const CLUSTER_VERSION: &str = "3.4.0";
