//! What all requests share: the space, who this member is, and the answers that need nothing else.

use crate::codec::One;
use crate::meters::Meters;
use crate::room::{Room, Rooms};
use crate::status::{self, Code, Status};
use crate::words::{
    AlarmAction, AlarmRequest, Done, Header, HealthResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRequest, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, Member,
    MemberListResponse, Serving, StatusResponse,
};
use crate::{VERSION, keys, kv};
use control::{Compare, LEASE_MS_MAX, Range, Space, SpaceError, Txn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{Notify, watch};

/// Which cluster this is, for clients that look whether it is still the same. Beside their keys, out of reach.
const IDENTITY: &str = "etcd-cluster";
/// etcd grants nothing shorter with its own defaults.
const TTL_S_MIN: u64 = 2;
/// One of a list, as JSON has it.
const LEASE_BYTES: usize = 32;

/// How this member stands in its group.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    pub member: u64,
    /// 0: nobody leads.
    pub leader: u64,
    pub term: u64,
    pub last_index: u64,
    pub applied_index: u64,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
}

/// Tells how this member stands, now.
pub trait Stands: Send + Sync {
    /// Said with every answer.
    fn term(&self) -> u64;

    fn standing(&self) -> Standing;
}

/// Returns when the server closes, and when it is gone.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}

/// What the requests of one connection share.
pub(crate) struct Visit {
    pub(crate) desk: Arc<Desk>,
    /// Where its client reached it.
    pub(crate) here: SocketAddr,
    /// Rung when the client does not take its answers.
    pub(crate) late: Arc<Notify>,
}

pub(crate) struct Desk {
    pub(crate) space: Space,
    pub(crate) meters: Meters,
    pub(crate) closing: watch::Receiver<bool>,
    /// On all connections.
    pub(crate) watches: AtomicUsize,
    pub(crate) rooms: Rooms,
    stands: Box<dyn Stands>,
    member: u64,
    cluster: AtomicU64,
}

impl Desk {
    pub(crate) fn new(space: Space, meters: Meters, closing: watch::Receiver<bool>, stands: Box<dyn Stands>) -> Desk {
        let member = stands.standing().member;
        Desk {
            space,
            meters,
            closing,
            watches: AtomicUsize::new(0),
            rooms: Rooms::new(),
            stands,
            member,
            cluster: AtomicU64::new(0),
        }
    }

    pub(crate) fn header(&self, revision: u64) -> Header {
        Header {
            cluster_id: self.cluster.load(Ordering::Relaxed),
            member_id: self.member,
            revision: kv::signed(revision),
            raft_term: self.stands.term(),
        }
    }

    /// Has every answer say the same cluster, from every machine, for good.
    pub(crate) async fn identify(&self) -> Result<(), Status> {
        if self.cluster.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        let mut stored = self.space.range_local(&Range::key(IDENTITY), 1, None)?;
        if stored.entries.is_empty() {
            let id = (world::random::number() >> 1).max(1);
            let txn = Txn::new().when(Compare::absent(IDENTITY)).put(IDENTITY, id.to_string().into_bytes());
            self.space.commit(txn).await?;
            stored = self.space.range_local(&Range::key(IDENTITY), 1, None)?;
        }
        let text = stored.entries.first().and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok());
        let id = text.ok_or_else(|| Status::new(Code::Internal, "bramble: the cluster's id cannot be read"))?;
        self.cluster.store(id, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) async fn lease_grant(&self, asked: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        let seconds = u64::try_from(asked.ttl).unwrap_or(0).max(TTL_S_MIN);
        let ttl_ms = seconds.saturating_mul(1_000);
        if ttl_ms > LEASE_MS_MAX {
            return Err(status::lease_too_long());
        }
        let id = loop {
            let is_ours = asked.id == 0;
            let id = if is_ours { (world::random::number() >> 1).max(1).cast_signed() } else { asked.id };
            match self.space.grant_as(keys::stored_lease(id)?, ttl_ms).await {
                Ok(()) => break id,
                Err(SpaceError::LeaseExists) if is_ours => {}
                Err(error) => return Err(error.into()),
            }
        };
        let header = Some(self.header(self.space.revision()));
        Ok(LeaseGrantResponse { header, id, ttl: kv::signed(seconds), error: String::new() })
    }

    pub(crate) async fn lease_revoke(&self, asked: LeaseRequest) -> Result<Done, Status> {
        self.space.revoke(keys::stored_lease(asked.id)?).await?;
        Ok(self.done())
    }

    /// A lease that is over has no time left: no error, as etcd has it.
    pub(crate) async fn lease_keep_alive(&self, asked: LeaseRequest) -> Result<LeaseKeepAliveResponse, Status> {
        let renewed = match keys::stored_lease(asked.id) {
            Ok(id) => self.space.renew(id).await,
            Err(_) => Err(SpaceError::LeaseNotFound { id: 0 }),
        };
        let ttl_ms = match renewed {
            Ok(ttl_ms) => ttl_ms,
            Err(SpaceError::LeaseNotFound { .. }) => 0,
            Err(error) => return Err(error.into()),
        };
        let header = Some(self.header(self.space.revision()));
        Ok(LeaseKeepAliveResponse { header, id: asked.id, ttl: kv::signed(ttl_ms / 1_000) })
    }

    pub(crate) async fn lease_time_to_live(
        &self,
        asked: LeaseTimeToLiveRequest,
    ) -> Result<(LeaseTimeToLiveResponse, Room), Status> {
        let mut answer = LeaseTimeToLiveResponse { id: asked.id, ttl: -1, ..Default::default() };
        if let Ok(id) = keys::stored_lease(asked.id) {
            match self.space.time_left(id).await {
                Ok(left) => {
                    answer.ttl = kv::signed(left.left_ms / 1_000);
                    answer.granted_ttl = kv::signed(left.ttl_ms / 1_000);
                    if asked.keys {
                        self.space.barrier().await?;
                        answer.keys = self.space.lease_keys_local(id).iter().map(|key| keys::given(key)).collect();
                    }
                }
                Err(SpaceError::LeaseNotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        answer.header = Some(self.header(self.space.revision()));
        let room = self.rooms.answer(answer.keys.iter().map(|key| key.len()).sum()).await;
        Ok((answer, room))
    }

    pub(crate) async fn lease_leases(&self) -> Result<(LeaseLeasesResponse, Room), Status> {
        self.space.barrier().await?;
        let leases = self.space.leases_local().into_iter().filter_map(keys::given_lease);
        let leases = leases.map(|id| LeaseRequest { id }).collect::<Vec<_>>();
        let room = self.rooms.answer(leases.len() * LEASE_BYTES).await;
        Ok((LeaseLeasesResponse { header: Some(self.header(self.space.revision())), leases }, room))
    }

    /// Where others are served this machine does not know; whoever asks has reached it here.
    pub(crate) fn members(&self, here: SocketAddr) -> MemberListResponse {
        let standing = self.stands.standing();
        let of = |id: &u64, is_learner: bool| {
            let client_urls = if *id == standing.member { vec![format!("http://{here}")] } else { Vec::new() };
            Member { id: *id, name: format!("{id:x}"), peer_urls: Vec::new(), client_urls, is_learner }
        };
        let voters = standing.voters.iter().map(|id| of(id, false));
        let members = voters.chain(standing.learners.iter().map(|id| of(id, true))).collect();
        MemberListResponse { header: Some(self.header(self.space.revision())), members }
    }

    pub(crate) fn status(&self) -> StatusResponse {
        let standing = self.stands.standing();
        let size = i64::try_from(self.space.size_bytes()).unwrap_or(i64::MAX);
        let errors = if standing.leader == 0 { vec![status::no_leader().message.into_owned()] } else { Vec::new() };
        StatusResponse {
            header: Some(self.header(self.space.revision())),
            version: VERSION.to_owned(),
            db_size: size,
            leader: standing.leader,
            raft_index: standing.last_index,
            raft_term: standing.term,
            raft_applied_index: standing.applied_index,
            errors,
            db_size_in_use: size,
            is_learner: standing.learners.contains(&standing.member),
        }
    }

    /// There are none: what etcd alarms for is told by Bramble's own alerts.
    pub(crate) fn alarms(&self, asked: &AlarmRequest) -> Result<Done, Status> {
        match asked.action.0 {
            AlarmAction::Get | AlarmAction::Deactivate => Ok(self.done()),
            AlarmAction::Activate => Err(Status::new(Code::Unimplemented, "bramble: alarms are not set by hand")),
        }
    }

    pub(crate) fn done(&self) -> Done {
        Done { header: Some(self.header(self.space.revision())) }
    }

    pub(crate) fn health() -> HealthResponse {
        HealthResponse { status: One(Serving::Serving) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A member of no group.
    pub(crate) struct Alone;

    impl Stands for Alone {
        fn term(&self) -> u64 {
            1
        }

        fn standing(&self) -> Standing {
            Standing { member: 1, leader: 1, term: 1, ..Standing::default() }
        }
    }
}
