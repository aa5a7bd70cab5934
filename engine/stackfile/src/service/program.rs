//! What runs: command, entrypoint, user, working directory, names, signals, log size.

use super::{Mention, Reader};
use crate::findings::Findings;
use crate::read::{At, Fields, shortened};
use crate::words;
use std::collections::BTreeMap;
use wire::spec::{Dependency, DependencyCondition};

/// A log kept for a service may not fill a disk.
const LOG_SIZE_BYTES_MAX: u64 = 1 << 40;
/// Docker's own default for `max-file`.
const LOG_FILES_DEFAULT: u64 = 1;
const LOG_FILES_MAX: u64 = 10_000;
/// RFC 1035: what a host name may have in all.
const HOSTNAME_LETTERS_MAX: usize = 253;

/// Signals by the names and numbers Linux gives them, without `SIG`.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

impl Reader<'_, '_> {
    pub(super) fn program(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        self.spec.command = fields.take("command").and_then(|at| words_of(&at, findings));
        self.spec.entrypoint = fields.take("entrypoint").and_then(|at| words_of(&at, findings));
        self.working_dir(fields, findings);
        self.user(fields, findings);
        self.spec.group_add = fields.texts("group_add", findings);
        self.names(fields, findings);
        self.spec.tty = fields.truth("tty", findings);
        self.spec.stdin_open = fields.truth("stdin_open", findings);
        self.spec.init = fields.truth("init", findings);
        self.spec.read_only = fields.truth("read_only", findings);
        self.spec.stop_signal = fields.take_filled("stop_signal").and_then(|at| signal(&at, findings));
        if let Some(grace_ms) = fields.take_filled("stop_grace_period").and_then(|at| at.duration_ms(findings)) {
            self.spec.stop_grace_ms = grace_ms;
        }
        if let Some(at) = fields.take("logging") {
            self.logging(&at, findings);
        }
        if let Some(at) = fields.take("security_opt") {
            security_options(&at, findings);
        }
    }

    fn working_dir(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let Some(at) = fields.take_filled("working_dir") else { return };
        let Some(text) = at.filled_text(findings) else { return };
        if !text.starts_with('/') {
            let hint = "write the path inside the container, starting with `/`";
            findings.error(&at.place, format!("the working directory `{}` is not absolute", shortened(text)), hint);
        }
        self.spec.working_dir = Some(text.to_string());
    }

    fn user(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let Some(at) = fields.take("user") else { return };
        let Some(text) = at.text(findings) else { return };
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        if user.is_empty() {
            findings.warn(&at.place, "the user is empty", "the image's own user is taken");
        } else if text.contains(char::is_whitespace) || group.is_some_and(|group| group.contains(':')) {
            let hint = "write `user`, `uid`, `user:group` or `uid:gid`";
            findings.error(&at.place, format!("`{}` is not a user", shortened(text)), hint);
        } else {
            self.spec.user = Some(text.trim_end_matches(':').to_string());
        }
    }

    fn names(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        for key in ["hostname", "domainname"] {
            let Some(at) = fields.take_filled(key) else { continue };
            let Some(text) = at.filled_text(findings) else { continue };
            self.check_template(text, key, &at.place, findings);
            let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            let good = text.chars().all(letter) && text.len() <= HOSTNAME_LETTERS_MAX && !text.starts_with(['-', '.']);
            if !good && !text.contains("{{") {
                let hint = "host names hold letters, digits, `-` and `.`";
                findings.error(&at.place, format!("`{}` cannot be a host name", shortened(text)), hint);
            }
            let slot = if key == "hostname" { &mut self.spec.hostname } else { &mut self.spec.domainname };
            *slot = Some(text.to_string());
        }
        if let Some(at) = fields.take_filled("container_name")
            && let Some(text) = at.filled_text(findings)
        {
            let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if !text.chars().all(letter) {
                let hint = "it is a name on the network: letters, digits, `-`, `.` and `_`";
                findings.error(&at.place, format!("`{}` cannot be a container's name", shortened(text)), hint);
            }
            self.spec.container_name = Some(text.to_string());
            self.marks.container_name = Some(at.place);
        }
    }

    fn logging(&mut self, at: &At<'_>, findings: &mut Findings) {
        let Some(mut fields) = at.fields(findings) else { return };
        if let Some(driver) = fields.take("driver")
            && let Some(text) = driver.text(findings)
            && !matches!(text, "json-file" | "local" | "")
        {
            let hint = "output is kept by Bramble and shown by `service logs`";
            findings.warn(&driver.place, format!("the log driver `{}` is not honoured", shortened(text)), hint);
        }
        if let Some(options) = fields.take("options")
            && let Some(mut options) = options.fields(findings)
        {
            let size = options.take("max-size").and_then(|at| at.size_bytes(findings).map(|size| (at, size)));
            let files = options.take("max-file").and_then(|at| at.whole(1, LOG_FILES_MAX, findings));
            if let Some((at, size)) = size {
                let all = size.saturating_mul(files.unwrap_or(LOG_FILES_DEFAULT));
                if size == 0 || all > LOG_SIZE_BYTES_MAX {
                    findings.error(&at.place, "the log's size is out of bounds", "write a size such as `10m`");
                } else {
                    self.spec.log_size_bytes_max = all;
                }
            }
            let instead = "output is kept by Bramble; only its size can be set";
            for (option, place) in options.rest() {
                findings.warn(&place, format!("the log option `{}` is not honoured", shortened(&option)), instead);
            }
        }
        fields.finish(&[], findings);
    }

    pub(super) fn dependencies(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let mut found: BTreeMap<String, Dependency> = BTreeMap::new();
        let started = Dependency { condition: DependencyCondition::Started, restart: false, required: true };
        if let Some(at) = fields.take("depends_on") {
            if at.is_map() {
                for (entry, at) in at.members(findings) {
                    let dependency = if at.is_null() { started } else { dependency(&at, findings) };
                    let place = crate::findings::Place { spot: entry.spot, path: at.place.path };
                    self.mention(&entry.key, place, !dependency.required);
                    found.insert(entry.key.clone(), dependency);
                }
            } else {
                for item in at.list(findings) {
                    let Some(name) = item.filled_text(findings) else { continue };
                    self.mention(name, item.place.clone(), false);
                    found.insert(name.to_string(), started);
                }
            }
        }
        for item in fields.take("links").map(|at| at.list(findings)).unwrap_or_default() {
            let Some(text) = item.filled_text(findings) else { continue };
            let (service, alias) = text.split_once(':').unwrap_or((text, text));
            self.mention(service, item.place.clone(), false);
            found.entry(service.to_string()).or_insert(started);
            self.marks.links.push((service.to_string(), alias.to_string()));
        }
        self.spec.depends_on = found;
    }

    pub(super) fn mention(&mut self, service: &str, place: crate::findings::Place, optional: bool) {
        self.marks.mentions.push(Mention { service: service.to_string(), place, optional });
    }
}

/// A line split into words, or words as they are.
fn words_of(at: &At<'_>, findings: &mut Findings) -> Option<Vec<String>> {
    if at.is_list() {
        return Some(at.texts(findings));
    }
    let line = at.text(findings)?;
    match words::split(line) {
        Ok(words) => Some(words),
        Err(wrong) => {
            findings.error(
                &at.place,
                format!("the line cannot be split into words: {wrong}"),
                "write it as a list of words",
            );
            None
        }
    }
}

/// Real-time signals as the C library numbers them, which keeps two of the kernel's 32 to 64 for itself.
const REAL_TIME_MIN: usize = 34;
const SIGNAL_MAX: usize = 64;

/// A signal by its name; one without a name by its number.
fn signal(at: &At<'_>, findings: &mut Findings) -> Option<String> {
    let text = at.filled_text(findings)?;
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if SIGNALS.contains(&name) {
        return Some(format!("SIG{name}"));
    }
    let number = text.parse().ok().filter(|number| (1..=SIGNAL_MAX).contains(number)).or_else(|| real_time(name));
    if let Some(number) = number {
        return Some(SIGNALS.get(number - 1).map_or_else(|| number.to_string(), |name| format!("SIG{name}")));
    }
    let hint = match words::closest(name, SIGNALS) {
        Some(meant) => format!("did you mean `SIG{meant}`?"),
        None => "write a signal such as `SIGTERM` or `SIGINT`".to_string(),
    };
    findings.error(&at.place, format!("`{}` is not a signal", shortened(text)), hint);
    None
}

/// `RTMIN+3`, which is how systemd in a container is stopped, or `RTMAX-1`.
fn real_time(name: &str) -> Option<usize> {
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => REAL_TIME_MIN,
        (_, Some("")) => SIGNAL_MAX,
        (Some(above), _) => REAL_TIME_MIN.checked_add(above.strip_prefix('+')?.parse().ok()?)?,
        (_, Some(below)) => SIGNAL_MAX.checked_sub(below.strip_prefix('-')?.parse().ok()?)?,
        (None, None) => return None,
    };
    (REAL_TIME_MIN..=SIGNAL_MAX).contains(&number).then_some(number)
}

fn security_options(at: &At<'_>, findings: &mut Findings) {
    for item in at.list(findings) {
        let Some(text) = item.text(findings) else { continue };
        if matches!(text, "no-new-privileges:false" | "no-new-privileges=false") {
            continue;
        }
        if text.starts_with("no-new-privileges") {
            let hint = "set-uid programs of the image work, and gain nothing outside the instance's sandbox";
            findings.warn(&item.place, "`no-new-privileges` is not honoured", hint);
            continue;
        }
        let hint = "each instance is confined by the sandbox's own rules, which cannot be loosened";
        findings.warn(&item.place, format!("the security option `{}` is not honoured", shortened(text)), hint);
    }
}

fn dependency(at: &At<'_>, findings: &mut Findings) -> Dependency {
    let mut dependency = Dependency { condition: DependencyCondition::Started, restart: false, required: true };
    let Some(mut fields) = at.fields(findings) else { return dependency };
    let conditions = [
        ("service_started", DependencyCondition::Started),
        ("service_healthy", DependencyCondition::Healthy),
        ("service_completed_successfully", DependencyCondition::CompletedSuccessfully),
    ];
    if let Some(condition) = fields.take("condition").and_then(|at| at.one_of(&conditions, findings)) {
        dependency.condition = condition;
    }
    dependency.restart = fields.truth("restart", findings);
    dependency.required = fields.take("required").and_then(|at| at.truth(findings)).unwrap_or(true);
    fields.finish(&[], findings);
    dependency
}
