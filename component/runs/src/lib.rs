//! Code of strangers, run in boxes.

pub mod incoming;
pub mod language;
pub mod link;
pub mod order;
pub mod outgoing;
pub mod roots;
