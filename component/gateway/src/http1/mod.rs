//! HTTP/1.1 on the wire, both ends of it (RFC 9112).
//!
//! Owns how heads and bodies are read and written. Reads strictly: what two readers could understand differently is
//! refused, for it is how one request is hidden in another. Promises that nothing is copied that can be shared, that
//! nothing is allocated per message where a buffer of the connection serves, and that every buffer has a bound.
//! Knows bytes, heads and bodies; no services, rules or deadlines.

mod body;
mod chunks;
mod head;
mod instance;
mod outbox;
mod scan;
mod wire;

pub(crate) use head::{Bad, recycle};
pub(crate) use instance::{AnswerHead, Line, LineError};
pub(crate) use outbox::Framed;
pub(crate) use wire::{Broken, Foreword, Manner, Received, SharedWire, Upload, Wire};
