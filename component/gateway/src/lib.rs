//! Served ports and host names: listener → route → rules → policy → balancer → connection.
//!
//! Owns client connections, TLS, HTTP/1.1, 2 and (where the build has it) 3 and what is done to them, tunnels, and the
//! listening sockets. Promises:
//! - a new [`Table`] disturbs nothing that stays as it was, and drops nothing that is under way;
//! - a request finds an instance if one appears in time, so that restarts are not seen;
//! - a client that leaves takes along what it caused;
//! - a request is sent twice only where that is harmless;
//! - every buffer, wait and count has a bound ([`Limits`]).
//!
//! Never knows stacks, containers or how an instance is reached: it is given a [`Table`] and a
//! [`world::net::Dialer`].

mod affinity;
mod answer;
mod aside;
mod asked;
mod asking;
mod attend;
mod body;
mod budget;
mod cache;
mod caller;
mod coding;
mod connecting;
mod crowd;
mod deadline;
mod detect;
mod exchange;
mod explain;
mod gateway;
mod handshake;
mod header;
mod hedge;
mod hello;
mod http1;
#[cfg(feature = "http3")]
mod http3;
mod idle;
mod leave;
mod link;
mod listener;
mod metrics;
mod named;
mod offer;
mod pace;
mod peek;
mod policy;
mod proof;
mod proxied;
mod published;
mod pulse;
mod reshape;
mod reused;
mod route;
mod rule;
mod search;
mod seen;
mod session;
mod settings;
mod slack;
mod socket;
mod strain;
mod streams;
mod swap;
mod table;
mod talk;
mod threads;
mod tls;
mod trace;
mod tunnel;
mod udp;
mod upstream;

pub use balancer::{Breaker, Cause};
pub use cache::{Listed, Purge};
pub use explain::{Fate, Question};
pub use gateway::{EndpointSeen, Gateway};
pub use leave::Left;
pub use proof::Proofs;
pub use seen::AccessSink;
pub use settings::{CacheSettings, Limits, Settings, Socket, UdpDialer, UdpDialing};
pub use stash::Usage as CacheUsage;
pub use table::{Applied, Endpoint, Listener, ListenerKind, Passage, Route, Speaks, Table};
/// What [`AccessSink`] is handed.
pub use wire::api::RequestRecord;

/// What would become of a request at each of `routes`, in their order.
pub fn explain(routes: &[Route], question: &Question) -> Vec<Fate> {
    explain::explain(routes, question)
}
