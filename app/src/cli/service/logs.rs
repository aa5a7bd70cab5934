//! `service logs`, also `logs`.

use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, encoded};
use crate::cli::shown;
use clap::Args;
use reqwest::Method;
use std::io::Write;
use std::process::ExitCode;
use wire::api::LogLine;

#[derive(Args)]
pub struct Arguments {
    /// The service, as STACK/SERVICE or by a name only one stack has
    service: String,
    /// Go on with new lines as they are written
    #[arg(short, long)]
    follow: bool,
    /// Only lines from then on: `10m`, `2h`, `1d`, or a time as 2026-11-20T18:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines with this text; `/…/` is a regular expression
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only the newest so many lines
    #[arg(long, short = 'n', value_name = "LINES")]
    tail: Option<usize>,
}

pub(crate) async fn run(remote: &Remote, arguments: Arguments) -> Result<ExitCode, Failure> {
    let mut query = vec![format!("follow={}", arguments.follow)];
    if let Some(since) = &arguments.since {
        query.push(format!("since_ms={}", since_ms(since, world::clock::unix_ms())?));
    }
    if let Some(grep) = &arguments.grep {
        query.push(format!("grep={}", encoded(grep)));
    }
    query.extend(arguments.tail.map(|tail| format!("tail={tail}")));
    let path = format!("{}/logs?{}", super::path(remote, &arguments.service).await?, query.join("&"));
    let json = remote.json;
    let mut out = std::io::stdout().lock();
    let each = move |line: LogLine| {
        let written = if json {
            let text = serde_json::to_string(&line).expect("a log line is plain data");
            writeln!(out, "{text}")
        } else {
            let stream = if line.stream == "bramble" { " bramble:" } else { "" };
            writeln!(out, "{} {}{stream} {}", shown::time(line.time_ms), line.instance, line.line)
        };
        // Whoever reads us may have had enough.
        written.and_then(|()| out.flush()).is_ok()
    };
    remote.lines(Method::GET, &path, None::<&()>, each).await?;
    Ok(ExitCode::SUCCESS)
}

/// A duration before `now_ms`, or a point in time.
pub(crate) fn since_ms(text: &str, now_ms: u64) -> Result<u64, Failure> {
    let wrong = || Failure::usage(format!("{text:?} is not a time")).hint("write 10m, 2h, 1d or 2026-11-20T18:00:00Z");
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return u64::try_from(at.as_millisecond()).map_err(|_| wrong());
    }
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    Ok(now_ms.saturating_sub(count.saturating_mul(seconds).saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(since_ms(text, 1_000_000_000).ok(), expected, "{text}");
        check("10s", Some(999_990_000));
        check("2h", Some(992_800_000));
        check("1970-01-01T00:00:01Z", Some(1_000));
        for wrong in ["", "h", "10", "10y", "-1s", "é"] {
            check(wrong, None);
        }
    }
}
