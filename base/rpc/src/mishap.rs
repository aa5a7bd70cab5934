//! Why a connection came to nothing, in a word that can be counted. Pure.

use crate::line::tls_error;
use crate::passport::Objection;
use rustls::{AlertDescription, CertificateError, Error};
use std::io;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mishap {
    /// Plain HTTP, or anything else that is not TLS 1.3.
    NotTls,
    /// Nothing, or too little, within the deadline.
    Slow,
    /// No version that both speak.
    Version,
    /// The certificate is signed by nobody known.
    UnknownAuthority,
    Expired,
    NotYetValid,
    OtherCluster,
    /// Whoever answers is another machine.
    OtherNode,
    Revoked,
    /// Signed and in time, but no machine's.
    NotANode,
    /// The other side turned it down.
    Refused,
    /// There are too many already.
    Crowded,
    /// The other side went away, or was never there.
    Gone,
    Other,
}

impl Mishap {
    pub fn as_str(self) -> &'static str {
        match self {
            Mishap::NotTls => "not-tls",
            Mishap::Slow => "slow",
            Mishap::Version => "version",
            Mishap::UnknownAuthority => "unknown-authority",
            Mishap::Expired => "expired",
            Mishap::NotYetValid => "not-yet-valid",
            Mishap::OtherCluster => "other-cluster",
            Mishap::OtherNode => "other-node",
            Mishap::Revoked => "revoked",
            Mishap::NotANode => "not-a-node",
            Mishap::Refused => "refused",
            Mishap::Crowded => "crowded",
            Mishap::Gone => "gone",
            Mishap::Other => "other",
        }
    }

    pub(crate) fn of_io(error: &io::Error) -> Mishap {
        match tls_error(error) {
            Some(tls) => Mishap::of_tls(tls),
            None if error.kind() == io::ErrorKind::TimedOut => Mishap::Slow,
            None => Mishap::Gone,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls has dozens, and adds to them; those that matter are named"
    )]
    pub(crate) fn of_tls(error: &Error) -> Mishap {
        match error {
            Error::NoApplicationProtocol => Mishap::Version,
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Mishap::Version,
            Error::AlertReceived(_) => Mishap::Refused,
            Error::InvalidMessage(_) | Error::PeerIncompatible(_) | Error::InappropriateMessage { .. } => {
                Mishap::NotTls
            }
            Error::InvalidCertificate(error) => Mishap::of_certificate(error),
            _ => Mishap::Other,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls has dozens, and adds to them; those that matter are named"
    )]
    fn of_certificate(error: &CertificateError) -> Mishap {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Mishap::UnknownAuthority,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Mishap::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Mishap::NotYetValid,
            CertificateError::Revoked => Mishap::Revoked,
            CertificateError::ApplicationVerificationFailure => Mishap::OtherCluster,
            CertificateError::Other(other) => other.0.downcast_ref().map_or(Mishap::Other, Mishap::of_objection),
            _ => Mishap::Other,
        }
    }

    pub(crate) fn of_objection(objection: &Objection) -> Mishap {
        match objection {
            Objection::OtherCluster { .. } => Mishap::OtherCluster,
            Objection::OtherNode { .. } => Mishap::OtherNode,
            Objection::Revoked { .. } => Mishap::Revoked,
            Objection::OtherAuthority => Mishap::UnknownAuthority,
            Objection::Unreadable | Objection::NotANode | Objection::NotItsKey { .. } => Mishap::NotANode,
        }
    }
}
