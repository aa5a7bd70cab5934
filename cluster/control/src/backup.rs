//! The state of record as one file, and back: everything that is agreed on, at one revision.
//!
//! Owns the file's format. Promises that a file that was cut off, changed anywhere or is of another kind is told from a
//! whole one before anything of it is used, and that neither writing nor checking holds more than a block of it in memory.
//! Never knows where the file is, nor what the values mean beyond whose they are.
//!
//! A file is [`MAGIC`], the format's version as u32, then blocks: kind u8, length u32, that many bytes, and a seal: the
//! SHA-256 of everything in the file before it. So no block can be left out, doubled or moved. Numbers are little-endian.
//! The first block is the [`Head`] as JSON, the last one says how much there was. The history of changes is not kept:
//! whoever watches lists again. Version 1 is the first; there is no predecessor.

use crate::codec::{Malformed, Reader, Writer};
use crate::command::{read_entry, write_entry};
use crate::state::{State, Stored};
use crate::{Entry, Space, SpaceError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

mod restored;

pub use restored::{REVISIONS_LEFT_OUT, Restored};

pub const MAGIC: &[u8; 8] = b"bramble\x1a";
const VERSION: u32 = 1;
/// A block is closed at the first entry that fills it.
const BLOCK_BYTES: usize = 256 * 1024;
/// An entry is no larger than a transaction: what claims to be larger than both is damaged, and nothing is reserved for it.
const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
const SEAL_BYTES: usize = 32;

const HEAD: u8 = 1;
const ENTRIES: u8 = 2;
const LEASES: u8 = 3;
const END: u8 = 4;

/// What a backup is of. Later fields get `#[serde(default)]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Empty: of a machine that is in no cluster.
    pub cluster: String,
    /// Id and host name of the machine that wrote it.
    pub machine: String,
    pub hostname: String,
    /// The version of the program that wrote it.
    pub program: String,
    pub taken_ms: u64,
    /// Everything up to this revision is in it, and nothing of what came later.
    pub revision: u64,
    /// The latest of the group, by which its members know who goes on from what.
    pub term: u64,
    pub keys: u64,
    /// Keys and values, roughly: to show how far a long one is.
    pub bytes: u64,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("read the backup")]
    Io(#[source] io::Error),
    #[error("this is no backup of a bramble cluster")]
    Foreign,
    #[error("the backup has format version {found}, this program knows up to {VERSION}")]
    Newer { found: u32 },
    #[error("the backup is cut off after {at} bytes")]
    CutOff { at: u64 },
    #[error("the backup is damaged between byte {from} and byte {to}: {what}")]
    Damaged { from: u64, to: u64, what: &'static str },
}

impl BackupError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io(_) => "name a file that this user may read",
            Self::Foreign => "name a file that `bramble cluster backup` has written",
            Self::Newer { .. } => "install the version of bramble that wrote it, or a newer one",
            Self::CutOff { .. } | Self::Damaged { .. } => {
                "nothing was changed; take an earlier backup, or copy this one again from where it was whole"
            }
        }
    }
}

/// A backup being written: an iterator of the file's bytes, piece by piece, as of one moment. Content is shared with the
/// space, which goes on changing.
#[derive(Debug)]
pub struct Backup {
    head: Head,
    entries: VecDeque<(Arc<str>, Stored)>,
    leases: Vec<(u64, u64)>,
    written: u64,
    sum: Sha256,
    next: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Entries,
    Leases,
    End,
    Nothing,
}

impl Space {
    /// Everything acknowledged before the call, to be written down. `about` says who writes; what of it is the space's
    /// own is filled in.
    ///
    /// # Errors
    /// As [`Space::get`].
    pub async fn backup(&self, about: Head) -> Result<Backup, SpaceError> {
        // The listing of nothing is what makes sure that this member is up to date.
        self.list("\0").await?;
        Ok(self.backup_local(about))
    }

    /// What this member knows, which may be a little old and needs no leader.
    pub fn backup_local(&self, about: Head) -> Backup {
        Backup::of(&self.board().read(), about)
    }
}

impl Backup {
    fn of(state: &State, about: Head) -> Backup {
        let entries: VecDeque<_> = state.live.iter().map(|(key, stored)| (Arc::clone(key), stored.clone())).collect();
        let leases = state.leases.iter().map(|(id, lease)| (*id, lease.ttl_ms)).collect();
        let (bytes, keys) = (state.sizes_bytes().0 as u64, entries.len() as u64);
        let head = Head { revision: state.revision, keys, bytes, ..about };
        Backup { head, entries, leases, written: 0, sum: Sha256::new(), next: Part::Head }
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    fn block(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("blocks are closed far below 4 GiB");
        let mut block = [&[kind], length.to_le_bytes().as_slice(), content].concat();
        self.sum.update(&block);
        let seal = self.sum.clone().finalize();
        self.sum.update(seal);
        block.extend_from_slice(&seal);
        block
    }

    fn entries(&mut self) -> Vec<u8> {
        let mut out = Writer::default();
        while out.len() < BLOCK_BYTES
            && let Some((key, stored)) = self.entries.pop_front()
        {
            write_entry(&mut out, &stored.entry(&key));
            self.written += 1;
        }
        out.finish()
    }
}

impl Iterator for Backup {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        match self.next {
            Part::Head => {
                self.next = Part::Entries;
                let mut begin = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
                self.sum.update(&begin);
                let head = serde_json::to_vec(&self.head).expect("texts and numbers are always writable as json");
                begin.extend(self.block(HEAD, &head));
                Some(begin)
            }
            Part::Entries if self.entries.is_empty() => {
                self.next = Part::Leases;
                self.next()
            }
            Part::Entries => {
                let content = self.entries();
                Some(self.block(ENTRIES, &content))
            }
            Part::Leases => {
                self.next = Part::End;
                let mut out = Writer::default();
                for (id, ttl_ms) in &self.leases {
                    out.number(*id);
                    out.number(*ttl_ms);
                }
                Some(self.block(LEASES, &out.finish()))
            }
            Part::End => {
                self.next = Part::Nothing;
                let mut out = Writer::default();
                out.number(self.written);
                out.number(self.leases.len() as u64);
                Some(self.block(END, &out.finish()))
            }
            Part::Nothing => None,
        }
    }
}

/// A piece of a backup that has been found whole so far.
#[derive(Debug)]
enum Piece {
    Entries(Vec<Entry>),
    /// Id and duration in milliseconds.
    Leases(Vec<(u64, u64)>),
}

/// A backup being read. Only when [`Opened::next`] has given `None` the file is known to be whole.
#[derive(Debug)]
struct Opened<R> {
    input: R,
    sum: Sha256,
    at: u64,
    head: Head,
    entries: u64,
    leases: u64,
}

impl<R: Read> Opened<R> {
    fn open(input: R) -> Result<Opened<R>, BackupError> {
        let mut opened = Opened { input, sum: Sha256::new(), at: 0, head: Head::default(), entries: 0, leases: 0 };
        let mut magic = [0; MAGIC.len()];
        match opened.fill(&mut magic) {
            Err(BackupError::CutOff { .. }) => return Err(BackupError::Foreign),
            filled => filled?,
        }
        if magic != *MAGIC {
            return Err(BackupError::Foreign);
        }
        let mut version = [0; 4];
        opened.fill(&mut version)?;
        opened.sum.update(magic);
        opened.sum.update(version);
        match u32::from_le_bytes(version) {
            VERSION => {}
            0 => return Err(opened.damaged(MAGIC.len() as u64, "there is no format version 0")),
            found => return Err(BackupError::Newer { found }),
        }
        let from = opened.at;
        let (kind, content) = opened.block()?;
        if kind != HEAD {
            return Err(opened.damaged(from, "it does not begin with what it is of"));
        }
        opened.head =
            serde_json::from_slice(&content).map_err(|_| opened.damaged(from, "what it is of cannot be read"))?;
        Ok(opened)
    }

    /// The next piece; `None` at the end of a whole file.
    fn next(&mut self) -> Result<Option<Piece>, BackupError> {
        let from = self.at;
        let (kind, content) = self.block()?;
        let read = match kind {
            ENTRIES => read_entries(&content, self.head.revision).map(|entries| {
                self.entries += entries.len() as u64;
                Some(Piece::Entries(entries))
            }),
            LEASES => read_leases(&content).map(|leases| {
                self.leases += leases.len() as u64;
                Some(Piece::Leases(leases))
            }),
            END => read_end(&content, (self.entries, self.leases)).map(|()| None),
            _ => Err(Malformed("a block is of no known kind")),
        };
        let piece = read.map_err(|Malformed(what)| self.damaged(from, what))?;
        if piece.is_none() {
            self.ended()?;
        }
        Ok(piece)
    }

    /// A block whose seal is right.
    fn block(&mut self) -> Result<(u8, Vec<u8>), BackupError> {
        let from = self.at;
        let mut begin = [0; 5];
        self.fill(&mut begin)?;
        let [kind, length @ ..] = begin;
        let length = u32::from_le_bytes(length) as usize;
        if length > BLOCK_BYTES_MAX {
            return Err(self.damaged(from, "a block is longer than any"));
        }
        let mut content = vec![0; length];
        self.fill(&mut content)?;
        let mut seal = [0; SEAL_BYTES];
        self.fill(&mut seal)?;
        self.sum.update(begin);
        self.sum.update(&content);
        if self.sum.clone().finalize().as_slice() != seal {
            return Err(self.damaged(from, "its checksum is wrong"));
        }
        self.sum.update(seal);
        Ok((kind, content))
    }

    fn ended(&mut self) -> Result<(), BackupError> {
        let from = self.at;
        match self.fill(&mut [0]) {
            Err(BackupError::CutOff { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(self.damaged(from, "it goes on after its end")),
        }
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), BackupError> {
        let mut filled = 0;
        while filled < out.len() {
            match self.input.read(&mut out[filled..]) {
                Ok(0) => return Err(BackupError::CutOff { at: self.at }),
                Ok(count) => {
                    filled += count;
                    self.at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BackupError::Io(error)),
            }
        }
        Ok(())
    }

    fn damaged(&self, from: u64, what: &'static str) -> BackupError {
        BackupError::Damaged { from, to: self.at, what }
    }
}

fn read_entries(content: &[u8], revision: u64) -> Result<Vec<Entry>, Malformed> {
    let mut input = Reader::new(content);
    let mut entries = Vec::new();
    while !input.is_empty() {
        let entry = read_entry(&mut input)?;
        if entry.mod_revision > revision || entry.create_revision > entry.mod_revision {
            return Err(Malformed("an entry is of a revision that was not yet"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn read_leases(content: &[u8]) -> Result<Vec<(u64, u64)>, Malformed> {
    let mut input = Reader::new(content);
    let mut leases = Vec::new();
    while !input.is_empty() {
        leases.push((input.number()?, input.number()?));
    }
    Ok(leases)
}

fn read_end(content: &[u8], counted: (u64, u64)) -> Result<(), Malformed> {
    let mut input = Reader::new(content);
    let said = (input.number()?, input.number()?);
    input.end()?;
    if said == counted { Ok(()) } else { Err(Malformed("it has not as much as it says")) }
}

/// What is in a backup, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub head: Head,
    /// Of the file.
    pub size_bytes: u64,
    pub stacks: Vec<String>,
    /// Members that were not removed, by id.
    pub machines: Vec<String>,
    pub leases: u64,
}

impl Contents {
    fn count(&mut self, piece: &Piece) {
        match piece {
            Piece::Leases(leases) => self.leases += leases.len() as u64,
            Piece::Entries(entries) => {
                for entry in entries {
                    match entry.key.split_once('/') {
                        Some(("stack", name)) => self.stacks.push(name.to_owned()),
                        Some(("member", id)) if !is_revoked(entry) => self.machines.push(id.to_owned()),
                        Some(_) | None => {}
                    }
                }
            }
        }
    }
}

fn is_revoked(entry: &Entry) -> bool {
    entry.json::<wire::resource::Member>().is_ok_and(|member| member.revoked)
}

/// Reads a backup to its end and says what is in it.
///
/// # Errors
/// [`BackupError`] unless it is whole.
pub fn check(input: impl Read) -> Result<Contents, BackupError> {
    let mut opened = Opened::open(input)?;
    let mut contents = Contents { head: opened.head.clone(), ..Contents::default() };
    while let Some(piece) = opened.next()? {
        contents.count(&piece);
    }
    contents.size_bytes = opened.at;
    Ok(contents)
}
