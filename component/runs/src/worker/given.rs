//! Files that a box is given before its program runs.

use crate::language::FOLDER;
use crate::order::Order;
use rustix::fs::MemfdFlags;
use sandbox::Placed;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

/// Of all texts together. What is longer goes by a descriptor: process 1 of a box reads it all, and what it ever used is
/// taken for a program's peak.
const TEXT_BYTES_MAX: usize = 32 << 10;

/// Files with where they go, and the contents of those that have no text.
#[derive(Default)]
pub(super) struct Files {
    pub(super) placed: Vec<Placed>,
    pub(super) contents: Vec<OwnedFd>,
}

impl Files {
    /// Adds files, which count where there is one of the same name.
    pub(super) fn add(&mut self, others: Files) {
        let mut contents = std::mem::take(&mut self.contents).into_iter();
        self.placed.retain(|file| {
            let content = if file.text.is_none() { contents.next() } else { None };
            let stays = !others.placed.iter().any(|other| other.target == file.target);
            self.contents.extend(content.filter(|_| stays));
            stays
        });
        self.placed.extend(others.placed);
        self.contents.extend(others.contents);
    }
}

/// The files of a run, and where they go.
pub(super) fn sources(order: &Order) -> io::Result<Files> {
    let mut files = Files::default();
    let mut left = TEXT_BYTES_MAX;
    for file in &order.wanted.files {
        let target = format!("{FOLDER}/{}", file.name);
        let text = file.content.as_deref().unwrap_or_default();
        if file.content_base64.is_none() && text.len() <= left {
            left -= text.len();
            files.placed.push(Placed { target, mode: 0o644, text: Some(text.to_owned()) });
            continue;
        }
        let bytes = crate::files::content(file).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let mut memory = File::from(rustix::fs::memfd_create("source", MemfdFlags::CLOEXEC)?);
        memory.write_all(&bytes)?;
        memory.rewind()?;
        files.placed.push(Placed { target, mode: 0o644, text: None });
        files.contents.push(OwnedFd::from(memory));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_counts_and_contents_stay_with_their_names() {
        let content = |text: &str| {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(text.as_bytes()).expect("written");
            file.rewind().expect("at its beginning");
            OwnedFd::from(file)
        };
        let placed = |name: &str, text: Option<&str>| Placed {
            target: name.to_owned(),
            mode: 0o644,
            text: text.map(str::to_owned),
        };
        let mut files = Files {
            placed: vec![placed("a", Some("said")), placed("b", None), placed("c", None)],
            contents: vec![content("of b"), content("of c")],
        };
        files
            .add(Files { placed: vec![placed("b", None), placed("d", Some("too"))], contents: vec![content("new b")] });
        let mut contents = files.contents.into_iter().map(|fd| io::read_to_string(File::from(fd)).expect("text"));
        let all: Vec<(String, String)> = files
            .placed
            .into_iter()
            .map(|file| (file.target, file.text.unwrap_or_else(|| contents.next().expect("a content"))))
            .collect();
        let expected = [("a", "said"), ("c", "of c"), ("b", "new b"), ("d", "too")];
        assert_eq!(all, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
