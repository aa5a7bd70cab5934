//! Undoes a layer's compression, recognised by its first bytes: media types lie more often than content.
//!
//! Promises bounded memory (a zstd window of at most 128 MiB) and an error for anything that is not gzip, zstd or
//! plain. Knows nothing of archives.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, Read};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What `zstd --long` makes; compressors use 8 MiB unless told.
const ZSTD_WINDOW_BYTES_MAX: u64 = 128 << 20;
/// The low four bits of a skippable frame's magic are free.
const ZSTD_SKIPPABLE_MAGIC: [u8; 3] = [0x2a, 0x4d, 0x18];

/// A reader of the uncompressed content.
pub(crate) fn uncompressed<'a>(mut inner: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = inner.fill_buf()?;
    if start.starts_with(&GZIP_MAGIC) {
        return Ok(Box::new(MultiGzDecoder::new(inner)));
    }
    let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == ZSTD_SKIPPABLE_MAGIC;
    if start.starts_with(&ZSTD_MAGIC) || skippable {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_BYTES_MAX);
        return Ok(Box::new(ZstdFrames { inner, decoder, within: false }));
    }
    Ok(Box::new(inner))
}

/// A zstd stream is any number of frames, some of them to be skipped (zstd:chunked keeps its index in one).
struct ZstdFrames<R> {
    inner: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within {
                if self.inner.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.start_frame()?;
                continue;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.inner, BlockDecodingStrategy::UptoBlocks(1)).map_err(bad)?;
            }
            let got = self.decoder.read(out)?;
            if got > 0 {
                return Ok(got);
            }
            self.within = false;
        }
    }
}

impl<R: BufRead> ZstdFrames<R> {
    fn start_frame(&mut self) -> io::Result<()> {
        match self.decoder.init(&mut self.inner) {
            Ok(()) => self.within = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let length = u64::from(length);
                if io::copy(&mut self.inner.by_ref().take(length), &mut io::sink())? < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(bad(error)),
        }
        Ok(())
    }
}

fn bad(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}"))
}
