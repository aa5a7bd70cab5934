//! Who is let through: addresses, passwords, rates, sizes, times, and nobody at all.

use super::forms;
use crate::findings::Findings;
use crate::read::{At, Fields, shortened};
use crate::units;
use wire::spec::{Ban, BasicAuth, RateKey, RateLimit, Rules};

const REALM_DEFAULT: &str = "restricted";
const REALM_LETTERS_MAX: usize = 100;
/// The gateway keeps time in nanoseconds: a thousand of them per request are enough to tell two apart.
const REQUESTS_MAX: u32 = 1_000_000;
const RATE_PERIOD_MS_DEFAULT: u64 = 1_000;
const RATE_PERIOD_MS_MAX: u64 = 86_400_000;
/// No route waits longer for an answer's head than the gateway itself does.
const TIMEOUT_MS_MAX: u64 = 300_000;
/// The gateway remembers when each of a client's last strikes was.
const STRIKES_MAX: u32 = 100;
const STRIKES_WITHIN_MS_DEFAULT: u64 = 60_000;
const STRIKES_WITHIN_MS_MAX: u64 = 86_400_000;
const BAN_MS_DEFAULT: u64 = 600_000;
const BAN_MS_MAX: u64 = 7 * 86_400_000;
const STATUSES_HINT: &str = "write those that a client gets who tries what it should not: `[401, 403, 404]`";
const MAINTENANCE_LETTERS_MAX: usize = 4_096;

pub(super) fn read(fields: &mut Fields<'_>, rules: &mut Rules, findings: &mut Findings) {
    rules.allow = networks(fields.take("allow"), findings);
    rules.deny = networks(fields.take("deny"), findings);
    rules.basic_auth = fields.take("basic_auth").and_then(|at| basic_auth(&at, findings));
    rules.rate_limit = fields.take("rate_limit").and_then(|at| rate_limit(&at, findings));
    rules.body_bytes_max = fields.take("body_max").and_then(|at| at.size_bytes(findings));
    rules.head_bytes_max = fields.take("head_max").and_then(|at| at.size_bytes(findings));
    rules.ban = fields.take("ban").and_then(|at| ban(&at, findings));
    if let Some(at) = fields.take("timeout") {
        rules.answer_deadline_ms = bounded_ms(&at, TIMEOUT_MS_MAX, "the gateway waits 5m for any answer", findings);
    }
    if let Some(at) = fields.take("maintenance")
        && let Some(text) = at.text(findings)
    {
        rules.maintenance = match units::truth(text) {
            Some(wanted) => wanted.then(String::new),
            None => Some(text.chars().take(MAINTENANCE_LETTERS_MAX).collect()),
        };
    }
}

pub(super) fn bounded_ms(at: &At<'_>, max_ms: u64, hint: &str, findings: &mut Findings) -> Option<u64> {
    let ms = at.duration_ms(findings)?;
    if ms == 0 || ms > max_ms {
        let text = shortened(at.node.text().unwrap_or_default());
        let message = if ms == 0 { format!("`{text}` is no time at all") } else { format!("`{text}` is too long") };
        findings.error(&at.place, message, hint);
        return None;
    }
    Some(ms)
}

fn networks(at: Option<At<'_>>, findings: &mut Findings) -> Vec<String> {
    let items = at.map(|at| at.one_or_list(findings)).unwrap_or_default();
    items.iter().filter_map(|item| item.convert(findings, forms::network)).collect()
}

fn basic_auth(at: &At<'_>, findings: &mut Findings) -> Option<BasicAuth> {
    let mut fields = at.fields(findings)?;
    let mut auth = BasicAuth { realm: REALM_DEFAULT.to_string(), ..BasicAuth::default() };
    let users = fields.take("users");
    if let Some(realm) = fields.take("realm")
        && let Some(text) = realm.filled_text(findings)
    {
        let plain = |letter: char| (letter.is_ascii_graphic() || letter == ' ') && !matches!(letter, '"' | '\\');
        if text.len() > REALM_LETTERS_MAX || !text.chars().all(plain) {
            let hint = "at most 100 ASCII letters, without quotes and backslashes";
            findings.error(&realm.place, format!("`{}` is not a realm", shortened(text)), hint);
        }
        auth.realm = text.to_string();
    }
    fields.finish(&[], findings);
    for pair in users.as_ref().map(|at| at.pairs(&[':'], findings)).unwrap_or_default() {
        // A hash is not repeated in a message: it may be a password by mistake.
        let name = shortened(pair.name);
        if pair.name.is_empty() || pair.name.contains(':') {
            let hint = "write names without colons, each with its hash";
            findings.error(&pair.at.place, format!("`{name}` is not a user's name"), hint);
        }
        if let Err((wrong, hint)) = forms::password_hash(pair.value.unwrap_or_default()) {
            findings.error(&pair.at.place, format!("what stands for `{name}` {wrong}"), hint);
        }
        auth.users.insert(pair.name.to_string(), pair.value.unwrap_or_default().to_string());
    }
    if auth.users.is_empty() {
        findings.error(&at.place, "nobody would be let in", "name `users`, each with a hash of their password");
    }
    Some(auth)
}

fn rate_limit(at: &At<'_>, findings: &mut Findings) -> Option<RateLimit> {
    let mut fields = at.fields(findings)?;
    let requests = fields.take("requests");
    let period = fields.take("period");
    let burst = fields.take("burst").map(|at| at.whole_u32(1, REQUESTS_MAX, findings));
    let by = fields.take("by").map(|at| rate_key(&at, findings));
    fields.finish(&[], findings);
    let period_ms = match period {
        Some(at) => bounded_ms(&at, RATE_PERIOD_MS_MAX, "write up to a day", findings),
        None => Some(RATE_PERIOD_MS_DEFAULT),
    };
    let Some(requests) = requests else {
        findings.error(&at.place, "the rate has no `requests`", "write `{requests: 100, period: 1s}`");
        return None;
    };
    let requests = requests.whole_u32(1, REQUESTS_MAX, findings)?;
    let burst = burst.unwrap_or(Some(requests))?;
    Some(RateLimit { requests, period_ms: period_ms?, burst, by: by.unwrap_or(Some(RateKey::Address))? })
}

fn rate_key(at: &At<'_>, findings: &mut Findings) -> Option<RateKey> {
    let text = at.filled_text(findings)?;
    match text.split_once(':') {
        None if text == "address" => return Some(RateKey::Address),
        None if text == "route" => return Some(RateKey::Route),
        Some(("header", name)) => {
            if let Ok(name) = forms::header_name(name.trim()) {
                return Some(RateKey::Header(name));
            }
        }
        Some(_) | None => {}
    }
    let hint = "write `address`, `route` or `header:X-Api-Key`";
    findings.error(&at.place, format!("`{}` tells no clients apart", shortened(text)), hint);
    None
}

fn ban(at: &At<'_>, findings: &mut Findings) -> Option<Ban> {
    let mut fields = at.fields(findings)?;
    let statuses = fields.take("status");
    let times = fields.take("times");
    let within = fields.take("within");
    let time = fields.take("for");
    fields.finish(&[], findings);
    let mut ban = Ban { within_ms: STRIKES_WITHIN_MS_DEFAULT, for_ms: BAN_MS_DEFAULT, ..Ban::default() };
    for item in statuses.map(|at| at.one_or_list(findings)).unwrap_or_default() {
        let status = item.convert(findings, |text| {
            let status = text.trim().parse().ok().filter(|status: &u16| (400..600).contains(status));
            status.ok_or(("is not the status of a refusal", STATUSES_HINT))
        });
        ban.statuses.push(status?);
    }
    if ban.statuses.is_empty() {
        findings.error(&at.place, "nothing leads to a ban: there is no `status`", STATUSES_HINT);
    }
    if let Some(at) = within {
        ban.within_ms = bounded_ms(&at, STRIKES_WITHIN_MS_MAX, "write up to a day", findings)?;
    }
    if let Some(at) = time {
        ban.for_ms = bounded_ms(&at, BAN_MS_MAX, "write up to a week; `deny` is for ever", findings)?;
    }
    match times {
        Some(at) => ban.times = at.whole_u32(1, STRIKES_MAX, findings)?,
        None => findings.error(
            &at.place,
            "the ban has no `times`",
            "write `{status: [401], times: 20, within: 1m, for: 10m}`",
        ),
    }
    Some(ban)
}
