//! A log entry as bytes, for the disk and between members.
//!
//! `version u8 | kind u8 | term u64 | leader u64 | index u64 | content`: 0 blank; 1 commands: count u32, then each
//! with its length u32; 2 membership as JSON. This is version 1, the first; there is no predecessor.

use crate::types::{Commands, Entry, LogId, Logged};
use openraft::{CommittedLeaderId, EntryPayload};
use std::sync::Arc;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 26;

pub(crate) fn encode(entry: &Entry) -> Vec<u8> {
    let LogId { leader_id, index } = entry.log_id;
    let mut out = vec![VERSION, 0];
    for number in [leader_id.term, leader_id.node_id, index] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(commands) => {
            out[1] = 1;
            out.extend_from_slice(&length(commands.0.len()));
            for command in commands.0.iter() {
                out.extend_from_slice(&length(command.len()));
                out.extend_from_slice(command);
            }
        }
        EntryPayload::Membership(membership) => {
            out[1] = 2;
            let json = serde_json::to_vec(membership).expect("numbers and lists are always writable as json");
            out.extend_from_slice(&json);
        }
    }
    out
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a batch of commands is bounded far below 4 GiB").to_le_bytes()
}

/// `None` when the bytes are no entry of a version this program knows.
pub(crate) fn decode(bytes: &[u8]) -> Option<Entry> {
    let (header, content) = bytes.split_at_checked(HEADER_BYTES)?;
    if header[0] != VERSION {
        return None;
    }
    let number = |at: usize| header.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk));
    let log_id = LogId::new(CommittedLeaderId::new(number(2)?, number(10)?), number(18)?);
    let payload = match header[1] {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Normal(Commands(Arc::new(commands(content)?), Logged::default())),
        2 => EntryPayload::Membership(serde_json::from_slice(content).ok()?),
        _ => return None,
    };
    Some(Entry { log_id, payload })
}

fn commands(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (count, mut rest) = bytes.split_first_chunk()?;
    let count = u32::from_le_bytes(*count) as usize;
    // Each takes four bytes at least: a wrong count must not make us reserve memory.
    let mut commands = Vec::with_capacity(count.min(rest.len() / 4));
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk()?;
        let (command, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        commands.push(command.to_vec());
        rest = after;
    }
    rest.is_empty().then_some(commands)
}
