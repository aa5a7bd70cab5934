//! Bytes for what control stores and sends between members: lengths and little-endian numbers, nothing clever.
//!
//! Promises that reading never panics and never allocates more than the input holds. Knows no meaning.

use std::sync::Arc;

/// Input that ends early or says something impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn number(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn count(&mut self, value: usize) {
        let value = u32::try_from(value).expect("bounds keep every count and length far below 4 Gi");
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn blob(&mut self, value: &[u8]) {
        self.count(value.len());
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.blob(value.as_bytes());
    }

    /// 0 stands for none: lease ids start at 1.
    pub(crate) fn lease(&mut self, value: Option<u64>) {
        self.number(value.unwrap_or(0));
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Malformed("ends early"))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed("ends early"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least one byte each, so that a wrong one cannot make us reserve memory.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > self.rest.len() {
            return Err(Malformed("count beyond the end"));
        }
        Ok(count)
    }

    pub(crate) fn blob(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count()?;
        self.take(length)
    }

    pub(crate) fn value(&mut self) -> Result<Arc<[u8]>, Malformed> {
        Ok(Arc::from(self.blob()?))
    }

    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        std::str::from_utf8(self.blob()?).map(str::to_owned).map_err(|_| Malformed("text is not utf-8"))
    }

    pub(crate) fn lease(&mut self) -> Result<Option<u64>, Malformed> {
        Ok(Some(self.number()?).filter(|id| *id != 0))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("goes on after its end")) }
    }
}
