//! The one server and client for machines of a cluster: calls, watches and tunnels over TCP, TLS 1.3 and HTTP/2.
//!
//! Owns the connections between machines. A call is a method's name, bytes, a deadline and a trace; back come bytes or a
//! [`Failure`]. A watch is a row of messages, a tunnel a connection's bytes both ways.
//!
//! Promises:
//! - Who a machine is, is its key. [`Peers`] reaches the machine that was meant or nobody, whatever address it has today;
//!   a [`Handler`] is told who calls by their certificate. Without one, only methods declared open answer.
//! - A machine that is [`Revoked`] is cut off at once, on both sides.
//! - What is called ends: by its answer, at its deadline, or when whoever called is gone, whose method is dropped then.
//! - Everything has a bound (`settings`), and nothing a peer sends makes this machine do more than that.
//! - Whatever fails says why, in words: a wrong clock, another cluster, a later version are no riddles of TLS.
//!
//! On the wire each is one stream of HTTP/2: `POST /METHOD` with `bramble-shape`, `bramble-deadline-ms` (what is left) and
//! `traceparent`; answered with `bramble-code: ok`, or another code with `bramble-message` and `bramble-hint`. Messages of a
//! watch have their length (u32, big-endian) before them, as has what opens a tunnel. A half that was said to its end has
//! `bramble-code` in its trailers; without that it was cut off. A connection begins with a greeting (`bramble-versions`,
//! `bramble-time-ms`), so that who connected knows that it is taken, by whom, and what they both speak.
//!
//! Never knows what is in the bytes, who is a member and where, nor who signs certificates: it is given certificates
//! ([`Credentials`]), addresses and the revoked.

mod answer;
mod backoff;
mod calls;
mod connection;
mod error;
mod failure;
mod greeting;
mod guest;
mod handler;
mod head;
mod identity;
mod inflow;
mod line;
mod meters;
mod mishap;
mod outflow;
mod passport;
mod peers;
mod pipe;
mod revoked;
mod seats;
mod server;
mod settings;
mod streams;
mod tunnel;

pub use calls::{Terms, Watch};
pub use error::{AttemptError, CallError, ConnectError};
pub use failure::{Code, Failure};
pub use guest::Guest;
pub use handler::{Access, Answer, Call, Caller, Handler, Messages, Method, Opening, Working};
pub use head::{Shape, Trace, Versions};
pub use identity::{Credentials, CredentialsError, Identity};
pub use mishap::Mishap;
pub use passport::Objection;
pub use peers::Peers;
pub use revoked::Revoked;
pub use server::Server;
pub use settings::{MESSAGE_BYTES_MAX, OPENING_BYTES_MAX, Patience};
pub use tunnel::{Tunnel, TunnelReader, TunnelWriter};
