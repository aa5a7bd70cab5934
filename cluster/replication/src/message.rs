//! What members say to each other, as bytes: `version u8 | kind u8 | head length u32 | head as JSON | blobs`, each
//! blob with its length u32. Commands and entries travel as blobs, never inside JSON. Pure.

use crate::election::Prevote;
use crate::entry;
use crate::types::{LogId, Types, Vote};
use openraft::SnapshotMeta;
use openraft::raft::{AppendEntriesRequest, InstallSnapshotRequest, VoteRequest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use storage::replicated::ProposeError;

const VERSION: u8 = 1;

#[derive(Debug)]
pub(crate) enum Message {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<Types>),
    /// To the leader: have this command happen.
    Propose(Vec<u8>),
    /// To the leader: answer from memory.
    Ask(Vec<u8>),
    /// To the leader: up to which index must I have applied to be up to date?
    ReadIndex,
    /// To a voter: would it vote for who asks?
    Prevote(Prevote),
    /// To the leader: have these commands happen, each on its own.
    ProposeAll(Vec<Vec<u8>>),
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev_log_id: Option<LogId>,
    leader_commit: Option<LogId>,
}

#[derive(Serialize, Deserialize)]
struct SnapshotHead {
    vote: Vote,
    meta: SnapshotMeta<u64, openraft::EmptyNode>,
    offset: u64,
    done: bool,
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }) => {
                let head = AppendHead { vote: *vote, prev_log_id: *prev_log_id, leader_commit: *leader_commit };
                let entries = entries.iter().map(entry::encode).collect::<Vec<_>>();
                pack(1, &head, &entries)
            }
            Self::Vote(request) => pack::<_, Vec<u8>>(2, request, &[]),
            Self::Snapshot(InstallSnapshotRequest { vote, meta, offset, data, done }) => {
                let head = SnapshotHead { vote: *vote, meta: meta.clone(), offset: *offset, done: *done };
                pack(3, &head, &[data])
            }
            Self::Propose(command) => pack(4, &(), &[command]),
            Self::Ask(question) => pack(5, &(), &[question]),
            Self::ReadIndex => pack::<_, Vec<u8>>(6, &(), &[]),
            Self::Prevote(asked) => pack::<_, Vec<u8>>(7, asked, &[]),
            Self::ProposeAll(commands) => pack(8, &(), commands),
        }
    }

    /// `None` when this is no message of a version this program knows.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, head, blobs) = unpack(bytes)?;
        let only = |blobs: Vec<&[u8]>| blobs.first().map(|blob| blob.to_vec());
        match kind {
            1 => {
                let AppendHead { vote, prev_log_id, leader_commit } = serde_json::from_slice(head).ok()?;
                let entries = blobs.into_iter().map(entry::decode).collect::<Option<Vec<_>>>()?;
                Some(Self::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }))
            }
            2 => Some(Self::Vote(serde_json::from_slice(head).ok()?)),
            3 => {
                let SnapshotHead { vote, meta, offset, done } = serde_json::from_slice(head).ok()?;
                let data = only(blobs)?;
                Some(Self::Snapshot(InstallSnapshotRequest { vote, meta, offset, data, done }))
            }
            4 => Some(Self::Propose(only(blobs)?)),
            5 => Some(Self::Ask(only(blobs)?)),
            6 => Some(Self::ReadIndex),
            7 => Some(Self::Prevote(serde_json::from_slice(head).ok()?)),
            8 => Some(Self::ProposeAll(blobs.into_iter().map(<[u8]>::to_vec).collect())),
            _ => None,
        }
    }
}

/// An answer: `head` says how it went, the blob holds the machine's bytes if there are any.
pub(crate) fn answer<T: Serialize>(head: &T, blob: &[u8]) -> Vec<u8> {
    pack(0, head, &[blob])
}

pub(crate) fn read_answer<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, Vec<u8>)> {
    let (kind, head, blobs) = unpack(bytes)?;
    if kind != 0 {
        return None;
    }
    Some((serde_json::from_slice(head).ok()?, blobs.first()?.to_vec()))
}

/// As [`answer`], to several things at once: `head` says of each how it went.
pub(crate) fn answers(said: &[Result<Vec<u8>, ProposeError>]) -> Vec<u8> {
    let head = said.iter().map(|said| said.as_ref().map(drop)).collect::<Vec<_>>();
    let blobs = said.iter().map(|said| said.as_deref().unwrap_or_default()).collect::<Vec<_>>();
    pack(0, &head, &blobs)
}

/// `None` when there are not as many as were `asked`.
pub(crate) fn read_answers(bytes: &[u8], asked: usize) -> Option<Vec<Result<Vec<u8>, ProposeError>>> {
    let (kind, head, blobs) = unpack(bytes)?;
    let heads: Vec<Result<(), ProposeError>> = serde_json::from_slice(head).ok()?;
    let fits = kind == 0 && heads.len() == asked && blobs.len() == asked;
    fits.then(|| heads.into_iter().zip(blobs).map(|(said, blob)| said.map(|()| blob.to_vec())).collect())
}

fn pack<T: Serialize, B: AsRef<[u8]>>(kind: u8, head: &T, blobs: &[B]) -> Vec<u8> {
    let head = serde_json::to_vec(head).expect("our messages' heads are always writable as json");
    let mut out = vec![VERSION, kind];
    for part in std::iter::once(head.as_slice()).chain(blobs.iter().map(AsRef::as_ref)) {
        let length = u32::try_from(part.len()).expect("messages are bounded far below 4 GiB");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Kind, head and blobs.
type Parts<'a> = (u8, &'a [u8], Vec<&'a [u8]>);

fn unpack(bytes: &[u8]) -> Option<Parts<'_>> {
    let ([version, kind], mut rest) = bytes.split_first_chunk()?;
    if *version != VERSION {
        return None;
    }
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk()?;
        let (part, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        parts.push(part);
        rest = after;
    }
    if parts.is_empty() {
        return None;
    }
    let head = parts.remove(0);
    Some((*kind, head, parts))
}
