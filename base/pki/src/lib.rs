//! Certificates: what is in them, and an authority of our own that issues them; and the tokens machines join with.
//!
//! Owns the reading of PEM and X.509, and the making of both. Promises that a [`Certificate`] has a chain, a key and at
//! least one name, that an authority signs for names and machines' keys only, and that a machine's certificate names the
//! key in it and nothing else. Of a join token only whoever holds it has the secret. Does no IO and knows no clock: it is
//! given both.

mod authority;
mod certificate;
mod name;
mod node;
pub mod token;

pub use authority::{Authority, AuthorityError, key, proving, request};
pub use certificate::{Bearer, Certificate, ReadError};
pub use name::matches;
pub use node::{EnrolError, KeyError, MachineKey, NODE_BACKDATED_S, NodeCertificate};
pub use token::Token;
