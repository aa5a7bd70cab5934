//! Whether a request may go on to its service.
//!
//! Owns the step between a route's rules and the balancer: it bounds what one service has in flight, and what is let
//! through when there is more to do than can be done.

use crate::answer::Refusal;
use crate::upstream::Upstream;
use wire::spec::PriorityClass;

/// Requests and tunnels of one service at once, from all clients: what one gateway can serve at all, so that
/// no single service takes all its memory.
const IN_FLIGHT_MAX: usize = 10_000;

/// When no more than one in so many places is left, requests whose bodies do not come lose theirs.
const SPARE_SHARE: usize = 10;

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
    /// Says no with the reason. `random` is an even number.
    pub(crate) fn admit(
        self,
        upstream: &Upstream,
        class: PriorityClass,
        random: impl FnOnce() -> u64,
    ) -> Result<(), Refusal> {
        if !upstream.ground.strain.admits(class, random) {
            upstream.meters.shed(class);
            return Err(Refusal::Shed { service: upstream.service.clone() });
        }
        let in_flight = upstream.in_flight_total();
        if in_flight >= self.in_flight_max - self.in_flight_max / SPARE_SHARE {
            upstream.ground.crowd.end_slow_uploads();
        }
        if in_flight >= self.in_flight_max {
            return Err(Refusal::Crowded { service: upstream.service.clone() });
        }
        Ok(())
    }
}
