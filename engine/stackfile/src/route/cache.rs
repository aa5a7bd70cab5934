//! Which answers of a route the gateway keeps.

use super::forms;
use crate::findings::Findings;
use crate::read::{At, shortened};
use crate::units;
use wire::spec::{Cache, IgnoreQuery};

/// A year: the longest that HTTP/1.1 once allowed an answer to be fresh.
const TTL_MS_MAX: u64 = 365 * 86_400_000;
/// What the gateway keeps at most of one answer.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

pub(super) fn read(at: &At<'_>, findings: &mut Findings) -> Option<Cache> {
    if let Some(text) = at.node.text() {
        return match units::truth(text) {
            Some(wanted) => wanted.then(Cache::default),
            None => {
                let hint = "write `true`, or what is to be different: `{default_ttl: 1m}`";
                findings.error(&at.place, format!("`{}` is no cache", shortened(text)), hint);
                None
            }
        };
    }
    let mut fields = at.fields(findings)?;
    let mut time = |name: &'static str, findings: &mut Findings| {
        let at = fields.take(name)?;
        let ms = at.duration_ms(findings)?;
        if ms > TTL_MS_MAX {
            let text = shortened(at.node.text().unwrap_or_default());
            findings.error(&at.place, format!("`{text}` is too long"), "nothing is kept for more than a year");
        }
        Some(ms)
    };
    let mut cache = Cache {
        default_ttl_ms: time("default_ttl", findings),
        stale_while_revalidate_ms: time("stale_while_revalidate", findings),
        stale_if_error_ms: time("stale_if_error", findings),
        keep_cookies: false,
        obey_clients: false,
        ..Cache::default()
    };
    cache.keep_cookies = fields.truth("set_cookie", findings);
    cache.obey_clients = fields.truth("obey_clients", findings);
    cache.answer_bytes_max = fields.take("max_bytes").and_then(|at| answer_bytes(&at, findings));
    cache.ignore_query = fields.take("ignore_query").map(|at| ignored(&at, findings)).unwrap_or_default();
    for item in fields.take("vary").map(|at| at.one_or_list(findings)).unwrap_or_default() {
        cache.vary.extend(item.convert(findings, forms::header_name));
    }
    fields.finish(&[], findings);
    Some(cache)
}

fn answer_bytes(at: &At<'_>, findings: &mut Findings) -> Option<u64> {
    let bytes = at.size_bytes(findings)?;
    if bytes == 0 || bytes > ANSWER_BYTES_MAX {
        let text = shortened(at.node.text().unwrap_or_default());
        findings.error(&at.place, format!("`{text}` is not a size from 1 to 8m"), "larger answers always pass by");
        return None;
    }
    Some(bytes)
}

/// `true` for the whole query, or the names of what in it counts for nothing.
fn ignored(at: &At<'_>, findings: &mut Findings) -> IgnoreQuery {
    match at.node.text().map(units::truth) {
        Some(Some(true)) => return IgnoreQuery::All,
        Some(Some(false)) => return IgnoreQuery::Nothing,
        Some(None) | None => {}
    }
    let plain = |text: &str| match text.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=#".contains(&byte)) {
        true if !text.is_empty() => Ok(text.to_string()),
        true | false => Err(("is no name in a query", "write them as in the address, without `=`")),
    };
    let names: Vec<String> = at.one_or_list(findings).iter().filter_map(|item| item.convert(findings, plain)).collect();
    if names.is_empty() { IgnoreQuery::Nothing } else { IgnoreQuery::Names(names) }
}
