//! The space as its users meet it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod backup;
mod durable;
mod inventory;
mod measure;
mod ranges;
mod replicated;
mod sim;
mod space;
mod watching;
