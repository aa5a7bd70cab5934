//! The log's bytes: a segment is a header and frames; a frame is one batch, written and checked as a whole. Pure.
//!
//! ```text
//! segment  "bramblog" | version u32 | crc32c of the 12 bytes before | frames…
//! frame    magic u32 | length u32 | segment u64 | crc32c u32 of all else | 0 u32 | items, padded with 0 to 8 bytes
//! item     1 note:     length u32, bytes        the owner's small state, the last one counts
//!          2 cut:      index u64                entries from here on are gone
//!          3 purged:   index u64                entries up to here are gone
//!          4 entry:    index u64, length u32, crc32c u32 of the bytes, bytes
//! ```
//! Numbers are little-endian. The first frame of a segment repeats note and purged index, so that the segments
//! before it can be deleted. This is version 1, the first; there is no predecessor.

/// The format written and the only one read.
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 16;
pub(crate) const FRAME_HEADER_BYTES: usize = 24;
/// Frames start at multiples of it, so that looking for one after damage is quick.
const ALIGNMENT: usize = 8;
/// Larger lengths are damage. Far above what a batch may hold.
pub(crate) const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

const NAME: &[u8; 8] = b"bramblog";
const MAGIC: u32 = 0x9E1B_0C4D;

/// Changes written together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Entries from this index on are removed, before anything else happens.
    pub cut_from: Option<u64>,
    /// Entries up to and with this index are removed.
    pub purge_to: Option<u64>,
    /// Replaces the owner's note.
    pub note: Option<Vec<u8>>,
    /// Appended after the last entry that is left.
    pub entries: Vec<Vec<u8>>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.cut_from.is_none() && self.purge_to.is_none() && self.note.is_none() && self.entries.is_empty()
    }

    /// What it takes on the disk, at most.
    pub fn size_bytes(&self) -> usize {
        let entries = self.entries.iter().map(|entry| entry.len() + 17).sum::<usize>();
        FRAME_HEADER_BYTES + 18 + 5 + self.note.as_ref().map_or(0, Vec::len) + entries + ALIGNMENT
    }
}

/// An item read back, pointing into the segment it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    Note(&'a [u8]),
    Cut(u64),
    Purged(u64),
    Entry { index: u64, offset: usize, length: u32, checksum: u32 },
}

pub(crate) fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(NAME);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The version a segment says it has; `None` when this is no header.
pub(crate) fn version(segment: &[u8]) -> Option<u32> {
    let header = segment.get(..HEADER_BYTES)?;
    let checksum = number_32(header, 12)?;
    let intact = header.starts_with(NAME) && crc32c::crc32c(&header[..12]) == checksum;
    intact.then(|| number_32(header, 8)).flatten()
}

/// Puts a frame together, item by item.
#[derive(Debug)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; FRAME_HEADER_BYTES] }
    }

    pub(crate) fn note(&mut self, note: &[u8]) {
        self.bytes.push(1);
        self.length(note.len());
        self.bytes.extend_from_slice(note);
    }

    pub(crate) fn cut(&mut self, from: u64) {
        self.bytes.push(2);
        self.bytes.extend_from_slice(&from.to_le_bytes());
    }

    pub(crate) fn purged(&mut self, to: u64) {
        self.bytes.push(3);
        self.bytes.extend_from_slice(&to.to_le_bytes());
    }

    /// Adds an entry and returns where in the frame its bytes are, and their checksum.
    pub(crate) fn entry(&mut self, index: u64, entry: &[u8]) -> (usize, u32) {
        let checksum = crc32c::crc32c(entry);
        self.bytes.push(4);
        self.bytes.extend_from_slice(&index.to_le_bytes());
        self.length(entry.len());
        self.bytes.extend_from_slice(&checksum.to_le_bytes());
        self.bytes.extend_from_slice(entry);
        (self.bytes.len() - entry.len(), checksum)
    }

    fn length(&mut self, length: usize) {
        let length = u32::try_from(length).expect("a batch is bounded far below 4 GiB");
        self.bytes.extend_from_slice(&length.to_le_bytes());
    }

    /// The frame as it goes to the disk, into segment number `segment`.
    pub(crate) fn finish(mut self, segment: u64) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len() - FRAME_HEADER_BYTES).expect("a batch is bounded far below 4 GiB");
        self.bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&length.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&segment.to_le_bytes());
        let checksum = checksum(&self.bytes);
        self.bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.bytes
    }
}

/// Of a frame without its padding; the place of the checksum itself counts as zero.
fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..16]), &frame[FRAME_HEADER_BYTES..])
}

/// The length with padding of the frame at `offset`, if an intact one of this segment is there.
pub(crate) fn intact(bytes: &[u8], offset: usize, segment: u64) -> Option<usize> {
    let frame = bytes.get(offset..)?;
    let length = number_32(frame, 4)? as usize;
    let described = number_32(frame, 0)? == MAGIC && number_64(frame, 8)? == segment && length <= FRAME_BYTES_MAX;
    if !described || number_32(frame, 20)? != 0 {
        return None;
    }
    let whole = frame.get(..FRAME_HEADER_BYTES + length)?;
    let padded = whole.len().next_multiple_of(ALIGNMENT);
    let padding = frame.get(whole.len()..padded)?;
    let zero = padding.iter().all(|byte| *byte == 0);
    (zero && checksum(whole) == number_32(frame, 16)?).then_some(padded)
}

/// Whether an intact frame of this segment starts anywhere after `offset`.
pub(crate) fn any_after(bytes: &[u8], offset: usize, segment: u64) -> bool {
    (offset.next_multiple_of(ALIGNMENT)..bytes.len())
        .step_by(ALIGNMENT)
        .any(|start| start > offset && intact(bytes, start, segment).is_some())
}

/// The items of the intact frame at `offset`. `None` when its content makes no sense, which a writer's bug would do.
pub(crate) fn items(bytes: &[u8], offset: usize) -> Option<Vec<Item<'_>>> {
    let length = number_32(bytes, offset + 4)? as usize;
    let end = offset + FRAME_HEADER_BYTES + length;
    let mut at = offset + FRAME_HEADER_BYTES;
    let mut items = Vec::new();
    while at < end {
        let kind = *bytes.get(at)?;
        at += 1;
        match kind {
            1 => {
                let length = number_32(bytes, at)? as usize;
                items.push(Item::Note(bytes.get(at + 4..at + 4 + length)?));
                at += 4 + length;
            }
            2 => {
                items.push(Item::Cut(number_64(bytes, at)?));
                at += 8;
            }
            3 => {
                items.push(Item::Purged(number_64(bytes, at)?));
                at += 8;
            }
            4 => {
                let (index, length) = (number_64(bytes, at)?, number_32(bytes, at + 8)?);
                let checksum = number_32(bytes, at + 12)?;
                items.push(Item::Entry { index, offset: at + 16, length, checksum });
                at += 16 + length as usize;
            }
            _ => return None,
        }
    }
    (at == end).then_some(items)
}

fn number_32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn number_64(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}
