//! Questions to who leads: asked of whichever machine that is, and answered only by one that surely still does.

use super::internal;
use control::SpaceError;
use control::view::View;
use replication::Group;
use rpc::{Code, Failure, Peers, Terms};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// What `read` finds, which asks a majority, and the term in which this machine led before and after: one that leads no more has
/// no answer to give.
pub async fn confirmed<T>(
    group: &Group,
    read: impl Future<Output = Result<T, SpaceError>>,
) -> Result<(u64, T), Failure> {
    let term = group.term();
    let found = read.await.map_err(internal)?;
    let overview = group.overview();
    if overview.leader == Some(overview.node) && overview.term == term {
        return Ok((term, found));
    }
    Err(Failure::new(Code::FailedPrecondition, "this machine does not lead"))
}

/// Has another machine that leads answer. One that is lost must not keep the next question waiting: it has `within`.
pub async fn ask<T: DeserializeOwned>(
    group: &Group,
    view: &View,
    peers: &Peers,
    method: &'static str,
    asked: &(impl Serialize + Sync),
    within: Duration,
) -> Result<T, Failure> {
    let snapshot = view.borrow().clone();
    let leader = group.overview().leader.and_then(|number| snapshot.member_of(number));
    let leader = leader.ok_or_else(|| Failure::new(Code::Unavailable, "nobody leads"))?;
    let request = serde_json::to_vec(asked).map_err(internal)?;
    let answered = peers.call(leader.node, method, request, Terms::within(within)).await;
    let answer = answered.map_err(|error| Failure::new(error.code(), error.to_string()))?;
    serde_json::from_slice(&answer.bytes).map_err(internal)
}

/// Whether it is this machine.
pub fn is_here(group: &Group) -> bool {
    let overview = group.overview();
    overview.leader == Some(overview.node)
}
