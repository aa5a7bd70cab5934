//! The rules every machine has. Data: the names are those components register, and a rule whose series
//! nobody registers never holds.

mod gateway;
mod runs;

use super::{Expression, Holds, Match, Rule, Select};
use crate::unit::Unit;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;

/// How old a gauge may be and still say how things are: three samples, so that one may be missed.
const RECENT_MS: u64 = 15 * SECOND_MS;
/// Enough to get another certificate by hand. Those that renew themselves do so long before.
const CERTIFICATE_LEFT_S_MIN: f64 = 14.0 * 86_400.0;

/// The built-in rules. `memory_budget_bytes` is what the agent itself may hold.
pub fn built_in(memory_budget_bytes: u64) -> Vec<Rule> {
    let mut rules = services();
    rules.extend(gateway::rules());
    rules.extend(machine());
    rules.extend(control());
    rules.extend(machines());
    rules.extend(cluster());
    rules.extend(cores());
    rules.extend(runs::rules());
    rules.extend(etcd());
    rules.extend(own(memory_budget_bytes));
    rules
}

/// What the services people deployed do.
fn services() -> Vec<Rule> {
    let instance: &[&str] = &["stack", "service", "instance"];
    let requests = |labels| Select { name: "bramble_gateway_requests_total", labels };
    vec![
        Rule {
            name: "instance_restarting",
            summary: "{instance} was restarted {value} times in ten minutes: its last log lines say why",
            expression: Expression::Growth {
                of: Select::all("bramble_instance_restarts_total"),
                over_ms: 10 * MINUTE_MS,
            },
            by: instance,
            holds: Holds::AtLeast(3.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "service_degraded",
            summary: "{stack}/{service} lacks {value} of its instances: their messages say what they wait for",
            expression: Expression::Shortfall {
                wanted: Select::all("bramble_service_instances_wanted"),
                present: Select::all("bramble_service_instances_ready"),
                within_ms: RECENT_MS,
            },
            by: &["stack", "service"],
            holds: Holds::Above(0.0),
            for_ms: MINUTE_MS,
            unit: Unit::Count,
        },
        Rule {
            name: "service_errors",
            summary: "{value} of the requests to {service} are answered with a server error: see its logs",
            expression: Expression::Ratio {
                part: requests(&[("class", Match::Begins("5"))]),
                whole: requests(&[]),
                over_ms: MINUTE_MS,
                // One failed health probe of somebody's browser tab is no outage.
                whole_min: 10.0,
            },
            by: &["service"],
            holds: Holds::Above(0.05),
            for_ms: 2 * MINUTE_MS,
            unit: Unit::Share,
        },
        Rule {
            name: "image_pull_failing",
            summary: "images could not be pulled {value} times in ten minutes: check the reference, the registry and \
                      the network",
            expression: Expression::Growth {
                of: Select::all("bramble_image_pull_failures_total"),
                over_ms: 10 * MINUTE_MS,
            },
            by: &[],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
    ]
}

/// What the machine lacks.
fn machine() -> Vec<Rule> {
    let psi: &[(&str, Match)] = &[("kind", Match::Is("memory"))];
    vec![
        Rule {
            name: "disk_nearly_full",
            summary: "{value} of the disk of the data folder is free: remove unused images, volumes \
                      or other files",
            expression: Expression::Share {
                part: Select::all("bramble_node_disk_available_bytes"),
                whole: Select::all("bramble_node_disk_total_bytes"),
                within_ms: RECENT_MS,
            },
            by: &[],
            holds: Holds::Below(0.10),
            for_ms: MINUTE_MS,
            unit: Unit::Share,
        },
        Rule {
            name: "memory_pressure",
            summary: "programs wait for memory {value} of the time: stop something, or give services a memory limit",
            expression: Expression::Latest {
                of: Select { name: "bramble_node_psi", labels: psi },
                within_ms: RECENT_MS,
            },
            by: &[],
            holds: Holds::Above(0.20),
            for_ms: MINUTE_MS,
            unit: Unit::Share,
        },
    ]
}

/// The state of record.
fn control() -> Vec<Rule> {
    let p99: &[(&str, Match)] = &[("quantile", Match::Is("p99"))];
    vec![
        Rule {
            name: "control_slow",
            summary: "changes take {value} to reach the disk: the disk of the data folder is slow or busy",
            expression: Expression::Latest {
                of: Select { name: "bramble_control_commit_seconds", labels: p99 },
                // Changes are rare: the last one within two minutes counts as how it is now.
                within_ms: 2 * MINUTE_MS,
            },
            by: &[],
            holds: Holds::Above(1.0),
            for_ms: MINUTE_MS,
            unit: Unit::Seconds,
        },
        Rule {
            name: "control_failing",
            summary: "{value} changes could not be written in five minutes: the disk is full or broken, see the \
                      agent's log",
            expression: Expression::Growth {
                of: Select::all("bramble_control_commit_failures_total"),
                over_ms: 5 * MINUTE_MS,
            },
            by: &[],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
    ]
}

/// One machine among several.
fn machines() -> Vec<Rule> {
    vec![
        Rule {
            name: "machine_down",
            summary: "machine {machine} ({host}) does not answer: what ran there runs elsewhere, as far as there is room; \
                      is it switched off, or its network gone?",
            expression: Expression::Latest { of: Select::all("bramble_cluster_machine_up"), within_ms: RECENT_MS },
            by: &["machine", "host"],
            holds: Holds::Below(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "clock_skewed",
            summary: "the clock of machine {machine} ({host}) is {value} from the others': set it, `timedatectl set-ntp true` \
                      keeps it right; further off than hours, certificates do not count and it is cut off",
            expression: Expression::Latest {
                of: Select::all("bramble_cluster_clock_skew_seconds"),
                within_ms: RECENT_MS,
            },
            by: &["machine", "host"],
            holds: Holds::Above(2.0),
            for_ms: MINUTE_MS,
            unit: Unit::Seconds,
        },
        Rule {
            name: "machine_twin",
            summary: "two machines have the key of {machine}, met {value} times in ten minutes: one's data folder is a copy \
                      of the other's; the log of the node names both addresses; give the copy a folder of its own",
            expression: Expression::Growth {
                of: Select::all("bramble_cluster_twins_met_total"),
                over_ms: 10 * MINUTE_MS,
            },
            by: &["machine"],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "machine_pressed",
            summary: "machine {machine} ({host}) waits more than its owner allows, and {value} instances are still there: \
                      what keeps its data there cannot move, and the rest finds no room; `bramble service why` says which",
            expression: Expression::Latest {
                of: Select::all("bramble_cluster_machine_pressed_instances"),
                within_ms: RECENT_MS,
            },
            by: &["machine", "host"],
            holds: Holds::AtLeast(1.0),
            // One instance leaves each half minute.
            for_ms: 10 * MINUTE_MS,
            unit: Unit::Count,
        },
    ]
}

/// What several machines do together.
fn cluster() -> Vec<Rule> {
    vec![
        Rule {
            name: "floating_address_lost",
            summary: "address {address} is nowhere: the gateway cannot hold it; its log says why, as a rule the program may not \
                      change addresses (setcap cap_net_admin,cap_net_raw+ep) or no interface is on that network",
            expression: Expression::Latest { of: Select::all("bramble_cluster_floating_failed"), within_ms: RECENT_MS },
            by: &["address"],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "machines_refused",
            summary: "{value} connections of other machines were refused in five minutes ({reason}): one that was \
                      removed, or one that means harm",
            expression: Expression::Growth {
                of: Select { name: "bramble_rpc_handshakes_failed_total", labels: &[("side", Match::Is("server"))] },
                over_ms: 5 * MINUTE_MS,
            },
            by: &["reason"],
            // Somebody's scan of the network is a handful.
            holds: Holds::AtLeast(100.0),
            for_ms: 0,
            unit: Unit::Count,
        },
    ]
}

/// The machines' cores, which tell nobody themselves.
fn cores() -> Vec<Rule> {
    vec![Rule {
        name: "core_wrong",
        summary: "core {core} of machine {machine} ({host}) computes wrong: of {test} it made {got} instead of {expected}; \
                  nothing is placed there any more; have its processor and memory looked at, then `bramble node activate` it",
        expression: Expression::Latest { of: Select::all("bramble_selftest_core_wrong"), within_ms: RECENT_MS },
        by: &["machine", "host", "core", "test", "expected", "got"],
        holds: Holds::AtLeast(1.0),
        for_ms: 0,
        unit: Unit::Count,
    }]
}

/// Programs made for etcd.
fn etcd() -> Vec<Rule> {
    let failed: &[(&str, Match)] = &[("result", Match::Is("failed"))];
    vec![
        Rule {
            name: "etcd_failing",
            summary: "{value} of the requests of etcd's clients fail: too few of the machines that decide are there, or \
                      their disks are slow or full",
            expression: Expression::Ratio {
                part: Select { name: "bramble_etcd_requests_total", labels: failed },
                whole: Select::all("bramble_etcd_requests_total"),
                over_ms: MINUTE_MS,
                // A client that asks every ten seconds has asked six times.
                whole_min: 5.0,
            },
            by: &[],
            holds: Holds::Above(0.05),
            for_ms: 0,
            unit: Unit::Share,
        },
        Rule {
            name: "etcd_space_filling",
            summary: "{value} of the room that etcd's clients have is taken: when it is full they can write no more; \
                      see which of them forgets nothing",
            expression: Expression::Share {
                part: Select::all("bramble_etcd_bytes"),
                whole: Select::all("bramble_etcd_bytes_max"),
                within_ms: RECENT_MS,
            },
            by: &[],
            holds: Holds::Above(0.80),
            for_ms: MINUTE_MS,
            unit: Unit::Share,
        },
    ]
}

/// What Bramble itself does.
fn own(memory_budget_bytes: u64) -> Vec<Rule> {
    let agent: &[(&str, Match)] = &[("process", Match::Is("agent"))];
    #[expect(clippy::cast_precision_loss, reason = "a budget is megabytes")]
    let budget = memory_budget_bytes as f64;
    vec![
        Rule {
            name: "upgrade_failing",
            summary: "the node could not be replaced {value} times in ten minutes and goes on as it was: its log says \
                      why, and B0001 what to do",
            expression: Expression::Growth {
                of: Select::all("bramble_upgrade_failures_total"),
                over_ms: 10 * MINUTE_MS,
            },
            by: &[],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "agent_memory",
            summary: "the agent holds {value}, more than its budget: restarting it stops no container; please \
                      report it",
            expression: Expression::Latest {
                of: Select { name: "bramble_process_resident_bytes", labels: agent },
                within_ms: RECENT_MS,
            },
            by: &[],
            holds: Holds::Above(budget),
            for_ms: 5 * MINUTE_MS,
            unit: Unit::Bytes,
        },
        Rule {
            name: "series_refused",
            summary: "there are more series than are kept: graphs and alerts miss some, remove services that are not \
                      needed",
            expression: Expression::Growth { of: Select::all("bramble_telemetry_refused_total"), over_ms: MINUTE_MS },
            by: &[],
            holds: Holds::AtLeast(1.0),
            for_ms: MINUTE_MS,
            unit: Unit::Count,
        },
        Rule {
            name: "logs_not_pruned",
            summary: "old logs could not be removed {value} times in ten minutes: see the agent's log for the folder",
            expression: Expression::Growth {
                of: Select::all("bramble_telemetry_prune_failures_total"),
                over_ms: 10 * MINUTE_MS,
            },
            by: &[],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
    ]
}
