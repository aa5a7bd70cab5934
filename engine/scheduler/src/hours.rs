//! When a machine may be used: minutes of its own week, and how long they go on.

use wire::resource::Hours;

const MINUTE_MS: u64 = 60_000;
const WEEK_MINUTES: u32 = 7 * 24 * 60;
/// The epoch was a Thursday.
const EPOCH_MINUTE: u64 = 3 * 24 * 60;

/// Where a machine stands in its hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Open without an end.
    Always,
    Open {
        until_ms: u64,
    },
    Closed {
        until_ms: u64,
    },
}

pub(crate) fn opening(hours: &[Hours], utc_offset_minutes: i32, now_ms: u64) -> Opening {
    if hours.is_empty() {
        return Opening::Always;
    }
    let local = (now_ms / MINUTE_MS + EPOCH_MINUTE).saturating_add_signed(i64::from(utc_offset_minutes));
    let minute = u32::try_from(local % u64::from(WEEK_MINUTES)).unwrap_or(0);
    let at = |minutes: u32| (now_ms / MINUTE_MS + u64::from(minutes)) * MINUTE_MS;
    let open = open_minutes(hours, minute);
    if open >= WEEK_MINUTES {
        return Opening::Always;
    }
    if open > 0 {
        return Opening::Open { until_ms: at(open) };
    }
    let closed = hours.iter().filter(|span| length(span) > 0).map(|span| ahead(minute, span.from_minute)).min();
    Opening::Closed { until_ms: at(closed.unwrap_or(WEEK_MINUTES)) }
}

/// For how many minutes it goes on being open; spans that touch are one.
fn open_minutes(hours: &[Hours], minute: u32) -> u32 {
    let mut open = 0;
    // Each span can lengthen it once, and the first once more when they go round the week.
    for _ in 0..=hours.len() {
        let at = (minute + open) % WEEK_MINUTES;
        let within = hours.iter().filter(|span| ahead(span.from_minute, at) < length(span));
        let Some(longest) = within.map(|span| length(span) - ahead(span.from_minute, at)).max() else { break };
        open += longest;
        if open >= WEEK_MINUTES {
            return WEEK_MINUTES;
        }
    }
    open
}

fn length(span: &Hours) -> u32 {
    let minutes = ahead(span.from_minute, span.to_minute);
    if minutes == 0 && span.from_minute != span.to_minute { WEEK_MINUTES } else { minutes }
}

/// Minutes from one minute of the week to the next time it is another.
fn ahead(from: u32, to: u32) -> u32 {
    (to % WEEK_MINUTES + WEEK_MINUTES - from % WEEK_MINUTES) % WEEK_MINUTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u32 = 60;
    /// Monday, 1970-01-05, 00:00 UTC.
    const MONDAY_MS: u64 = 4 * 24 * 3_600_000;

    fn check(spans: &[(u32, u32)], offset: i32, minute: u32, expected: Opening) {
        let hours: Vec<Hours> = spans.iter().map(|(from, to)| Hours { from_minute: *from, to_minute: *to }).collect();
        let now_ms = MONDAY_MS + u64::from(minute) * MINUTE_MS + 17;
        assert_eq!(opening(&hours, offset, now_ms), expected, "{spans:?} at {minute}");
    }

    fn at(minute: u32) -> u64 {
        MONDAY_MS + u64::from(minute) * MINUTE_MS
    }

    #[test]
    fn a_night_is_open_until_its_end_and_closed_until_it_begins() {
        let night = [(18 * HOUR, 24 * HOUR), (24 * HOUR, 30 * HOUR)];
        check(&[], 0, 0, Opening::Always);
        check(&night, 0, 20 * HOUR, Opening::Open { until_ms: at(30 * HOUR) });
        check(&night, 0, 12 * HOUR, Opening::Closed { until_ms: at(18 * HOUR) });
        check(&night, 120, 16 * HOUR, Opening::Open { until_ms: at(28 * HOUR) });
    }

    #[test]
    fn spans_go_round_the_week() {
        let weekend = [(6 * 24 * HOUR, 8 * HOUR)];
        check(&weekend, 0, 7 * HOUR, Opening::Open { until_ms: at(8 * HOUR) });
        check(&weekend, 0, 8 * HOUR, Opening::Closed { until_ms: at(6 * 24 * HOUR) });
        check(&[(0, 5 * 24 * HOUR), (4 * 24 * HOUR, 10)], 0, 99, Opening::Always);
    }
}
