//! Whose certificate a client has to show.

use super::denial::Denial;
use crate::caller::{self, AuthorityId, Caller, Standing};
use http::HeaderValue;
use wire::spec::ClientCertificates;

#[derive(Debug)]
pub(crate) struct Certificate {
    authority: AuthorityId,
    optional: bool,
}

impl Certificate {
    pub(crate) fn new(wanted: &ClientCertificates) -> Certificate {
        Certificate { authority: caller::id(&wanted.authority), optional: wanted.optional }
    }

    /// What the instance is told of the caller, if it is let through.
    pub(crate) fn judge(&self, caller: Option<&Caller>) -> Result<Option<HeaderValue>, Denial> {
        match Caller::standing(caller, &self.authority) {
            Standing::Vouched => Ok(caller.and_then(|caller| caller.header.clone())),
            Standing::Unknown | Standing::Unasked if self.optional => Ok(None),
            Standing::Unknown => Err(Denial::Certificate),
            Standing::Unasked => Err(Denial::Misdirected),
        }
    }
}
