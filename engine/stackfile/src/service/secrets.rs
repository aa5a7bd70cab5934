//! `secrets` and `configs` of a service: which declared file is placed where.

use super::Reader;
use crate::files::DeclaredFiles;
use crate::findings::Findings;
use crate::read::{At, Fields, shortened};
use crate::stack::Surroundings;
use wire::spec::{File, FileKind};

/// Docker's default: everybody inside may read it, nobody may change it.
const MODE_DEFAULT: u32 = 0o444;
const SECRETS_FOLDER: &str = "/run/secrets";

impl Reader<'_, '_> {
    pub(super) fn secrets_and_configs(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let around = self.around;
        for item in fields.take("secrets").map(|at| at.list(findings)).unwrap_or_default() {
            self.place_file(&item, FileKind::Secret, "secrets", &around.secrets, findings);
        }
        for item in fields.take("configs").map(|at| at.list(findings)).unwrap_or_default() {
            self.place_file(&item, FileKind::Config, "configs", &around.configs, findings);
        }
    }

    fn place_file(
        &mut self,
        item: &At<'_>,
        kind: FileKind,
        section: &str,
        declared: &DeclaredFiles,
        findings: &mut Findings,
    ) {
        let mut file = File {
            source: String::new(),
            kind,
            target: String::new(),
            mode: MODE_DEFAULT,
            uid: None,
            gid: None,
            content: String::new(),
        };
        let mut place = item.place.clone();
        if item.is_map() {
            let Some(mut fields) = item.fields(findings) else { return };
            let source = fields.take("source");
            file.target = fields.text("target", findings).unwrap_or_default();
            file.mode = fields.take("mode").and_then(|at| at.file_mode(findings)).unwrap_or(MODE_DEFAULT);
            file.uid = fields.take("uid").and_then(|at| at.whole_u32(0, u32::MAX, findings));
            file.gid = fields.take("gid").and_then(|at| at.whole_u32(0, u32::MAX, findings));
            fields.finish(&[], findings);
            let Some(source) = source else {
                findings.error(
                    &item.place,
                    "the entry has no `source`",
                    format!("name one of the top-level `{section}`"),
                );
                return;
            };
            let Some(name) = source.filled_text(findings) else { return };
            file.source = name.to_string();
            place = source.place;
        } else {
            let Some(name) = item.filled_text(findings) else { return };
            file.source = name.to_string();
        }
        let Some(known) = declared.get(&file.source) else {
            let word = section.trim_end_matches('s');
            let hint = Surroundings::declare_hint(section, &file.source, declared.keys());
            findings.error(&place, format!("there is no {word} `{}`", shortened(&file.source)), hint);
            return;
        };
        let content = known.content.as_deref().unwrap_or_default();
        if !self.around.charge(content.len(), &place, findings) {
            return;
        }
        file.content = content.to_string();
        file.target = target(&file);
        if file.target.split('/').any(|part| part == "..") {
            findings.error(&place, format!("`{}` is not a path inside the container", shortened(&file.target)), "");
        }
        self.spec.files.push(file);
    }
}

/// Relative secrets lie in one folder, relative configs at the root, as in docker.
fn target(file: &File) -> String {
    let name = if file.target.is_empty() { &file.source } else { &file.target };
    match file.kind {
        _ if name.starts_with('/') => name.clone(),
        FileKind::Secret => format!("{SECRETS_FOLDER}/{name}"),
        FileKind::Config => format!("/{name}"),
    }
}
