//! How a call goes wrong, in few words both sides know.

use std::fmt;

/// What kind of failure; in the spirit of gRPC's status codes, without those nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The request makes no sense, whatever the state of things.
    InvalidArgument,
    /// Who asks has not said who they are.
    Unauthenticated,
    /// Who asks may not.
    PermissionDenied,
    NotFound,
    /// The request makes sense, but not as things are now.
    FailedPrecondition,
    /// There is a bound, and it has been reached.
    ResourceExhausted,
    DeadlineExceeded,
    /// Whoever asked has gone.
    Cancelled,
    /// Nobody is there to answer; another time somebody may be.
    Unavailable,
    /// The method does not exist here.
    Unimplemented,
    /// A promise was broken on the other side.
    Internal,
}

/// What a method answers instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// Lower case, no full stop: what was attempted on what.
    pub message: String,
    /// What to do about it; empty when there is nothing to say.
    pub hint: String,
}

impl Code {
    pub const ALL: [Code; 11] = [
        Code::InvalidArgument,
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::ResourceExhausted,
        Code::DeadlineExceeded,
        Code::Cancelled,
        Code::Unavailable,
        Code::Unimplemented,
        Code::Internal,
    ];

    /// As it travels, and as labels have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::InvalidArgument => "invalid-argument",
            Code::Unauthenticated => "unauthenticated",
            Code::PermissionDenied => "permission-denied",
            Code::NotFound => "not-found",
            Code::FailedPrecondition => "failed-precondition",
            Code::ResourceExhausted => "resource-exhausted",
            Code::DeadlineExceeded => "deadline-exceeded",
            Code::Cancelled => "cancelled",
            Code::Unavailable => "unavailable",
            Code::Unimplemented => "unimplemented",
            Code::Internal => "internal",
        }
    }

    /// A word of a later version is [`Code::Internal`]: something went wrong that this program cannot tell apart.
    pub(crate) fn read(text: &str) -> Code {
        Code::ALL.into_iter().find(|code| code.as_str() == text).unwrap_or(Code::Internal)
    }
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), hint: String::new() }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
