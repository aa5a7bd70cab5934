//! Files that a stack brings along: looked up among those the caller loaded, and the `secrets` and `configs` made
//! of them.
//!
//! Never opens a file: what the caller did not load is not there.

use crate::Input;
use crate::findings::{Findings, Place};
use crate::read::{At, shortened};
use base64::Engine as _;
use std::collections::BTreeMap;
use wire::spec::FileKind;

/// What one config or secret may hold. Specs travel through the replicated log, which is not made for large files.
const CONTENT_BYTES_MAX: usize = 1 << 20;

/// A path written in a file of `folder`, seen from the main file's folder, without `./` and `x/../`.
pub(crate) fn joined(folder: &str, path: &str) -> String {
    let absolute = path.starts_with('/');
    let whole = if absolute || folder.is_empty() { path.to_string() } else { format!("{folder}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute || whole.starts_with('/') => {}
            other => parts.push(other),
        }
    }
    if whole.starts_with('/') { format!("/{}", parts.join("/")) } else { parts.join("/") }
}

/// The content of a file named in a file of `folder`: by the path as written, or seen from the main file.
pub(crate) fn find<'i>(input: &Input<'i>, folder: &str, path: &str) -> Option<&'i [u8]> {
    let full = joined(folder, path);
    let direct = if folder.is_empty() { input.files.get(path) } else { None };
    direct.or_else(|| input.files.get(&full)).or_else(|| input.files.get(&format!("./{full}"))).map(Vec::as_slice)
}

/// A declared config or secret.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    /// Base 64; `None` when it could not be had, which was said.
    pub(crate) content: Option<String>,
}

pub(crate) type DeclaredFiles = BTreeMap<String, Declared>;

/// Reads the section `secrets` or `configs`.
pub(crate) fn declared(section: &At<'_>, kind: FileKind, input: &Input<'_>, findings: &mut Findings) -> DeclaredFiles {
    let mut declared = DeclaredFiles::new();
    for (entry, at) in section.members(findings) {
        let content = content(&at, kind, input, findings);
        let content = content.and_then(|content| {
            if content.len() > CONTENT_BYTES_MAX {
                let message = format!("`{}` holds more than {CONTENT_BYTES_MAX} bytes", shortened(&entry.key));
                findings.error(&at.place, message, "put it into a volume or into the image");
                return None;
            }
            Some(base64::engine::general_purpose::STANDARD.encode(content))
        });
        declared.insert(entry.key.clone(), Declared { content });
    }
    declared
}

fn content(at: &At<'_>, kind: FileKind, input: &Input<'_>, findings: &mut Findings) -> Option<Vec<u8>> {
    let word = match kind {
        FileKind::Config => "config",
        FileKind::Secret => "secret",
    };
    if at.is_null() {
        no_content(&at.place, word, findings);
        return None;
    }
    let mut fields = at.fields(findings)?;
    let file = fields.take("file");
    let environment = fields.take("environment");
    let inline = fields.take("content");
    let external = fields.take("external");
    fields.take("name");
    fields.take("labels");
    let instead = &[
        ("driver", "it is kept with the stack's own data"),
        ("driver_opts", "it is kept with the stack's own data"),
        ("template_driver", "templates inside its content are left as they are"),
    ];
    fields.finish(instead, findings);
    if let Some(external) = external
        && (external.is_map() || external.truth(findings) == Some(true))
    {
        let hint = "give its content here with `file:`, `environment:` or `content:`";
        findings.error(&external.place, format!("external {word}s are not kept apart from stacks"), hint);
        return None;
    }
    let given = [&file, &environment, &inline].iter().filter(|source| source.is_some()).count();
    if given > 1 {
        findings.error(
            &at.place,
            format!("the {word} has more than one source"),
            "keep one of `file`, `environment`, `content`",
        );
        return None;
    }
    if let Some(file) = file {
        let path = file.filled_text(findings)?;
        let found = find(input, findings.folder(file.place.spot), path);
        if found.is_none() {
            let message = format!("the file `{}` of this {word} is not there", shortened(path));
            findings.missing_file(&file.place, message, "deploying needs it beside the stack file");
        }
        found.map(<[u8]>::to_vec)
    } else if let Some(environment) = environment {
        let name = environment.filled_text(findings)?;
        let found = input.variables.get(name);
        if found.is_none() {
            let message = format!("the variable `{}` of this {word} is not set", shortened(name));
            findings.missing_file(&environment.place, message, "set it in the environment or in `.env`");
        }
        found.map(|value| value.clone().into_bytes())
    } else if let Some(inline) = inline {
        inline.text(findings).map(|text| text.as_bytes().to_vec())
    } else {
        no_content(&at.place, word, findings);
        None
    }
}

fn no_content(place: &Place, word: &str, findings: &mut Findings) {
    findings.error(place, format!("the {word} has no content"), "give it `file:`, `environment:` or `content:`");
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn paths_join_without_detours() {
        let table = [
            ("", "./a/b", "a/b"),
            ("x", "a", "x/a"),
            ("x/y", "../a", "x/a"),
            ("x", "../../a", "../a"),
            ("x", "/a/./b//c", "/a/b/c"),
            ("/x", "../../a", "/a"),
            ("", ".", ""),
        ];
        for (folder, path, expected) in table {
            assert_eq!(joined(folder, path), expected, "{folder} {path}");
        }
    }
}
