//! What a rule computes from the series. Pure: series in, one value per group of labels out; the present is
//! the newest sample.

use super::AlertLabels;
use crate::series::{Store, View};
use std::collections::BTreeMap;

/// Which series: by name, and by what their labels say. A histogram's quantile is a label (`quantile`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Select {
    pub name: &'static str,
    pub labels: &'static [(&'static str, Match)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Is(&'static str),
    Begins(&'static str),
}

/// A value per group. Series of one group are added up, quantiles and all: group by what tells them apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expression {
    /// The newest value, if there was one within `within_ms`.
    Latest { of: Select, within_ms: u64 },
    /// How much a counter grew.
    Growth { of: Select, over_ms: u64 },
    /// The growth of a part by that of the whole; nothing where the whole grew by less than `whole_min`,
    /// since one failure of two requests is no trend.
    Ratio { part: Select, whole: Select, over_ms: u64, whole_min: f64 },
    /// The newest value of a part by that of the whole.
    Share { part: Select, whole: Select, within_ms: u64 },
    /// How much the newest value of one is below that of another; none of it counts as zero.
    Shortfall { wanted: Select, present: Select, within_ms: u64 },
}

impl Select {
    pub const fn all(name: &'static str) -> Select {
        Select { name, labels: &[] }
    }

    fn takes(&self, view: View<'_>) -> bool {
        self.labels.iter().all(|(name, wanted)| {
            view.label(name).is_some_and(|label| match wanted {
                Match::Is(value) => label == *value,
                Match::Begins(begin) => label.starts_with(begin),
            })
        })
    }
}

type Groups = BTreeMap<AlertLabels, f64>;

impl Expression {
    pub(crate) fn evaluate(&self, store: &Store, by: &[&str]) -> Groups {
        let latest = |select: &Select, within_ms| groups(store, select, by, &|view| store.latest(view, within_ms));
        let growth = |select: &Select, over_ms| groups(store, select, by, &|view| Some(store.growth(view, over_ms)));
        match self {
            Expression::Latest { of, within_ms } => latest(of, *within_ms),
            Expression::Growth { of, over_ms } => growth(of, *over_ms),
            Expression::Ratio { part, whole, over_ms, whole_min } => {
                let part = growth(part, *over_ms);
                let mut whole = growth(whole, *over_ms);
                whole.retain(|_, grown| *grown >= *whole_min);
                divide(&part, whole)
            }
            Expression::Share { part, whole, within_ms } => {
                let part = latest(part, *within_ms);
                let mut whole = latest(whole, *within_ms);
                // Of nothing there is no share, and of what is not reported none is known.
                whole.retain(|labels, value| *value > 0.0 && part.contains_key(labels));
                divide(&part, whole)
            }
            Expression::Shortfall { wanted, present, within_ms } => {
                let present = latest(present, *within_ms);
                let mut wanted = latest(wanted, *within_ms);
                for (labels, value) in &mut wanted {
                    *value -= present.get(labels).copied().unwrap_or(0.0);
                }
                wanted
            }
        }
    }
}

fn divide(part: &Groups, mut whole: Groups) -> Groups {
    for (labels, value) in &mut whole {
        *value = part.get(labels).copied().unwrap_or(0.0) / *value;
    }
    whole
}

fn groups(store: &Store, select: &Select, by: &[&str], value: &dyn Fn(View<'_>) -> Option<f64>) -> Groups {
    let mut groups = Groups::new();
    store.each(select.name, &mut |view| {
        if select.takes(view)
            && let Some(value) = value(view)
        {
            let label = |name: &&str| Some(((*name).to_owned(), view.label(name)?.to_owned()));
            *groups.entry(by.iter().filter_map(label).collect()).or_insert(0.0) += value;
        }
    });
    groups
}
