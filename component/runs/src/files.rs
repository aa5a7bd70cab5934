//! The files of a run, as whoever asked for it gave them.

use crate::language::file_name;
use base64::Engine;
use std::collections::BTreeSet;
use wire::run::RunFile;

/// Of all files of a run: code people write, and some data.
pub const FILES_BYTES_MAX: usize = 16 << 20;
const FILES_MAX: usize = 200;

/// What is in it.
pub fn content(file: &RunFile) -> Result<Vec<u8>, String> {
    match (&file.content, &file.content_base64) {
        (Some(text), None) => Ok(text.clone().into_bytes()),
        (None, Some(coded)) => base64::engine::general_purpose::STANDARD
            .decode(coded)
            .map_err(|error| format!("the content of {:?} is not base 64: {error}", file.name)),
        (None, None) => Ok(Vec::new()),
        (Some(_), Some(_)) => Err(format!("{:?} has two contents", file.name)),
    }
}

/// What is wrong with the files of a run, if anything is.
pub fn check(files: &[RunFile]) -> Result<(), String> {
    if files.is_empty() {
        return Err("there is no file to run".to_owned());
    }
    if files.len() > FILES_MAX {
        return Err(format!("there are {} files, {FILES_MAX} at most", files.len()));
    }
    let mut names = BTreeSet::new();
    let mut bytes = 0;
    for file in files {
        file_name(&file.name)?;
        if !names.insert(&file.name) {
            return Err(format!("two files are called {:?}", file.name));
        }
        bytes += content(file)?.len();
    }
    if bytes > FILES_BYTES_MAX {
        return Err(format!("the files have {bytes} bytes, {FILES_BYTES_MAX} at most"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_what_they_say_or_are_refused() {
        let file = |name: &str, text: Option<&str>, coded: Option<&str>| RunFile {
            name: name.to_owned(),
            content: text.map(str::to_owned),
            content_base64: coded.map(str::to_owned),
        };
        let refused = |files: &[RunFile], part: &str| {
            let said = check(files).expect_err("it is refused");
            assert!(said.contains(part), "{said}");
        };
        assert_eq!(content(&file("a", Some("x"), None)), Ok(b"x".to_vec()));
        assert_eq!(content(&file("a", None, Some("/w=="))), Ok(vec![0xff]));
        assert_eq!(check(&[file("a", None, None), file("b/c", Some("x"), None)]), Ok(()));
        refused(&[], "no file");
        refused(&[file("a", Some("x"), Some("eA=="))], "two contents");
        refused(&[file("a", None, Some("!"))], "base 64");
        refused(&[file("../a", None, None)], "no name");
        refused(&[file("a", None, None), file("a", None, None)], "two files");
        refused(&[file("a", Some(&"x".repeat(FILES_BYTES_MAX + 1)), None)], "at most");
        refused(&vec![file("a", None, None); FILES_MAX + 1], "at most");
    }
}
