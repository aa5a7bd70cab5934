//! The search for an endpoint that takes a connection, over all tries of one request or tunnel.
//!
//! Owns whom to ask next and how long to go on: every endpoint once, then again after a pause or as soon as
//! another appears, within the time a client is held. That is what makes a restart invisible.

use crate::affinity::Wish;
use crate::answer::Refusal;
use crate::upstream::{Lease, NotHeld, Upstream};
use balancer::{NotPicked, Outcome};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;

pub(crate) struct Search {
    upstream: Arc<Upstream>,
    /// Endpoints that failed in this round.
    tried: Vec<Arc<str>>,
    /// When the request began, until an endpoint was looked for.
    first: Option<Instant>,
    /// Which endpoint it would rather have.
    wish: Wish,
    hold_until: Instant,
    failure: Option<std::io::Error>,
}

impl Search {
    /// A search that goes on for as long as a client is held, counted from `started`.
    pub(crate) fn new(upstream: Arc<Upstream>, started: Instant) -> Search {
        let hold_until = started + upstream.ground.limits.hold_deadline;
        Search { upstream, tried: Vec::new(), first: Some(started), wish: Wish::LeastLoad, hold_until, failure: None }
    }

    /// The same for who would rather have a certain endpoint, and looks for it from `begun` on.
    pub(crate) fn wishing(self, wish: Wish, begun: Instant) -> Search {
        Search { wish, first: Some(begun), ..self }
    }

    /// Another endpoint than `other`, if there is one to be had at once.
    pub(crate) fn lease_beside(&self, other: &Arc<str>) -> Option<Lease> {
        let mut except = self.tried.clone();
        except.push(Arc::clone(other));
        self.upstream.lease(&except, None, &Wish::LeastLoad).ok()
    }

    /// The next endpoint to try. Waits while there is none.
    pub(crate) async fn lease(&mut self) -> Result<Lease, Refusal> {
        loop {
            let first = self.first.take();
            let others_first = self.upstream.queued() > 0;
            let picked =
                if others_first { Err(NotPicked::Full) } else { self.upstream.lease(&self.tried, first, &self.wish) };
            match picked {
                Ok(lease) => return Ok(lease),
                Err(NotPicked::Full) => {
                    let leased = self.upstream.lease_in_turn(&self.tried, &self.wish, self.hold_until).await;
                    return leased.map_err(|_| Refusal::Crowded { service: self.upstream.service.clone() });
                }
                Err(NotPicked::Nobody | NotPicked::Tried) => {}
            }
            self.tried.clear();
            match self.upstream.hold(self.hold_until).await {
                Ok(()) => {}
                Err(why) => return Err(self.give_up(why)),
            }
        }
    }

    /// Connects to a leased endpoint; `None` when that failed and the next is to be tried.
    pub(crate) async fn dial(&mut self, lease: Lease, client: Option<SocketAddr>) -> Option<(Lease, TcpStream)> {
        match lease.dial(client).await {
            Ok(stream) => Some((lease, stream)),
            Err(error) => {
                lease.note_unreachable(&error);
                self.failure = Some(error);
                self.rule_out(lease, Outcome::ConnectFailed);
                None
            }
        }
    }

    /// A connection for one client alone.
    pub(crate) async fn connect(&mut self, client: SocketAddr) -> Result<(Lease, TcpStream), Refusal> {
        loop {
            let lease = self.lease().await?;
            if let Some(connected) = self.dial(lease, Some(client)).await {
                return Ok(connected);
            }
        }
    }

    /// Ends the lease of an endpoint that failed; the others come first from now on.
    pub(crate) fn rule_out(&mut self, lease: Lease, outcome: Outcome) {
        self.tried.push(Arc::clone(&lease.id));
        lease.end(outcome);
    }

    fn give_up(&mut self, why: NotHeld) -> Refusal {
        let service = self.upstream.service.clone();
        match (why, self.failure.take()) {
            (NotHeld::Full, _) => Refusal::Crowded { service },
            (NotHeld::Late, Some(source)) => Refusal::Unreachable { service, source },
            (NotHeld::Late, None) => {
                self.upstream.meters.no_endpoint();
                Refusal::NoEndpoint { service }
            }
        }
    }
}
