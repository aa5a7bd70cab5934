//! `environment`, `env_file` and `label_file`: names with values, from the stack file and from files beside it.

use super::Reader;
use crate::findings::{Findings, Place};
use crate::load::generated_by_coolify;
use crate::read::{At, Fields, shortened};
use std::collections::BTreeMap;

impl Reader<'_, '_> {
    pub(super) fn environment(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        if let Some(at) = fields.take("env_file") {
            for item in at.one_or_list(findings) {
                self.env_file(&item, findings);
            }
        }
        let Some(at) = fields.take("environment") else { return };
        for pair in at.pairs(&['='], findings) {
            if pair.name.is_empty() || pair.name.contains(char::is_whitespace) {
                let message = format!("`{}` cannot be a variable's name", shortened(pair.name));
                findings.error(&pair.at.place, message, "write `NAME=value` without blanks around the `=`");
                continue;
            }
            let value = match pair.value {
                Some(value) => Some(value.to_string()),
                None => self.inherited(pair.name, &pair.at.place, findings),
            };
            if let Some(value) = value {
                self.warn_of_template(&value, &pair.at.place, findings);
                self.spec.environment.insert(pair.name.to_string(), value);
            }
        }
    }

    /// Half a template is for another program; one that looks like swarm's is probably a typing error.
    fn warn_of_template(&self, value: &str, place: &Place, findings: &mut Findings) {
        let like_swarm = [".Service", ".Node", ".Task"].iter().any(|name| value.contains(name));
        if like_swarm && let Err(error) = crate::template::check(value, "environment") {
            findings.warn(place, error.to_string(), format!("it stays as it is; {}", error.hint()));
        }
    }

    /// A name without a value takes the caller's; if there is none, it stays unset, as with docker.
    fn inherited(&self, name: &str, place: &Place, findings: &mut Findings) -> Option<String> {
        let value = self.around.input.variables.get(name).cloned();
        if value.is_none()
            && let Some(hint) = generated_by_coolify(name)
        {
            let message =
                format!("variable `{}` is not set: Coolify would make it up, here it stays unset", shortened(name));
            findings.warn(place, message, hint);
        }
        value
    }

    fn env_file(&mut self, item: &At<'_>, findings: &mut Findings) {
        let mut raw = false;
        let (path, required) = if item.is_map() {
            let Some(mut fields) = item.fields(findings) else { return };
            let path = fields.take("path");
            let required = fields.take("required").and_then(|at| at.truth(findings)).unwrap_or(true);
            if let Some(format) = fields.take("format") {
                raw = format.one_of(&[("raw", true)], findings).unwrap_or_default();
            }
            fields.finish(&[], findings);
            match path {
                Some(path) => (path, required),
                None => {
                    findings.error(&item.place, "`env_file` needs a `path`", "");
                    return;
                }
            }
        } else {
            (item.clone(), true)
        };
        let found = self.settings(&path, required, raw, findings);
        self.spec.environment.extend(found);
    }

    pub(super) fn label_files(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let Some(at) = fields.take("label_file") else { return };
        for item in at.one_or_list(findings) {
            for (name, value) in self.settings(&item, true, false, findings) {
                self.spec.labels.insert(name.clone(), value.clone());
                self.marks.labels.push((name, value, item.place.clone()));
            }
        }
    }

    /// What a file of `NAME=value` lines holds.
    fn settings(&self, at: &At<'_>, required: bool, raw: bool, findings: &mut Findings) -> BTreeMap<String, String> {
        let Some(path) = at.filled_text(findings) else { return BTreeMap::new() };
        let Some(content) = crate::files::find(self.around.input, findings.folder(at.place.spot), path) else {
            if required {
                let message = format!("the file `{}` is not there", shortened(path));
                findings.missing_file(&at.place, message, "create it, or write `{path: …, required: false}`");
            }
            return BTreeMap::new();
        };
        if !self.around.charge(content.len(), &at.place, findings) {
            return BTreeMap::new();
        }
        let read = if raw { crate::dotenv::raw(content) } else { crate::dotenv::dotenv(content) };
        match read {
            Ok(found) => found,
            Err(wrong) => {
                let message = format!("in {} line {}: {}", shortened(path), wrong.line, wrong.message);
                findings.error(&at.place, message, wrong.hint);
                BTreeMap::new()
            }
        }
    }
}
