//! `healthcheck`: what makes an instance healthy, and how often it is asked.

use super::Reader;
use crate::findings::Findings;
use crate::read::{At, Fields, shortened};
use wire::spec::{HealthTest, Healthcheck};

/// Docker's defaults.
pub(super) const DEFAULTS: Healthcheck = Healthcheck {
    test: HealthTest::None,
    interval_ms: 30_000,
    timeout_ms: 30_000,
    retries: 3,
    start_period_ms: 0,
    start_interval_ms: 5_000,
};

/// More tries than this would never come to a verdict.
const RETRIES_MAX: u32 = 10_000;

impl Reader<'_, '_> {
    pub(super) fn healthcheck(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let Some(at) = fields.take("healthcheck") else { return };
        let Some(mut fields) = at.fields(findings) else { return };
        let mut check = timing(&mut fields, findings);
        let test = fields.take("test");
        let disabled = fields.truth("disable", findings);
        fields.finish(&[], findings);
        if disabled {
            self.spec.healthcheck = Some(check);
            return;
        }
        match test {
            Some(test) => {
                if let Some(test) = health_test(&test, findings) {
                    check.test = test;
                    self.spec.healthcheck = Some(check);
                }
            }
            None => {
                let hint = "give the check a `test`; the image's own check keeps its own times";
                findings.warn(&at.place, "a check without `test` is not honoured", hint);
            }
        }
    }
}

/// The times of a check, without what it does.
pub(super) fn timing(fields: &mut Fields<'_>, findings: &mut Findings) -> Healthcheck {
    let mut check = DEFAULTS;
    let times = [
        ("interval", &mut check.interval_ms),
        ("timeout", &mut check.timeout_ms),
        ("start_period", &mut check.start_period_ms),
        ("start_interval", &mut check.start_interval_ms),
    ];
    for (key, slot) in times {
        let Some(at) = fields.take(key) else { continue };
        match at.duration_ms(findings) {
            // Zero means the default in docker, except for the start period, whose default is zero.
            Some(0) | None => {}
            Some(ms) => *slot = ms,
        }
    }
    if let Some(retries) = fields.take("retries").and_then(|at| at.whole_u32(0, RETRIES_MAX, findings)) {
        check.retries = if retries == 0 { DEFAULTS.retries } else { retries };
    }
    check
}

fn health_test(at: &At<'_>, findings: &mut Findings) -> Option<HealthTest> {
    if !at.is_list() {
        let line = at.filled_text(findings)?;
        return Some(if line == "NONE" { HealthTest::None } else { HealthTest::Shell(line.to_string()) });
    }
    let words = at.texts(findings);
    let hint = "write `[CMD, program, argument]`, `[CMD-SHELL, line]` or `[NONE]`";
    match words.split_first() {
        Some((first, _)) if first == "NONE" => Some(HealthTest::None),
        Some((first, rest)) if first == "CMD" && !rest.is_empty() => Some(HealthTest::Command(rest.to_vec())),
        Some((first, rest)) if first == "CMD-SHELL" && !rest.is_empty() => Some(HealthTest::Shell(rest.join(" "))),
        Some((first, _)) if first == "CMD" || first == "CMD-SHELL" => {
            findings.error(&at.place, format!("nothing follows `{first}`"), hint);
            None
        }
        Some((first, _)) => {
            findings.error(
                &at.place,
                format!("a check's list starts with CMD, CMD-SHELL or NONE, not `{}`", shortened(first)),
                hint,
            );
            None
        }
        None => {
            findings.error(&at.place, "the check's list is empty", hint);
            None
        }
    }
}
