//! What machines send each other: how far the sender knows whom, and what it knows better.
//!
//! Owns the format. A datagram begins with the format's version, who sends it and how often its heart has beaten; then
//! come sections (tag, length, content), of which unknown ones are skipped, so that a later version may say more.
//! Promises that reading is total and takes memory in proportion to the datagram.

use super::coding::{self, Malformed, Reader};
use super::node::{NodeId, Short};
use super::record::{RECORD_BYTES_MAX, Record};

/// The longest datagram, before sealing: with 48 bytes of headers (IPv6, UDP) and up to 32 for sealing it fits into 1,280,
/// which every path of IPv6 carries, so that nothing is ever sent in fragments, of which losing one loses all.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;

const VERSION: u8 = 1;
/// Ages travel in hundredths of a second, which takes one byte up to 1.27 s.
const AGE_UNIT_MS: u64 = 10;
/// No older age is told: three minutes are long past any verdict.
const AGE_UNITS_MAX: u64 = (1 << 14) - 1;
/// Generations, heartbeats and versions grow by one or are milliseconds since 1970; none gets here in 280,000 years. Who
/// says otherwise lies, and could never be contradicted by a greater number.
pub(crate) const COUNTER_MAX: u64 = 1 << 53;
/// Tag and length.
const SECTION_HEAD_BYTES: usize = 3;

/// What a datagram is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All that the sender knows of machines in this range of names, both ends in it: what is missing there is
    /// unknown to it. Wants an [`Kind::Answer`].
    Ask { first: Short, last: Short },
    /// What is known better here, and what of the asker's is wanted.
    Answer,
    /// What was wanted. Nothing is said in return.
    Tell,
}

/// Who sends, and which beat of its heart this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sender: NodeId,
    pub(crate) generation: u64,
    pub(crate) heartbeat: u64,
}

/// How far a machine is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) generation: u64,
    pub(crate) heartbeat: u64,
    /// Of the record.
    pub(crate) version: u64,
    /// How long ago this heartbeat was, as the sender reckons.
    pub(crate) age_ms: u64,
    pub(crate) left: bool,
}

/// A machine as digests have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) short: Short,
    pub(crate) known: Known,
}

/// A machine with its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) id: NodeId,
    pub(crate) known: Known,
    /// As it travels, to be passed on with what this program does not know in it.
    pub(crate) raw: &'a [u8],
}

#[derive(Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) kind: Kind,
    pub(crate) head: Head,
    pub(crate) entries: Vec<Entry>,
    pub(crate) wants: Vec<Short>,
    pub(crate) items: Vec<(Item<'a>, Record)>,
}

impl Datagram<'_> {
    /// Adds to the age of everything told, which lay about for so long.
    pub(crate) fn grow_older(&mut self, by_ms: u64) {
        let entries = self.entries.iter_mut().map(|entry| &mut entry.known);
        for known in entries.chain(self.items.iter_mut().map(|(item, _)| &mut item.known)) {
            known.age_ms = known.age_ms.saturating_add(by_ms);
        }
    }
}

mod kind {
    pub(super) const ASK: u8 = 1;
    pub(super) const ANSWER: u8 = 2;
    pub(super) const TELL: u8 = 3;
}

mod section {
    pub(super) const ENTRIES: u8 = 1;
    pub(super) const WANTS: u8 = 2;
    pub(super) const ITEMS: u8 = 3;
}

/// Who says it sent this: to be compared with whose key sealed it.
pub fn sender(datagram: &[u8]) -> Result<NodeId, Malformed> {
    read_head(&mut Reader::new(datagram)).map(|(_, head)| head.sender)
}

/// Reads a datagram as a whole, records included, or not at all.
pub(crate) fn decode(datagram: &[u8]) -> Result<Datagram<'_>, Malformed> {
    if datagram.len() > DATAGRAM_BYTES_MAX {
        return Err(Malformed::TooLong { bytes: datagram.len(), bytes_max: DATAGRAM_BYTES_MAX });
    }
    let mut reader = Reader::new(datagram);
    let (kind, head) = read_head(&mut reader)?;
    let mut read = Datagram { kind, head, entries: Vec::new(), wants: Vec::new(), items: Vec::new() };
    while !reader.is_empty() {
        let tag = reader.byte()?;
        let bytes = u16::from_be_bytes(reader.array()?);
        let mut content = Reader::new(reader.take(usize::from(bytes))?);
        match tag {
            section::ENTRIES => read_entries(&mut content, &mut read)?,
            section::WANTS => {
                while !content.is_empty() {
                    read.wants.push(read_short(&mut content)?);
                }
            }
            section::ITEMS => {
                while !content.is_empty() {
                    read.items.push(read_item(&mut content)?);
                }
            }
            _ => {}
        }
    }
    Ok(read)
}

fn read_head(reader: &mut Reader<'_>) -> Result<(Kind, Head), Malformed> {
    let version = reader.byte()?;
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    let kind = reader.byte()?;
    let sender = NodeId(reader.array()?);
    let generation = counter(reader, "generation")?;
    let heartbeat = counter(reader, "heartbeat")?;
    let kind = match kind {
        kind::ASK => Kind::Ask { first: read_short(reader)?, last: read_short(reader)? },
        kind::ANSWER => Kind::Answer,
        kind::TELL => Kind::Tell,
        _ => return Err(Malformed::OutOfRange("kind")),
    };
    Ok((kind, Head { sender, generation, heartbeat }))
}

fn read_entries(content: &mut Reader<'_>, read: &mut Datagram<'_>) -> Result<(), Malformed> {
    while !content.is_empty() {
        let short = read_short(content)?;
        // Most machines of a cluster were started within weeks: the difference takes less room than the time itself.
        let difference = coding::unfold(content.number("generation")?);
        let generation = read.head.generation.checked_add_signed(difference).filter(|value| *value <= COUNTER_MAX);
        let generation = generation.ok_or(Malformed::OutOfRange("generation"))?;
        read.entries.push(Entry { short, known: read_known(content, generation)? });
    }
    Ok(())
}

fn read_item<'a>(content: &mut Reader<'a>) -> Result<(Item<'a>, Record), Malformed> {
    let id = NodeId(content.array()?);
    let generation = counter(content, "generation")?;
    let known = read_known(content, generation)?;
    let raw = content.sized("record length")?;
    Ok((Item { id, known, raw }, Record::decode(raw)?))
}

fn read_known(content: &mut Reader<'_>, generation: u64) -> Result<Known, Malformed> {
    let heartbeat = counter(content, "heartbeat")?;
    let version = content.number("version")?;
    let age = content.number("age")?.min(AGE_UNITS_MAX);
    if version >> 1 > COUNTER_MAX {
        return Err(Malformed::OutOfRange("version"));
    }
    Ok(Known { generation, heartbeat, version: version >> 1, age_ms: age * AGE_UNIT_MS, left: version & 1 == 1 })
}

fn read_short(reader: &mut Reader<'_>) -> Result<Short, Malformed> {
    Ok(Short(u64::from_be_bytes(reader.array()?)))
}

fn counter(reader: &mut Reader<'_>, field: &'static str) -> Result<u64, Malformed> {
    let value = reader.number(field)?;
    if value > COUNTER_MAX { Err(Malformed::OutOfRange(field)) } else { Ok(value) }
}

/// A datagram that is being filled.
#[derive(Debug)]
pub(crate) struct Letter {
    head: Head,
    entries: Vec<u8>,
    wants: Vec<u8>,
    items: Vec<u8>,
    /// What the head takes, of the longest kind.
    head_bytes: usize,
}

impl Letter {
    pub(crate) fn new(head: Head) -> Letter {
        let counters = coding::number_bytes(head.generation) + coding::number_bytes(head.heartbeat);
        let head_bytes = 2 + 32 + counters + 2 * size_of::<u64>();
        Letter { head, entries: Vec::new(), wants: Vec::new(), items: Vec::new(), head_bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.wants.is_empty() && self.items.is_empty()
    }

    /// Adds an entry, or returns false when there is no room for it; so do the others.
    pub(crate) fn entry(&mut self, entry: &Entry) -> bool {
        let before = self.entries.len();
        self.entries.extend(entry.short.0.to_be_bytes());
        let difference = entry.known.generation.wrapping_sub(self.head.generation).cast_signed();
        coding::put_number(&mut self.entries, coding::fold(difference));
        put_known(&mut self.entries, &entry.known);
        let fits = self.fits();
        if !fits {
            self.entries.truncate(before);
        }
        fits
    }

    pub(crate) fn want(&mut self, short: Short) -> bool {
        let before = self.wants.len();
        self.wants.extend(short.0.to_be_bytes());
        let fits = self.fits();
        if !fits {
            self.wants.truncate(before);
        }
        fits
    }

    pub(crate) fn item(&mut self, item: &Item<'_>) -> bool {
        let before = self.items.len();
        self.items.extend(item.id.0);
        coding::put_number(&mut self.items, item.known.generation);
        put_known(&mut self.items, &item.known);
        coding::put_number(&mut self.items, u64::try_from(item.raw.len()).unwrap_or(u64::MAX));
        self.items.extend(item.raw);
        let fits = self.fits();
        if !fits {
            self.items.truncate(before);
        }
        fits
    }

    fn fits(&self) -> bool {
        let content = self.entries.len() + self.wants.len() + self.items.len();
        self.head_bytes + 3 * SECTION_HEAD_BYTES + content <= DATAGRAM_BYTES_MAX
    }

    pub(crate) fn seal(self, kind: Kind) -> Vec<u8> {
        let mut out = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        out.push(VERSION);
        out.push(match kind {
            Kind::Ask { .. } => kind::ASK,
            Kind::Answer => kind::ANSWER,
            Kind::Tell => kind::TELL,
        });
        out.extend(self.head.sender.0);
        coding::put_number(&mut out, self.head.generation);
        coding::put_number(&mut out, self.head.heartbeat);
        if let Kind::Ask { first, last } = kind {
            out.extend(first.0.to_be_bytes());
            out.extend(last.0.to_be_bytes());
        }
        let sections = [(section::ENTRIES, self.entries), (section::WANTS, self.wants), (section::ITEMS, self.items)];
        for (tag, content) in sections {
            // Nothing longer than a datagram was let in.
            let Ok(bytes) = u16::try_from(content.len()) else { continue };
            if bytes > 0 {
                out.push(tag);
                out.extend(bytes.to_be_bytes());
                out.extend(content);
            }
        }
        out
    }
}

fn put_known(out: &mut Vec<u8>, known: &Known) {
    coding::put_number(out, known.heartbeat);
    coding::put_number(out, (known.version << 1) | u64::from(known.left));
    coding::put_number(out, (known.age_ms / AGE_UNIT_MS).min(AGE_UNITS_MAX));
}

/// The longest item beside the longest head, so that no record is too long to be told.
const _: () = assert!(
    2 + 32 + 8 + 8 + 16 + 3 * SECTION_HEAD_BYTES + 32 + 8 + 8 + 8 + 2 + 2 + RECORD_BYTES_MAX <= DATAGRAM_BYTES_MAX
);

#[cfg(test)]
mod tests;
