//! What changes meanwhile, one after the other.

use super::{Tally, stack};
use crate::node::{self, Node};
use crate::process;
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::Command;

pub(super) struct Changes {
    port: u16,
    still_port: u16,
    made: usize,
}

type Change = fn(&Changes, &mut Node, &Tally) -> Result<(), String>;

const CHANGES: [(&str, Change); 9] = [
    ("a deploy", Changes::deploy),
    ("an upgrade", Changes::upgrade),
    ("an instance killed", Changes::kill),
    ("scaled to 5", |_, node, _| scale(node, "5")),
    ("a route changed", Changes::route),
    ("another process of the same", Changes::reload),
    ("a certificate changed", Changes::certificate),
    ("scaled to 2", |_, node, _| scale(node, "2")),
    ("an instance killed", Changes::kill),
];

impl Changes {
    pub(super) fn new(port: u16, still_port: u16) -> Changes {
        Changes { port, still_port, made: 0 }
    }

    /// Makes the next one, and says which it was.
    pub(super) fn next(&mut self, node: &mut Node, tally: &Tally) -> (&'static str, Result<(), String>) {
        let (name, change) = CHANGES[self.made % CHANGES.len()];
        self.made += 1;
        (name, change(self, node, tally))
    }

    fn deploy(&self, node: &mut Node, _: &Tally) -> Result<(), String> {
        succeeded(&node.deploy("mixed", &stack(self.port, self.still_port, &format!("text{}", self.made))))
    }

    /// By a file of another name, as a new version has.
    fn upgrade(&self, node: &mut Node, _: &Tally) -> Result<(), String> {
        let program = node.data().with_extension(format!("bramble{}", self.made % 2));
        // The file of the one that runs is busy.
        let _ = std::fs::remove_file(&program);
        std::fs::copy(node::binary("bramble"), &program).map_err(|error| error.to_string())?;
        node.upgrade(Some(&program), &DRAIN).map(drop)
    }

    fn reload(&self, node: &mut Node, _: &Tally) -> Result<(), String> {
        node.upgrade(None, &DRAIN).map(drop)
    }

    /// The program itself, not its box: as if it had crashed.
    fn kill(&self, node: &mut Node, tally: &Tally) -> Result<(), String> {
        let pids = node.instances().into_iter().filter(|one| {
            one["instance"]["service"] == "web"
                && one["status"]["ready"] == true
                && one["instance"]["wanted"] == "running"
        });
        let pid = pids.filter_map(|one| one["status"]["pid"].as_u64()).next();
        let pid = pid.and_then(|pid| u32::try_from(pid).ok()).ok_or("no instance runs")?;
        tally.kills();
        process::signal(pid, Signal::KILL);
        Ok(())
    }

    fn route(&self, node: &mut Node, _: &Tally) -> Result<(), String> {
        let service = crate::program::service(&format!(
            "x-bramble: {{routes: [{{host: other.mixed.localhost, path: /at{}, port: 8000}}]}}",
            self.made
        ));
        succeeded(&node.deploy("roads", &format!("services:\n  road:\n{service}")))
    }

    fn certificate(&self, node: &mut Node, _: &Tally) -> Result<(), String> {
        let folder = node.data().join("certificates");
        let file = |end: &str| -> PathBuf { folder.join(format!("mixed.{end}")) };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
            .args(["-subj", "/CN=tls.mixed.localhost", "-addext", "subjectAltName=DNS:tls.mixed.localhost"])
            .args(["-keyout".as_ref(), file("key").as_os_str(), "-out".as_ref(), file("crt").as_os_str()])
            .output();
        succeeded(&made.map_err(|error| format!("openssl: {error}"))?)
    }
}

/// Longer than any drill: a tunnel is not to be cut.
const DRAIN: [&str; 2] = ["--drain", "86400"];

fn scale(node: &Node, count: &str) -> Result<(), String> {
    succeeded(&node.cli(&["service", "scale", "mixed/web", count]))
}

fn succeeded(output: &std::process::Output) -> Result<(), String> {
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
