//! The load generator h2load: as wrk, over HTTP/2, several requests at a time over each connection.

use super::wrk::{Asking, Counted};
use lab::cores::Cores;
use std::process::{Command, Stdio};

/// Requests under way over one connection: as many as HAProxy allows.
const STREAMS: usize = 100;
/// Enough to keep one core busy.
const CONNECTIONS: usize = 4;

/// Whether it is there; if not, a sentence that says so.
pub(super) fn tried() -> Result<(), String> {
    match Command::new("h2load").arg("--version").output() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("HTTP/2: not measured: h2load (apt-get install nghttp2-client): {error}")),
    }
}

/// With many requests under way over each of a few connections.
pub(super) fn run(asking: &Asking<'_>, cores: &Cores) -> Counted {
    let mut command = Command::new("h2load");
    command
        .arg(format!("-t{}", cores.count()))
        .arg(format!("-c{CONNECTIONS}"))
        .arg(format!("-m{STREAMS}"))
        .arg(format!("-D{}", asking.seconds))
        .arg(asking.url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = cores.start(&mut command).expect("h2load starts");
    let output = child.wait_with_output().expect("our own child can be waited for");
    let text = String::from_utf8_lossy(&output.stdout);
    read(&text, f64::from(asking.seconds)).unwrap_or_else(|| panic!("{command:?} says what it counted: {output:?}"))
}

/// What it says at its end, when nothing failed and it spoke HTTP/2.
fn read(text: &str, seconds: f64) -> Option<Counted> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    (line("Application protocol: ")?.trim() == "h2").then_some(())?;
    let outcomes = line("requests: ")?;
    let number = |word: &str| {
        let part = outcomes.split(", ").find_map(|part| part.strip_suffix(word));
        part.and_then(|part| part.trim().parse::<f64>().ok())
    };
    let failed = number("failed")? + number("errored")? + number("timeout")?;
    let requests = number("succeeded").filter(|requests| *requests > 0.0 && failed == 0.0)?;
    // `traffic: 12.3MB (12345678) total, ...`
    let bytes = line("traffic: ")?.split_once('(')?.1.split_once(')')?.0.parse().ok()?;
    // It tells means of latency, not how they are spread.
    Some(Counted { requests, bytes, seconds, p50_ms: f64::NAN, p99_ms: f64::NAN })
}

#[cfg(test)]
mod tests {
    use super::read;

    const SAID: &str = "starting benchmark...
Application protocol: h2
finished in 2.00s, 51000.00 req/s, 4.1MB/s
requests: 102000 total, 102064 started, 102000 done, 102000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 102000 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 8.17MB (8568000) total, 1.2MB (1234567) headers (space savings 90.00%), 6.2MB (6528000) data
";

    #[test]
    fn what_it_counted_is_read() {
        let check = |text: &str, expected| {
            assert_eq!(read(text, 2.0).map(|counted| (counted.requests, counted.bytes)), expected, "{text}");
        };
        check(SAID, Some((102_000.0, 8_568_000.0)));
        check(&SAID.replace("0 failed", "3 failed"), None);
        check(&SAID.replace("protocol: h2", "protocol: http/1.1"), None);
        check("", None);
    }
}
