//! Why a peer could not be reached, and why a call to it came to nothing.

use crate::failure::{Code, Failure};
use crate::head::Versions;
use crate::mishap::Mishap;
use crate::passport::Objection;
use rustls::{AlertDescription, CertificateError};
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use wire::identity::NodeId;

const DAY_S: u64 = 86_400;

/// Why there is no connection at an address.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    #[error("connect")]
    Connect {
        #[source]
        source: io::Error,
    },
    #[error("no connection within {limit:?}")]
    Slow { limit: Duration },
    #[error("speak TLS")]
    Tls {
        #[source]
        source: rustls::Error,
    },
    #[error("this machine's credentials cannot be used")]
    Credentials {
        #[source]
        source: rustls::Error,
    },
    #[error("whoever is there does not belong to this cluster: its certificate is of another authority")]
    UnknownAuthority,
    #[error("{0}")]
    Objection(Objection),
    #[error("the peer's certificate {}", untimely(.0))]
    Untimely(CertificateError),
    #[error("the peer turned this machine away: {}", refused(*.alert))]
    Refused { alert: AlertDescription },
    #[error("the peer speaks none of our versions")]
    Alpn,
    #[error("this peer speaks {} version ({theirs}) than this program knows ({ours})", age(*.ours, *.theirs))]
    Version { ours: Versions, theirs: Versions },
    #[error("the peer does not speak as peers do")]
    Nonsense,
    #[error("the connection ended before it was of use")]
    Ended {
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    #[error("this machine's clock is {}", skew(*.behind_s))]
    Clock { behind_s: i64 },
}

/// Why a peer cannot be reached at any of its addresses.
#[derive(Debug)]
pub struct ConnectError {
    pub attempts: Vec<(SocketAddr, AttemptError)>,
}

/// Why a call, watch or tunnel came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// It arrived, and this is what the method says.
    #[error("{failure}")]
    Failed { failure: Failure },
    #[error("no address is known of {node}")]
    NoAddress { node: NodeId },
    #[error("{node} cannot be reached")]
    Unreachable {
        node: NodeId,
        #[source]
        source: Arc<ConnectError>,
    },
    /// It could not be reached a moment ago.
    #[error("{node} could not be reached; it is tried again in {again_in:?}")]
    Waiting {
        node: NodeId,
        again_in: Duration,
        #[source]
        source: Arc<ConnectError>,
    },
    #[error("{node} has been removed from the cluster")]
    Revoked { node: NodeId },
    /// `was_sent`: the method may have been at work.
    #[error("{node} did not answer {method} within {limit:?}")]
    Late { node: NodeId, method: &'static str, limit: Duration, was_sent: bool },
    /// The connection broke; the method may have been at work.
    #[error("the connection to {node} broke before {method} was answered")]
    Lost {
        node: NodeId,
        method: &'static str,
        #[source]
        source: Option<Arc<hyper::Error>>,
    },
    #[error("{what} of {method} has more than {max} bytes")]
    TooLarge { method: &'static str, what: &'static str, max: usize },
    #[error("too much is under way with {node}")]
    Crowded { node: NodeId },
    #[error("{node} does not answer {method} as peers do")]
    Nonsense { node: NodeId, method: &'static str },
}

impl AttemptError {
    pub fn mishap(&self) -> Mishap {
        match self {
            AttemptError::Connect { .. } | AttemptError::Ended { .. } => Mishap::Gone,
            AttemptError::Slow { .. } => Mishap::Slow,
            AttemptError::Tls { source } => Mishap::of_tls(source),
            AttemptError::Credentials { .. } | AttemptError::Clock { .. } => Mishap::Other,
            AttemptError::UnknownAuthority => Mishap::UnknownAuthority,
            AttemptError::Objection(objection) => Mishap::of_objection(objection),
            AttemptError::Untimely(error) => Mishap::of_tls(&rustls::Error::InvalidCertificate(error.clone())),
            AttemptError::Refused { .. } => Mishap::Refused,
            AttemptError::Alpn | AttemptError::Version { .. } => Mishap::Version,
            AttemptError::Nonsense => Mishap::NotTls,
        }
    }

    /// What to do about it; empty when there is nothing to say.
    pub fn hint(&self) -> &'static str {
        match self {
            AttemptError::Untimely(_) | AttemptError::Clock { .. } => {
                "set the clock of the machine that is wrong; `timedatectl set-ntp true` keeps it right"
            }
            AttemptError::Alpn | AttemptError::Version { .. } => "upgrade the older of the two machines",
            AttemptError::Objection(Objection::OtherNode { .. }) => "another machine has this address now",
            AttemptError::Objection(Objection::OtherAuthority) => {
                "is it a token of this cluster? somebody else may be answering at this address"
            }
            AttemptError::Refused { alert: AlertDescription::CertificateRevoked } => "have the machine join again",
            AttemptError::Connect { .. }
            | AttemptError::Slow { .. }
            | AttemptError::Tls { .. }
            | AttemptError::Credentials { .. }
            | AttemptError::UnknownAuthority
            | AttemptError::Objection(_)
            | AttemptError::Refused { .. }
            | AttemptError::Nonsense
            | AttemptError::Ended { .. } => "",
        }
    }

    pub(crate) fn of_tls(error: &rustls::Error) -> AttemptError {
        if let rustls::Error::AlertReceived(alert) = error {
            let is_about_version = *alert == AlertDescription::NoApplicationProtocol;
            return if is_about_version { AttemptError::Alpn } else { AttemptError::Refused { alert: *alert } };
        }
        let rustls::Error::InvalidCertificate(certificate) = error else {
            return AttemptError::Tls { source: error.clone() };
        };
        if let CertificateError::Other(other) = certificate
            && let Some(objection) = other.0.downcast_ref::<Objection>()
        {
            return AttemptError::Objection(objection.clone());
        }
        match Mishap::of_tls(error) {
            Mishap::UnknownAuthority => AttemptError::UnknownAuthority,
            Mishap::Expired | Mishap::NotYetValid => AttemptError::Untimely(certificate.clone()),
            Mishap::NotTls
            | Mishap::Slow
            | Mishap::Version
            | Mishap::OtherCluster
            | Mishap::OtherNode
            | Mishap::Revoked
            | Mishap::NotANode
            | Mishap::Refused
            | Mishap::Crowded
            | Mishap::Gone
            | Mishap::Other => AttemptError::Tls { source: error.clone() },
        }
    }
}

impl CallError {
    /// Whether the peer turned this machine away as one that was removed from the cluster.
    pub fn is_removed(&self) -> bool {
        let removed = |(_, error): &(SocketAddr, AttemptError)| {
            matches!(error, AttemptError::Refused { alert: AlertDescription::CertificateRevoked })
        };
        match self {
            CallError::Unreachable { source, .. } | CallError::Waiting { source, .. } => {
                source.attempts.iter().any(removed)
            }
            CallError::Failed { .. }
            | CallError::NoAddress { .. }
            | CallError::Revoked { .. }
            | CallError::Late { .. }
            | CallError::Lost { .. }
            | CallError::TooLarge { .. }
            | CallError::Crowded { .. }
            | CallError::Nonsense { .. } => false,
        }
    }

    pub fn code(&self) -> Code {
        match self {
            CallError::Failed { failure } => failure.code,
            CallError::NoAddress { .. }
            | CallError::Unreachable { .. }
            | CallError::Waiting { .. }
            | CallError::Lost { .. } => Code::Unavailable,
            CallError::Revoked { .. } => Code::PermissionDenied,
            CallError::Late { .. } => Code::DeadlineExceeded,
            CallError::TooLarge { .. } | CallError::Crowded { .. } => Code::ResourceExhausted,
            CallError::Nonsense { .. } => Code::Internal,
        }
    }

    /// Whether the method may have been at work: if not, the call can be made again without a thought.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            CallError::Failed { .. } | CallError::Lost { .. } | CallError::Nonsense { .. } => true,
            CallError::Late { was_sent, .. } => *was_sent,
            CallError::TooLarge { what, .. } => *what == "the answer",
            CallError::NoAddress { .. }
            | CallError::Unreachable { .. }
            | CallError::Waiting { .. }
            | CallError::Revoked { .. }
            | CallError::Crowded { .. } => false,
        }
    }

    /// What to do about it; empty when there is nothing to say.
    pub fn hint(&self) -> &str {
        match self {
            CallError::Failed { failure } => &failure.hint,
            CallError::Unreachable { source, .. } | CallError::Waiting { source, .. } => {
                let mut hints = source.attempts.iter().map(|(_, error)| error.hint());
                hints.find(|hint| !hint.is_empty()).unwrap_or_default()
            }
            CallError::NoAddress { .. }
            | CallError::Revoked { .. }
            | CallError::Late { .. }
            | CallError::Lost { .. }
            | CallError::TooLarge { .. }
            | CallError::Crowded { .. }
            | CallError::Nonsense { .. } => "",
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (address, error)) in self.attempts.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(out, "{between}{address}: {error}")?;
            let mut source = error.source();
            while let Some(cause) = source {
                write!(out, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

/// All causes are in its text: there is more than one chain of them.
impl Error for ConnectError {}

/// "365 days behind the cluster's".
fn skew(behind_s: i64) -> String {
    let side = if behind_s < 0 { "ahead of" } else { "behind" };
    format!("{} {side} the cluster's", span(behind_s.unsigned_abs()))
}

fn span(seconds: u64) -> String {
    let (count, unit) = if seconds >= DAY_S {
        ((seconds + DAY_S / 2) / DAY_S, "day")
    } else if seconds >= 3_600 {
        (seconds / 3_600, "hour")
    } else {
        (seconds / 60, "minute")
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has dozens; only these two are about time")]
fn untimely(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = span(time.as_secs().saturating_sub(not_after.as_secs()));
            format!("expired {ago} ago, by this machine's clock: it was not renewed, or one of the clocks is wrong")
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let left = span(not_before.as_secs().saturating_sub(time.as_secs()));
            format!("will be valid in {left}, by this machine's clock: one of the clocks is wrong")
        }
        _ => "is out of time, by this machine's clock".to_owned(),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has dozens; these are those a server of ours sends")]
fn refused(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRevoked => "it has been removed from the cluster".to_owned(),
        AlertDescription::CertificateExpired => {
            "its certificate is out of time, by the peer's clock: it was not renewed, or one of the clocks is wrong"
                .to_owned()
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the peer does not know the authority of its certificate".to_owned()
        }
        AlertDescription::AccessDenied => "it is of another cluster".to_owned(),
        AlertDescription::CertificateUnknown | AlertDescription::BadCertificate => {
            "its certificate is no machine's".to_owned()
        }
        other => format!("{other:?}"),
    }
}

fn age(ours: Versions, theirs: Versions) -> &'static str {
    if theirs.min > ours.max { "a later" } else { "an earlier" }
}

#[cfg(test)]
mod tests {
    use super::skew;

    #[test]
    fn a_wrong_clock_is_said_in_peoples_words() {
        let check = |behind_s: i64, expected: &str| assert_eq!(skew(behind_s), expected);
        check(365 * 86_400 + 4_000, "365 days behind the cluster's");
        check(-86_400, "1 day ahead of the cluster's");
        check(-13 * 3_600, "13 hours ahead of the cluster's");
        check(120, "2 minutes behind the cluster's");
    }
}
