//! TLS and who is at its ends: where it is opened, whose certificates clients show, what browsers are to remember.

use crate::findings::Findings;
use crate::read::{At, Fields, shortened};
use crate::stack::Surroundings;
use base64::Engine as _;
use wire::spec::{ClientCertificates, Hsts, ProxyProtocol, Route, Rules};

/// A year, as the list that browsers carry asks for.
const HSTS_S_DEFAULT: u32 = 365 * 86_400;
const PEM: &str = "-----BEGIN CERTIFICATE-----";

/// Whether a route is served with TLS only, and whether that is carried on unopened.
pub(super) fn tls(fields: &mut Fields<'_>, findings: &mut Findings) -> (bool, bool) {
    let Some(at) = fields.take("tls") else { return (false, false) };
    if at.node.text() == Some("passthrough") {
        return (true, true);
    }
    (at.truth(findings).unwrap_or_default(), false)
}

/// `proxy_protocol: v1` or `v2`, of a route or a port.
pub(crate) fn proxy_protocol(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<ProxyProtocol> {
    fields.take("proxy_protocol")?.one_of(&[("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)], findings)
}

pub(super) fn read(fields: &mut Fields<'_>, rules: &mut Rules, around: &Surroundings<'_>, findings: &mut Findings) {
    rules.client_certificates =
        fields.take("client_certificates").and_then(|at| client_certificates(&at, around, findings));
    rules.hsts = fields.take("hsts").and_then(|at| hsts(&at, findings));
}

/// What does not go together, once all of a route is known.
pub(super) fn check(route: &Route, item: &At<'_>, findings: &mut Findings) {
    if !route.passthrough {
        if route.proxy_protocol.is_some() {
            let hint = "HTTP says it in `x-forwarded-for`; write `tls: passthrough`, or `proxy_protocol` under a port";
            findings.error(&item.place, "`proxy_protocol` is for connections that are not opened", hint);
        }
        return;
    }
    if route.hosts.is_empty() {
        let hint = "name the hosts; nothing else can be seen of such a connection";
        findings.error(&item.place, "`tls: passthrough` has no `host`", hint);
    }
    let sees_requests = route.path_prefix != "/"
        || route.strip_prefix
        || route.weight.is_some()
        || !route.conditions.is_none()
        || route.rules.is_some();
    if sees_requests {
        let hint = "write `tls: true` to have the gateway open the connection, or keep only `host` and `port`";
        findings.error(&item.place, "what goes by requests does not go with `tls: passthrough`", hint);
    }
}

fn client_certificates(at: &At<'_>, around: &Surroundings<'_>, findings: &mut Findings) -> Option<ClientCertificates> {
    let mut fields = at.fields(findings)?;
    let authority = fields.take("authority");
    let optional = fields.truth("optional", findings);
    fields.finish(&[], findings);
    let Some(named) = authority else {
        let hint = "name the config that holds its certificate";
        findings.error(&at.place, "nobody says whose certificates count: there is no `authority`", hint);
        return None;
    };
    let name = named.filled_text(findings)?;
    let Some(known) = around.configs.get(name).or_else(|| around.secrets.get(name)) else {
        let hint = Surroundings::declare_hint("configs", name, around.configs.keys());
        findings.error(&named.place, format!("there is no config `{}`", shortened(name)), hint);
        return None;
    };
    // That it could not be had was said where it is declared.
    let content = known.content.as_deref().unwrap_or_default();
    if !around.charge(content.len(), &named.place, findings) {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(content).unwrap_or_default();
    let authority = String::from_utf8(bytes).unwrap_or_default();
    if known.content.is_some() && !authority.contains(PEM) {
        let hint = "it is the authority's certificate as PEM, with `-----BEGIN CERTIFICATE-----`";
        findings.error(&named.place, format!("`{}` holds no certificate", shortened(name)), hint);
    }
    Some(ClientCertificates { authority, optional })
}

/// `hsts: true`, or a map.
fn hsts(at: &At<'_>, findings: &mut Findings) -> Option<Hsts> {
    if !at.is_map() {
        let usual = Hsts { max_age_s: HSTS_S_DEFAULT, ..Hsts::default() };
        return at.truth(findings)?.then_some(usual);
    }
    let mut fields = at.fields(findings)?;
    let max_age = fields.take("max_age").map(|at| at.duration_ms(findings));
    let hsts = Hsts {
        max_age_s: match max_age {
            Some(ms) => u32::try_from(ms? / 1_000).unwrap_or(u32::MAX),
            None => HSTS_S_DEFAULT,
        },
        include_subdomains: fields.truth("include_subdomains", findings),
        preload: fields.truth("preload", findings),
    };
    fields.finish(&[], findings);
    if hsts.preload && !(hsts.include_subdomains && hsts.max_age_s >= HSTS_S_DEFAULT) {
        let hint = "the list asks for `include_subdomains: true` and a `max_age` of a year at least";
        findings.error(&at.place, "`preload` alone is not taken into browsers' list", hint);
    }
    Some(hsts)
}
