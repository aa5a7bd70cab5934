//! A second line of heartbeats under one id: a twin, or the last echo of an earlier life.
//!
//! Owns telling the two apart. A machine that was started again leaves datagrams of its former life on the way, for a
//! second or so; a twin goes on.

/// Beats of the second line that are seen before it counts as a life of its own.
const BEATS_MIN: u32 = 3;
/// And over how long: longer than echoes last, and than a freeze that is to do no harm.
const SPAN_MS: u64 = 5_000;
/// A line that stops for so long is over.
pub(crate) const PAUSE_MS: u64 = 60_000;
/// How often twins are reported while they last.
const REPORT_MS: u64 = 60_000;
/// In one generation, heartbeats so far behind are no datagrams that overtook each other: two seconds' worth where hearts
/// beat fastest.
pub(crate) const LAG_BEATS: u64 = 24;

/// What is known of a second line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) generation: u64,
    pub(crate) heartbeat: u64,
    first_ms: u64,
    /// When it beat last.
    pub(crate) beat_ms: u64,
    beats: u32,
    reported_ms: Option<u64>,
}

impl Line {
    fn new(now_ms: u64, generation: u64, heartbeat: u64) -> Line {
        Line { generation, heartbeat, first_ms: now_ms, beat_ms: now_ms, beats: 1, reported_ms: None }
    }

    /// Whether it goes on for long enough to be a machine.
    pub(crate) fn is_twin(&self) -> bool {
        self.beats >= BEATS_MIN && self.beat_ms.saturating_sub(self.first_ms) >= SPAN_MS
    }
}

/// Notes a beat of the second line. Returns true when twins are to be reported now.
pub(crate) fn note(line: &mut Option<Line>, now_ms: u64, generation: u64, heartbeat: u64) -> bool {
    let known = match line {
        Some(known) if known.generation == generation && now_ms.saturating_sub(known.beat_ms) < PAUSE_MS => known,
        Some(_) | None => {
            *line = Some(Line::new(now_ms, generation, heartbeat));
            return false;
        }
    };
    if heartbeat <= known.heartbeat {
        return false;
    }
    known.heartbeat = heartbeat;
    known.beat_ms = now_ms;
    known.beats = known.beats.saturating_add(1);
    let due = known.reported_ms.is_none_or(|at| now_ms.saturating_sub(at) >= REPORT_MS);
    if known.is_twin() && due {
        known.reported_ms = Some(now_ms);
        return true;
    }
    false
}
