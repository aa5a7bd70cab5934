//! How soon the work of two services ends whose client has left.

use super::figures::{median, milliseconds};
use super::report::{Goal, Row};
use super::{Measured, Options};
use lab::{Node, leaving};

const TIMES: usize = 50;
/// Milliseconds in which the work has ended, seen from the client.
const GOAL_MS: f64 = 100.0;

pub(super) fn run(_options: &Options) -> Measured {
    let node = Node::start();
    leaving::deploy(&node);
    let mut rows = Vec::new();
    for (what, speaks) in [("before an answer", false), ("within an answer", true)] {
        let after = |at| {
            let trace = format!("{:032x}", 1 + at * 2 + usize::from(speaks));
            milliseconds(leaving::leave(&node, &trace, speaks).stopped_after)
        };
        let all: Vec<f64> = (0..TIMES).map(after).collect();
        let longest = all.iter().copied().fold(0.0, f64::max);
        rows.push(Row::new(format!("work ends, client left {what}: median"), "ms", median(&all), Goal::Below(GOAL_MS)));
        rows.push(Row::new(format!("work ends, client left {what}: longest"), "ms", longest, Goal::Below(GOAL_MS)));
    }
    Measured::Rows(rows)
}
