//! How a program ended, in words that whoever wrote it understands.

use crate::order::Limits;
use sandbox::{Outcome, Verdict};
use wire::run::{Ended, RunVerdict};

/// What a signal says to people. What is not here is called by its number.
const SIGNALS: [(i32, &str, &str); 14] = [
    (1, "SIGHUP", ""),
    (2, "SIGINT", "it was interrupted"),
    (3, "SIGQUIT", ""),
    (4, "SIGILL", "it ran into something that is no instruction"),
    (5, "SIGTRAP", ""),
    (6, "SIGABRT", "it gave up by itself, as after a failed assertion"),
    (7, "SIGBUS", "it used memory that is not there"),
    (8, "SIGFPE", "it divided by zero, or the like"),
    (9, "SIGKILL", ""),
    (11, "SIGSEGV", "it used memory that is not its own"),
    (13, "SIGPIPE", "it wrote to somebody who was gone"),
    (15, "SIGTERM", "it was asked to end"),
    (25, "SIGXFSZ", "it wrote a larger file than it may"),
    (31, "SIGSYS", "it made a system call that programs here may not"),
];

/// Why a program was ended from here, if it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    No,
    /// It wrote too much.
    Output,
    /// It was asked for.
    Asked,
}

/// Verdict, words, exit code, signal.
pub(super) fn judge(outcome: &Outcome, stopped: Stopped, limits: &Limits) -> Ended {
    let (verdict, message) = match (stopped, outcome.verdict) {
        (Stopped::Output, _) | (_, Verdict::Output) => {
            (RunVerdict::TooMuchOutput, format!("it wrote more than {}", size(limits.output_bytes)))
        }
        (Stopped::Asked, Verdict::Signalled | Verdict::Exited) => (RunVerdict::Killed, "it was killed".to_owned()),
        (_, Verdict::Wall) => (RunVerdict::OutOfTime, format!("it ran longer than {}", span(limits.wall_ms))),
        (_, Verdict::Cpu) => {
            (RunVerdict::OutOfTime, format!("it used more than {} of processor time", span(limits.cpu_ms)))
        }
        (_, Verdict::Memory) => {
            (RunVerdict::OutOfMemory, format!("it used more than {} of memory", size(limits.memory_bytes)))
        }
        (Stopped::No, Verdict::Signalled) => (RunVerdict::Killed, killed_by(outcome.signal.unwrap_or(0))),
        (Stopped::No, Verdict::Exited) => match outcome.code {
            Some(0) => (RunVerdict::Finished, "it ended by itself".to_owned()),
            code => (RunVerdict::WrongExit, format!("it ended with exit code {}", code.unwrap_or(-1))),
        },
    };
    Ended {
        verdict,
        message,
        exit_code: outcome.code,
        signal: outcome.signal,
        cpu_usec: outcome.cpu_usec,
        memory_peak_bytes: outcome.memory_peak_bytes,
        ..Ended::default()
    }
}

fn killed_by(signal: i32) -> String {
    match SIGNALS.iter().find(|(number, ..)| *number == signal) {
        Some((_, name, "")) => format!("it was killed by {name}"),
        Some((_, name, meaning)) => format!("it was killed by {name}: {meaning}"),
        None => format!("it was killed by signal {signal}"),
    }
}

fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        _ if ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{} s", ms / 1_000),
        _ => format!("{:.1} s", ms as f64 / 1_000.0),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{} {name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_words_people_understand() {
        let limits = Limits {
            cpu_ms: 1_500,
            wall_ms: 60_000,
            memory_bytes: 64 << 20,
            processes: 64,
            output_bytes: 1_000,
            file_bytes: 1,
        };
        let check = |verdict: Verdict,
                     code: Option<i32>,
                     signal: Option<i32>,
                     stopped: Stopped,
                     expected: (RunVerdict, &str)| {
            let ended = judge(&Outcome { verdict, code, signal, ..Outcome::default() }, stopped, &limits);
            assert_eq!((ended.verdict, ended.message.as_str()), expected);
        };
        let (by, none) = (Stopped::Asked, Stopped::No);
        check(Verdict::Exited, Some(0), None, none, (RunVerdict::Finished, "it ended by itself"));
        check(Verdict::Exited, Some(3), None, none, (RunVerdict::WrongExit, "it ended with exit code 3"));
        check(Verdict::Wall, None, Some(9), none, (RunVerdict::OutOfTime, "it ran longer than 1 min"));
        check(Verdict::Cpu, None, Some(9), by, (RunVerdict::OutOfTime, "it used more than 1.5 s of processor time"));
        check(Verdict::Memory, None, Some(9), none, (RunVerdict::OutOfMemory, "it used more than 64 MiB of memory"));
        check(
            Verdict::Signalled,
            None,
            Some(9),
            Stopped::Output,
            (RunVerdict::TooMuchOutput, "it wrote more than 1000 bytes"),
        );
        check(Verdict::Signalled, None, Some(9), by, (RunVerdict::Killed, "it was killed"));
        check(
            Verdict::Signalled,
            None,
            Some(11),
            none,
            (RunVerdict::Killed, "it was killed by SIGSEGV: it used memory that is not its own"),
        );
        check(Verdict::Signalled, None, Some(40), none, (RunVerdict::Killed, "it was killed by signal 40"));
    }
}
