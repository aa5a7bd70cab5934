//! What was read off many runs of each proxy, and the rows that compare ours with the others'.

use super::super::figures::median;
use super::super::report::{Goal, Row};

/// What is read off one run.
pub(super) struct Figure<T> {
    /// Added to the load's name.
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    pub(super) of: fn(&T) -> f64,
    /// Beside whom there is a goal.
    pub(super) judged: Option<(&'static str, Goal)>,
}

/// One figure of all runs.
pub(super) struct Series {
    name: String,
    unit: &'static str,
    judged: Option<(&'static str, Goal)>,
    /// For each proxy, in their order.
    pub(super) values: Vec<Vec<f64>>,
}

impl Series {
    pub(super) fn new<T>(name: String, figure: &Figure<T>, proxies: usize) -> Series {
        Series { name, unit: figure.unit, judged: figure.judged, values: vec![Vec::new(); proxies] }
    }

    /// Ours, the first, beside each of the others.
    fn rows(&self, names: &[&str]) -> Vec<Row> {
        // No figure reaches no goal.
        let middle = |values: &Vec<f64>| if values.is_empty() { f64::NAN } else { median(values) };
        let mut medians = self.values.iter().map(middle);
        let Some(ours) = medians.next() else { return Vec::new() };
        let row = |goal| Row::new(self.name.clone(), self.unit, ours, goal);
        let beside = |(name, theirs): (&&str, f64)| match self.judged {
            Some((judged, goal)) if judged == *name => row(goal).beside(*name, theirs),
            Some(_) | None => row(Goal::None).beside(*name, theirs),
        };
        let rows: Vec<Row> = names.iter().skip(1).zip(medians).map(beside).collect();
        if rows.is_empty() { vec![row(Goal::None)] } else { rows }
    }
}

pub(super) fn rows(names: &[&str], all: &[Series]) -> Vec<Row> {
    all.iter().flat_map(|series| series.rows(names)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_stands_beside_each_that_was_there() {
        const RATE: Figure<f64> =
            Figure { what: "", unit: "1/s", of: |value| *value, judged: Some(("b", Goal::LeastTimesPeer(1.0))) };
        let check = |names: &[&str], values: &[&[f64]], expected: &[(f64, Option<f64>, bool)]| {
            let mut series = Series::new("rate".to_owned(), &RATE, names.len());
            series.values = values.iter().map(|values| values.to_vec()).collect();
            let rows = rows(names, &[series]);
            let found: Vec<_> =
                rows.iter().map(|row| (row.ours, row.peer.as_ref().map(|peer| peer.0), row.holds)).collect();
            assert_eq!(found, expected);
        };
        check(&["ours"], &[&[1.0, 3.0, 2.0]], &[(2.0, None, true)]);
        check(&["ours", "b"], &[&[2.0], &[3.0]], &[(2.0, Some(3.0), false)]);
        check(&["ours", "a", "b"], &[&[2.0], &[3.0], &[2.0]], &[(2.0, Some(3.0), true), (2.0, Some(2.0), true)]);
    }
}
