//! What becomes of answers: how they are coded, and which pages take their place.

use super::forms;
use crate::findings::Findings;
use crate::read::{At, Fields, shortened};
use crate::stack::Surroundings;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use wire::spec::{Coding, Compress, Rules};

pub(crate) const CODINGS: [(&str, Coding); 3] = [("zstd", Coding::Zstd), ("br", Coding::Br), ("gzip", Coding::Gzip)];
/// A page is held in memory by every node, in every revision.
const PAGE_BYTES_MAX: usize = 64 << 10;

pub(super) fn read(fields: &mut Fields<'_>, around: &Surroundings<'_>, rules: &mut Rules, findings: &mut Findings) {
    rules.compress = fields.take("compress").and_then(|at| compress(&at, findings));
    if let Some(at) = fields.take("error_pages") {
        rules.error_pages = pages(&at, around, findings);
    }
}

fn compress(at: &At<'_>, findings: &mut Findings) -> Option<Compress> {
    if !at.is_map() {
        return at.truth(findings)?.then(Compress::default);
    }
    let mut fields = at.fields(findings)?;
    let bytes_min = fields.take("min").and_then(|at| at.size_bytes(findings));
    let mut compress = Compress { bytes_min, ..Compress::default() };
    for item in fields.take("encodings").map(|at| at.one_or_list(findings)).unwrap_or_default() {
        compress.codings.extend(item.one_of(&CODINGS, findings));
    }
    for (key, types) in [("types", &mut compress.types), ("except", &mut compress.except)] {
        for item in fields.take(key).map(|at| at.one_or_list(findings)).unwrap_or_default() {
            types.extend(item.convert(findings, forms::media_type));
        }
    }
    fields.finish(&[], findings);
    Some(compress)
}

fn pages(at: &At<'_>, around: &Surroundings<'_>, findings: &mut Findings) -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for (entry, at) in at.members(findings) {
        let status = entry.key.to_ascii_lowercase();
        let is_class = matches!(status.as_str(), "4xx" | "5xx");
        if !is_class && !status.parse().is_ok_and(|status: u16| (400..600).contains(&status)) {
            let message = format!("`{}` is not the status of a failure", shortened(&entry.key));
            findings.error(&at.place, message, "write `404`, or `5xx` for all of a class");
            continue;
        }
        let Some(text) = page(&at, around, findings) else { continue };
        if text.len() > PAGE_BYTES_MAX {
            findings.error(&at.place, "the page is longer than 64 KiB", "leave pictures and fonts out of it");
            continue;
        }
        pages.insert(status, text);
    }
    pages
}

/// A text, or that of a config.
fn page(at: &At<'_>, around: &Surroundings<'_>, findings: &mut Findings) -> Option<String> {
    if !at.is_map() {
        return at.filled_text(findings).map(String::from);
    }
    let mut fields = at.fields(findings)?;
    let config = fields.take("config");
    fields.finish(&[], findings);
    let Some(config) = config else {
        findings.error(
            &at.place,
            "the page has no text",
            "write it there, or `{config: NAME}` of the top-level `configs`",
        );
        return None;
    };
    let name = config.filled_text(findings)?;
    let Some(declared) = around.configs.get(name) else {
        let hint = Surroundings::declare_hint("configs", name, around.configs.keys());
        findings.error(&config.place, format!("there is no config `{}`", shortened(name)), hint);
        return None;
    };
    // What could not be had was said where it was declared.
    let bytes = STANDARD.decode(declared.content.as_deref()?).unwrap_or_default();
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(_) => {
            let message = format!("the config `{}` is no text", shortened(name));
            findings.error(&config.place, message, "a page is HTML or plain text in UTF-8");
            None
        }
    }
}
