//! Who is alive, as far as this machine has heard: gossip between machines, with a small record of each.
//!
//! Owns what every machine tells of itself ([`Record`]), how that reaches all the others, and when silence is worth an
//! event. The model is scuttlebutt's as Cassandra and chitchat have it: rounds of "this is how far I know everybody;
//! what do you know better?", in which heartbeats are carried by others, so that losing datagrams between two machines
//! says nothing about either. One thing is added: a heartbeat is told with its age. Everybody therefore measures silence
//! from when the machine was last alive, not from when the news happened to arrive, and all come to their verdict at
//! nearly the same time (`docs/decisions/membership.md` has the figures).
//!
//! Promises: a machine is its id, which comes from its key, and never an address; where it is reached is learned from its
//! record and from what comes from it. Only differences of this machine's own monotonic time decide anything. No bytes
//! that come in can make it panic or allocate more than a few times their length, and everything kept has a bound. After
//! a pause of its own (a stopped process, a suspended PC) it blames nobody. Two machines with one key are reported, and do
//! not make anything flap.
//!
//! Never knows a clock, a socket, a key or a die: time and random bits are arguments, datagrams come in authenticated and go
//! out as [`Effect`]s. It hears hints: what to do about a silent machine is decided elsewhere, with a second opinion.
//!
//! The carrier's part: seal datagrams so that only members are heard and none twice; check that [`sender`] is who sealed
//! it; call [`Gossip::tick`] when [`Gossip::next_tick_ms`] has come; count time through suspension (`CLOCK_BOOTTIME`).

mod coding;
mod datagram;
mod effect;
mod gossip;
mod hearing;
mod line;
mod machine;
mod node;
mod record;
mod settings;

pub use coding::Malformed;
pub use datagram::{DATAGRAM_BYTES_MAX, sender};
pub use effect::{Effect, Event};
pub use gossip::Gossip;
pub use machine::{Seen, Standing};
pub use node::NodeId;
pub use record::{Pressure, RECORD_BYTES_MAX, Record, Unfit};
pub use settings::Settings;
