//! How a machine becomes a member: what it asks, and what those who are members do about it.
//!
//! Promises that a token lets in whom it says and nobody else, also when two come with it at once: letting in and counting
//! the token's use is one transaction.

use control::{Compare, Space, SpaceError, Txn};
use pki::{Authority, Token, token};
use rpc::{Code, Failure};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use wire::identity::{ClusterId, NodeId};
use wire::join::{JoinAnswer, JoinRequest};
use wire::resource::{ClusterAuthority, Member, key};

/// The method behind it, open to all.
pub const JOIN: &str = "cluster/join";
/// Two machines may come at the same moment, or ten.
const TRIES: usize = 20;
/// Names and addresses of a machine that asks: what is longer is none.
const TEXT_BYTES_MAX: usize = 255;
const ADDRESSES_MAX: usize = 8;

/// Says a machine that wants to join.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    pub join: JoinRequest,
    pub id: String,
    pub hostname: String,
    pub addresses: Vec<SocketAddr>,
}

/// Says the cluster.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    pub answer: JoinAnswer,
    pub members: Vec<Member>,
}

/// Makes a machine a member if its token is good.
pub async fn admit(space: &Space, cluster: &ClusterId, asked: Asked) -> Result<Told, Failure> {
    check(&asked)?;
    for _ in 0..TRIES {
        let at = key::token(&asked.join.token);
        let stored = space.get(&at).await.map_err(unavailable)?;
        let record: Option<token::Record> = match &stored {
            Some(entry) => Some(serde_json::from_slice(&entry.value).map_err(broken)?),
            None => None,
        };
        let now_s = now_s();
        token::admit(record.as_ref(), now_s, &asked.join.secret)
            .map_err(|refusal| Failure::new(Code::PermissionDenied, refusal.to_string()).with_hint(refusal.hint()))?;
        let (Some(mut record), Some(stored)) = (record, stored) else {
            return Err(Failure::new(Code::Internal, "a token was let in that is not there"));
        };
        let (authority, kept) = authority(space).await?;
        let certificate = authority.enrol(cluster, &asked.join.request_pem, None, now_s).map_err(unproven)?;
        let members = members(space).await?;
        refuse_taken(&members, &asked, certificate.node)?;
        // One that is told of nobody would take itself for the first.
        if members.iter().all(|member| member.id == asked.id) {
            return Err(
                Failure::new(Code::Unavailable, "this cluster knows no machine yet").with_hint("try again in a moment")
            );
        }
        record.used += 1;
        let member = Member {
            id: asked.id.clone(),
            node: certificate.node,
            number: number(&asked.id),
            hostname: asked.hostname.clone(),
            addresses: asked.addresses.clone(),
            zone: record.zone.clone(),
            role: record.role.clone(),
            joined_ms: world::clock::unix_ms(),
            fsync_p99_us: None,
            revoked: false,
            incarnation: None,
        };
        let at_member = key::member(&member.id);
        let before = space.get(&at_member).await.map_err(unavailable)?.map_or(0, |entry| entry.mod_revision);
        let txn = Txn::new()
            .when(Compare::mod_revision(&at, stored.mod_revision))
            .when(Compare::mod_revision(&at_member, before))
            .put_json(&at, &record)
            .put_json(&at_member, &member);
        if space.commit(txn).await.map_err(unavailable)?.succeeded {
            tracing::info!(machine = member.id, hostname = member.hostname, node = %member.node, "a machine has joined");
            let members = members.into_iter().filter(|one| one.id != asked.id).chain([member]).collect();
            let answer = JoinAnswer {
                chain_pem: certificate.pem(),
                roots_pem: kept.certificate_pem,
                now_ms: world::clock::unix_ms(),
            };
            return Ok(Told { answer, members });
        }
    }
    Err(Failure::new(Code::Unavailable, "too many machines join at once").with_hint("try again in a moment"))
}

/// Gives a member its next certificate.
pub async fn renew(
    space: &Space,
    cluster: &ClusterId,
    caller: Option<NodeId>,
    request_pem: &str,
) -> Result<JoinAnswer, Failure> {
    let node = caller.ok_or_else(|| Failure::new(Code::Unauthenticated, "only members renew certificates"))?;
    let is_member = members(space).await?.iter().any(|member| member.node == node && !member.revoked);
    if !is_member {
        return Err(Failure::new(Code::PermissionDenied, format!("{node} is no member of this cluster")));
    }
    let (authority, kept) = authority(space).await?;
    let certificate = authority.enrol(cluster, request_pem, Some(node), now_s()).map_err(unproven)?;
    let (chain_pem, now_ms) = (certificate.pem(), world::clock::unix_ms());
    Ok(JoinAnswer { chain_pem, roots_pem: kept.certificate_pem, now_ms })
}

/// The cluster's authority, from the state of record.
pub async fn authority(space: &Space) -> Result<(Authority, ClusterAuthority), Failure> {
    let stored = space.get(key::AUTHORITY).await.map_err(unavailable)?;
    let stored = stored.ok_or_else(|| Failure::new(Code::FailedPrecondition, "this machine is in no cluster"))?;
    let kept: ClusterAuthority = serde_json::from_slice(&stored.value).map_err(broken)?;
    let authority = Authority::open(&kept.certificate_pem, &kept.key_pem).map_err(broken)?;
    Ok((authority, kept))
}

/// Keeps what lets a machine in, and gives what is carried to it.
pub async fn mint(space: &Space, terms: token::Terms) -> Result<Token, Failure> {
    let mut random = [0; 40];
    world::random::fill(&mut random);
    let (token, record) =
        Token::mint(terms, &random).map_err(|error| Failure::new(Code::InvalidArgument, error.to_string()))?;
    space.commit(Txn::new().put_json(key::token(&record.id), &record)).await.map_err(unavailable)?;
    Ok(token)
}

async fn members(space: &Space) -> Result<Vec<Member>, Failure> {
    let listing = space.list(key::MEMBERS).await.map_err(unavailable)?;
    let read = |entry: &control::Entry| serde_json::from_slice(&entry.value).map_err(broken);
    listing.entries.iter().map(read).collect()
}

fn check(asked: &Asked) -> Result<(), Failure> {
    let is_word = |text: &str| !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.contains(['/', '\0']);
    let wrong = |what| Failure::new(Code::InvalidArgument, format!("{what} of the machine that joins is not one"));
    if !is_word(&asked.id) {
        return Err(wrong("the id"));
    }
    if asked.hostname.len() > TEXT_BYTES_MAX {
        return Err(wrong("the host name"));
    }
    if asked.addresses.is_empty() || asked.addresses.len() > ADDRESSES_MAX {
        return Err(wrong("the list of addresses"));
    }
    Ok(())
}

/// A name belongs to one key, and a key has one name.
fn refuse_taken(members: &[Member], asked: &Asked, node: NodeId) -> Result<(), Failure> {
    let taken = members.iter().find(|member| (member.id == asked.id) != (member.node == node));
    if let Some(member) = taken {
        let message = format!("machine {} has joined before with another key or another id", member.id);
        return Err(Failure::new(Code::PermissionDenied, message)
            .with_hint("is this a copy of another machine's data folder? give it a folder of its own"));
    }
    if members.iter().any(|member| member.node == node && member.revoked) {
        return Err(Failure::new(Code::PermissionDenied, format!("machine {} was removed from the cluster", asked.id))
            .with_hint("give it a new data folder to have it join as another machine"));
    }
    Ok(())
}

/// Groups know members by number: it comes from the id (FNV-1a), so that it never changes either.
pub fn number(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

pub fn now_s() -> i64 {
    i64::try_from(world::clock::unix_ms() / 1_000).unwrap_or(i64::MAX)
}

fn unavailable(error: SpaceError) -> Failure {
    Failure::new(Code::Unavailable, format!("reach the state of record: {error}")).with_hint(error.hint())
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Internal, format!("a record of the cluster cannot be read: {error}"))
}

fn unproven(error: pki::EnrolError) -> Failure {
    Failure::new(Code::InvalidArgument, wire::diagnostic::chain(&error))
}
