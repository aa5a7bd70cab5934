//! `deploy`, `restart`, `scale`: how many, where, and how a change is rolled out.

use super::Reader;
use super::resources::{PIDS_MAX, cpus};
use crate::findings::Findings;
use crate::read::{At, Fields, Instead, shortened};
use crate::words;
use wire::spec::{Constraint, Mode, OnFailure, RestartCondition, UpdateOrder, UpdatePolicy};

/// Instances of one service. A cluster of Bramble's size runs hundreds; more is a typing error.
pub(super) const REPLICAS_MAX: u32 = 10_000;
const ATTEMPTS_MAX: u32 = 1_000_000;

/// What a constraint may ask of a machine, besides labels.
const FIELDS: [&str; 6] =
    ["node.id", "node.hostname", "node.role", "node.platform.os", "node.platform.arch", "node.zone"];
pub(super) const ARCH_FIELD: &str = "node.platform.arch";
const LABEL_FIELDS: [&str; 2] = ["node.labels.", "engine.labels."];

impl Reader<'_, '_> {
    pub(super) fn deploy(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let scale = fields.take("scale");
        if let Some(at) = fields.take_filled("restart") {
            self.restart(&at, findings);
        }
        let mut replicas = None;
        if let Some(at) = fields.take("deploy")
            && let Some(mut deploy) = at.fields(findings)
        {
            replicas = deploy.take("replicas");
            self.mode(&mut deploy, replicas.as_ref(), findings);
            if let Some(at) = deploy.take("labels") {
                self.add_labels(&at, findings);
            }
            self.placement(&mut deploy, findings);
            self.deploy_resources(&mut deploy, findings);
            if let Some(at) = deploy.take("restart_policy") {
                self.restart_policy(&at, findings);
            }
            if let Some(at) = deploy.take("update_config") {
                update(&at, &mut self.spec.update, findings);
            }
            if let Some(at) = deploy.take("rollback_config") {
                update(&at, &mut self.spec.rollback, findings);
            }
            if let Some(at) = deploy.take("endpoint_mode") {
                endpoint_mode(&at, findings);
            }
            deploy.finish(&[], findings);
        }
        let number = |at: &At<'_>, findings: &mut Findings| at.whole_u32(0, REPLICAS_MAX, findings);
        let scaled = scale.as_ref().and_then(|at| number(at, findings));
        let deployed = replicas.as_ref().and_then(|at| number(at, findings));
        if let (Some(at), Some(scaled), Some(deployed)) = (&scale, scaled, deployed)
            && scaled != deployed
        {
            findings.error(&at.place, "`scale` and `deploy.replicas` say different things", "remove `scale`");
        }
        if let Some(replicas) = deployed.or(scaled) {
            self.spec.replicas = replicas;
        }
    }

    fn mode(&mut self, deploy: &mut Fields<'_>, replicas: Option<&At<'_>>, findings: &mut Findings) {
        let Some(at) = deploy.take("mode") else { return };
        const MODES: [(&str, (Mode, bool)); 4] = [
            ("replicated", (Mode::Replicated, false)),
            ("global", (Mode::Global, true)),
            ("replicated-job", (Mode::ReplicatedJob, false)),
            ("global-job", (Mode::ReplicatedJob, true)),
        ];
        let Some((mode, everywhere)) = at.one_of(&MODES, findings) else { return };
        self.marks.mode_given = true;
        self.spec.mode = mode;
        if let (true, Some(replicas)) = (everywhere, replicas) {
            let hint = "remove `replicas`, or write `mode: replicated`";
            findings.error(&replicas.place, "a service on every machine has no number of replicas", hint);
        }
        if mode == Mode::ReplicatedJob {
            if everywhere {
                let hint = "it runs once; write `mode: replicated-job` with `replicas`";
                findings.warn(&at.place, "`mode: global-job` is not honoured", hint);
            }
            if !self.marks.restart_given {
                self.spec.restart.condition = RestartCondition::OnFailure;
            }
        }
    }

    fn restart(&mut self, at: &At<'_>, findings: &mut Findings) {
        let Some(text) = at.filled_text(findings) else { return };
        let (word, attempts) = text.split_once(':').map_or((text, None), |(word, attempts)| (word, Some(attempts)));
        let condition = match word {
            // Unquoted, YAML 1.1 reads `no` as a truth value.
            "no" | "false" => RestartCondition::Never,
            "always" | "unless-stopped" => RestartCondition::Any,
            "on-failure" => RestartCondition::OnFailure,
            _ => {
                let hint = "write `no`, `always`, `on-failure`, `on-failure:3` or `unless-stopped`";
                findings.error(&at.place, format!("`{}` is not a restart policy", shortened(text)), hint);
                return;
            }
        };
        self.marks.restart_given = true;
        self.spec.restart.condition = condition;
        let Some(attempts) = attempts else { return };
        match attempts.parse::<u32>() {
            Ok(attempts) if word == "on-failure" && attempts <= ATTEMPTS_MAX => {
                self.spec.restart.attempts_max = Some(attempts).filter(|attempts| *attempts > 0);
            }
            Ok(_) | Err(_) => {
                let hint = "write `on-failure:3`";
                findings.error(&at.place, format!("`{}` is not a restart policy", shortened(text)), hint);
            }
        }
    }

    fn restart_policy(&mut self, at: &At<'_>, findings: &mut Findings) {
        let Some(mut fields) = at.fields(findings) else { return };
        let conditions = [
            ("any", RestartCondition::Any),
            ("on-failure", RestartCondition::OnFailure),
            ("none", RestartCondition::Never),
            ("always", RestartCondition::Any),
            ("unless-stopped", RestartCondition::Any),
        ];
        // `deploy` wins over `restart`, and what it does not say has its own default.
        self.marks.restart_given = true;
        let restart = &mut self.spec.restart;
        restart.condition = match fields.take("condition") {
            Some(at) => at.one_of(&conditions, findings).unwrap_or_default(),
            None => RestartCondition::Any,
        };
        if let Some(delay_ms) = fields.take("delay").and_then(|at| at.duration_ms(findings)) {
            restart.delay_ms = delay_ms;
        }
        let attempts = fields.take("max_attempts").and_then(|at| at.whole_u32(0, ATTEMPTS_MAX, findings));
        // Zero is swarm's word for no end.
        restart.attempts_max = attempts.filter(|attempts| *attempts > 0).or(restart.attempts_max);
        if let Some(window_ms) = fields.take("window").and_then(|at| at.duration_ms(findings)) {
            restart.window_ms = window_ms;
        }
        fields.finish(&[], findings);
    }

    fn placement(&mut self, deploy: &mut Fields<'_>, findings: &mut Findings) {
        let Some(at) = deploy.take("placement") else { return };
        let Some(mut fields) = at.fields(findings) else { return };
        for item in fields.take("constraints").map(|at| at.list(findings)).unwrap_or_default() {
            if let Some(constraint) = constraint(&item, findings) {
                self.spec.placement.constraints.push(constraint);
            }
        }
        for item in fields.take("preferences").map(|at| at.list(findings)).unwrap_or_default() {
            let Some(mut preference) = item.fields(findings) else { continue };
            if let Some(spread) = preference.take("spread")
                && let Some(label) = spread.filled_text(findings)
            {
                match placement_field(label) {
                    Some(field) => self.spec.placement.spread.push(field),
                    None => {
                        let message = format!("`{}` is nothing to spread over", shortened(label));
                        findings.error(&spread.place, message, "write `node.labels.zone`");
                    }
                }
            }
            preference.finish(&[], findings);
        }
        let max = fields.take("max_replicas_per_node").and_then(|at| at.whole_u32(0, REPLICAS_MAX, findings));
        self.spec.placement.replicas_per_node_max = max.filter(|max| *max > 0);
        fields.finish(&[], findings);
    }

    fn deploy_resources(&mut self, deploy: &mut Fields<'_>, findings: &mut Findings) {
        let Some(at) = deploy.take("resources") else { return };
        let Some(mut fields) = at.fields(findings) else { return };
        let resources = &mut self.spec.resources;
        if let Some(mut limits) = fields.take("limits").and_then(|at| at.fields(findings)) {
            resources.cpu_limit_millis = limits.take("cpus").and_then(|at| cpus(&at, findings));
            resources.memory_limit_bytes =
                limits.take("memory").and_then(|at| at.size_bytes(findings)).filter(|b| *b > 0);
            resources.pids_limit =
                limits.take("pids").and_then(|at| at.whole(0, PIDS_MAX, findings)).filter(|p| *p > 0);
            limits.finish(&[], findings);
        }
        if let Some(at) = fields.take("reservations")
            && let Some(mut reserved) = at.fields(findings)
        {
            let cpu = reserved.take("cpus");
            let memory = reserved.take("memory");
            resources.cpu_reserved_millis = cpu.as_ref().and_then(|at| cpus(at, findings)).unwrap_or_default();
            resources.memory_reserved_bytes =
                memory.as_ref().and_then(|at| at.size_bytes(findings)).unwrap_or_default();
            let instead: Instead = &[
                ("pids", "only `limits.pids` is honoured"),
                ("generic_resources", "label the machines that have them and use `placement.constraints`"),
                ("devices", "instances get no devices beyond /dev/null and its like"),
            ];
            reserved.finish(instead, findings);
            let over_cpu = resources.cpu_limit_millis.is_some_and(|limit| resources.cpu_reserved_millis > limit);
            let over_memory = resources.memory_limit_bytes.is_some_and(|limit| resources.memory_reserved_bytes > limit);
            for (over, place) in [(over_cpu, cpu), (over_memory, memory)] {
                if let (true, Some(at)) = (over, place) {
                    findings.error(
                        &at.place,
                        "more is reserved than the limit allows",
                        "raise the limit, or reserve less",
                    );
                }
            }
        }
        fields.finish(&[], findings);
    }
}

/// A processor by the name machines report, which is swarm's; images call it otherwise.
pub(super) fn machine_arch(name: &str) -> &str {
    match name {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

/// What may be asked of a machine. As in swarm, capitals do not matter except in the label's own name.
fn placement_field(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    if FIELDS.contains(&lower.as_str()) {
        return Some(lower);
    }
    let prefix = LABEL_FIELDS.iter().find(|prefix| lower.starts_with(**prefix) && lower.len() > prefix.len())?;
    Some(format!("{prefix}{}", &text[prefix.len()..]))
}

/// `node.labels.disk == ssd`, `node.role!=manager`.
fn constraint(item: &At<'_>, findings: &mut Findings) -> Option<Constraint> {
    let text = item.filled_text(findings)?;
    let (field, equal, value) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((field, value)), _) => (field.trim(), true, value.trim()),
        (None, Some((field, value))) => (field.trim(), false, value.trim()),
        (None, None) => {
            let hint = "write `node.hostname == lab-7` or `node.labels.disk != hdd`";
            findings.error(&item.place, format!("`{}` is not a constraint", shortened(text)), hint);
            return None;
        }
    };
    let Some(field) = placement_field(field) else {
        let hint = match words::closest(field, FIELDS) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known are {}, node.labels.*, engine.labels.*", FIELDS.join(", ")),
        };
        findings.error(&item.place, format!("`{}` is nothing to place by", shortened(field)), hint);
        return None;
    };
    if value.is_empty() {
        findings.error(&item.place, "the constraint has no value", "write what the field is to be");
        return None;
    }
    let value = if field == ARCH_FIELD { machine_arch(value) } else { value };
    Some(Constraint { field, equal, value: value.to_string() })
}

/// `update_config`, `rollback_config` and `x-bramble: update:`.
pub(super) fn update(at: &At<'_>, policy: &mut UpdatePolicy, findings: &mut Findings) {
    let Some(mut fields) = at.fields(findings) else { return };
    if let Some(parallelism) = fields.take("parallelism").and_then(|at| at.whole_u32(0, REPLICAS_MAX, findings)) {
        policy.parallelism = parallelism;
    }
    if let Some(delay_ms) = fields.take("delay").and_then(|at| at.duration_ms(findings)) {
        policy.delay_ms = delay_ms;
    }
    let actions = [("pause", OnFailure::Pause), ("continue", OnFailure::Continue), ("rollback", OnFailure::Rollback)];
    if let Some(action) = fields.take("failure_action").and_then(|at| at.one_of(&actions, findings)) {
        policy.on_failure = action;
    }
    if let Some(monitor_ms) = fields.take("monitor").and_then(|at| at.duration_ms(findings))
        && monitor_ms > 0
    {
        policy.monitor_ms = monitor_ms;
    }
    if let Some(at) = fields.take("max_failure_ratio")
        && let Some(ratio) = at.decimal(findings)
    {
        if (0.0..=1.0).contains(&ratio) {
            policy.failure_ratio_max = ratio;
        } else {
            findings.error(&at.place, format!("`{ratio}` is not a share from 0 to 1"), "write `0.3` for three in ten");
        }
    }
    let orders = [("start-first", UpdateOrder::StartFirst), ("stop-first", UpdateOrder::StopFirst)];
    if let Some(order) = fields.take("order").and_then(|at| at.one_of(&orders, findings)) {
        policy.order = Some(order);
    }
    fields.finish(&[], findings);
}

fn endpoint_mode(at: &At<'_>, findings: &mut Findings) {
    // A service has one address that leads to an instance, which is what `vip` asks for.
    if at.one_of(&[("vip", false), ("dnsrr", true)], findings) == Some(true) {
        let hint = "the service's name leads to one address, from which connections are spread over the instances";
        findings.warn(&at.place, "`endpoint_mode: dnsrr` is not honoured", hint);
    }
}
