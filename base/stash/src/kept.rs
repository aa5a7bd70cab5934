//! A value as it is kept: a head of its own making, and a body.
//!
//! Owns the form on disk. Everything that is read has passed a checksum; it is read carefully all the same.

use bytes::Bytes;
use foyer::{Code, Error, ErrorKind};
use std::io::{Read, Write};
use std::sync::Arc;

/// Of the form below; another form has another number and is not read.
const MAGIC: u32 = 0xb8a5_0001;
/// Magic, sequence, and the lengths of labels, head and body.
const PREFIX_BYTES: usize = 4 + 8 + 4 + 4 + 8;

/// A value that can be kept. Cloned for whoever asks: what is large in it is shared.
pub trait Kept: Clone + Send + Sync + 'static {
    /// Everything but the body.
    fn head(&self) -> Vec<u8>;
    fn body(&self) -> &Bytes;
    /// What [`Kept::head`] and [`Kept::body`] gave. `None` when it cannot be understood.
    fn read(head: &[u8], body: Bytes) -> Option<Self>;
    /// What it takes of memory, roughly.
    fn size_bytes(&self) -> usize;
}

/// A value with what decides whether it is still to be found.
#[derive(Debug)]
pub(crate) struct Held<V>(pub(crate) Arc<Inner<V>>);

#[derive(Debug)]
pub(crate) struct Inner<V> {
    pub(crate) value: V,
    /// How much had been forgotten when it was asked for.
    pub(crate) sequence: u64,
    pub(crate) labels: Vec<u64>,
}

impl<V> Clone for Held<V> {
    fn clone(&self) -> Self {
        Held(Arc::clone(&self.0))
    }
}

impl<V: Kept> Held<V> {
    pub(crate) fn new(value: V, sequence: u64, labels: Vec<u64>) -> Held<V> {
        Held(Arc::new(Inner { value, sequence, labels }))
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.0.value.size_bytes() + self.0.labels.len() * 8 + PREFIX_BYTES
    }
}

impl<V: Kept> Code for Held<V> {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        let Inner { value, sequence, labels } = &*self.0;
        let (head, body) = (value.head(), value.body());
        let mut prefix = Vec::with_capacity(PREFIX_BYTES + labels.len() * 8);
        prefix.extend_from_slice(&MAGIC.to_le_bytes());
        prefix.extend_from_slice(&sequence.to_le_bytes());
        prefix.extend_from_slice(&length(labels.len())?.to_le_bytes());
        prefix.extend_from_slice(&length(head.len())?.to_le_bytes());
        prefix.extend_from_slice(&u64::from(length(body.len())?).to_le_bytes());
        for label in labels {
            prefix.extend_from_slice(&label.to_le_bytes());
        }
        for part in [prefix.as_slice(), &head, body] {
            writer.write_all(part).map_err(Error::io_error)?;
        }
        Ok(())
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<Self> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(Error::io_error)?;
        // Of this kind, the reader drops the entry and reports that there is none.
        parse(&Bytes::from(bytes)).ok_or_else(|| Error::new(ErrorKind::MagicMismatch, "the value is of another form"))
    }

    fn estimated_size(&self) -> usize {
        self.size_bytes()
    }
}

fn length(bytes: usize) -> foyer::Result<u32> {
    u32::try_from(bytes).map_err(|_| Error::new(ErrorKind::OutOfRange, "the value is too long"))
}

fn parse<V: Kept>(bytes: &Bytes) -> Option<Held<V>> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    if word(0)? != MAGIC {
        return None;
    }
    let sequence = long(4)?;
    let (labels, head) = (usize::try_from(word(12)?).ok()?, usize::try_from(word(16)?).ok()?);
    let body = usize::try_from(long(20)?).ok()?;
    let head_at = PREFIX_BYTES.checked_add(labels.checked_mul(8)?)?;
    let body_at = head_at.checked_add(head)?;
    if body_at.checked_add(body)? != bytes.len() {
        return None;
    }
    let labels: Option<Vec<u64>> = (0..labels).map(|at| long(PREFIX_BYTES + at * 8)).collect();
    let value = V::read(bytes.get(head_at..body_at)?, bytes.slice(body_at..))?;
    Some(Held::new(value, sequence, labels?))
}

#[cfg(test)]
mod tests {
    use super::{Held, Kept, parse};
    use bytes::Bytes;
    use foyer::Code;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Note(String, Bytes);

    impl Kept for Note {
        fn head(&self) -> Vec<u8> {
            self.0.clone().into_bytes()
        }

        fn body(&self) -> &Bytes {
            &self.1
        }

        fn read(head: &[u8], body: Bytes) -> Option<Self> {
            Some(Note(String::from_utf8(head.to_vec()).ok()?, body))
        }

        fn size_bytes(&self) -> usize {
            self.0.len() + self.1.len()
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(head in ".{0,9}", body in prop::collection::vec(any::<u8>(), 0..9), labels in prop::collection::vec(any::<u64>(), 0..4)) {
            let held = Held::new(Note(head, body.into()), 7, labels);
            let mut bytes = Vec::new();
            held.encode(&mut bytes).unwrap();
            let read = Held::<Note>::decode(&mut bytes.as_slice()).unwrap();
            prop_assert_eq!(&read.0.value, &held.0.value);
            prop_assert_eq!((read.0.sequence, &read.0.labels), (7, &held.0.labels));
            prop_assert!(Held::<Note>::decode(&mut &bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn nonsense_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), magic in any::<bool>()) {
            let bytes = if magic { [&0xb8a5_0001_u32.to_le_bytes(), bytes.as_slice()].concat() } else { bytes };
            let _ = parse::<Note>(&Bytes::from(bytes));
        }
    }
}
