//! How patient a machine is with its peers, and how much it takes from them: each bound with its reason.

use crate::head::Versions;
use std::time::Duration;

/// One message, or the request and answer of one call. What is larger (an image, a snapshot) goes in pieces or through a
/// tunnel: a message is in memory as a whole, on both sides.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// What opens a tunnel: whereto, not what.
pub const OPENING_BYTES_MAX: usize = 16 << 10;
/// Large requests of calls that a server has in memory at once, from all peers: sixteen of the largest. More wait.
pub(crate) const REQUESTS_KIB_MAX: u32 = 128 << 10;
/// Smaller ones never wait, so that nobody's bulk holds up a vote: all streams of a connection come to 32 MiB.
pub(crate) const REQUEST_SMALL_BYTES: usize = 64 << 10;
/// Calls, watches or tunnels at once on one connection.
pub(crate) const STREAMS_MAX: u32 = 512;
/// What a peer may send of one stream before it is asked for: 2 Gbit/s over a millisecond, 100 Mbit/s over twenty.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// And of all: so much that streams whose readers have stopped never hold up the others.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX;
/// What is kept of a stream that its peer does not take yet.
pub(crate) const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Head of a call, decoded: two texts of a kibibyte, a trace and a few numbers.
pub(crate) const HEAD_BYTES_MAX: u32 = 8 << 10;
/// Streams a peer may reset before they were answered and at once, before its connection is closed (CVE-2023-44487).
/// A client whose deadlines pass all together is one such peer, so this is every stream it may have.
pub(crate) const RESETS_MAX: usize = STREAMS_MAX as usize;
/// Connections that carry tunnels to one peer; with the one for calls and watches it makes five, and 2,048 tunnels.
pub(crate) const TUNNEL_CONNECTIONS_MAX: usize = 4;
/// Connections from one peer: five, twice while it renews its certificate, and some that it has given up already.
pub(crate) const CONNECTIONS_PER_PEER_MAX: usize = 16;
/// Connections in all: five from each of four hundred machines.
pub(crate) const CONNECTIONS_MAX: usize = 2_048;
/// Connections that have not said yet who they are, in all and from one address. One takes milliseconds.
pub(crate) const HANDSHAKES_MAX: usize = 256;
pub(crate) const HANDSHAKES_PER_ADDRESS_MAX: usize = 32;
/// Connections of those without certificates: machines that join.
pub(crate) const STRANGERS_MAX: usize = 16;
/// A stranger asks one thing.
pub(crate) const STRANGER_STREAMS_MAX: u32 = 4;
pub(crate) const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// And says little.
pub(crate) const STRANGER_BYTES_MAX: usize = 64 << 10;
/// A call that says no deadline gets this one, and none gets more.
pub(crate) const CALL_DEADLINE_MAX: Duration = Duration::from_secs(300);
/// Addresses tried of one peer: a machine with more interfaces than this has some that lead nowhere.
pub(crate) const ADDRESSES_MAX: usize = 8;
/// The address that answers is usually the first; a dead one costs this much (RFC 8305 has 250 ms).
pub(crate) const STAGGER: Duration = Duration::from_millis(250);
/// Between attempts to reach a peer that is not there.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// A machine that comes back is seen within this.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// An old connection is replaced, so that who its peer is has been proven lately. Its streams end in their own time.
pub(crate) const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3_600);
/// A machine's clock may differ from the cluster's by this much when it joins: half of what certificates allow for.
pub(crate) const CLOCK_SLACK: Duration = Duration::from_secs(12 * 3_600);

/// How long a machine waits for its peers. The defaults are for machines in one room or one town.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A peer that is silent this long while something is under way is asked whether it is there.
    pub ping_every: Duration,
    /// And has this long to say so: with `ping_every` it bounds for how long a watch or a tunnel does not know that its
    /// peer is gone. Not less, since a machine under load may well stand still for a second or two; calls have deadlines
    /// of their own.
    pub pong_within: Duration,
    /// From the first byte of a connection to its first call, on both sides.
    pub handshake: Duration,
    /// A stranger is done within this.
    pub stranger: Duration,
    /// A connection that nothing goes through is closed after this.
    pub idle: Duration,
    /// What is spoken. Anything but [`Versions::OURS`] is for tests.
    pub versions: Versions,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            ping_every: Duration::from_secs(2),
            pong_within: Duration::from_secs(4),
            handshake: Duration::from_secs(5),
            stranger: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            versions: Versions::OURS,
        }
    }
}
