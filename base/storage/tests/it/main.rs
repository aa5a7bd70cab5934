//! Storage as its users meet it, over a disk that loses power, fills up and rots.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod kv;
mod log;
