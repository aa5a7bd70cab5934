//! Units of what is measured, and how a person reads them.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Something counted.
    Count,
    /// 0 to 1, shown as per cent.
    Share,
    Bytes,
    BytesPerSecond,
    Seconds,
    PerSecond,
    Cores,
}

impl Unit {
    /// `value` as a person reads it.
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Count => short(value),
            Unit::Share => format!("{} %", short(value * 100.0)),
            Unit::Bytes => bytes(value),
            Unit::BytesPerSecond => format!("{}/s", bytes(value)),
            Unit::Seconds if value.abs() < 1.0 => format!("{} ms", short(value * 1_000.0)),
            Unit::Seconds => format!("{} s", short(value)),
            Unit::PerSecond => format!("{}/s", short(value)),
            Unit::Cores => format!("{} cores", short(value)),
        }
    }
}

/// One digit behind the point, unless it is zero.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn bytes(value: f64) -> String {
    const STEPS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut left = value;
    let mut step = 0;
    while left.abs() >= 1_024.0 && step + 1 < STEPS.len() {
        left /= 1_024.0;
        step += 1;
    }
    format!("{} {}", short(left), STEPS[step])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_for_people() {
        let check = |unit: Unit, value, expected: &str| assert_eq!(unit.show(value), expected);
        check(Unit::Count, 3.0, "3");
        check(Unit::Share, 0.0525, "5.2 %");
        check(Unit::Bytes, 0.0, "0 B");
        check(Unit::Bytes, 83_886_080.0, "80 MiB");
        check(Unit::Bytes, 1e18, "909494.7 TiB");
        check(Unit::BytesPerSecond, 2_048.0, "2 KiB/s");
        check(Unit::Seconds, 0.25, "250 ms");
        check(Unit::Seconds, 90.0, "90 s");
        check(Unit::PerSecond, 0.5, "0.5/s");
        check(Unit::Cores, 1.25, "1.2 cores");
    }
}
