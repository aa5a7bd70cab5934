//! Certificates from authorities that speak ACME (RFC 8555).
//!
//! Owns the conversation with the authority, and when it may be had: [`Ledger`] is the memory that keeps a machine from
//! asking too often. Promises that an order survives whoever began it ([`Begun`]), and that what was shown as a proof is
//! taken back. Does no IO but HTTPS to the authority: who asks
//! keeps the files, makes the keys and shows the proofs ([`Desk`]).

mod account;
mod error;
mod ledger;
mod order;
mod speech;

pub use account::{Account, Binding, LETSENCRYPT, LETSENCRYPT_STAGING, Settings};
pub use error::{Fault, ObtainError};
pub use ledger::{Ledger, Record};
pub use order::{Begun, Challenge, Desk, Doing, Issued, Proof};
