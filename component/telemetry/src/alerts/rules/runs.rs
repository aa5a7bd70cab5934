//! What is wrong with code that people hand in.

use super::{MINUTE_MS, RECENT_MS};
use crate::alerts::{Expression, Holds, Match, Rule, Select};
use crate::unit::Unit;

/// All of them.
pub(super) fn rules() -> Vec<Rule> {
    [code(), boxes()].into_iter().flatten().collect()
}

/// The code, and the processes it is run by.
fn code() -> Vec<Rule> {
    vec![
        Rule {
            name: "workers_missing",
            summary: "{value} of the processes that code is run in are missing: they end as soon as they are started; the \
                      node's log says why",
            expression: Expression::Shortfall {
                wanted: Select::all("bramble_workers_wanted"),
                present: Select::all("bramble_workers"),
                within_ms: RECENT_MS,
            },
            by: &[],
            holds: Holds::AtLeast(1.0),
            // One that ended is there again within a second.
            for_ms: 10_000,
            unit: Unit::Count,
        },
        Rule {
            name: "workers_ending",
            summary: "{value} processes that code is run in ended or hung in five minutes, with all they ran: the node's log \
                      says which; is the machine short of memory?",
            expression: Expression::Growth { of: Select::all("bramble_workers_lost_total"), over_ms: 5 * MINUTE_MS },
            by: &[],
            holds: Holds::AtLeast(3.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "runs_waiting",
            summary: "{value} runs wait, and have for a minute: the machines that run code are busy; add one, or give runs \
                      less time",
            expression: Expression::Latest { of: Select::all("bramble_runs_waiting"), within_ms: RECENT_MS },
            by: &[],
            // A class that presses the button at once is gone in seconds.
            holds: Holds::AtLeast(20.0),
            for_ms: MINUTE_MS,
            unit: Unit::Count,
        },
        Rule {
            name: "runs_lost",
            summary: "{value} runs were lost in five minutes: their worker or machine was gone",
            expression: Expression::Growth {
                of: Select { name: "bramble_runs_total", labels: &[("verdict", Match::Is("lost"))] },
                over_ms: 5 * MINUTE_MS,
            },
            by: &[],
            holds: Holds::AtLeast(10.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "run_buddy_silent",
            summary: "the other assigner of this machine's pair did not answer {value} times in a minute when it was told of a \
                      run: were this machine lost now, its clients' runs would be looked for at every machine",
            expression: Expression::Growth { of: Select::all("bramble_run_buddies_unheard_total"), over_ms: MINUTE_MS },
            by: &[],
            // One that is lost is replaced within seconds; until then some runs are not told of.
            holds: Holds::AtLeast(20.0),
            for_ms: 0,
            unit: Unit::Count,
        },
    ]
}

/// What code that people hand in is run in.
fn boxes() -> Vec<Rule> {
    vec![
        Rule {
            name: "run_boxes_given_up",
            summary: "{value} of the boxes of ten minutes could not be used again: their programs leave something behind, or \
                      fill their memory; each is built anew, and fewer runs begin a second",
            expression: Expression::Ratio {
                part: Select::all("bramble_run_boxes_given_up_total"),
                whole: Select::all("bramble_run_boxes_total"),
                over_ms: 10 * MINUTE_MS,
                // One person who tries things out makes no difference to others.
                whole_min: 200.0,
            },
            by: &[],
            holds: Holds::Above(0.5),
            for_ms: 0,
            unit: Unit::Share,
        },
        Rule {
            name: "language_copy_failing",
            summary: "languages could not be copied {value} times in ten minutes, so nothing can be run in them here: the node's \
                      log says why",
            expression: Expression::Growth {
                of: Select { name: "bramble_language_copies_total", labels: &[("result", Match::Is("failed"))] },
                over_ms: 10 * MINUTE_MS,
            },
            by: &[],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
    ]
}
