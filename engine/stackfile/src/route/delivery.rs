//! How requests are carried to instances, and what is told of them.

use super::forms;
use crate::findings::Findings;
use crate::read::{At, Fields, shortened};
use wire::spec::{Balance, Delivery, HashKey, Hedge, PriorityClass};

/// As much as one gateway has in flight at all.
const IN_FLIGHT_MAX: u32 = 10_000;
/// Whoever waits for longer before asking another has no hurry.
const HEDGE_MS_MAX: u64 = 60_000;

pub(super) fn read(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Box<Delivery>> {
    let mut delivery = Delivery::default();
    if let Some(at) = fields.take("access_log")
        && let Some(text) = at.filled_text(findings)
    {
        match text.parse() {
            Ok(log) => delivery.access_log = Some(log),
            Err(wire::spec::NoAccessLog) => {
                let message = format!("`{}` does not say which requests are logged", shortened(text));
                findings.error(&at.place, message, "write `off`, `errors`, `sampled(0.01)` or `all`");
            }
        }
    }
    delivery.balance = fields.take("balance").and_then(|at| balance(&at, findings));
    if let Some(at) = fields.take("priority_class")
        && let Some(text) = at.filled_text(findings)
    {
        match PriorityClass::ALL.into_iter().find(|class| class.word() == text) {
            Some(class) => delivery.priority_class = class,
            None => {
                let message = format!("`{}` is no class of priority", shortened(text));
                findings.error(&at.place, message, "write `low`, `normal` or `high`");
            }
        }
    }
    delivery.hedge = fields.take("hedge").and_then(|at| hedge(&at, findings));
    delivery.in_flight_max = fields.take("in_flight_max").and_then(|at| at.whole_u32(1, IN_FLIGHT_MAX, findings));
    (delivery != Delivery::default()).then(|| Box::new(delivery))
}

/// `sticky`, `{by: sticky, cookie: name}`, `hash(address)`, `{by: hash(header:X-User)}`.
fn balance(at: &At<'_>, findings: &mut Findings) -> Option<Balance> {
    if at.node.text().is_some() {
        return balance_by(at, "", findings);
    }
    let mut fields = at.fields(findings)?;
    let by = fields.take("by");
    let cookie = fields.take("cookie");
    fields.finish(&[], findings);
    let name = cookie.as_ref().and_then(|at| at.convert(findings, forms::cookie_name));
    let Some(by) = by else {
        findings.error(&at.place, "it is not said by what", "write `by: sticky` or `by: hash(address)`");
        return None;
    };
    let balance = balance_by(&by, name.as_deref().unwrap_or_default(), findings);
    if let (Some(at), Some(Balance::Hash(_))) = (&cookie, &balance) {
        findings.error(&at.place, "only `by: sticky` remembers in a cookie", "leave `cookie` out");
    }
    balance
}

fn balance_by(at: &At<'_>, cookie: &str, findings: &mut Findings) -> Option<Balance> {
    let text = at.filled_text(findings)?;
    if text == "sticky" {
        return Some(Balance::Sticky(cookie.to_string()));
    }
    let key = text.strip_prefix("hash(").and_then(|rest| rest.strip_suffix(')'));
    let key = key.and_then(|key| match key.split_once(':') {
        None if key == "address" => Some(HashKey::Address),
        Some(("header", name)) => forms::header_name(name.trim()).ok().map(HashKey::Header),
        Some(("cookie", name)) => forms::cookie_name(name.trim()).ok().map(HashKey::Cookie),
        Some(_) | None => None,
    });
    if key.is_none() {
        let hint = "write `sticky`, `hash(address)`, `hash(header:X-User)` or `hash(cookie:name)`";
        findings.error(&at.place, format!("`{}` does not say which instance", shortened(text)), hint);
    }
    key.map(Balance::Hash)
}

/// `50ms`, `p95`, or `{after: …}`.
fn hedge(at: &At<'_>, findings: &mut Findings) -> Option<Hedge> {
    if at.node.text().is_some() {
        return hedge_after(at, findings);
    }
    let mut fields = at.fields(findings)?;
    let after = fields.take("after");
    fields.finish(&[], findings);
    match after {
        Some(after) => hedge_after(&after, findings),
        None => {
            findings.error(&at.place, "it is not said after how long", "write `after: p95` or `after: 50ms`");
            None
        }
    }
}

fn hedge_after(at: &At<'_>, findings: &mut Findings) -> Option<Hedge> {
    if at.node.text() == Some("p95") {
        return Some(Hedge::P95);
    }
    let ms = at.duration_ms(findings)?;
    if ms == 0 || ms > HEDGE_MS_MAX {
        let text = shortened(at.node.text().unwrap_or_default());
        findings.error(
            &at.place,
            format!("`{text}` is no time to wait before asking another"),
            "write 1ms to 1m, or p95",
        );
        return None;
    }
    Some(Hedge::AfterMs(ms))
}
