//! `gateway trace`.

use super::{outcome, span};
use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, encoded};
use crate::cli::shown;
use clap::Args;
use reqwest::Method;
use std::process::ExitCode;
use wire::api::RequestRecord;

/// How wide the whole of a trace is drawn.
const COLUMNS: u64 = 40;

#[derive(Args)]
pub struct Arguments {
    /// The trace: 32 digits, as `gateway log` and `x-request-id` have it
    trace: String,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let path = format!("/v1/gateway/requests?trace={}", encoded(&arguments.trace));
    let mut records: Vec<RequestRecord> = Vec::new();
    let each = |record| {
        records.push(record);
        true
    };
    remote.lines(Method::GET, &path, None::<&()>, each).await?;
    if remote.json {
        shown::json(&records);
        return Ok(ExitCode::SUCCESS);
    }
    if records.is_empty() {
        return Err(Failure::local(format!("nothing is told of trace {}", arguments.trace)).hint(
            "requests are told of when they fail, are slow, belong to the sample, or ask for it: see `access_log`",
        ));
    }
    records.sort_by_key(|record| record.time_ms);
    let first_ms = records.iter().map(|record| record.time_ms).min().unwrap_or(0);
    let end = |record: &RequestRecord| (record.time_ms - first_ms) * 1_000 + record.split.total_us;
    let whole_us = records.iter().map(end).max().unwrap_or(1).max(1);
    for record in &records {
        println!("{} {} {}{}", shown::time(record.time_ms), record.method, record.host, record.path);
        let mut at_us = (record.time_ms - first_ms) * 1_000;
        println!("  {:<12} {} {}", "request", bar(at_us, record.split.total_us, whole_us), span(record.split.total_us));
        let split = &record.split;
        let parts = [
            ("wait", split.queue_us),
            (if record.reused { "reuse" } else { "connect" }, split.connect_us),
            ("first byte", split.answer_us),
            ("body", split.body_us),
        ];
        for (name, part_us) in parts {
            if part_us > 0 {
                println!("  {name:<12} {} {}", bar(at_us, part_us, whole_us), span(part_us));
            }
            at_us += part_us;
        }
        println!("  {:<12} {} after {}", "end", outcome(record), span(split.total_us));
        let at = if record.instance.is_empty() { &record.service } else { &record.instance };
        println!("  {:<12} {at}, {} in, {} out", "at", shown::size(record.bytes_in), shown::size(record.bytes_out));
        for retry in &record.retries {
            println!("  {:<12} {}: {}", "failed", retry.instance, retry.why);
        }
    }
    Ok(ExitCode::SUCCESS)
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
