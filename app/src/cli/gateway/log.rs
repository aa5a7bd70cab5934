//! `gateway log`.

use super::{outcome, span};
use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, encoded};
use crate::cli::service::logs::since_ms;
use crate::cli::shown;
use clap::Args;
use reqwest::Method;
use std::io::Write;
use std::process::ExitCode;
use wire::api::RequestRecord;

#[derive(Args)]
pub struct Arguments {
    /// Only requests to this service, as STACK/SERVICE
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only those of a route, as HOST/PATH
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Only those an instance was asked
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// Only those of a client, by address
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// Only those answered so: 404, 5xx, or gone where the client left first
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only those that took as long: 500ms, 2s
    #[arg(long, value_name = "TIME")]
    slow: Option<String>,
    /// Only those of one trace
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    /// Only from then on: `10m`, `2h`, `1d`, or a time as 2026-11-20T18:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Go on with new ones as they come
    #[arg(short, long)]
    follow: bool,
    /// Only the newest so many
    #[arg(long, short = 'n', value_name = "REQUESTS")]
    tail: Option<usize>,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut query = vec![format!("follow={}", arguments.follow)];
    let texts = [
        ("service", &arguments.service),
        ("route", &arguments.route),
        ("instance", &arguments.instance),
        ("client", &arguments.client),
        ("status", &arguments.status),
        ("trace", &arguments.trace),
    ];
    query.extend(texts.iter().filter_map(|(name, text)| Some(format!("{name}={}", encoded(text.as_ref()?)))));
    if let Some(slow) = &arguments.slow {
        query.push(format!("slow_ms={}", slow_ms(slow)?));
    }
    if let Some(since) = &arguments.since {
        query.push(format!("since_ms={}", since_ms(since, world::clock::unix_ms())?));
    }
    query.extend(arguments.tail.map(|tail| format!("tail={tail}")));
    let path = format!("/v1/gateway/requests?{}", query.join("&"));
    let json = remote.json;
    let mut out = std::io::stdout().lock();
    let each = move |record: RequestRecord| {
        let text = match json {
            true => serde_json::to_string(&record).expect("a record is plain data"),
            false => line(&record),
        };
        // Whoever reads us may have had enough.
        writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
    };
    remote.lines(Method::GET, &path, None::<&()>, each).await?;
    Ok(ExitCode::SUCCESS)
}

/// As people read it: when, who, what, what became of it, how long, where.
fn line(record: &RequestRecord) -> String {
    let who = if record.instance.is_empty() { &record.service } else { &record.instance };
    let mut line = format!(
        "{} {} {} {}{} {} {}",
        shown::time(record.time_ms),
        record.client,
        record.method,
        record.host,
        record.path,
        outcome(record),
        span(record.split.total_us),
    );
    if !who.is_empty() {
        line.push_str(&format!(" {who}"));
    }
    if let Some(retry) = record.retries.first() {
        line.push_str(&format!(" after {} failed ({}: {})", record.retries.len(), retry.instance, retry.why));
    }
    if !record.trace.is_empty() {
        line.push_str(&format!(" trace {}", record.trace));
    }
    line
}

fn slow_ms(text: &str) -> Result<u64, Failure> {
    let wrong = || Failure::usage(format!("{text:?} is not a time")).hint("write 500ms, 2s or 1m");
    let (digits, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(digits), _, _) => (digits, 1),
        (None, Some(digits), _) => (digits, 1_000),
        (None, None, Some(digits)) => (digits, 60_000),
        (None, None, None) => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(count.saturating_mul(unit_ms))
}

#[cfg(test)]
mod tests {
    use super::slow_ms;

    #[test]
    fn times_are_read() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(slow_ms(text).ok(), expected, "{text}");
        check("500ms", Some(500));
        check("2s", Some(2_000));
        check("1m", Some(60_000));
        for wrong in ["", "2", "s", "ms", "-1s", "1h"] {
            check(wrong, None);
        }
    }
}
