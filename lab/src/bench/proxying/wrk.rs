//! The load generator wrk: as many requests as are answered, over some connections, for some seconds.

use lab::cores::Cores;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What wrk is to say at its end: one line that a program can read.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('{"requests":%d,"bytes":%d,"us":%d,"p50_us":%d,"p99_us":%d,"refused":%d,"lost":%d}\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status, lost))
end
"#;

pub(super) struct Wrk {
    script: PathBuf,
}

/// One run.
pub(super) struct Asking<'a> {
    pub(super) url: &'a str,
    pub(super) connections: usize,
    pub(super) seconds: u32,
    /// Each request over a connection of its own.
    pub(super) anew: bool,
}

/// What one run came to.
pub(super) struct Counted {
    pub(super) requests: f64,
    pub(super) bytes: f64,
    pub(super) seconds: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

impl Wrk {
    pub(super) fn new(folder: &Path) -> Wrk {
        let script = folder.join("wrk.lua");
        std::fs::write(&script, SCRIPT).expect("a temporary folder takes a file");
        Wrk { script }
    }

    pub(super) fn run(&self, asking: &Asking<'_>, cores: &Cores) -> Counted {
        let mut command = Command::new("wrk");
        command
            .arg(format!("-t{}", cores.count()))
            .arg(format!("-c{}", asking.connections))
            .arg(format!("-d{}s", asking.seconds))
            .arg("-s")
            .arg(&self.script);
        if asking.anew {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(asking.url).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = cores.start(&mut command).expect("wrk starts (apt-get install wrk)");
        let output = child.wait_with_output().expect("our own child can be waited for");
        let text = String::from_utf8_lossy(&output.stdout);
        let said = text.lines().find(|line| line.starts_with('{')).and_then(|line| serde_json::from_str(line).ok());
        let said: Value = said.unwrap_or_else(|| panic!("{command:?} says what it counted: {output:?}"));
        let number = |name: &str| said[name].as_f64().unwrap_or_default();
        assert!(number("requests") > 0.0 && number("refused") == 0.0, "{}: not all are answered: {said}", asking.url);
        if number("lost") > 0.0 {
            println!("{}: {} requests were lost with their connection", asking.url, number("lost"));
        }
        Counted {
            requests: number("requests"),
            bytes: number("bytes"),
            seconds: number("us") / 1e6,
            p50_ms: number("p50_us") / 1000.0,
            p99_ms: number("p99_us") / 1000.0,
        }
    }
}
