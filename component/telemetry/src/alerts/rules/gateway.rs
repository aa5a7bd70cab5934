//! What is wrong between clients and the services behind the gateway.

use super::{CERTIFICATE_LEFT_S_MIN, MINUTE_MS, RECENT_MS};
use crate::alerts::{Expression, Holds, Match, Rule, Select};
use crate::unit::Unit;

/// All of them.
pub(super) fn rules() -> Vec<Rule> {
    [requests(), overload(), certificates(), clients(), cache()].into_iter().flatten().collect()
}

/// What clients meet.
fn requests() -> Vec<Rule> {
    let p99 = &[("quantile", Match::Is("p99"))];
    vec![
        Rule {
            name: "service_unreachable",
            summary: "{value} requests to {service} found no instance that was ready: see what its instances wait for",
            expression: Expression::Growth { of: Select::all("bramble_gateway_no_endpoint_total"), over_ms: MINUTE_MS },
            by: &["service"],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "service_slow",
            summary: "one in a hundred requests to {service} takes {value} and more: see what its instances wait for",
            expression: Expression::Latest {
                of: Select { name: "bramble_gateway_request_seconds", labels: p99 },
                within_ms: RECENT_MS,
            },
            by: &["service"],
            holds: Holds::Above(5.0),
            for_ms: 5 * MINUTE_MS,
            unit: Unit::Seconds,
        },
        Rule {
            name: "gateway_saturated",
            summary: "{value} of the client connections that may be open are: more wait or are turned away",
            expression: Expression::Share {
                part: Select::all("bramble_gateway_connections"),
                whole: Select::all("bramble_gateway_connections_max"),
                within_ms: RECENT_MS,
            },
            by: &[],
            holds: Holds::Above(0.90),
            for_ms: MINUTE_MS,
            unit: Unit::Share,
        },
    ]
}

/// What the gateway has too much of.
fn overload() -> Vec<Rule> {
    vec![
        Rule {
            name: "requests_shed",
            summary: "{value} requests to {service} were refused in a minute because there was more to do than this \
                      machine can do: stop or move what is not needed, or add a machine",
            expression: Expression::Growth { of: Select::all("bramble_gateway_shed_total"), over_ms: MINUTE_MS },
            by: &["service"],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "instance_left_out",
            summary: "{instance} fails and is asked nothing, but to see whether it still does: its last log lines say why",
            expression: Expression::Latest { of: Select::all("bramble_gateway_breaker"), within_ms: RECENT_MS },
            by: &["service", "instance"],
            holds: Holds::Above(0.0),
            for_ms: MINUTE_MS,
            unit: Unit::Count,
        },
        Rule {
            name: "requests_not_told",
            summary: "{value} requests are missing from the access log of the last five minutes: its disk is slow or \
                      full, or more fail than are told of",
            expression: Expression::Growth {
                of: Select::all("bramble_gateway_log_dropped_total"),
                over_ms: 5 * MINUTE_MS,
            },
            by: &[],
            holds: Holds::AtLeast(1.0),
            for_ms: MINUTE_MS,
            unit: Unit::Count,
        },
    ]
}

/// Whom clients take us for.
fn certificates() -> Vec<Rule> {
    vec![
        Rule {
            name: "certificate_ending",
            summary: "the certificate for {name} ends in {value}: put a new one into the node's folder of certificates",
            expression: Expression::Latest {
                of: Select::all("bramble_certificate_left_seconds"),
                within_ms: RECENT_MS,
            },
            by: &["name"],
            holds: Holds::Below(CERTIFICATE_LEFT_S_MIN),
            for_ms: MINUTE_MS,
            unit: Unit::Seconds,
        },
        Rule {
            name: "certificate_unobtainable",
            summary: "no public authority gives a certificate for {name}: `bramble certificate ls` says why",
            expression: Expression::Latest {
                of: Select::all("bramble_certificate_unobtainable"),
                within_ms: RECENT_MS,
            },
            by: &["name"],
            holds: Holds::AtLeast(1.0),
            // An authority may be away for a moment; one that refuses goes on refusing.
            for_ms: 5 * MINUTE_MS,
            unit: Unit::Count,
        },
        Rule {
            name: "certificate_unusable",
            summary: "{value} files in the folder of certificates are none: `bramble certificate ls` says why",
            expression: Expression::Latest { of: Select::all("bramble_certificates_unusable"), within_ms: RECENT_MS },
            by: &[],
            holds: Holds::AtLeast(1.0),
            for_ms: MINUTE_MS,
            unit: Unit::Count,
        },
    ]
}

/// What clients do that no client should.
fn clients() -> Vec<Rule> {
    vec![
        Rule {
            name: "client_connections_refused",
            summary: "{value} connections in five minutes were closed since their client had as many as one may have: \
                      one of them is broken or means harm, or many stand behind one address",
            expression: Expression::Growth {
                of: Select::all("bramble_gateway_connections_refused_total"),
                over_ms: 5 * MINUTE_MS,
            },
            by: &[],
            holds: Holds::AtLeast(100.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "clients_banned",
            summary: "{value} clients of {service} were banned in five minutes: somebody tries passwords or paths; \
                      `bramble gateway bans ls` says who",
            expression: Expression::Growth { of: Select::all("bramble_gateway_bans_total"), over_ms: 5 * MINUTE_MS },
            by: &["service"],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
    ]
}

/// The gateway's cache, which works without its disk, but less well.
fn cache() -> Vec<Rule> {
    vec![
        Rule {
            name: "cache_disk_lost",
            summary: "the disk of the gateway's cache cannot be used: see the node's log, and what lies at `cache` in its data folder",
            expression: Expression::Latest { of: Select::all("bramble_cache_disk_lost"), within_ms: RECENT_MS },
            by: &[],
            holds: Holds::AtLeast(1.0),
            for_ms: 0,
            unit: Unit::Count,
        },
        Rule {
            name: "cache_disk_failing",
            summary: "the disk of the gateway's cache failed {value} times in ten minutes: is it full or broken?",
            expression: Expression::Growth {
                of: Select::all("bramble_cache_disk_errors_total"),
                over_ms: 10 * MINUTE_MS,
            },
            by: &[],
            holds: Holds::AtLeast(3.0),
            for_ms: 0,
            unit: Unit::Count,
        },
    ]
}
