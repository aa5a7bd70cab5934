//! `x-bramble` of a service: what the compose specification has no words for.
//!
//! Unknown keys in it are errors, unlike in other `x-` keys.

use super::{Reader, deploy, health};
use crate::findings::Findings;
use crate::read::{At, Fields, shortened};
use crate::route;
use crate::traefik;
use std::net::IpAddr;
use wire::spec::{HealthTest, Reconcile, STOP_AFTER_MS_MIN};

/// A machine that was away for longer has others to do its work; more is a typing error.
const LOST_AFTER_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// Whoever is to replace it waits as long.
const STOP_AFTER_MS_MAX: u64 = 24 * 3_600_000;

impl Reader<'_, '_> {
    pub(super) fn bramble(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let Some(at) = fields.take("x-bramble") else { return };
        let Some(mut fields) = at.fields(findings) else { return };
        let port = self.spec.ports.first().map(|port| port.target).or(self.spec.expose.first().map(|e| e.port));
        for item in fields.take("routes").map(|at| at.one_or_list(findings)).unwrap_or_default() {
            let Some((route, named)) = route::route(&item, port, self.around, findings) else { continue };
            self.spec.routes.push(route);
            // A service may well be asked about its own requests.
            for (service, place) in named {
                if service != self.name {
                    self.mention(&service, place, false);
                }
            }
        }
        if let Some(egress) = fields.take("egress") {
            self.egress(&egress, findings);
        }
        for (key, together) in [("with", true), ("stack_with", true), ("without", false), ("never_with", false)] {
            for item in fields.take(key).map(|at| at.one_or_list(findings)).unwrap_or_default() {
                let Some(name) = item.filled_text(findings) else { continue };
                self.mention(name, item.place.clone(), false);
                let placement = &mut self.spec.placement;
                if together { &mut placement.with } else { &mut placement.without }.push(name.to_string());
            }
        }
        if let Some(at) = fields.take("max_per_node") {
            self.max_per_node(&at, findings);
        }
        if let Some(at) = fields.take("disconnect") {
            self.disconnect(&at, findings);
        }
        if let Some(check) = fields.take("healthcheck") {
            self.network_check(&check, findings);
        }
        if let Some(update) = fields.take("update") {
            deploy::update(&update, &mut self.spec.update, findings);
        }
        fields.finish(&[], findings);
    }

    fn max_per_node(&mut self, at: &At<'_>, findings: &mut Findings) {
        let Some(most) = at.whole_u32(1, deploy::REPLICAS_MAX, findings) else { return };
        let placement = &mut self.spec.placement;
        if placement.replicas_per_node_max.is_some_and(|other| other != most) {
            let message = "`max_per_node` and `deploy.placement.max_replicas_per_node` say different things";
            findings.error(&at.place, message, "keep one of the two");
        }
        placement.replicas_per_node_max = Some(most);
    }

    fn disconnect(&mut self, at: &At<'_>, findings: &mut Findings) {
        let Some(mut fields) = at.fields(findings) else { return };
        let disconnect = &mut self.spec.disconnect;
        if let Some(at) = fields.take("lost_after")
            && let Some(lost_after_ms) = at.duration_ms(findings)
        {
            if lost_after_ms > LOST_AFTER_MS_MAX {
                findings.error(&at.place, "`lost_after` is longer than a week", "choose a shorter time");
            }
            disconnect.lost_after_ms = lost_after_ms;
        }
        let ways = [("keep-replacement", Reconcile::KeepReplacement), ("keep-original", Reconcile::KeepOriginal)];
        if let Some(way) = fields.take("reconcile").and_then(|at| at.one_of(&ways, findings)) {
            disconnect.reconcile = way;
        }
        if let Some(at) = fields.take("stop_after")
            && let Some(stop_after_ms) = at.duration_ms(findings)
        {
            if stop_after_ms < STOP_AFTER_MS_MIN {
                let hint =
                    format!("choose {}s or more: another machine may come to lead in that", STOP_AFTER_MS_MIN / 1_000);
                findings.error(&at.place, "`stop_after` is too short", hint);
            }
            if stop_after_ms > STOP_AFTER_MS_MAX {
                findings.error(&at.place, "`stop_after` is longer than a day", "choose a shorter time");
            }
            disconnect.stop_after_ms = Some(stop_after_ms);
        }
        fields.finish(&[], findings);
    }

    fn egress(&mut self, at: &At<'_>, findings: &mut Findings) {
        for item in at.one_or_list(findings) {
            let Some(text) = item.filled_text(findings) else { continue };
            let lower = text.to_ascii_lowercase();
            if !is_destination(&lower) {
                let hint = "write `*`, `api.example.org`, `*.example.org:443` or `10.0.0.0/8`";
                findings.error(&item.place, format!("`{}` is not a destination", shortened(text)), hint);
                continue;
            }
            self.spec.egress.push(lower);
        }
        let networks = &self.around.networks;
        let internal = |name: &String| networks.values().any(|network| network.internal && network.name == *name);
        let only_internal = !self.spec.networks.is_empty() && self.spec.networks.keys().all(internal);
        if only_internal && !self.spec.egress.is_empty() {
            let hint = "put the service on a network without `internal: true`";
            findings.error(&at.place, "the service is on internal networks only, which lead nowhere else", hint);
        }
    }

    fn network_check(&mut self, at: &At<'_>, findings: &mut Findings) {
        let Some(mut fields) = at.fields(findings) else { return };
        let mut check = health::timing(&mut fields, findings);
        let http = fields.take("http");
        let tcp = fields.take("tcp");
        fields.finish(&[], findings);
        let test = match (http, tcp) {
            (Some(http), None) => http_test(&http, findings),
            (None, Some(tcp)) => tcp
                .whole(1, u64::from(u16::MAX), findings)
                .map(|port| HealthTest::Tcp { port: u16::try_from(port).unwrap_or(u16::MAX) }),
            (Some(_), Some(_)) | (None, None) => {
                let hint = "write `http: \"8080/health\"` or `tcp: 5432`";
                findings.error(&at.place, "the check needs either `http` or `tcp`", hint);
                None
            }
        };
        if self.spec.healthcheck.is_some() {
            findings.error(&at.place, "the service has a `healthcheck` already", "keep one of the two");
        } else if let Some(test) = test {
            check.test = test;
            self.spec.healthcheck = Some(check);
        }
    }
}

/// `8080/health`; without a path, `/` is asked for.
fn http_test(at: &At<'_>, findings: &mut Findings) -> Option<HealthTest> {
    let text = at.filled_text(findings)?;
    let (port, path) = text.split_once('/').unwrap_or((text, ""));
    match port.trim_start_matches(':').parse::<u16>() {
        Ok(port) if port > 0 && !path.contains(char::is_whitespace) => {
            Some(HealthTest::Http { port, path: format!("/{path}") })
        }
        Ok(_) | Err(_) => {
            findings.error(&at.place, format!("`{}` is not a port and path", shortened(text)), "write `8080/health`");
            None
        }
    }
}

/// `*`, a name, `*.example.org`, an address or a network, each with an optional port.
fn is_destination(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address is full of colons; with a port it stands in brackets.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_network = bare.split_once('/').is_some_and(|(address, bits)| {
        let bits: Option<u8> = bits.parse().ok();
        match (address.parse::<IpAddr>(), bits) {
            (Ok(IpAddr::V4(_)), Some(bits)) => bits <= 32,
            (Ok(IpAddr::V6(_)), Some(bits)) => bits <= 128,
            (Ok(_), None) | (Err(_), _) => false,
        }
    });
    port_is_good && (host == "*" || bare.parse::<IpAddr>().is_ok() || is_network || traefik::is_host(host))
}
