//! Makes bytes smaller: gzip, brotli and zstd, for answers on their way to a client.
//!
//! The one user of the crates that do it. Promises bounds: as many coders at once as [`CODERS_MAX`], each with a window
//! of [`WINDOW_LOG`]; whoever finds no place sends its bytes as they are. Only codes, never decodes: what a client sends
//! in a coding is the instance's to open, so that nothing here can be blown up. Knows no message.

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Write};
use tokio::sync::{Semaphore, SemaphorePermit};
use wire::spec::Coding;
use zstd::stream::write::Encoder as Zstd;
use zstd::zstd_safe::CParameter;

/// Coders at once, over all routes. Each holds up to 1.5 MB, most of it tables that its coding looks matches up in.
const CODERS_MAX: usize = 64;
static CODERS: Semaphore = Semaphore::const_new(CODERS_MAX);

/// Matches are looked for this far back, in powers of two: 256 KiB, which is more than most answers.
const WINDOW_LOG: u32 = 18;
/// The levels take some 10 ms per MB (zstd, and gzip twice that, brotli four times) on a small core: more would win a few
/// per cent of the size and cost a core as soon as an answer is large.
const ZSTD_LEVEL: i32 = 2;
const GZIP_LEVEL: u32 = 4;
const BROTLI_LEVEL: u32 = 4;
const BROTLI_BUFFER_BYTES: usize = 4 << 10;

/// One answer being coded.
pub(crate) struct Encoder {
    kind: Kind,
    _place: SemaphorePermit<'static>,
}

enum Kind {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Zstd<'static, Vec<u8>>),
}

impl Encoder {
    /// `None` when as many answers are being coded as may be.
    pub(crate) fn new(coding: Coding) -> Option<Encoder> {
        let place = CODERS.try_acquire().ok()?;
        let kind = match coding {
            Coding::Gzip => Kind::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            Coding::Br => {
                let writer = CompressorWriter::new(Vec::new(), BROTLI_BUFFER_BYTES, BROTLI_LEVEL, WINDOW_LOG);
                Kind::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = Zstd::new(Vec::new(), ZSTD_LEVEL).ok()?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG)).ok()?;
                Kind::Zstd(encoder)
            }
        };
        Some(Encoder { kind, _place: place })
    }

    /// Takes bytes in; gives what has come out so far, which may be nothing.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<Bytes> {
        match &mut self.kind {
            Kind::Gzip(writer) => writer.write_all(bytes)?,
            Kind::Brotli(writer) => writer.write_all(bytes)?,
            Kind::Zstd(writer) => writer.write_all(bytes)?,
        }
        Ok(self.take())
    }

    /// Everything taken in comes out now, so that the client need not wait for what follows.
    pub(crate) fn flush(&mut self) -> io::Result<Bytes> {
        match &mut self.kind {
            Kind::Gzip(writer) => writer.flush()?,
            Kind::Brotli(writer) => writer.flush()?,
            Kind::Zstd(writer) => writer.flush()?,
        }
        Ok(self.take())
    }

    /// The rest, with the end of the coding.
    pub(crate) fn finish(self) -> io::Result<Bytes> {
        let rest = match self.kind {
            Kind::Gzip(writer) => writer.finish()?,
            Kind::Brotli(writer) => writer.into_inner(),
            Kind::Zstd(writer) => writer.finish()?,
        };
        Ok(rest.into())
    }

    fn take(&mut self) -> Bytes {
        let out = match &mut self.kind {
            Kind::Gzip(writer) => writer.get_mut(),
            Kind::Brotli(writer) => writer.get_mut(),
            Kind::Zstd(writer) => writer.get_mut(),
        };
        std::mem::take(out).into()
    }
}

/// As HTTP names it.
pub(crate) fn name(coding: Coding) -> &'static str {
    match coding {
        Coding::Zstd => "zstd",
        Coding::Br => "br",
        Coding::Gzip => "gzip",
    }
}

#[cfg(test)]
pub(crate) fn decoded(coding: Coding, bytes: &[u8]) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut out = Vec::new();
    match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out)?,
        Coding::Br => brotli::Decompressor::new(bytes, BROTLI_BUFFER_BYTES).read_to_end(&mut out)?,
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes)?.read_to_end(&mut out)?,
    };
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    #[test]
    fn what_repeats_becomes_smaller_and_comes_back() {
        let text = "the same line again and again\n".repeat(2_000).into_bytes();
        for coding in ALL {
            let mut encoder = Encoder::new(coding).expect("a place");
            let coded = [encoder.push(&text).unwrap(), encoder.finish().unwrap()].concat();
            assert!(coded.len() * 20 < text.len(), "{coding:?} {}", coded.len());
            assert_eq!(decoded(coding, &coded).unwrap(), text, "{coding:?}");
        }
    }

    proptest! {
        #[test]
        fn any_pieces_come_back_and_a_flush_holds_nothing_back(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2_000), 0..6),
        ) {
            for coding in ALL {
                let mut encoder = Encoder::new(coding).expect("a place");
                let mut coded = Vec::new();
                for piece in &pieces {
                    coded.extend(encoder.push(piece).unwrap());
                    coded.extend(encoder.flush().unwrap());
                }
                // A reader of what has come so far sees all of it, and then that the end is missing.
                let mut seen = Vec::new();
                let so_far = decoded_so_far(coding, &coded, &mut seen);
                prop_assert!(seen == pieces.concat(), "{coding:?} {so_far:?}");
                coded.extend(encoder.finish().unwrap());
                prop_assert_eq!(decoded(coding, &coded).unwrap(), pieces.concat());
            }
        }
    }

    fn decoded_so_far(coding: Coding, bytes: &[u8], seen: &mut Vec<u8>) -> io::Result<()> {
        use std::io::Read;
        let mut reader: Box<dyn Read> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Coding::Br => Box::new(brotli::Decompressor::new(bytes, BROTLI_BUFFER_BYTES)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes)?),
        };
        let mut byte = [0];
        while reader.read(&mut byte)? > 0 {
            seen.extend(byte);
        }
        Ok(())
    }
}
