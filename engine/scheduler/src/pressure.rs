//! Whether a machine is under more pressure than its owner allows: not at the first peak, and not over with the first calm.
//!
//! Goes by the times of the machine's reports, so that the same reports lead to the same state whenever they are read.

use wire::resource::{Considerate, Load};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pressure {
    #[default]
    Calm,
    /// Above the bound, not yet for long.
    Rising { since_ms: u64 },
    /// Work moves away.
    Pressed { since_ms: u64 },
    /// Was pressed, and is at half of the bound or below, not yet for long.
    Easing { pressed_since_ms: u64, since_ms: u64 },
}

impl Pressure {
    /// Whether one is another state than the other, however long either lasts.
    pub fn differs_from(self, other: Pressure) -> bool {
        std::mem::discriminant(&self) != std::mem::discriminant(&other)
    }

    /// What one more report makes of it.
    #[must_use]
    pub fn next(self, load: &Load, bounds: &Considerate) -> Pressure {
        let now_ms = load.at_ms;
        let above = load.psi_percent > bounds.psi_percent_max;
        let below = load.psi_percent <= bounds.psi_percent_max / 2;
        let passed = |since_ms: u64, long_ms: u64| now_ms >= since_ms.saturating_add(long_ms);
        match self {
            Pressure::Calm if above => Pressure::Rising { since_ms: now_ms },
            Pressure::Calm => Pressure::Calm,
            Pressure::Rising { .. } if !above => Pressure::Calm,
            Pressure::Rising { since_ms } if passed(since_ms, bounds.hold_ms) => Pressure::Pressed { since_ms: now_ms },
            Pressure::Pressed { since_ms } if below => {
                Pressure::Easing { pressed_since_ms: since_ms, since_ms: now_ms }
            }
            Pressure::Easing { pressed_since_ms, .. } if !below => Pressure::Pressed { since_ms: pressed_since_ms },
            Pressure::Easing { since_ms, .. } if passed(since_ms, bounds.calm_ms) => Pressure::Calm,
            Pressure::Rising { .. } | Pressure::Pressed { .. } | Pressure::Easing { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_moves_nothing_and_a_lull_ends_nothing() {
        let bounds = Considerate::default();
        let mut pressure = Pressure::Calm;
        let mut report = |at_ms: u64, psi_percent: u32| {
            pressure = pressure.next(&Load { at_ms, psi_percent, ..Load::default() }, &bounds);
            pressure
        };
        assert_eq!(report(0, 90), Pressure::Rising { since_ms: 0 });
        assert_eq!(report(10_000, 3), Pressure::Calm);
        assert_eq!(report(20_000, 21), Pressure::Rising { since_ms: 20_000 });
        assert_eq!(report(50_000, 21), Pressure::Pressed { since_ms: 50_000 });
        assert_eq!(report(60_000, 15), Pressure::Pressed { since_ms: 50_000 });
        assert_eq!(report(70_000, 10), Pressure::Easing { pressed_since_ms: 50_000, since_ms: 70_000 });
        assert_eq!(report(80_000, 11), Pressure::Pressed { since_ms: 50_000 });
        assert_eq!(report(90_000, 0), Pressure::Easing { pressed_since_ms: 50_000, since_ms: 90_000 });
        assert_eq!(report(210_000, 0), Pressure::Calm);
    }
}
