//! Joining: what a machine does that has a token and no cluster.
//!
//! Promises that nothing of the data folder changes unless the cluster has said yes, but for the machine's key, which it
//! keeps for the next try.

use super::entry::{Asked, JOIN, Told};
use super::home::{Home, HomeError};
use super::{addresses, hostname};
use meter::Meter;
use pki::Token;
use rpc::{CallError, ConnectError, Guest, Patience};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::join::JoinRequest;

/// A member that has to reach its disk and two others is slower than this only when something is wrong.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// Why a machine has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("read the token: {0}")]
    Token(#[from] pki::token::ParseError),
    #[error("this machine is a member of cluster {cluster} already")]
    Member { cluster: String },
    #[error("{path} holds a cluster of its own")]
    Occupied { path: PathBuf },
    #[error("find a member: {address:?} is no address")]
    Address { address: String },
    #[error("reach a member")]
    Reach(#[from] ConnectError),
    #[error("ask to be let in")]
    Asked(#[from] CallError),
    #[error("read what the cluster said: {0}")]
    Told(String),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("sign the request for a certificate")]
    Key(#[from] pki::KeyError),
}

impl JoinError {
    pub fn hint(&self) -> String {
        match self {
            JoinError::Token(error) => error.hint().to_owned(),
            JoinError::Member { .. } => {
                "`bramble up` starts it; another data folder (--data DIR) is another machine".to_owned()
            }
            JoinError::Occupied { .. } => {
                "what is deployed there would be lost: name another folder with --data DIR, or move that one away"
                    .to_owned()
            }
            JoinError::Address { .. } => "have a member print a new token".to_owned(),
            JoinError::Reach(error) => {
                let known = error.attempts.iter().map(|(_, error)| error.hint()).find(|hint| !hint.is_empty());
                known
                    .unwrap_or("is a member running at one of these addresses, and does a firewall let TCP through?")
                    .to_owned()
            }
            JoinError::Asked(error) => error.hint().to_owned(),
            JoinError::Told(_) => "is the cluster's program a later one? install that on this machine".to_owned(),
            JoinError::Home(_) | JoinError::Key(_) => String::new(),
        }
    }
}

/// Has the machine `me` with this data folder join. Says which cluster it is a member of then.
pub async fn join(data: &Path, me: &str, listen: SocketAddr, text: &str) -> Result<String, JoinError> {
    let token = Token::parse(text)?;
    let home = Home::of(data);
    if let Some(standing) = home.standing()? {
        return Err(JoinError::Member { cluster: standing.certificate.cluster.to_string() });
    }
    let log = data.join("control");
    if log.exists() {
        return Err(JoinError::Occupied { path: data.to_owned() });
    }
    let key = home.key()?;
    let mut members = Vec::new();
    for address in &token.terms.addresses {
        let found = address.to_socket_addrs().map_err(|_| JoinError::Address { address: address.clone() })?;
        members.extend(found);
    }
    let guest = Guest::visit(&members, token.terms.authority, Patience::default(), &Meter::new()).await?;
    let hostname = hostname();
    let join = JoinRequest { token: token.id.clone(), secret: token.secret(), request_pem: key.request()? };
    let asked = Asked { join, id: me.to_owned(), hostname, addresses: addresses::reachable(listen) };
    let request = serde_json::to_vec(&asked).map_err(|error| JoinError::Told(error.to_string()))?;
    let answer = guest.call(JOIN, request, ANSWERED_WITHIN).await?;
    let told: Told = serde_json::from_slice(&answer.bytes).map_err(|error| JoinError::Told(error.to_string()))?;
    if !told.members.iter().any(|member| member.id == me) {
        return Err(JoinError::Told("this machine is not among the members".to_owned()));
    }
    home.keep_members(&told.members)?;
    home.keep(&told.answer.chain_pem, &told.answer.roots_pem)?;
    Ok(guest.cluster().to_string())
}
