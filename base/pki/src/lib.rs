//! Certificates: what is in them, and an authority of our own that issues them.
//!
//! Owns the reading of PEM and X.509, and the making of both. Promises that a [`Certificate`] has a chain, a key and at
//! least one name, and that an authority signs for names only. Does no IO and knows no clock: it is given both.

mod authority;
mod certificate;
mod name;

pub use authority::{Authority, AuthorityError, key, proving, request};
pub use certificate::{Bearer, Certificate, ReadError};
pub use name::matches;
