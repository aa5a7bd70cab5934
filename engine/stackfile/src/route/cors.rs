//! Which pages of other origins may read the answers.

use super::forms;
use crate::findings::Findings;
use crate::read::{At, Fields};
use crate::units::Wrong;
use wire::spec::Cors;

const WILDCARD_HINT: &str = "name the origins that may act as whoever is logged in";

pub(super) fn read(at: &At<'_>, findings: &mut Findings) -> Option<Cors> {
    let mut fields = at.fields(findings)?;
    let cors = Cors {
        origins: list(&mut fields, "origins", findings, forms::origin),
        methods: list(&mut fields, "methods", findings, star_or(forms::method)),
        headers: list(&mut fields, "headers", findings, star_or(forms::header_name)),
        expose: list(&mut fields, "expose", findings, star_or(forms::header_name)),
        credentials: fields.truth("credentials", findings),
        max_age_s: fields.take("max_age").and_then(|at| at.duration_ms(findings)).map(seconds),
    };
    let named = fields.take("origins").is_some();
    fields.finish(&[], findings);
    if !named {
        findings.error(
            &at.place,
            "no page may read anything: there are no `origins`",
            "name them, or write `*` for all",
        );
    }
    if cors.credentials && cors.origins.iter().any(|origin| origin == "*") {
        findings.error(&at.place, "`credentials` and `*` do not go together: browsers refuse both", WILDCARD_HINT);
    }
    Some(cors)
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1_000).unwrap_or(u32::MAX)
}

fn star_or(form: impl Fn(&str) -> Result<String, Wrong>) -> impl Fn(&str) -> Result<String, Wrong> {
    move |text| if text == "*" { Ok(text.to_string()) } else { form(text) }
}

fn list(
    fields: &mut Fields<'_>,
    key: &'static str,
    findings: &mut Findings,
    form: impl Fn(&str) -> Result<String, Wrong>,
) -> Vec<String> {
    let items = fields.take(key).map(|at| at.one_or_list(findings)).unwrap_or_default();
    items.iter().filter_map(|item| item.convert(findings, &form)).collect()
}
