//! What a machine is called: by its key, at length and in short.

use std::fmt;

/// A machine, by what comes from its key: a hash of it, or the key itself. Addresses change; this does not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The first eight bytes, by which digests name machines: four times as many of them fit. Ids are hashes, so two
    /// alike by chance do not happen, and a key made to match another costs 2^64 tries.
    pub(crate) fn short(&self) -> Short {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        Short(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}…", self.short().0)
    }
}

/// A machine's name within a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Short(pub(crate) u64);
