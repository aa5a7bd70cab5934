//! `gateway trace`.

use super::{outcome, span};
use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, encoded};
use crate::cli::shown;
use clap::Args;
use reqwest::Method;
use serde::Serialize;
use std::process::ExitCode;
use wire::api::RequestRecord;
use wire::run::{RunRecord, Times};

/// Of a trace's runs, the last so many are drawn: of a batch there are a thousand. As JSON there are as many as a node
/// lists at once, but one.
const RUNS_DRAWN: usize = 50;
const RUNS_MAX: usize = 999;
/// How wide the whole of a trace is drawn.
const COLUMNS: u64 = 40;

#[derive(Args)]
pub struct Arguments {
    /// The trace: 32 digits, as `gateway log` and `x-request-id` have it
    trace: String,
}

/// All that is told of a trace.
#[derive(Serialize)]
struct Told {
    requests: Vec<RequestRecord>,
    runs: Vec<RunRecord>,
}

/// What took how long, from when on.
struct Stretch {
    from_us: u64,
    length_us: u64,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let trace = encoded(&arguments.trace);
    let mut requests: Vec<RequestRecord> = Vec::new();
    let each = |record| {
        requests.push(record);
        true
    };
    remote.lines(Method::GET, &format!("/v1/gateway/requests?trace={trace}"), None::<&()>, each).await?;
    let most = if remote.json { RUNS_MAX } else { RUNS_DRAWN };
    let mut runs: Vec<RunRecord> = remote.get(&format!("/v1/runs?trace={trace}&limit={}", most + 1)).await?;
    // The last ones come first.
    if runs.len() > most {
        eprintln!("the last {most} runs of this trace; there are more");
        runs.truncate(most);
    }
    requests.sort_by_key(|record| record.time_ms);
    runs.sort_by_key(|run| (asked_us(run), run.id.clone()));
    if remote.json {
        shown::json(&Told { requests, runs });
        return Ok(ExitCode::SUCCESS);
    }
    if requests.is_empty() && runs.is_empty() {
        return Err(Failure::local(format!("nothing is told of trace {}", arguments.trace)).hint(
            "requests are told of when they fail, are slow, belong to the sample, or ask for it: see `access_log`; runs always are",
        ));
    }
    let all = requests.iter().map(of_request).chain(runs.iter().map(of_run));
    let (from_us, to_us) = all.fold((u64::MAX, 0), |(from, to), Stretch { from_us, length_us }| {
        (from.min(from_us), to.max(from_us + length_us))
    });
    let scale = Scale { from_us, whole_us: to_us.saturating_sub(from_us).max(1) };
    requests.iter().for_each(|record| show_request(record, &scale));
    runs.iter().for_each(|run| show_run(run, &scale));
    Ok(ExitCode::SUCCESS)
}

fn of_request(record: &RequestRecord) -> Stretch {
    Stretch { from_us: record.time_ms * 1_000, length_us: record.split.total_us }
}

fn show_request(record: &RequestRecord, scale: &Scale) {
    println!("{} {} {}{}", shown::time(record.time_ms), record.method, record.host, record.path);
    let split = &record.split;
    let parts = [
        ("wait", split.queue_us),
        (if record.reused { "reuse" } else { "connect" }, split.connect_us),
        ("first byte", split.answer_us),
        ("body", split.body_us),
    ];
    scale.show("request", of_request(record), &parts);
    println!("  {:<12} {} after {}", "end", outcome(record), span(split.total_us));
    let at = if record.instance.is_empty() { &record.service } else { &record.instance };
    println!("  {:<12} {at}, {} in, {} out", "at", shown::size(record.bytes_in), shown::size(record.bytes_out));
    for retry in &record.retries {
        println!("  {:<12} {}: {}", "failed", retry.instance, retry.why);
    }
}

/// When it was asked for: its worker tells when it took it up.
fn asked_us(run: &RunRecord) -> u64 {
    (run.began_ms * 1_000).saturating_sub(run.times.queue_usec + run.times.place_usec)
}

fn parts(run: &RunRecord) -> [(&'static str, u64); 5] {
    let Times { queue_usec, place_usec, box_usec, compile_usec, run_usec } = run.times;
    [("wait", queue_usec), ("place", place_usec), ("box", box_usec), ("compile", compile_usec), ("program", run_usec)]
}

fn of_run(run: &RunRecord) -> Stretch {
    Stretch { from_us: asked_us(run), length_us: parts(run).iter().map(|(_, part_us)| part_us).sum() }
}

fn show_run(run: &RunRecord, scale: &Scale) {
    println!("{} run {} ({})", shown::time(asked_us(run) / 1_000), run.id, run.language);
    scale.show("run", of_run(run), &parts(run));
    let verdict = run.verdict.map_or("it runs", |verdict| verdict.as_str());
    println!("  {:<12} {verdict}, worker {} of {}", "end", run.worker, run.node);
}

/// The whole of a trace.
struct Scale {
    from_us: u64,
    whole_us: u64,
}

impl Scale {
    /// The whole of something, and those of its parts that took any time.
    fn show(&self, name: &str, Stretch { mut from_us, length_us }: Stretch, parts: &[(&str, u64)]) {
        self.line(name, from_us, length_us);
        for (name, part_us) in parts {
            if *part_us > 0 {
                self.line(name, from_us, *part_us);
            }
            from_us += part_us;
        }
    }

    fn line(&self, name: &str, from_us: u64, length_us: u64) {
        println!("  {name:<12} {} {}", bar(from_us - self.from_us, length_us, self.whole_us), span(length_us));
    }
}

/// A stretch of the whole, at its place.
fn bar(from_us: u64, length_us: u64, whole_us: u64) -> String {
    let column = |us: u64| usize::try_from(us.min(whole_us) * COLUMNS / whole_us).unwrap_or(0);
    let (from, to) = (column(from_us), column(from_us + length_us));
    let width = usize::try_from(COLUMNS).unwrap_or(0);
    let from = from.min(width - 1);
    let to = to.clamp(from + 1, width);
    format!("|{}{}{}|", " ".repeat(from), "=".repeat(to - from), " ".repeat(width - to))
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn a_stretch_is_at_its_place() {
        let check = |from, length, expected: (usize, usize)| {
            let bar = bar(from, length, 1_000);
            assert_eq!((bar.find('=').unwrap() - 1, bar.matches('=').count(), bar.len()), (expected.0, expected.1, 42));
        };
        check(0, 1_000, (0, 40));
        check(500, 250, (20, 10));
        check(1_000, 0, (39, 1));
        check(999, 5_000, (39, 1));
    }
}
