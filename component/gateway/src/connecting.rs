//! The search for a connection, over all the sends of one request.
//!
//! Owns which connection carries it: one made before, one that was unused, a share in one that many use, or a fresh one;
//! and what a failure says of the others. Does not know what is sent.

use crate::answer::Refusal;
use crate::link::{Link, Shared};
use crate::search::Search;
use crate::seen::{Steps, Trouble};
use crate::session::Session;
use crate::upstream::{Lease, Upstream};
use balancer::Outcome;
use std::sync::Arc;

/// The search for a connection, over all the sends of one request.
pub(crate) struct Connecting<'s> {
    pub(crate) search: Search,
    /// What is told of it afterwards.
    pub(crate) steps: &'s mut Steps,
    /// An unused connection turned out closed: the others of its age may be as well.
    pub(crate) fresh: bool,
    pub(crate) repeatable: bool,
    pub(crate) many: bool,
}

impl Connecting<'_> {
    /// An endpoint and a connection to it. Waits, within the request's time, while there is none.
    pub(crate) async fn connect(
        &mut self,
        session: &Session,
        upstream: &Arc<Upstream>,
    ) -> Result<(Lease, Link), Refusal> {
        if !self.many
            && let Some((lease, stream)) = session.take_first()
            && Arc::ptr_eq(&lease.upstream, upstream)
        {
            let mut link = Link::new(stream);
            // It may show the client's address to the instance: no other client may use it.
            link.private = true;
            return Ok((lease, link));
        }
        loop {
            let lease = self.search.lease().await?;
            let unused = if self.many { lease.take_shared() } else { lease.take_idle(self.repeatable) };
            if !self.fresh
                && let Some(link) = unused
            {
                return Ok((lease, link));
            }
            // Most requests find an unused connection: what the others need is made for them.
            if let Some(made) = Box::pin(self.open(lease)).await {
                return Ok(made);
            }
        }
    }

    /// A fresh connection; `None` when there is none to have.
    async fn open(&mut self, lease: Lease) -> Option<(Lease, Link)> {
        let id = Arc::clone(&lease.id);
        let Some((lease, stream)) = self.search.dial(lease, None).await else {
            self.steps.failed(&id, Trouble::Connect);
            return None;
        };
        if !self.many {
            return Some((lease, Link::new(stream)));
        }
        match Shared::open(stream).await {
            Ok(shared) => {
                let link = shared.link(false);
                lease.share(shared);
                Some((lease, link))
            }
            Err(_) => {
                self.steps.failed(&id, Trouble::Broken);
                self.search.rule_out(lease, Outcome::ServerError);
                None
            }
        }
    }

    /// Another endpoint at once, with a connection, if there is one and one more may be sent.
    pub(crate) async fn beside(&mut self, lease: &Lease) -> Option<(Lease, Link)> {
        let upstream = &lease.upstream;
        let other = self.search.lease_beside(&lease.id)?;
        if !upstream.may_retry() {
            return None;
        }
        upstream.meters.hedge();
        self.steps.hedged();
        if self.many {
            return other.take_shared().map(|link| (other, link));
        }
        if let Some(link) = other.take_idle(true) {
            return Some((other, link));
        }
        let (other, stream) = self.search.dial(other, None).await?;
        Some((other, Link::new(stream)))
    }

    /// Takes in that the connection failed. A connection that had been unused proves nothing but its age.
    pub(crate) fn failed(&mut self, lease: Lease, link: &Link, trouble: Trouble) {
        self.fresh = true;
        self.steps.failed(&lease.id, trouble);
        let outcome = if trouble == Trouble::Broken { Outcome::ServerError } else { Outcome::ConnectFailed };
        if link.reused {
            lease.end(Outcome::ClientGone);
        } else {
            self.search.rule_out(lease, outcome);
        }
    }
}
