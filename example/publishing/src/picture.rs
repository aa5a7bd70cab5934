//! Pictures as files: what they are is read from their bytes, never from what the browser claims.

use std::io::{self, Write};
use std::path::Path;

/// A photo of a phone at full size, and not a film.
pub(crate) const SIZE_BYTES_MAX: usize = 5 << 20;
/// Characters of a picture's name: 80 bits, so that nobody guesses one or meets another's.
const NAME_LENGTH: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Png,
    Jpeg,
    Gif,
    Webp,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Png, Kind::Jpeg, Kind::Gif, Kind::Webp];

    /// What the first bytes say.
    pub(crate) fn of(bytes: &[u8]) -> Option<Kind> {
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Kind::Png)
        } else if bytes.starts_with(b"\xff\xd8\xff") {
            Some(Kind::Jpeg)
        } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
            Some(Kind::Gif)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Kind::Webp)
        } else {
            None
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Kind::Png => "png",
            Kind::Jpeg => "jpg",
            Kind::Gif => "gif",
            Kind::Webp => "webp",
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Kind::Png => "image/png",
            Kind::Jpeg => "image/jpeg",
            Kind::Gif => "image/gif",
            Kind::Webp => "image/webp",
        }
    }
}

/// The kind a file name stands for; `None` for names that [`name_for`] never makes, so that no path gets through.
pub(crate) fn kind_of_name(name: &str) -> Option<Kind> {
    let (stem, ending) = name.split_once('.')?;
    let ours = stem.len() == NAME_LENGTH && stem.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    Kind::ALL.into_iter().find(|kind| ours && kind.ending() == ending)
}

pub(crate) fn name_for(kind: Kind) -> String {
    format!("{}.{}", world::random::word(NAME_LENGTH), kind.ending())
}

/// Writes the file whole or not at all, and on disk before it returns.
pub(crate) fn save(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!("{name}.part"));
    let mut file = std::fs::File::create_new(&unfinished)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| std::fs::rename(&unfinished, folder.join(name)));
    if let Err(error) = placed {
        // The first error is the one to tell; a leftover is only lost room.
        let _ = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{Kind, kind_of_name, name_for};

    #[test]
    fn bytes_say_what_a_picture_is() {
        assert_eq!(Kind::of(b"\x89PNG\r\n\x1a\n..."), Some(Kind::Png));
        assert_eq!(Kind::of(b"\xff\xd8\xff\xe0"), Some(Kind::Jpeg));
        assert_eq!(Kind::of(b"GIF89a"), Some(Kind::Gif));
        assert_eq!(Kind::of(b"RIFF\0\0\0\0WEBPVP8 "), Some(Kind::Webp));
        for other in [&b""[..], b"RIFF", b"<svg xmlns=", b"<html>", b"MZ"] {
            assert_eq!(Kind::of(other), None);
        }
    }

    #[test]
    fn only_our_own_names_are_names() {
        assert_eq!(kind_of_name(&name_for(Kind::Webp)), Some(Kind::Webp));
        for other in [
            "",
            ".png",
            "../../etc/passwd",
            "0123456789abcdef.svg",
            "0123456789abcdef.png.part",
            "0123456789/bcdef.png",
        ] {
            assert_eq!(kind_of_name(other), None, "{other}");
        }
    }
}
