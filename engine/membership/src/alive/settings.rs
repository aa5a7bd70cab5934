//! The numbers of the gossip, each with its reason. The figures are from the simulation beside the tests, and
//! `docs/decisions/membership.md` has them all.
//!
//! The times are those of clusters of up to [`Settings::machines_per_datagram`] machines. Beyond, everything that counts
//! rounds takes longer in proportion, so that what a machine sends in a second stays the same.

/// How gossip goes. The defaults are what is meant to run; all machines of a cluster should have the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The time between two rounds. 250 ms, so that news are everywhere within a second.
    pub interval_ms: u64,
    /// How many machines are asked in a round. 3: with 2, the longest silence of a live machine grows by a third and nears
    /// the verdict; with 4, bytes grow by a quarter for little. Where there are fewer, they are asked more often.
    pub fanout: usize,
    /// How many machines one datagram can tell of after a month (a test counts). With more, a question
    /// takes several datagrams, and rounds take longer in proportion.
    pub machines_per_datagram: usize,
    /// The least that is taken for the usual silence before there are news of a machine. 400 ms: a machine is hardly ever
    /// heard of more often than that through others, and in a small cluster a more regular one would be judged
    /// after a shorter freeze.
    pub usual_ms_min: u64,
    /// The most. 1.2 s: on however bad a network, a dead machine is told within three times the usual time.
    pub usual_ms_max: u64,
    /// A machine is silent when it has not been alive for this many times what is usual. With 400 ms this is 1.7 s: a freeze
    /// of one second, the rest of a round and the half second that news take after it are within it. At 1.4 s,
    /// every sixth such freeze was told.
    pub phi_silent: f64,
    /// When this much more than an interval lies between two ticks, it was this machine that was away: everybody gets a
    /// new chance. 300 ms: less than is left between the slowest news and a verdict.
    pub away_ms: u64,
    /// How often others are told new figures (load, pressure, free memory, runs). 1 s: each change travels to every
    /// machine, so that all of them cost each as many records a second as there are machines.
    pub figures_ms: u64,
    /// How long a machine that is silent or has left is remembered, so that old news do not bring it back. An hour:
    /// longer than any relay may sleep and come back with old news, short enough for names to be used up.
    pub forget_ms: u64,
    /// How long others are told that a machine has left. 30 s: many rounds.
    pub left_told_ms: u64,
    /// How many machines are known at most, the silent and those that left counted. 512: ten datagrams a question.
    pub machines_max: usize,
    /// How many addresses to begin from are remembered, the latest. 32: what a name may resolve to.
    pub contacts_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            interval_ms: 250,
            fanout: 3,
            machines_per_datagram: 50,
            usual_ms_min: 400,
            usual_ms_max: 1_200,
            phi_silent: 4.25,
            away_ms: 300,
            figures_ms: 1_000,
            forget_ms: 3_600_000,
            left_told_ms: 30_000,
            machines_max: 512,
            contacts_max: 32,
        }
    }
}

impl Settings {
    /// `ms`, as it is among so many machines.
    pub(crate) fn among(&self, machines: usize, ms: u64) -> u64 {
        let few = self.machines_per_datagram.max(1);
        let times = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        ms.saturating_mul(times(machines.max(few))) / times(few)
    }
}
