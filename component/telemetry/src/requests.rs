//! What requests were: the gateway's access log, on this machine's disk.
//!
//! Owns `<data>/requests`, kept as the logs of an instance are, each line a [`RequestRecord`] as JSON, so that whatever
//! reads logs reads these. Its size is bounded: what is full becomes the older half, and the older half before is gone.
//! What cannot be written is counted and lost. Knows no gateway: it is handed records.

use crate::logs::{Follow, LINES_MAX, Logs, Query, QueryError};
use meter::{Counter, Meter};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use wire::api::{LogLine, RequestRecord};

/// Half of what is kept: some hundred thousand requests, hours of a service that is told of by its errors and a sample,
/// and not much of any disk.
const HALF_BYTES_MAX: u64 = 64 << 20;
/// A disk that is full stays so for a while: told of once a minute.
const WARN_EVERY_MS: u64 = 60_000;

/// The folders below the root, named as those of an instance are.
const STACK: &str = "gateway";
const SERVICE: &str = "requests";
const INSTANCE: &str = "node";

/// The access log. Clones share it.
#[derive(Debug, Clone)]
pub struct Requests {
    logs: Logs,
    writer: Arc<Mutex<Writer>>,
}

#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    half_bytes_max: u64,
    /// With how much is in it.
    file: Option<(File, u64)>,
    failed: Counter,
    warned_ms: u64,
}

/// Which requests; the default is the newest [`LINES_MAX`] of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub since_ms: Option<u64>,
    pub until_ms: Option<u64>,
    /// As `stack/service`.
    pub service: Option<String>,
    pub route: Option<String>,
    pub instance: Option<String>,
    pub client: Option<String>,
    pub trace: Option<String>,
    pub status: Option<Status>,
    /// Those that took as long or longer.
    pub slow_us: Option<u64>,
    /// Only the newest so many.
    pub tail: Option<usize>,
}

/// Which answers: `404`, `5xx`, or `gone` where the client left before there was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Is(u16),
    /// By its first digit.
    Class(u16),
    Gone,
}

impl FromStr for Status {
    type Err = ();

    fn from_str(text: &str) -> Result<Status, ()> {
        if text == "gone" {
            return Ok(Status::Gone);
        }
        let (digits, class) = match text.strip_suffix("xx") {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        let number: u16 = digits.parse().map_err(|_| ())?;
        match (class, number) {
            (true, 1..=5) if digits.len() == 1 => Ok(Status::Class(number)),
            (false, 100..=599) if digits.len() == 3 => Ok(Status::Is(number)),
            _ => Err(()),
        }
    }
}

impl Status {
    fn fits(self, status: u16) -> bool {
        match self {
            Status::Is(wanted) => status == wanted,
            Status::Class(class) => status / 100 == class,
            Status::Gone => status == 0,
        }
    }

    fn pattern(self) -> String {
        match self {
            Status::Is(wanted) => format!("{wanted},"),
            Status::Class(class) => format!(r"{class}\d\d,"),
            Status::Gone => "0,".to_owned(),
        }
    }
}

impl Requests {
    pub fn new(root: &Path, meter: &Meter) -> Requests {
        Requests::bounded(root, meter, HALF_BYTES_MAX)
    }

    /// An access log of which each half has `half_bytes_max` instead of the usual.
    pub fn bounded(root: &Path, meter: &Meter, half_bytes_max: u64) -> Requests {
        let help = "Times that requests could not be written to the access log.";
        let failed = meter.counter("bramble_telemetry_requests_failed_total", help, &[]);
        let folder = root.join(STACK).join(SERVICE).join(INSTANCE);
        let writer = Writer { folder, half_bytes_max, file: None, failed, warned_ms: 0 };
        Requests { logs: Logs::new(root), writer: Arc::new(Mutex::new(writer)) }
    }

    /// Writes `records` down. Blocks.
    pub fn append(&self, records: &[RequestRecord]) {
        let mut text = String::with_capacity(records.len() * 512);
        for record in records {
            // By its end, so that lines are in order.
            let time_ms = record.time_ms.saturating_add(record.split.total_us / 1_000);
            let json = serde_json::to_string(record).expect("a record is plain data");
            writeln!(text, "{time_ms} o {json}").expect("a String takes everything that is written to it");
        }
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).append(text.as_bytes());
    }

    /// The requests asked for, oldest first. May be dropped anywhere.
    pub async fn query(&self, wanted: Wanted) -> Result<Vec<RequestRecord>, QueryError> {
        let lines = self.logs.query(STACK, SERVICE, wanted.query(Some(LINES_MAX))).await?;
        let mut found: Vec<RequestRecord> = lines.iter().filter_map(|line| wanted.pick(line)).collect();
        let surplus = found.len().saturating_sub(wanted.tail.unwrap_or(LINES_MAX));
        found.drain(..surplus);
        Ok(found)
    }

    /// The requests asked for, then every one as it is written down. Ends when it is dropped.
    pub fn follow(&self, wanted: Wanted) -> Result<Following, QueryError> {
        let lines = self.logs.follow(STACK, SERVICE, wanted.query(wanted.tail))?;
        Ok(Following { lines, wanted })
    }
}

/// Requests as they come.
#[derive(Debug)]
pub struct Following {
    lines: Follow,
    wanted: Wanted,
}

impl Following {
    /// The next; `None` when the log cannot be followed any more. May be dropped.
    pub async fn next(&mut self) -> Option<RequestRecord> {
        loop {
            if let Some(record) = self.wanted.pick(&self.lines.next().await?) {
                return Some(record);
            }
        }
    }
}

impl Wanted {
    fn query(&self, tail: Option<usize>) -> Query {
        Query { since_ms: self.since_ms, until_ms: self.until_ms, grep: self.grep(), tail, instance: None }
    }

    /// A pattern of whatever can be told from the text alone: fields stand in the order of the record.
    fn grep(&self) -> Option<String> {
        let text = |name: &str, value: &Option<String>| {
            let value = serde_json::to_string(value.as_ref()?).ok()?;
            Some(format!("{name:?}:{}", regex::escape(&value)))
        };
        let parts = [
            text("trace", &self.trace),
            text("client", &self.client),
            self.status.map(|status| format!("\"status\":{}", status.pattern())),
            text("service", &self.service),
            text("route", &self.route),
            text("instance", &self.instance),
            // As many digits, or more; the number itself is looked at afterwards.
            self.slow_us.map(|slow_us| format!("\"total_us\":\\d{{{},}}", slow_us.max(1).ilog10() + 1)),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("/{}/", parts.join(".*")))
    }

    /// The record in a line, if it is one of those wanted.
    fn pick(&self, line: &LogLine) -> Option<RequestRecord> {
        let record: RequestRecord = serde_json::from_str(&line.line).ok()?;
        let is = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has);
        let fits = is(&self.trace, &record.trace)
            && is(&self.client, &record.client)
            && is(&self.service, &record.service)
            && is(&self.route, &record.route)
            && is(&self.instance, &record.instance)
            && self.status.is_none_or(|status| status.fits(record.status))
            && self.slow_us.is_none_or(|slow_us| record.split.total_us >= slow_us);
        fits.then_some(record)
    }
}

impl Writer {
    fn append(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_append(bytes) {
            // Opened anew the next time, at the end of what is whole.
            self.file = None;
            self.failed.inc();
            let now_ms = world::clock::unix_ms();
            if now_ms.saturating_sub(self.warned_ms) >= WARN_EVERY_MS {
                self.warned_ms = now_ms;
                tracing::warn!(folder = %self.folder.display(), %error, "cannot write the access log");
            }
        }
    }

    fn try_append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let full = |(_, size): &(File, u64)| *size > 0 && size.saturating_add(length) > self.half_bytes_max;
        if self.file.is_none() {
            self.file = Some(open(&self.folder)?);
        }
        if self.file.as_ref().is_some_and(full) {
            std::fs::rename(self.folder.join(crate::logs::CURRENT), self.folder.join(crate::logs::PREVIOUS))?;
            self.file = Some(open(&self.folder)?);
        }
        let Some((file, size)) = &mut self.file else { return Ok(()) };
        file.write_all(bytes)?;
        *size = size.saturating_add(length);
        Ok(())
    }
}

/// Opens the newer half, at a fresh line.
fn open(folder: &Path) -> io::Result<(File, u64)> {
    // Addresses and paths are about people: they are for the node's owner.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(crate::logs::CURRENT);
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut size = file.metadata()?.len();
    if let Some(last) = size.checked_sub(1) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, last)?;
        if byte != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}
