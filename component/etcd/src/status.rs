//! Why a request was not done, in etcd's own texts and codes: its clients compare both.

use control::{RangeError, SpaceError};
use std::borrow::Cow;
use storage::replicated::ProposeError;

/// gRPC's codes, as far as they are said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Cancelled = 1,
    InvalidArgument = 3,
    NotFound = 5,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Code {
    /// As etcd's gateway answers.
    pub(crate) fn http(self) -> u16 {
        match self {
            Code::Cancelled => 408,
            Code::InvalidArgument | Code::OutOfRange => 400,
            Code::NotFound => 404,
            Code::ResourceExhausted => 429,
            Code::FailedPrecondition => 412,
            Code::Unimplemented => 501,
            Code::Internal => 500,
            Code::Unavailable => 503,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) message: Cow<'static, str>,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Status {
        Status { code, message: message.into() }
    }

    /// Whether this is ours to mend, not the client's.
    pub(crate) fn is_failure(&self) -> bool {
        match self.code {
            Code::Internal | Code::Unavailable | Code::ResourceExhausted => true,
            Code::Cancelled
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented => false,
        }
    }
}

macro_rules! texts {
    ($($name:ident: $code:ident $text:literal)*) => {
        $(pub(crate) fn $name() -> Status {
            Status::new(Code::$code, $text)
        })*
    };
}

texts! {
    empty_key: InvalidArgument "etcdserver: key is not provided"
    key_not_found: InvalidArgument "etcdserver: key not found"
    value_provided: InvalidArgument "etcdserver: value is provided"
    lease_provided: InvalidArgument "etcdserver: lease is provided"
    too_many_operations: InvalidArgument "etcdserver: too many operations in txn request"
    duplicate_key: InvalidArgument "etcdserver: duplicate key given in txn request"
    compacted: OutOfRange "etcdserver: mvcc: required revision has been compacted"
    future_revision: OutOfRange "etcdserver: mvcc: required revision is a future revision"
    no_space: ResourceExhausted "etcdserver: mvcc: database space exceeded"
    lease_not_found: NotFound "etcdserver: requested lease not found"
    lease_exists: FailedPrecondition "etcdserver: lease already exists"
    lease_too_long: OutOfRange "etcdserver: too large lease TTL"
    too_large: InvalidArgument "etcdserver: request is too large"
    too_many_requests: ResourceExhausted "etcdserver: too many requests"
    auth_not_enabled: FailedPrecondition "etcdserver: authentication is not enabled"
    no_leader: Unavailable "etcdserver: no leader"
    stopped: Unavailable "etcdserver: server stopped"
    timed_out: Unavailable "etcdserver: request timed out"
}

impl From<SpaceError> for Status {
    fn from(error: SpaceError) -> Status {
        match error {
            SpaceError::KeyEmpty => empty_key(),
            SpaceError::KeyTooLong { .. }
            | SpaceError::ValueTooLarge { .. }
            | SpaceError::TransactionTooLarge { .. } => too_large(),
            SpaceError::TooManyOperations { .. } | SpaceError::TooManyKeys { .. } => too_many_operations(),
            SpaceError::DuplicateKey { .. } => duplicate_key(),
            SpaceError::LeaseNotFound { .. } => lease_not_found(),
            SpaceError::LeaseDuration { .. } => lease_too_long(),
            SpaceError::LeaseExists => lease_exists(),
            SpaceError::KeyNotFound => key_not_found(),
            SpaceError::SpaceFull { .. } | SpaceError::DiskFull => no_space(),
            SpaceError::AnswerTooLarge { max } => answer_too_large(max),
            SpaceError::Unavailable(ProposeError::NoLeader) => no_leader(),
            SpaceError::Unavailable(ProposeError::Busy { .. }) => too_many_requests(),
            SpaceError::Unavailable(ProposeError::Unanswered { .. }) => timed_out(),
            SpaceError::Unavailable(ProposeError::Stopped { .. }) => stopped(),
            SpaceError::Unavailable(ProposeError::DiskFull) => no_space(),
            error @ (SpaceError::NotWritable { .. } | SpaceError::NotJson { .. } | SpaceError::Protocol(_)) => {
                Status::new(Code::Internal, format!("bramble: {error}"))
            }
        }
    }
}

impl From<RangeError> for Status {
    fn from(error: RangeError) -> Status {
        match error {
            RangeError::Compacted => compacted(),
            RangeError::Future => future_revision(),
            RangeError::TooLarge { max } => answer_too_large(max),
        }
    }
}

/// etcd has no such bound; its clients know the code.
fn answer_too_large(max: usize) -> Status {
    Status::new(Code::ResourceExhausted, format!("bramble: the answer is larger than {max} bytes: ask with a limit"))
}
