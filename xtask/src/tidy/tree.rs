//! The workspace as a list of files: what git would keep, by the folders it ignores. Knows no rule.

use std::fs;
use std::io;
use std::path::Path;

/// Folders that hold what a tool made or fetched.
const MADE: [&str; 5] = ["target", "node_modules", "dist", "test-results", ".git"];
/// Larger files are data; no rule is about data.
const SIZE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Sorted by path.
    pub(crate) files: Vec<File>,
}

#[derive(Debug)]
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Tree {
    /// Reads every text file below `root`.
    pub(crate) fn read(root: &Path) -> io::Result<Tree> {
        let mut tree = Tree::default();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(root.join(&folder))? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                let kind = entry.file_type()?;
                if kind.is_dir() && !MADE.contains(&name.as_str()) {
                    folders.push(path);
                } else if kind.is_file() && entry.metadata()?.len() <= SIZE_BYTES_MAX {
                    // What is not UTF-8 is a picture or an archive.
                    if let Ok(text) = String::from_utf8(fs::read(entry.path())?) {
                        tree.files.push(File { path, text });
                    }
                }
            }
        }
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() });
        Tree { files: files.collect() }
    }

    pub(crate) fn find(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl File {
    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Whether a folder of this name is on the way to the file.
    pub(crate) fn is_below(&self, folder: &str) -> bool {
        self.path.split('/').rev().skip(1).any(|part| part == folder)
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;
    use std::path::Path;

    #[test]
    fn a_folder_is_read_without_what_tools_made() {
        let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("this crate is here");
        assert!(tree.find("src/tidy/tree.rs").is_some_and(|file| file.text.starts_with("//!")));
        assert!(tree.files.is_sorted_by(|a, b| a.path < b.path));
        assert!(!tree.files.iter().any(|file| file.is_below("target")));
    }
}
