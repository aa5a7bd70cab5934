//! Groups as their users meet them: one member and three, over disks that lose power and fill up.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod book;
mod cluster;
mod single;
