//! What a person looks at, component by component: boards as data, served to the dashboard.
//!
//! A panel names series of [`crate::series`] and the label values that select them; the page fills `{label}`
//! selections with what it shows. Knows no colour and no layout.

use crate::unit::Unit;
use serde::Serialize;

/// The panels of one component.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Board {
    /// `machine`, `instance`, `gateway`, …
    pub component: &'static str,
    pub title: &'static str,
    /// Labels of whatever the board is about; a page asks for their values before it shows the board.
    pub about: &'static [&'static str],
    pub panels: &'static [Panel],
}

/// One graph.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Panel {
    pub title: &'static str,
    pub unit: Unit,
    pub lines: &'static [Line],
}

/// Series in a graph: a line for each that `name` and `labels` select.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Line {
    pub name: &'static str,
    pub labels: &'static [(&'static str, &'static str)],
    /// `{label}` stands for the series' own; empty when there is one line only.
    pub legend: &'static str,
}

/// All boards, in the order a page lists them.
pub fn boards() -> &'static [Board] {
    BOARDS
}

const fn line(name: &'static str, legend: &'static str) -> Line {
    Line { name, labels: &[], legend }
}

const fn panel(title: &'static str, unit: Unit, lines: &'static [Line]) -> Panel {
    Panel { title, unit, lines }
}

const BOARDS: &[Board] = &[
    Board {
        component: "machine",
        title: "Machine",
        about: &[],
        panels: &[
            panel("Processor", Unit::Share, &[line("bramble_node_cpu_busy", "busy")]),
            panel("Load", Unit::Count, &[line("bramble_node_load1", "one minute")]),
            panel("Waiting", Unit::Share, &[line("bramble_node_psi", "{kind}")]),
            panel(
                "Cores that compute wrong",
                Unit::Count,
                &[line("bramble_selftest_core_wrong", "{host}, core {core}: {test}")],
            ),
            panel(
                "Memory",
                Unit::Bytes,
                &[
                    line("bramble_node_memory_available_bytes", "available"),
                    line("bramble_node_memory_total_bytes", "total"),
                ],
            ),
            panel(
                "Disk",
                Unit::Bytes,
                &[
                    line("bramble_node_disk_available_bytes", "available"),
                    line("bramble_node_disk_total_bytes", "total"),
                ],
            ),
        ],
    },
    Board {
        component: "instance",
        title: "Instances",
        about: &["stack", "service"],
        panels: &[
            panel("Processor", Unit::Cores, &[line("bramble_instance_cpu_cores", "{instance}")]),
            panel("Memory", Unit::Bytes, &[line("bramble_instance_memory_bytes", "{instance}")]),
            panel(
                "Network",
                Unit::BytesPerSecond,
                &[
                    line("bramble_instance_received_bytes_total", "{instance} in"),
                    line("bramble_instance_sent_bytes_total", "{instance} out"),
                ],
            ),
            panel(
                "Disk",
                Unit::BytesPerSecond,
                &[
                    line("bramble_instance_read_bytes_total", "{instance} read"),
                    line("bramble_instance_written_bytes_total", "{instance} written"),
                ],
            ),
            panel("Processes", Unit::Count, &[line("bramble_instance_processes", "{instance}")]),
            panel("Restarts", Unit::PerSecond, &[line("bramble_instance_restarts_total", "{instance}")]),
        ],
    },
    Board {
        component: "gateway",
        title: "Gateway",
        about: &["service"],
        panels: &[
            panel("Requests", Unit::PerSecond, &[line("bramble_gateway_requests_total", "{method} {class}")]),
            panel("Answered within", Unit::Seconds, &[line("bramble_gateway_request_seconds", "{quantile}")]),
            panel(
                "Under way",
                Unit::Count,
                &[
                    line("bramble_gateway_in_flight", "{instance}"),
                    line("bramble_gateway_waiting", "waiting"),
                    line("bramble_gateway_gathering", "not sent yet"),
                ],
            ),
            panel(
                "Instances answer",
                Unit::PerSecond,
                &[line("bramble_gateway_instance_requests_total", "{instance} {class}")],
            ),
            panel(
                "Instances answer within",
                Unit::Seconds,
                &[Line {
                    name: "bramble_gateway_instance_seconds",
                    labels: &[("quantile", "p95")],
                    legend: "{instance} p95",
                }],
            ),
            panel(
                "Left out (breakers: 0.5 tried, 1 out)",
                Unit::Count,
                &[line("bramble_gateway_breaker", "{instance}")],
            ),
            panel("Routes", Unit::PerSecond, &[line("bramble_gateway_route_requests_total", "{route} {class}")]),
            panel(
                "Failures behind the gateway",
                Unit::PerSecond,
                &[
                    line("bramble_gateway_upstream_failures_total", "{kind}"),
                    line("bramble_gateway_retries_total", "tried again"),
                    line("bramble_gateway_no_endpoint_total", "nobody ready"),
                    line("bramble_gateway_ejections_total", "left out"),
                    line("bramble_gateway_hedges_total", "asked twice"),
                    line("bramble_gateway_shed_total", "refused, {class}"),
                ],
            ),
            panel("Refused by rules of routes", Unit::PerSecond, &[line("bramble_gateway_refused_total", "{reason}")]),
            panel("Clients banned", Unit::PerSecond, &[line("bramble_gateway_bans_total", "banned")]),
            panel("Copies for this service", Unit::PerSecond, &[line("bramble_gateway_mirrored_total", "{outcome}")]),
        ],
    },
    Board {
        component: "cache",
        title: "Cache",
        about: &["service"],
        panels: &[
            panel("Requests of cached routes", Unit::PerSecond, &[line("bramble_cache_requests_total", "{result}")]),
            panel("Answered without services", Unit::BytesPerSecond, &[line("bramble_cache_bytes_total", "{service}")]),
        ],
    },
    Board {
        component: "cache-node",
        title: "What the cache takes",
        about: &[],
        panels: &[
            panel("Memory", Unit::Bytes, &[line("bramble_cache_memory_bytes", "answers")]),
            panel("Disk", Unit::BytesPerSecond, &[line("bramble_cache_disk_bytes_total", "{direction}")]),
            panel(
                "Given up and failed",
                Unit::PerSecond,
                &[
                    line("bramble_cache_evictions_total", "given up for others"),
                    line("bramble_cache_disk_errors_total", "the disk failed"),
                ],
            ),
        ],
    },
    Board {
        component: "door",
        title: "Between services",
        about: &["service"],
        panels: &[panel(
            "Connections that came to nothing",
            Unit::PerSecond,
            &[line("bramble_door_refused_total", "refused"), line("bramble_door_failures_total", "failed")],
        )],
    },
    Board {
        component: "clients",
        title: "Clients",
        about: &[],
        panels: &[
            panel(
                "Connections",
                Unit::Count,
                &[line("bramble_gateway_connections", "open"), line("bramble_gateway_resting_connections", "at rest")],
            ),
            panel(
                "Connections closed for others' sake",
                Unit::PerSecond,
                &[
                    line("bramble_gateway_connections_refused_total", "too many of one client"),
                    line("bramble_gateway_connections_shed_total", "unused, no room"),
                ],
            ),
            panel("Traffic", Unit::BytesPerSecond, &[line("bramble_gateway_bytes_total", "{direction}")]),
            panel("Strain", Unit::Share, &[line("bramble_gateway_strain", "{class}")]),
            panel("Connections by thread", Unit::Count, &[line("bramble_gateway_thread_connections", "{thread}")]),
            panel(
                "Missing from the access log",
                Unit::PerSecond,
                &[line("bramble_gateway_log_dropped_total", "{reason}")],
            ),
            panel("TLS handshakes", Unit::PerSecond, &[line("bramble_gateway_tls_handshakes_total", "{kind}")]),
            panel("Certificates end in", Unit::Seconds, &[line("bramble_certificate_left_seconds", "{name}")]),
        ],
    },
    Board {
        component: "cluster",
        title: "Cluster",
        about: &[],
        panels: &[
            panel("Machines that are there", Unit::Count, &[line("bramble_cluster_machine_up", "{host} {machine}")]),
            panel("Processors in use", Unit::Share, &[line("bramble_cluster_machine_cpu_busy", "{host} {machine}")]),
            panel("Memory in use", Unit::Share, &[line("bramble_cluster_machine_memory_used", "{host} {machine}")]),
            panel(
                "Something waits for processor, memory or disk",
                Unit::Share,
                &[line("bramble_cluster_machine_waiting", "{host} {machine}")],
            ),
            panel(
                "Cores used by others than us",
                Unit::Count,
                &[line("bramble_cluster_machine_owner_cpu_cores", "{host} {machine}")],
            ),
            panel(
                "Memory used by others than us",
                Unit::Bytes,
                &[line("bramble_cluster_machine_owner_memory_bytes", "{host} {machine}")],
            ),
            panel(
                "Instances where the owner needs the machine",
                Unit::Count,
                &[line("bramble_cluster_machine_pressed_instances", "{host} {machine}")],
            ),
            panel("Reports of load", Unit::PerSecond, &[line("bramble_cluster_load_reports_total", "reports")]),
            panel("Found to be down", Unit::PerSecond, &[line("bramble_cluster_verdicts_total", "machines")]),
            panel(
                "Gateway, and what of it is here",
                Unit::Count,
                &[
                    line("bramble_cluster_gateway_active", "gateway"),
                    line("bramble_address_held", "{address}"),
                    line("bramble_cluster_floating_failed", "{address} cannot be held"),
                ],
            ),
            panel(
                "Clocks are off by",
                Unit::Seconds,
                &[line("bramble_cluster_clock_skew_seconds", "{host} {machine}")],
            ),
            panel(
                "Announcements to the link",
                Unit::PerSecond,
                &[
                    line("bramble_discovery_sent_total", "sent"),
                    line("bramble_discovery_found_total", "members found"),
                    line("bramble_discovery_refused_total", "refused"),
                ],
            ),
            panel("Twins met", Unit::PerSecond, &[line("bramble_cluster_twins_met_total", "{machine}")]),
            panel(
                "Instances kept from running twice",
                Unit::PerSecond,
                &[
                    line("bramble_planner_fences_total", "to be fenced"),
                    line("bramble_cluster_fences_total", "{outcome}"),
                    line("bramble_instances_cut_off_total", "stopped here, cut off"),
                ],
            ),
            panel("Roles changed", Unit::PerSecond, &[line("bramble_cluster_role_changes_total", "changes")]),
            panel(
                "A write is on the disk within",
                Unit::Seconds,
                &[line("bramble_cluster_fsync_p99_seconds", "99 of 100, when the node began")],
            ),
            panel(
                "Calls between machines",
                Unit::PerSecond,
                &[line("bramble_rpc_calls_total", "{side} {method} {code}")],
            ),
            panel("Answered within", Unit::Seconds, &[line("bramble_rpc_call_seconds", "{method} {quantile}")]),
            panel(
                "Bytes between machines",
                Unit::BytesPerSecond,
                &[line("bramble_rpc_bytes_total", "{side} {direction}")],
            ),
            panel(
                "Connections that came to nothing",
                Unit::PerSecond,
                &[line("bramble_rpc_handshakes_failed_total", "{side} {reason}")],
            ),
            panel("Clients of etcd", Unit::PerSecond, &[line("bramble_etcd_requests_total", "{method} {result}")]),
            panel(
                "Clients of etcd are answered within",
                Unit::Seconds,
                &[line("bramble_etcd_request_seconds", "{method} {quantile}")],
            ),
            panel(
                "Clients of etcd have",
                Unit::Count,
                &[
                    line("bramble_etcd_connections", "connections"),
                    line("bramble_etcd_watches", "watches"),
                    line("bramble_etcd_leases", "leases"),
                ],
            ),
        ],
    },
    Board {
        component: "control",
        title: "Control",
        about: &[],
        panels: &[
            panel("Change on disk within", Unit::Seconds, &[line("bramble_control_commit_seconds", "{quantile}")]),
            panel(
                "Changes",
                Unit::PerSecond,
                &[
                    line("bramble_control_commit_seconds_count", "written"),
                    line("bramble_control_commit_failures_total", "failed"),
                ],
            ),
            panel(
                "Planner",
                Unit::PerSecond,
                &[
                    line("bramble_planner_plans_total", "plans"),
                    line("bramble_planner_steps_total", "steps"),
                    line("bramble_planner_write_failures_total", "failed"),
                ],
            ),
        ],
    },
    Board {
        component: "runs",
        title: "Code that is run",
        about: &[],
        panels: &[
            panel("Runs ended", Unit::PerSecond, &[line("bramble_runs_total", "{language} {verdict}")]),
            panel(
                "Runs",
                Unit::Count,
                &[
                    line("bramble_runs_running", "run"),
                    line("bramble_runs_waiting", "wait for room"),
                    line("bramble_runs_carried", "assigned here, for all machines"),
                ],
            ),
            panel(
                "Begun within",
                Unit::Seconds,
                &[
                    line("bramble_run_queue_seconds", "waiting {quantile}"),
                    line("bramble_run_place_seconds", "placing {quantile}"),
                    line("bramble_run_box_seconds", "box {quantile}"),
                    line("bramble_run_compile_seconds", "compiling {quantile}"),
                ],
            ),
            panel("Programs take", Unit::Seconds, &[line("bramble_run_seconds", "{language} {quantile}")]),
            panel(
                "Boxes",
                Unit::PerSecond,
                &[
                    line("bramble_run_boxes_total", "{from}"),
                    line("bramble_run_boxes_given_up_total", "not to be used again"),
                ],
            ),
            panel("Languages copied", Unit::PerSecond, &[line("bramble_language_copies_total", "{result}")]),
            panel("A copy takes", Unit::Seconds, &[line("bramble_language_copy_seconds", "{quantile}")]),
            panel(
                "Processes that run code",
                Unit::Count,
                &[
                    line("bramble_workers", "there"),
                    line("bramble_workers_wanted", "wanted"),
                    line("bramble_boxes_ready", "boxes ready"),
                ],
            ),
            panel(
                "Not as it should be",
                Unit::PerSecond,
                &[
                    line("bramble_workers_lost_total", "workers lost"),
                    line("bramble_runs_refused_total", "refused"),
                    line("bramble_runs_resumed_total", "found again by another way"),
                    line("bramble_runs_begun_again_total", "begun again elsewhere"),
                    line("bramble_run_buddies_unheard_total", "buddy did not answer"),
                ],
            ),
        ],
    },
    Board {
        component: "agent",
        title: "Bramble itself",
        about: &[],
        panels: &[
            panel("Memory", Unit::Bytes, &[line("bramble_process_resident_bytes", "{process}")]),
            panel("Processor", Unit::Cores, &[line("bramble_process_cpu_seconds_total", "{process}")]),
            panel("Written", Unit::BytesPerSecond, &[line("bramble_process_written_bytes_total", "{process}")]),
            panel("Upgrades", Unit::PerSecond, &[line("bramble_upgrade_failures_total", "failed")]),
            panel("Unhealthy", Unit::PerSecond, &[line("bramble_health_failures_total", "")]),
            panel("Image pulls failed", Unit::PerSecond, &[line("bramble_image_pull_failures_total", "")]),
        ],
    },
    Board {
        component: "telemetry",
        title: "Telemetry",
        about: &[],
        panels: &[
            panel("Series", Unit::Count, &[line("bramble_telemetry_streams", "kept")]),
            panel(
                "Turned away",
                Unit::PerSecond,
                &[
                    line("bramble_telemetry_refused_total", "series"),
                    line("bramble_meter_series_refused_total", "meter: {reason}"),
                ],
            ),
            panel("One sample takes", Unit::Seconds, &[line("bramble_telemetry_sample_seconds", "{quantile}")]),
            panel("Alerts", Unit::Count, &[line("bramble_alerts_firing", "{alert}")]),
            panel("Logs", Unit::Bytes, &[line("bramble_telemetry_logs_bytes", "kept")]),
            panel("Logs removed", Unit::BytesPerSecond, &[line("bramble_telemetry_logs_freed_bytes_total", "removed")]),
            panel("Logs followed", Unit::Count, &[line("bramble_telemetry_follows", "readers")]),
        ],
    },
];
