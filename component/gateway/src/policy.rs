//! Whether a request may go on to its service.
//!
//! Owns the step between a route's rules and the balancer: it bounds what one service has in flight.

use crate::answer::Refusal;
use crate::upstream::Upstream;

/// Requests and tunnels of one service at once, from all clients: what one gateway can serve at all, so that
/// no single service takes all its memory.
const IN_FLIGHT_MAX: usize = 10_000;

/// What is applied to every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    in_flight_max: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { in_flight_max: IN_FLIGHT_MAX }
    }
}

impl Policy {
    /// Says no with the reason.
    pub(crate) fn admit(self, upstream: &Upstream) -> Result<(), Refusal> {
        if upstream.in_flight_total() >= self.in_flight_max {
            return Err(Refusal::Crowded { service: upstream.service.clone() });
        }
        Ok(())
    }
}
