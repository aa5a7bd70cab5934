//! A machine without a certificate at a member's door: how one joins.
//!
//! Promises that nothing is said to a member that is not of the authority in the token, nor before both clocks agree: a
//! certificate given to a machine in another year is of no use, and a riddle.

use crate::calls::call_over;
use crate::connection::{Connection, Manner, config, connect};
use crate::error::{AttemptError, CallError, ConnectError};
use crate::handler::Answer;
use crate::meters::{Meters, Side};
use crate::passport::{Met, Pinned};
use crate::settings::{CLOCK_SLACK, Patience};
use bytes::Bytes;
use meter::Meter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use wire::identity::{ClusterId, Fingerprint, NodeId};

/// A visit to a member.
pub struct Guest {
    connection: Connection,
    met: Met,
}

impl Guest {
    /// Goes to the first of `addresses` where a member of the cluster answers: one with a certificate that the key of
    /// this `authority` signed. May be dropped.
    ///
    /// # Errors
    /// [`ConnectError`], with what was found at each address.
    pub async fn visit(
        addresses: &[SocketAddr],
        authority: Fingerprint,
        patience: Patience,
        meter: &Meter,
    ) -> Result<Guest, ConnectError> {
        let meters = Meters::new(meter, Side::Client);
        let mut attempts = Vec::new();
        for address in addresses {
            match visit_one(*address, authority, patience, Arc::clone(&meters)).await {
                Ok(guest) => return Ok(guest),
                Err(error) => attempts.extend(error.attempts),
            }
        }
        Err(ConnectError { attempts })
    }

    pub fn node(&self) -> NodeId {
        self.met.passport.node
    }

    pub fn cluster(&self) -> &ClusterId {
        &self.met.passport.cluster
    }

    /// The cluster's clock, as the member has it.
    pub fn now_ms(&self) -> u64 {
        self.connection.greeting.now_ms
    }

    /// Calls a method that is open to machines without certificates.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(
        &self,
        method: &'static str,
        request: impl Into<Bytes>,
        deadline: Duration,
    ) -> Result<Answer, CallError> {
        call_over(&self.connection, self.node(), method, request.into(), deadline).await
    }
}

async fn visit_one(
    address: SocketAddr,
    authority: Fingerprint,
    patience: Patience,
    meters: Arc<Meters>,
) -> Result<Guest, ConnectError> {
    let failed = |error| ConnectError { attempts: vec![(address, error)] };
    let pinned = Arc::new(Pinned::new(authority));
    let config = config(Arc::clone(&pinned.provider), Arc::clone(&pinned) as _, None);
    let config = Arc::new(config.map_err(|source| failed(AttemptError::Credentials { source }))?);
    let connection = connect(&[address], &Manner { config, patience, meters }).await?;
    let met = pinned.met().ok_or_else(|| failed(AttemptError::Nonsense))?;
    let behind_ms = i128::from(connection.greeting.now_ms) - i128::from(world::clock::unix_ms());
    let behind_s = i64::try_from(behind_ms / 1_000).unwrap_or(i64::MAX);
    if behind_s.unsigned_abs() > CLOCK_SLACK.as_secs() {
        return Err(failed(AttemptError::Clock { behind_s }));
    }
    // The clocks agree, so the certificate is what is wrong.
    if let Some(error) = met.untimely.clone() {
        return Err(failed(AttemptError::Untimely(error)));
    }
    Ok(Guest { connection, met })
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Guest").field("met", &self.met).finish_non_exhaustive()
    }
}
