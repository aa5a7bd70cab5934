//! Reads a tar stream entry by entry, with a bound on everything the stream says about itself.
//!
//! The `tar` crate's own reader keeps long names and extended headers in memory whatever their size; here they are
//! bounded. Promises never to panic and to hold a few KiB whatever comes. Never touches the disk.

use std::io::{self, Read};
use tar::Header;

const BLOCK: usize = 512;
/// A long name or an extended header: names are bounded by PATH_MAX (4096), attributes by 64 KiB.
const EXTENSION_BYTES_MAX: u64 = 256 << 10;
/// Extended headers before one entry; writers emit at most one of each of four kinds.
const EXTENSIONS_MAX: usize = 16;
// Types of entries that describe the next one.
const GNU_LONG_NAME: u8 = b'L';
const GNU_LONG_LINK: u8 = b'K';
const PAX_HEADER: u8 = b'x';
const PAX_GLOBAL_HEADER: u8 = b'g';
const CAPABILITY_RECORD: &[u8] = b"SCHILY.xattr.security.capability";

#[derive(Debug, thiserror::Error)]
pub(crate) enum TapeError {
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    #[error("the archive is damaged: {0}")]
    Damaged(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    /// Character or block device.
    Device,
}

/// One entry as the stream describes it: nothing in it is checked against a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Target of a symbolic or hard link.
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) size: u64,
    /// Value of the attribute `security.capability`.
    pub(crate) capability: Option<Vec<u8>>,
}

/// A tar stream. After [`Tape::next`], the entry's content is read through [`Read`].
pub(crate) struct Tape<R> {
    inner: R,
    /// Of the current entry's content.
    content_left: u64,
    padding_left: u64,
    ended: bool,
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    capability: Option<Vec<u8>>,
}

impl<R: Read> Tape<R> {
    pub(crate) fn new(inner: R) -> Tape<R> {
        Tape { inner, content_left: 0, padding_left: 0, ended: false }
    }

    /// The stream below.
    pub(crate) fn inner(&self) -> &R {
        &self.inner
    }

    /// The next entry, or `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TapeError> {
        let mut extension = Extension::default();
        for _ in 0..EXTENSIONS_MAX {
            self.skip_content()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|_| damaged("an entry's size is not a number"))?;
            match header.entry_type().as_byte() {
                GNU_LONG_NAME => extension.path = Some(without_nul(self.extension(size)?)),
                GNU_LONG_LINK => extension.link = Some(without_nul(self.extension(size)?)),
                PAX_HEADER => extension.read(&self.extension(size)?)?,
                // Says something about all entries; nothing it may say matters here.
                PAX_GLOBAL_HEADER => drop(self.extension(size)?),
                kind => return self.entry(&header, kind, size, extension).map(Some),
            }
        }
        Err(damaged("too many extended headers in a row"))
    }

    /// Reads to the end of the underlying stream, so that whoever watches it has seen every byte.
    pub(crate) fn finish(&mut self) -> Result<(), TapeError> {
        io::copy(&mut self.inner, &mut io::sink()).map_err(TapeError::Read).map(drop)
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    fn entry(&mut self, header: &Header, kind: u8, size: u64, extension: Extension) -> Result<Entry, TapeError> {
        let path = extension.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = match kind {
            // The oldest archives mark a folder only by its name.
            b'\0' | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'\0' | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(damaged(format!("unsupported entry type {:?}", char::from(other)))),
        };
        let size = extension.size.unwrap_or(size);
        // Only files have content; some writers put a hard link's size without its content.
        self.expect_content(if kind == Kind::File { size } else { 0 });
        let number = |value: io::Result<u64>| value.unwrap_or(0);
        Ok(Entry {
            path,
            kind,
            link: extension.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned())).unwrap_or_default(),
            mode: header.mode().map_err(|_| damaged("an entry's mode is not a number"))?,
            uid: extension.uid.unwrap_or_else(|| number(header.uid())),
            gid: extension.gid.unwrap_or_else(|| number(header.gid())),
            mtime: extension.mtime.unwrap_or_else(|| i64::try_from(number(header.mtime())).unwrap_or(0)),
            size: self.content_left,
            capability: extension.capability,
        })
    }

    /// One header block, or `None` at the end: two empty blocks, or the end of the stream between entries.
    fn header(&mut self) -> Result<Option<Header>, TapeError> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let filled = fill(&mut self.inner, &mut block).map_err(TapeError::Read)?;
        if filled == 0 || block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        if filled < BLOCK {
            return Err(damaged("it ends within a header"));
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = block.iter().enumerate().map(|(at, byte)| checksum_term(at, *byte)).sum();
        if header.cksum().ok() != Some(sum) {
            return Err(damaged("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TapeError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(damaged(format!("an extended header of {size} bytes")));
        }
        self.expect_content(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(TapeError::Read)?;
        Ok(bytes)
    }

    fn expect_content(&mut self, size: u64) {
        let block = BLOCK as u64;
        self.content_left = size;
        self.padding_left = (block - size % block) % block;
    }

    fn skip_content(&mut self) -> Result<(), TapeError> {
        let left = self.content_left.saturating_add(self.padding_left);
        (self.content_left, self.padding_left) = (0, 0);
        let skipped = io::copy(&mut (&mut self.inner).take(left), &mut io::sink()).map_err(TapeError::Read)?;
        if skipped < left { Err(damaged("it ends within an entry")) } else { Ok(()) }
    }
}

impl<R: Read> Read for Tape<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.content_left).unwrap_or(usize::MAX).min(out.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.inner.read(&mut out[..want])?;
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within an entry"));
        }
        self.content_left -= got as u64;
        Ok(got)
    }
}

impl Extension {
    /// Records of the form `<length> <key>=<value>\n`; the length counts the whole record.
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), TapeError> {
        let bad = || damaged("an extended header is not well-formed");
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = number(&bytes[..space]).and_then(|length| usize::try_from(length).ok()).ok_or_else(bad)?;
            if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &bytes[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            self.record(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), TapeError> {
        let bad = || damaged("an extended header holds a number that is none");
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value).ok_or_else(bad)?),
            b"uid" => self.uid = Some(number(value).ok_or_else(bad)?),
            b"gid" => self.gid = Some(number(value).ok_or_else(bad)?),
            b"mtime" => self.mtime = std::str::from_utf8(value).ok().and_then(whole_seconds),
            key if key == CAPABILITY_RECORD => self.capability = Some(value.to_vec()),
            key if key.starts_with(b"GNU.sparse.") => return Err(damaged("sparse files are not supported")),
            _ => {}
        }
        Ok(())
    }
}

fn damaged(why: impl Into<String>) -> TapeError {
    TapeError::Damaged(why.into())
}

/// The checksum field itself counts as spaces.
fn checksum_term(at: usize, byte: u8) -> u32 {
    if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(byte) }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `1700000000.123456789` without its fraction.
fn whole_seconds(text: &str) -> Option<i64> {
    text.split('.').next()?.parse().ok()
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Reads until `out` is full or the stream ends.
fn fill(inner: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match inner.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
