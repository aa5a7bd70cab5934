//! What a machine says to become a member, and what it is told.

use serde::{Deserialize, Serialize};

/// Says a machine that holds a join token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's id and secret, as the token writes them.
    pub token: String,
    pub secret: String,
    /// A certificate request (PKCS #10) signed with the machine's key, as PEM.
    pub request_pem: String,
}

/// Says the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The machine's certificate first, then its authority's, as PEM.
    pub chain_pem: String,
    /// The authorities to trust from now on, as PEM.
    pub roots_pem: String,
    /// The cluster's clock.
    pub now_ms: u64,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("JoinRequest").field("token", &self.token).finish_non_exhaustive()
    }
}
