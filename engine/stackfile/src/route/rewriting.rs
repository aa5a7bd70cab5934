//! What is changed on the way: path and headers, there and back, or the whole request sent elsewhere.

use super::forms;
use crate::findings::Findings;
use crate::read::{At, Fields, shortened};
use std::collections::BTreeMap;
use wire::spec::{Redirect, Rules};

/// As `redirect: https` says it.
pub(crate) const TO_HTTPS: &str = "https://{host}{path}";
const STATUS_DEFAULT: u16 = 308;
const STATUSES: [(&str, u16); 5] = [("301", 301), ("302", 302), ("303", 303), ("307", 307), ("308", 308)];

pub(super) fn read(fields: &mut Fields<'_>, strips: bool, rules: &mut Rules, findings: &mut Findings) {
    rules.add_prefix = fields.take("add_prefix").and_then(|at| at.convert(findings, forms::prefix_sent));
    if let Some(at) = fields.take("replace_path") {
        rules.replace_path = at.convert(findings, forms::path_sent);
        if strips || rules.add_prefix.is_some() {
            let hint = "keep `replace_path`, or `strip_prefix` and `add_prefix`";
            findings.error(&at.place, "the whole path is replaced, so nothing is cut off or added", hint);
        }
    }
    rules.redirect = fields.take("redirect").and_then(|at| redirect(&at, findings));
    rules.request_headers = headers(fields.take("request_headers"), findings);
    rules.response_headers = headers(fields.take("response_headers"), findings);
}

fn redirect(at: &At<'_>, findings: &mut Findings) -> Option<Redirect> {
    if !at.is_map() {
        let text = at.filled_text(findings)?;
        let to = if text == "https" { TO_HTTPS } else { text };
        return Some(redirect_to(target(at, to, findings)?, STATUS_DEFAULT));
    }
    let mut fields = at.fields(findings)?;
    let to = fields.take("to");
    let status = fields.take("status").map(|at| at.one_of(&STATUSES, findings));
    fields.finish(&[], findings);
    let Some(to) = to else {
        findings.error(&at.place, "the redirect has no `to`", "write `to: \"https://{host}{path}\"`");
        return None;
    };
    let text = to.filled_text(findings)?;
    Some(redirect_to(target(&to, text, findings)?, status.unwrap_or(Some(STATUS_DEFAULT))?))
}

/// Whoever is sent to the same address with TLS is there when he comes with TLS.
pub(crate) fn redirect_to(to: String, status: u16) -> Redirect {
    let plain_only = to == TO_HTTPS;
    Redirect { to, status, plain_only }
}

fn target(at: &At<'_>, text: &str, findings: &mut Findings) -> Option<String> {
    let bare = text.replace("{host}", "").replace("{path}", "");
    let starts = ["https://", "http://", "/", "{path}"].iter().any(|start| text.starts_with(start));
    if starts && bare.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}\"<>\\".contains(&byte)) {
        return Some(text.to_string());
    }
    let hint = "write `https`, or an address such as \"https://{host}{path}\": `{host}` and `{path}` are filled in";
    findings.error(&at.place, format!("`{}` is nowhere to be sent to", shortened(text)), hint);
    None
}

fn headers(at: Option<At<'_>>, findings: &mut Findings) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for pair in at.map(|at| at.pairs(&['='], findings)).unwrap_or_default() {
        let value = pair.value.unwrap_or_default();
        match (forms::header_changed(pair.name), forms::header_value(value)) {
            (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
            (Err((wrong, hint)), _) => {
                findings.error(&pair.at.place, format!("`{}` {wrong}", shortened(pair.name)), hint);
            }
            (Ok(_), Err((wrong, hint))) => {
                findings.error(&pair.at.place, format!("`{}` {wrong}", shortened(value)), hint);
            }
        }
    }
    headers
}
