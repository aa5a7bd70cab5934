//! A stack file with everything it refers to, read on this side: the server never reads the caller's files.

use crate::cli::failure::Failure;
use base64::Engine;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use wire::api::StackFile;

/// Far above any stack file; the parser refuses from 10 MiB on, with its own words.
const SOURCE_BYTES_MAX: u64 = 16 << 20;
/// One file a stack file refers to: it becomes part of a revision, which holds a megabyte.
const REFERENCED_BYTES_MAX: u64 = 1 << 20;
/// Looked for, in this order, when no file is named.
const NAMES: [&str; 6] =
    ["stack.yml", "stack.yaml", "compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) source: Vec<u8>,
    pub(super) directory: PathBuf,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

/// Reads the file and what it refers to. A missing reference is the parser's to tell, with its place.
pub(super) fn load(given: Option<&Path>) -> Result<Loaded, Failure> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => NAMES.iter().map(PathBuf::from).find(|path| path.exists()).ok_or_else(|| {
            Failure::usage("no stack file")
                .hint(format!("name one with -f FILE, or be where one of {} is", NAMES.join(", ")))
        })?,
    };
    let source = read(&path, SOURCE_BYTES_MAX)?;
    let absolute = path.canonicalize().map_err(|error| Failure::local(format!("find {}: {error}", path.display())))?;
    let directory = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let mut variables = dotenv(&directory)?;
    variables.extend(crate::config::variables());
    let mut failed = None;
    let files = stackfile::gather(&source, &variables, &mut |reference| {
        let at = directory.join(&reference.path);
        if !at.is_file() {
            return None;
        }
        match read(&at, REFERENCED_BYTES_MAX) {
            Ok(bytes) => Some(bytes),
            Err(failure) => {
                failed.get_or_insert(failure);
                None
            }
        }
    });
    if let Some(failed) = failed {
        return Err(failed);
    }
    Ok(Loaded { path, source, directory, variables, files })
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::local(format!("read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    // A device or a pipe does not say how long it is.
    std::fs::File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        let message = format!("{} has more than {bytes_max} bytes", path.display());
        return Err(Failure::local(message).hint("mount large files as a volume instead"));
    }
    Ok(bytes)
}

fn dotenv(directory: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let path = directory.join(".env");
    let Ok(text) = std::fs::read(&path) else { return Ok(BTreeMap::new()) };
    stackfile::dotenv(&text).map_err(|found| {
        Failure::local(format!("{}:{}:{}: {}", path.display(), found.line, found.column, found.message))
            .hint(found.hint)
    })
}

impl Loaded {
    /// Findings in the file by itself: what it refers to may be missing here and there when it is deployed.
    pub(super) fn check(&self, name: &str) -> wire::diagnostic::Report {
        stackfile::check(&stackfile::Input {
            name,
            source: &self.source,
            variables: &self.variables,
            files: &self.files,
            directory: &self.directory.to_string_lossy(),
        })
    }

    /// The stack's name unless one is given: the file's folder, as compose does.
    pub(super) fn name(&self, given: Option<&str>) -> String {
        if let Some(given) = given {
            return given.to_owned();
        }
        let folder = self.directory.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let name: String =
            folder.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
        let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
        if name.is_empty() { "stack".to_owned() } else { name }
    }

    pub(super) fn body(&self) -> Result<StackFile, Failure> {
        // JSON carries text only, so the place is told from here.
        let source = String::from_utf8(self.source.clone()).map_err(|_| {
            let detail = stackfile::render(&self.check("check"), &self.path.display().to_string(), &self.source);
            Failure::local("the stack file is not UTF-8 text").hint("save it as UTF-8").detail(detail)
        })?;
        let encode = |bytes: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(bytes);
        let used = used_variables(&source, &self.files, &self.variables);
        Ok(StackFile {
            source,
            variables: used,
            files: self.files.iter().map(|(path, bytes)| (path.clone(), encode(bytes))).collect(),
            directory: self.directory.to_string_lossy().into_owned(),
        })
    }
}

/// Only variables whose names occur in the files: the rest of somebody's environment is nobody's business.
fn used_variables(
    source: &str,
    files: &BTreeMap<String, Vec<u8>>,
    variables: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let texts: Vec<_> = files.values().map(|bytes| String::from_utf8_lossy(bytes)).collect();
    let mut words: BTreeSet<&str> = BTreeSet::from(["COMPOSE_PROFILES"]);
    for text in texts.iter().map(AsRef::as_ref).chain([source]) {
        words.extend(text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
        if text.contains("~/") {
            words.insert("HOME");
        }
    }
    let wanted = variables.iter().filter(|(name, _)| words.contains(name.as_str()));
    wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
}
