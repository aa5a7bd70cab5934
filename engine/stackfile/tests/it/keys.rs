//! Every key of the compose specification is honoured, harmless, or named in a warning; the documentation's table is
//! made of what the parser does.

use crate::support::{Case, errors, warnings};
use wire::diagnostic::Diagnostic;
use wire::spec::Stack;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Treatment {
    /// It changes the spec, without a warning.
    Honoured,
    /// What it asks for is so anyway; no warning.
    Harmless,
    /// A warning names it and says what happens instead.
    Warned,
}

use Treatment::{Harmless, Honoured, Warned};

struct Key {
    name: &'static str,
    treatment: Treatment,
    /// Lines of the service `web`; or, after `top:`, of the top level.
    lines: &'static str,
    /// What it does, for the documentation; a warned key's own warning says it.
    note: &'static str,
}

const fn key(name: &'static str, treatment: Treatment, lines: &'static str, note: &'static str) -> Key {
    Key { name, treatment, lines, note }
}

/// The services' keys of the specification, with the ones below `deploy`, and two of compose v2.
const SERVICE_KEYS: &[Key] = &[
    key("annotations", Warned, "annotations: {a: b}", ""),
    key("attach", Harmless, "attach: false", "for a terminal of docker compose only"),
    key("blkio_config", Warned, "blkio_config: {weight: 300}", ""),
    key("build", Warned, "build: ./web", ""),
    key("cap_add", Honoured, "cap_add: [NET_BIND_SERVICE]", "capabilities inside the instance's own sandbox"),
    key("cap_drop", Honoured, "cap_drop: [ALL]", "capabilities taken away"),
    key("cgroup", Warned, "cgroup: host", ""),
    key("cgroup_parent", Warned, "cgroup_parent: m", ""),
    key("command", Honoured, "command: a 'b c'", "a line is split like a shell splits it; a list is taken as it is"),
    key("configs", Honoured, "configs: [conf]", "placed at `/<name>`, mode 0444, or where the long form says"),
    key("container_name", Honoured, "container_name: front", "a further name on the service's networks"),
    key("cpu_count", Warned, "cpu_count: 2", ""),
    key("cpu_percent", Warned, "cpu_percent: 20", ""),
    key("cpu_period", Warned, "cpu_period: 100ms", ""),
    key("cpu_quota", Warned, "cpu_quota: 50000", ""),
    key("cpu_rt_period", Warned, "cpu_rt_period: 1ms", ""),
    key("cpu_rt_runtime", Warned, "cpu_rt_runtime: 1ms", ""),
    key("cpu_shares", Warned, "cpu_shares: 73", ""),
    key("cpus", Honoured, "cpus: 0.5", "as `deploy.resources.limits.cpus`"),
    key("cpuset", Warned, "cpuset: 0-1", ""),
    key("credential_spec", Warned, "credential_spec: {file: a}", ""),
    key("depends_on", Honoured, "depends_on: [db]", "started after it; a ring is an error"),
    key(
        "depends_on.condition",
        Honoured,
        "depends_on: {db: {condition: service_healthy}}",
        "`service_started`, `service_healthy`, `service_completed_successfully`",
    ),
    key("deploy.endpoint_mode", Warned, "deploy: {endpoint_mode: dnsrr}", ""),
    key("deploy.labels", Honoured, "deploy: {labels: {a: b}}", "join the labels of the service and win over them"),
    key("deploy.mode", Honoured, "deploy: {mode: global}", "`replicated`, `global`, `replicated-job`"),
    key(
        "deploy.placement.constraints",
        Honoured,
        "deploy: {placement: {constraints: [node.role == worker]}}",
        "`==` and `!=` on node.id, node.hostname, node.role, node.platform.os, node.platform.arch, node.zone, node.labels.*, engine.labels.*",
    ),
    key(
        "deploy.placement.max_replicas_per_node",
        Honoured,
        "deploy: {placement: {max_replicas_per_node: 1}}",
        "0 is no bound",
    ),
    key(
        "deploy.placement.preferences",
        Honoured,
        "deploy: {placement: {preferences: [{spread: node.labels.zone}]}}",
        "`spread` over a label",
    ),
    key("deploy.replicas", Honoured, "deploy: {replicas: 3}", "0 to 10000"),
    key("deploy.resources.limits.cpus", Honoured, "deploy: {resources: {limits: {cpus: '0.5'}}}", "cores"),
    key("deploy.resources.limits.memory", Honoured, "deploy: {resources: {limits: {memory: 64M}}}", "powers of 1024"),
    key("deploy.resources.limits.pids", Honoured, "deploy: {resources: {limits: {pids: 10}}}", "processes"),
    key(
        "deploy.resources.reservations.cpus",
        Honoured,
        "deploy: {resources: {reservations: {cpus: 1}}}",
        "kept free for it",
    ),
    key(
        "deploy.resources.reservations.memory",
        Honoured,
        "deploy: {resources: {reservations: {memory: 1G}}}",
        "kept free for it",
    ),
    key(
        "deploy.resources.reservations.devices",
        Warned,
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
        "",
    ),
    key(
        "deploy.resources.reservations.generic_resources",
        Warned,
        "deploy: {resources: {reservations: {generic_resources: [a]}}}",
        "",
    ),
    key(
        "deploy.restart_policy.condition",
        Honoured,
        "deploy: {restart_policy: {condition: none}}",
        "`any`, `on-failure`, `none`",
    ),
    key(
        "deploy.restart_policy.delay",
        Honoured,
        "deploy: {restart_policy: {delay: 5s}}",
        "the first pause; it doubles",
    ),
    key("deploy.restart_policy.max_attempts", Honoured, "deploy: {restart_policy: {max_attempts: 3}}", "0 is no bound"),
    key(
        "deploy.restart_policy.window",
        Honoured,
        "deploy: {restart_policy: {window: 120s}}",
        "how long a good start lives",
    ),
    key(
        "deploy.rollback_config.order",
        Honoured,
        "deploy: {rollback_config: {order: stop-first}}",
        "as `update_config`",
    ),
    key(
        "deploy.rollback_config.parallelism",
        Honoured,
        "deploy: {rollback_config: {parallelism: 2}}",
        "as `update_config`",
    ),
    key("deploy.update_config.delay", Honoured, "deploy: {update_config: {delay: 10s}}", "between two batches"),
    key(
        "deploy.update_config.failure_action",
        Honoured,
        "deploy: {update_config: {failure_action: pause}}",
        "`pause`, `continue`, `rollback` (the default, unlike swarm's)",
    ),
    key(
        "deploy.update_config.max_failure_ratio",
        Honoured,
        "deploy: {update_config: {max_failure_ratio: 0.3}}",
        "0 to 1",
    ),
    key(
        "deploy.update_config.monitor",
        Honoured,
        "deploy: {update_config: {monitor: 20s}}",
        "how long a new instance is watched",
    ),
    key(
        "deploy.update_config.order",
        Honoured,
        "deploy: {update_config: {order: stop-first}}",
        "without it: start-first, but stop-first for one instance with a volume",
    ),
    key("deploy.update_config.parallelism", Honoured, "deploy: {update_config: {parallelism: 2}}", "0 is all at once"),
    key("develop", Warned, "develop: {watch: []}\nx-a: 1", ""),
    key("device_cgroup_rules", Warned, "device_cgroup_rules: ['c 1:3 mr']", ""),
    key("devices", Warned, "devices: [/dev/ttyUSB0]", ""),
    key("dns", Warned, "dns: 1.1.1.1", ""),
    key("dns_opt", Warned, "dns_opt: [use-vc]", ""),
    key("dns_search", Honoured, "dns_search: example.org", "domains tried for short names"),
    key("domainname", Honoured, "domainname: example.org", ""),
    key("entrypoint", Honoured, "entrypoint: [a, b]", "as `command`"),
    key("env_file", Honoured, "env_file: web.env", "`required: false` may be missing; `environment` wins over it"),
    key(
        "environment",
        Honoured,
        "environment: {A: b}",
        "a name without value takes the caller's; Go templates are filled in",
    ),
    key("expose", Honoured, "expose: ['3000']", "ports that others on its networks reach"),
    key("extends", Honoured, "extends: db", "a service of this file or of another one"),
    key("external_links", Warned, "external_links: [x]", ""),
    key("extra_hosts", Honoured, "extra_hosts: ['a:10.0.0.1']", "lines of /etc/hosts; `host-gateway` is warned about"),
    key("gpus", Warned, "gpus: all", ""),
    key("group_add", Honoured, "group_add: [mail]", ""),
    key(
        "healthcheck",
        Honoured,
        "healthcheck: {test: curl -f localhost}",
        "CMD, CMD-SHELL, NONE, `disable`, and all times",
    ),
    key("hostname", Honoured, "hostname: a", "Go templates are filled in"),
    key("image", Honoured, "image: nginx:1.27", "`host` is the machine's own root file system, read-only"),
    key("init", Honoured, "init: true", ""),
    key("ipc", Warned, "ipc: host", ""),
    key("isolation", Warned, "isolation: process", ""),
    key("label_file", Honoured, "label_file: web.env", "as `labels`"),
    key("labels", Honoured, "labels: [a=b]", "Traefik's make routes, see below"),
    key("links", Honoured, "links: ['db:database']", "a dependency, and a further name for it"),
    key(
        "logging",
        Honoured,
        "logging: {options: {max-size: 1m, max-file: 3}}",
        "the size is kept; other drivers and options are warned about",
    ),
    key("mac_address", Warned, "mac_address: 02:42:ac:11:00:02", ""),
    key("mem_limit", Honoured, "mem_limit: 64m", "as `deploy.resources.limits.memory`"),
    key("mem_reservation", Honoured, "mem_reservation: 64m", "as `deploy.resources.reservations.memory`"),
    key("mem_swappiness", Warned, "mem_swappiness: 10", ""),
    key("memswap_limit", Warned, "memswap_limit: 1g", ""),
    key("models", Warned, "models: [m]", ""),
    key(
        "network_mode",
        Honoured,
        "network_mode: none",
        "`none` and `bridge`; `host` is warned about, another service's is an error",
    ),
    key("networks", Honoured, "networks: {front: {aliases: [a]}}", "with aliases; fixed addresses are warned about"),
    key("networks.ipv4_address", Warned, "networks: {front: {ipv4_address: 10.0.0.2}}", ""),
    key("oom_kill_disable", Warned, "oom_kill_disable: true", ""),
    key("oom_score_adj", Warned, "oom_score_adj: 100", ""),
    key("pid", Warned, "pid: host", ""),
    key("pids_limit", Honoured, "pids_limit: 10", "as `deploy.resources.limits.pids`"),
    key(
        "platform",
        Honoured,
        "platform: linux/arm64",
        "machines of that processor only; other systems than Linux are warned about",
    ),
    key(
        "ports",
        Honoured,
        "ports: ['8080:80']",
        "short and long form, ranges; published by the gateway; `mode: host` is warned about",
    ),
    key("post_start", Warned, "post_start: [{command: a}]", ""),
    key("pre_stop", Warned, "pre_stop: [{command: a}]", ""),
    key("privileged", Warned, "privileged: true", ""),
    key("profiles", Warned, "profiles: [debug]", ""),
    key("provider", Warned, "provider: {type: a}", ""),
    key(
        "pull_policy",
        Honoured,
        "pull_policy: always",
        "`always`, `missing`, `never`; those by the clock become `always`, with a warning",
    ),
    key("pull_refresh_after", Warned, "pull_refresh_after: 24h", ""),
    key("read_only", Honoured, "read_only: true", "the root file system"),
    key(
        "restart",
        Honoured,
        "restart: on-failure:3",
        "`no`, `always`, `on-failure[:n]`, `unless-stopped`; without it services are restarted, as in swarm",
    ),
    key("runtime", Warned, "runtime: runsc", ""),
    key("scale", Honoured, "scale: 2", "as `deploy.replicas`"),
    key(
        "secrets",
        Honoured,
        "secrets: [token]",
        "placed at `/run/secrets/<name>`, mode 0444, or where the long form says",
    ),
    key("security_opt", Warned, "security_opt: ['seccomp:unconfined']", ""),
    key("shm_size", Honoured, "shm_size: 64m", ""),
    key("stdin_open", Honoured, "stdin_open: true", ""),
    key("stop_grace_period", Honoured, "stop_grace_period: 1m30s", ""),
    key("stop_signal", Honoured, "stop_signal: SIGINT", ""),
    key("storage_opt", Warned, "storage_opt: {size: 1G}", ""),
    key(
        "sysctls",
        Honoured,
        "sysctls: {net.core.somaxconn: 1024}",
        "those that each instance has for itself; the machine's are warned about",
    ),
    key("tmpfs", Honoured, "tmpfs: /run:size=64m", ""),
    key("tty", Honoured, "tty: true", ""),
    key("ulimits", Honoured, "ulimits: {nofile: {soft: 10, hard: 20}}", "one number for both, or soft and hard"),
    key("use_api_socket", Warned, "use_api_socket: true", ""),
    key("user", Honoured, "user: '1000:1000'", ""),
    key("userns_mode", Warned, "userns_mode: host", ""),
    key("uts", Warned, "uts: host", ""),
    key("volumes", Honoured, "volumes: ['data:/data:ro']", "named, bound, unnamed, tmpfs; short and long form"),
    key("volumes_from", Honoured, "volumes_from: ['db:ro']", "another service's mounts"),
    key("working_dir", Honoured, "working_dir: /a", ""),
    key("x-bramble", Honoured, "x-bramble: {egress: ['*']}", "Bramble's own, see below"),
];

const TOP_KEYS: &[Key] = &[
    key(
        "configs",
        Honoured,
        "top:configs: {conf: {content: other}}",
        "`file`, `environment`, `content`; external ones are an error",
    ),
    key("include", Honoured, "top:include: [more.yml]", "other stack files"),
    key("models", Warned, "top:models: {m: {model: a}}", ""),
    key("name", Harmless, "top:name: other", "the name given when deploying wins"),
    key("networks.attachable", Harmless, "top:networks: {front: {attachable: true}}", "every external network is"),
    key("networks.driver", Warned, "top:networks: {front: {driver: macvlan}}", ""),
    key("networks.driver_opts", Warned, "top:networks: {front: {driver_opts: {a: b}}}", ""),
    key("networks.enable_ipv6", Warned, "top:networks: {front: {enable_ipv6: true}}", ""),
    key("networks.external", Honoured, "top:networks: {front: {external: true}}", "shared between stacks"),
    key("networks.internal", Honoured, "top:networks: {front: {internal: true}}", "leads nowhere else"),
    key("networks.ipam", Warned, "top:networks: {front: {ipam: {driver: a}}}", ""),
    key("networks.labels", Warned, "top:networks: {front: {labels: {a: b}}}", ""),
    key("networks.name", Honoured, "top:networks: {front: {name: a}}", ""),
    key(
        "secrets",
        Honoured,
        "top:secrets: {token: {environment: TOKEN}}",
        "`file`, `environment`, `content`; external ones are an error",
    ),
    key("version", Harmless, "top:version: '3.7'", "every version is read alike"),
    key("volumes.driver", Warned, "top:volumes: {data: {driver: nfs}}", ""),
    key("volumes.driver_opts", Warned, "top:volumes: {data: {driver_opts: {type: nfs}}}", ""),
    key("volumes.external", Honoured, "top:volumes: {data: {external: true}}", "kept when the stack is removed"),
    key("volumes.labels", Honoured, "top:volumes: {data: {labels: {a: b}}}", ""),
    key("volumes.name", Honoured, "top:volumes: {data: {name: a}}", ""),
    key("x-*", Harmless, "top:x-own: {a: b}", "the writer's own, for anchors"),
];

/// The keys that 1,616 public stack files use, by how often, from most to least.
const IN_REAL_USE: &str = "image volumes environment restart healthcheck ports depends_on command \
    depends_on.condition expose container_name networks hostname deploy.replicas deploy.placement.constraints \
    deploy.labels deploy.mode entrypoint user cap_add deploy.restart_policy.condition logging \
    deploy.resources.limits.cpus build secrets labels network_mode env_file ulimits security_opt platform \
    deploy.resources.reservations.cpus deploy.update_config.delay links deploy.update_config.parallelism pull_policy \
    stop_grace_period extra_hosts tty stdin_open shm_size read_only configs tmpfs deploy.restart_policy.delay devices \
    deploy.restart_policy.max_attempts sysctls deploy.restart_policy.window privileged working_dir \
    deploy.update_config.order stop_signal cap_drop dns deploy.placement.max_replicas_per_node \
    deploy.update_config.failure_action init runtime pids_limit deploy.update_config.monitor pid deploy.endpoint_mode \
    memswap_limit mem_limit group_add profiles volumes_from deploy.rollback_config.order \
    deploy.rollback_config.parallelism dns_search deploy.placement.preferences";

const SECTIONS: [(&str, &str); 4] = [
    ("networks", "{front: {}}"),
    ("volumes", "{data: {}}"),
    ("configs", "{conf: {content: c}}"),
    ("secrets", "{token: {content: t}}"),
];

fn source(lines: &str) -> String {
    let (service, top) = match lines.strip_prefix("top:") {
        Some(top) => ("", top),
        None => (lines, ""),
    };
    let image = if service.starts_with("image:") || service.starts_with("build:") { "" } else { "    image: nginx\n" };
    let mut source = format!("services:\n  web:\n{image}");
    service.lines().for_each(|line| source.push_str(&format!("    {line}\n")));
    source.push_str("  db:\n    image: postgres\n    environment: {X: y}\n    volumes: ['data:/db']\n    configs: [conf]\n    secrets: [token]\n");
    for (section, content) in SECTIONS {
        if !top.starts_with(section) {
            source.push_str(&format!("{section}: {content}\n"));
        }
    }
    source.push_str(top);
    source
}

fn case() -> Case {
    Case::new()
        .variable("TOKEN", "abc")
        .file("web.env", "A=1\n")
        .file("more.yml", "services: {more: {image: busybox}}\n")
}

/// The warning that is about a key, if there is one.
fn warning_about(key: &Key, source: &str) -> Option<Diagnostic> {
    let last = key.name.rsplit('.').next().unwrap_or(key.name);
    let report = case().parse(source).report;
    report.warnings.into_iter().find(|found| found.path.contains(last))
}

#[test]
fn every_key_is_honoured_or_named_in_a_warning() {
    let baseline: Stack = case().stack(&source(""));
    for key in SERVICE_KEYS.iter().chain(TOP_KEYS) {
        let source = source(key.lines);
        let parsed = case().parse(&source);
        assert_eq!(errors(&parsed.report), Vec::<String>::new(), "{}", key.name);
        let stack = parsed.stack.expect("there are no errors");
        let found = warnings(&parsed.report);
        match key.treatment {
            Honoured => {
                assert_eq!(found, Vec::<String>::new(), "{}", key.name);
                assert_ne!(stack, baseline, "{} changes nothing", key.name);
            }
            Harmless => {
                assert_eq!(found, Vec::<String>::new(), "{}", key.name);
                assert_eq!(stack, baseline, "{} changes something", key.name);
            }
            Warned => {
                let about = warning_about(key, &source).unwrap_or_else(|| panic!("{} passes in silence", key.name));
                let line = source.lines().nth(about.line as usize - 1).expect("the line is there");
                let last = key.name.rsplit('.').next().unwrap_or(key.name);
                assert!(line.contains(last), "{}: line {} is `{line}`", key.name, about.line);
                assert!(!about.hint.is_empty(), "{} does not say what happens instead", key.name);
            }
        }
    }
}

#[test]
fn the_keys_in_real_use_are_all_in_the_table() {
    let used: Vec<&str> = IN_REAL_USE.split_whitespace().collect();
    // 74 ranks, of which the three conditions of `depends_on` are one key here.
    assert_eq!(used.len(), 74 - 2);
    for name in used {
        assert!(SERVICE_KEYS.iter().any(|key| key.name == name), "{name} is not in the table");
    }
}

/// The table of a section as the documentation has it.
fn table(keys: &[Key]) -> String {
    let mut table = String::from("| key | treatment | what it does, or what happens instead |\n|---|---|---|\n");
    for key in keys {
        let (treatment, note) = match key.treatment {
            Honoured => ("honoured", key.note.to_string()),
            Harmless => ("harmless", key.note.to_string()),
            Warned => ("warned", warning_about(key, &source(key.lines)).map(|found| found.hint).unwrap_or_default()),
        };
        table.push_str(&format!("| `{}` | {treatment} | {note} |\n", key.name));
    }
    table
}

#[test]
fn the_documentation_has_the_same_table() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/stack-file.md");
    let documentation = std::fs::read_to_string(path).expect("docs/stack-file.md is there");
    for keys in [TOP_KEYS, SERVICE_KEYS] {
        let table = table(keys);
        assert!(documentation.contains(&table), "docs/stack-file.md must have this table:\n{table}");
    }
}
