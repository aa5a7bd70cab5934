//! Limits outside `deploy`: the keys of compose v2, `ulimits`, `sysctls`, capabilities.

use super::Reader;
use crate::findings::Findings;
use crate::read::{At, Fields, Pair, shortened};
use crate::words;
use wire::spec::Ulimit;

const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Capabilities of Linux 6, without `CAP_`.
const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// No machine runs more processes (the kernel's PID_MAX_LIMIT).
pub(super) const PIDS_MAX: u64 = 1 << 22;

impl Reader<'_, '_> {
    pub(super) fn resources(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        self.legacy_limits(fields, findings);
        if let Some(at) = fields.take("ulimits") {
            self.ulimits(&at, findings);
        }
        for pair in fields.take("sysctls").map(|at| at.pairs(&['='], findings)).unwrap_or_default() {
            self.sysctl(&pair, findings);
        }
        self.spec.cap_add = capabilities(fields.take("cap_add"), findings);
        self.spec.cap_drop = capabilities(fields.take("cap_drop"), findings);
    }

    /// The keys of compose v2, which mean what `deploy.resources` means. Both is one too many unless they agree.
    fn legacy_limits(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let resources = &mut self.spec.resources;
        let keys: [(&'static str, &str, Option<u64>); 4] = [
            ("cpus", "limits.cpus", resources.cpu_limit_millis),
            ("mem_limit", "limits.memory", resources.memory_limit_bytes),
            (
                "mem_reservation",
                "reservations.memory",
                Some(resources.memory_reserved_bytes).filter(|bytes| *bytes > 0),
            ),
            ("pids_limit", "limits.pids", resources.pids_limit),
        ];
        let mut found = [None; 4];
        for (index, (key, other, deployed)) in keys.into_iter().enumerate() {
            let Some(at) = fields.take(key) else { continue };
            let value = match key {
                "cpus" => at.cpu_millis(findings),
                // -1 is docker's word for no limit.
                "pids_limit" if at.node.text() == Some("-1") => continue,
                "pids_limit" => at.whole(0, PIDS_MAX, findings),
                _ => at.size_bytes(findings),
            };
            let value = value.filter(|value| *value > 0);
            if let (Some(value), Some(deployed)) = (value, deployed)
                && value != deployed
            {
                let message = format!("`{key}` and `deploy.resources.{other}` say different things");
                findings.error(&at.place, message, format!("remove `{key}`"));
            }
            found[index] = value.or(deployed);
        }
        let [cpus, memory, reserved, pids] = found;
        resources.cpu_limit_millis = cpus.or(resources.cpu_limit_millis);
        resources.memory_limit_bytes = memory.or(resources.memory_limit_bytes);
        resources.memory_reserved_bytes = reserved.unwrap_or(resources.memory_reserved_bytes);
        resources.pids_limit = pids.or(resources.pids_limit);
    }

    /// Settings of the kernel that each instance has for itself; all others would be the machine's.
    fn sysctl(&mut self, pair: &Pair<'_>, findings: &mut Findings) {
        let own = ["net.", "fs.mqueue.", "kernel.msg", "kernel.shm"];
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
        let is_own = own.iter().any(|start| pair.name.starts_with(start)) || pair.name == "kernel.sem";
        let is_plain = pair.name.chars().all(plain) && !pair.name.contains("..");
        match pair.value {
            Some(value) if is_own && is_plain => {
                self.spec.sysctls.insert(pair.name.to_string(), value.to_string());
            }
            Some(_) if is_plain => {
                let message = format!("the kernel's setting `{}` is not honoured", shortened(pair.name));
                findings.warn(&pair.at.place, message, "it is the whole machine's: set it there");
            }
            Some(_) | None => {
                let message = format!("`{}` is not a setting of the kernel with a value", shortened(pair.name));
                findings.error(&pair.at.place, message, "write `net.core.somaxconn: 1024`");
            }
        }
    }

    fn ulimits(&mut self, at: &At<'_>, findings: &mut Findings) {
        for (entry, at) in at.members(findings) {
            let name = entry.key.as_str();
            if !ULIMITS.contains(&name) {
                let hint = match words::closest(name, ULIMITS) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("known are {}", ULIMITS.join(", ")),
                };
                findings.error(&at.place, format!("`{}` is not a limit", shortened(name)), hint);
                continue;
            }
            let both = if at.is_map() {
                let Some(mut fields) = at.fields(findings) else { continue };
                let soft = fields.take("soft").and_then(|at| limit(&at, findings));
                let hard = fields.take("hard").and_then(|at| limit(&at, findings));
                fields.finish(&[], findings);
                soft.or(hard).zip(hard.or(soft))
            } else {
                limit(&at, findings).map(|both| (both, both))
            };
            let Some((soft, hard)) = both else { continue };
            if soft > hard {
                findings.error(&at.place, "the soft limit is above the hard one", "");
            }
            self.spec.ulimits.insert(name.to_string(), Ulimit { soft, hard });
        }
    }
}

/// -1 and `unlimited` are no limit.
fn limit(at: &At<'_>, findings: &mut Findings) -> Option<u64> {
    match at.node.text() {
        Some("-1" | "unlimited") => Some(u64::MAX),
        Some(_) | None => at.whole(0, u64::MAX, findings),
    }
}

fn capabilities(at: Option<At<'_>>, findings: &mut Findings) -> Vec<String> {
    let mut found = Vec::new();
    for item in at.map(|at| at.list(findings)).unwrap_or_default() {
        let Some(text) = item.filled_text(findings) else { continue };
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if CAPABILITIES.contains(&name) {
            found.push(name.to_string());
        } else {
            let hint = match words::closest(name, CAPABILITIES) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "write a capability of Linux, such as `NET_BIND_SERVICE`".to_string(),
            };
            findings.error(&item.place, format!("`{}` is not a capability", shortened(text)), hint);
        }
    }
    found
}

/// Cores as `deploy.resources` writes them.
pub(super) fn cpus(at: &At<'_>, findings: &mut Findings) -> Option<u64> {
    // Zero is docker's word for no limit.
    at.cpu_millis(findings).filter(|millis| *millis > 0)
}
