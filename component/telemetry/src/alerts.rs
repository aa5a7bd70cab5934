//! Alerts: what is wrong now, from the series alone.
//!
//! Owns the machine that takes `now` and the series and says what began and what ended; rules are data
//! ([`Rule`]), those built in are in `rules`. Reads no clock and tells nobody: its owner logs and counts.
//! Promises that an alert fires only after its condition held without a break for as long as its rule says,
//! and that the number of alerts is bounded.

mod expression;
mod rules;

pub use expression::{Expression, Match, Select};
pub use rules::built_in;

use crate::series::Store;
use crate::unit::Unit;
use std::collections::BTreeMap;
use wire::api::Alert;

/// Most conditions held at a time. Beyond it something is wrong with everything, and a longer list would
/// not help anyone see what.
pub const ALERTS_MAX: usize = 1_000;

/// One thing to watch for.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Lower case with underscores, as a metric's label.
    pub name: &'static str,
    /// What is wrong and what to do about it. `{value}` and `{<label>}` are filled in.
    pub summary: &'static str,
    pub expression: Expression,
    /// The labels an alert is about; series that differ in others are taken together.
    pub by: &'static [&'static str],
    pub holds: Holds,
    /// How long it must hold before it fires.
    pub for_ms: u64,
    pub unit: Unit,
}

/// When a value is bad.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Holds {
    Above(f64),
    AtLeast(f64),
    Below(f64),
}

impl Holds {
    fn holds(self, value: f64) -> bool {
        match self {
            Holds::Above(bound) => value > bound,
            // What was sampled as a share of a whole may miss it by a rounding.
            Holds::AtLeast(bound) => value >= bound - 1e-6,
            Holds::Below(bound) => value < bound,
        }
    }
}

/// What a step found.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Fired(Alert),
    Resolved(Alert),
}

pub(crate) type AlertLabels = BTreeMap<String, String>;

/// The machine.
#[derive(Debug)]
pub struct Alerts {
    rules: Vec<Rule>,
    /// By rule and labels.
    held: BTreeMap<(usize, AlertLabels), Held>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    since_ms: u64,
    firing: bool,
    value: f64,
}

impl Alerts {
    pub fn new(rules: Vec<Rule>) -> Alerts {
        Alerts { rules, held: BTreeMap::new() }
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Judges the series, last recorded at `now_ms`; says what began to fire and what ended.
    pub fn step(&mut self, now_ms: u64, store: &Store) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut before = std::mem::take(&mut self.held);
        for (at, rule) in self.rules.iter().enumerate() {
            for (labels, value) in rule.expression.evaluate(store, rule.by) {
                if !rule.holds.holds(value) || self.held.len() >= ALERTS_MAX {
                    continue;
                }
                let key = (at, labels);
                let mut held = before.remove(&key).unwrap_or(Held { since_ms: now_ms, firing: false, value });
                // A clock set back must not put off an alert for as long as it was set back.
                held.since_ms = held.since_ms.min(now_ms);
                held.value = value;
                if !held.firing && now_ms - held.since_ms >= rule.for_ms {
                    held.firing = true;
                    changes.push(Change::Fired(alert(rule, &key.1, held)));
                }
                self.held.insert(key, held);
            }
        }
        for ((at, labels), held) in before {
            if held.firing {
                let ended = Held { firing: false, ..held };
                changes.push(Change::Resolved(alert(&self.rules[at], &labels, ended)));
            }
        }
        changes
    }

    /// What fires, and what holds but not for long enough yet; the former first.
    pub fn list(&self) -> Vec<Alert> {
        let held = self.held.iter();
        let mut list: Vec<Alert> = held.map(|((at, labels), held)| alert(&self.rules[*at], labels, *held)).collect();
        list.sort_by_key(|alert| !alert.firing);
        list
    }

    /// How many fire, for each rule.
    pub fn firing(&self) -> Vec<(&'static str, usize)> {
        let count = |at| self.held.iter().filter(|((rule, _), held)| *rule == at && held.firing).count();
        self.rules.iter().enumerate().map(|(at, rule)| (rule.name, count(at))).collect()
    }
}

fn alert(rule: &Rule, labels: &AlertLabels, held: Held) -> Alert {
    let mut summary = rule.summary.replace("{value}", &rule.unit.show(held.value));
    for (name, value) in labels {
        summary = summary.replace(&format!("{{{name}}}"), value);
    }
    Alert {
        name: rule.name.to_owned(),
        labels: labels.clone(),
        summary,
        firing: held.firing,
        since_ms: held.since_ms,
        value: held.value,
    }
}
