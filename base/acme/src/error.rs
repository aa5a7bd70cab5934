//! Why there is no certificate.

use serde::{Deserialize, Serialize};
use std::io;

/// Whose fault a failure is, as far as that decides when to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The authority could not be reached or was not well.
    Absent,
    /// It understood, and said no.
    Refused,
    /// It has had enough of us for now.
    Crowded,
}

#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    #[error("the roots given for the authority cannot be used: {why}")]
    Roots { why: String },
    #[error("the account's kept credentials cannot be used: {why}")]
    Credentials { why: String },
    #[error("speak with the authority: {why}")]
    Speech { why: String, retry_after_s: Option<u64> },
    #[error("the authority refuses: {why}")]
    Refused { why: String, kind: String, retry_after_s: Option<u64> },
    #[error("the authority offers no {challenge} for {name}")]
    NotOffered { name: String, challenge: &'static str },
    #[error("show the proof that {name} is ours: {why}")]
    NotShown { name: String, why: String },
    #[error("the authority does not believe that {name} is ours: {why}")]
    NotBelieved { name: String, why: String },
    #[error("the authority did not decide in time")]
    Undecided,
    #[error("keep the order")]
    Keep {
        #[source]
        source: io::Error,
    },
    #[error("make a key and a request for {name}: {why}")]
    Request { name: String, why: String },
}

impl ObtainError {
    pub fn fault(&self) -> Fault {
        match self {
            ObtainError::Refused { kind, .. } if kind.ends_with(":rateLimited") => Fault::Crowded,
            // With a nonce, it refused three in a row: it is not itself.
            ObtainError::Refused { kind, .. } if kind.ends_with(":serverInternal") || kind.ends_with(":badNonce") => {
                Fault::Absent
            }
            ObtainError::Speech { .. } | ObtainError::Undecided => Fault::Absent,
            ObtainError::Refused { .. }
            | ObtainError::Roots { .. }
            | ObtainError::Credentials { .. }
            | ObtainError::NotOffered { .. }
            | ObtainError::NotShown { .. }
            | ObtainError::NotBelieved { .. }
            | ObtainError::Keep { .. }
            | ObtainError::Request { .. } => Fault::Refused,
        }
    }

    /// How long the authority wants to be left alone.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            ObtainError::Refused { retry_after_s, .. } | ObtainError::Speech { retry_after_s, .. } => *retry_after_s,
            ObtainError::Roots { .. }
            | ObtainError::Credentials { .. }
            | ObtainError::NotOffered { .. }
            | ObtainError::NotShown { .. }
            | ObtainError::NotBelieved { .. }
            | ObtainError::Undecided
            | ObtainError::Keep { .. }
            | ObtainError::Request { .. } => None,
        }
    }

    /// Whether the authority has forgotten the account: a new one has to be made.
    pub fn is_account_gone(&self) -> bool {
        match self {
            ObtainError::Refused { kind, .. } => kind.ends_with(":accountDoesNotExist"),
            ObtainError::Credentials { .. } => true,
            ObtainError::Roots { .. }
            | ObtainError::Speech { .. }
            | ObtainError::NotOffered { .. }
            | ObtainError::NotShown { .. }
            | ObtainError::NotBelieved { .. }
            | ObtainError::Undecided
            | ObtainError::Keep { .. }
            | ObtainError::Request { .. } => false,
        }
    }
}
