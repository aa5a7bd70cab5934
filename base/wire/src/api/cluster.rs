//! Bodies of `/v1/cluster`: what lets machines in, who has which role, which addresses float.

use serde::{Deserialize, Serialize};

/// What a join token is to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinTokenWanted {
    /// What the machine is to be, if that is not to be found out.
    pub role: Option<String>,
    /// Where it stands.
    pub zone: Option<String>,
    /// How long it is good for.
    pub ttl_s: u64,
    /// For many machines, not only for one.
    pub many: bool,
}

impl Default for JoinTokenWanted {
    fn default() -> JoinTokenWanted {
        JoinTokenWanted { role: None, zone: None, ttl_s: 3_600, many: false }
    }
}

/// How many of each role a cluster has at least, as far as there are machines. What is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolesWanted {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitors: Option<u32>,
    /// Pairs of assigners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<u32>,
    /// Processes that run work, one for each core of a machine; 4294967295 is as many as there can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// Monitors and assigners run no work where there are machines enough for both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apart: Option<bool>,
    /// How many machines vote at most; odd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voters_max: Option<u32>,
}

/// Who has which role, as the machine that answers knows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RolesDetail {
    pub wanted: RolesWanted,
    /// Who decides.
    pub leader: Option<String>,
    pub machines: Vec<MachineRoles>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MachineRoles {
    pub node: String,
    pub hostname: String,
    pub roles: Vec<String>,
    /// A sentence for each, or for having none.
    pub why: Vec<String>,
    /// 99 of 100 writes were on its disk within this time.
    pub fsync_p99_us: Option<u64>,
}

/// Where an address that is always the gateway's belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FloatingWanted {
    /// `None`: whichever interface has an address of the same network.
    pub interface: Option<String>,
}

/// An address that is always the gateway's, whichever machine that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingState {
    /// With its prefix.
    pub address: String,
    pub interface: Option<String>,
    /// Which machine is the gateway; `None` while nobody is.
    pub gateway: Option<String>,
}

/// What lets a machine in. Whoever has it can join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    pub token: String,
    /// Where the machine will look for the cluster.
    pub addresses: Vec<String>,
    /// Seconds since 1970.
    pub expires_s: i64,
}
