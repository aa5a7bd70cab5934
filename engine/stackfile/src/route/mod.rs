//! A route of `x-bramble`: which requests it is for, and what is done with them.
//!
//! Owns its keys. What Traefik's labels say becomes the same routes; `forms` judges single values for both.

pub(crate) mod answers;
pub(crate) mod asides;
mod cache;
mod cors;
mod delivery;
pub(crate) mod forms;
mod guards;
pub(crate) mod rewriting;
pub(crate) mod secrecy;

use crate::findings::Findings;
use crate::read::{At, Fields, shortened};
use crate::stack::Surroundings;
use crate::traefik;
use asides::Named;
use wire::spec::{Conditions, Route, Rules};

/// Shares are told apart to a hundredth of a percent.
const WEIGHT_MAX: u32 = 10_000;

/// Reads a route, and which other services it names. `port` is taken when it names none.
pub(crate) fn route(
    item: &At<'_>,
    port: Option<u16>,
    around: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<(Route, Named)> {
    let mut fields = item.fields(findings)?;
    let (tls, passthrough) = secrecy::tls(&mut fields, findings);
    let mut route = Route {
        hosts: hosts(&mut fields, findings),
        path_prefix: "/".to_string(),
        strip_prefix: fields.truth("strip_prefix", findings),
        tls,
        passthrough,
        proxy_protocol: secrecy::proxy_protocol(&mut fields, findings),
        conditions: conditions(&mut fields, findings),
        weight: fields.take("weight").and_then(|at| at.whole_u32(0, WEIGHT_MAX, findings)),
        ..Route::default()
    };
    if let Some(path) = fields.take("path").and_then(|at| at.convert(findings, forms::path)) {
        route.path_prefix = path;
    }
    if let Some(at) = fields.take("priority")
        && let Some(text) = at.text(findings)
    {
        match text.parse() {
            Ok(priority) => route.priority = priority,
            Err(_) => findings.error(&at.place, format!("`{}` is not a whole number", shortened(text)), ""),
        }
    }
    let mut rules = Rules::default();
    rewriting::read(&mut fields, route.strip_prefix, &mut rules, findings);
    guards::read(&mut fields, &mut rules, findings);
    rules.cors = fields.take("cors").and_then(|at| cors::read(&at, findings));
    let (leave, copies) = (fields.take("forward_auth"), fields.take("mirror"));
    let named = asides::read(leave, copies, around, &mut rules, findings);
    answers::read(&mut fields, around, &mut rules, findings);
    secrecy::read(&mut fields, &mut rules, around, findings);
    rules.cache = fields.take("cache").and_then(|at| cache::read(&at, findings));
    route.rules = (rules != Rules::default()).then(|| Box::new(rules));
    route.delivery = delivery::read(&mut fields, findings);
    let given = fields.take("port");
    fields.finish(&[], findings);
    secrecy::check(&route, item, findings);
    route.port = match (given, port) {
        (Some(at), _) => u16::try_from(at.whole(1, u64::from(u16::MAX), findings)?).unwrap_or(u16::MAX),
        (None, Some(port)) => port,
        (None, None) => {
            findings.error(&item.place, "the route has no `port`", "name the port the service listens on");
            return None;
        }
    };
    Some((route, named))
}

fn hosts(fields: &mut Fields<'_>, findings: &mut Findings) -> Vec<String> {
    let given = [fields.take("host"), fields.take("hosts")];
    let given: Vec<At<'_>> = given.into_iter().flatten().flat_map(|at| at.one_or_list(findings)).collect();
    let mut hosts = Vec::new();
    for host in given {
        let Some(text) = host.filled_text(findings) else { continue };
        let lower = text.to_ascii_lowercase();
        if traefik::is_host(&lower) {
            hosts.push(lower);
        } else {
            let hint = "write a name such as `shop.example.org` or `*.example.org`, without port or path";
            findings.error(&host.place, format!("`{}` is not a host name", shortened(text)), hint);
        }
    }
    hosts
}

fn conditions(fields: &mut Fields<'_>, findings: &mut Findings) -> Conditions {
    let mut conditions = Conditions { exact: fields.truth("exact", findings), ..Conditions::default() };
    for item in fields.take("methods").map(|at| at.one_or_list(findings)).unwrap_or_default() {
        conditions.methods.extend(item.convert(findings, forms::method));
    }
    for pair in fields.take("headers").map(|at| at.pairs(&['='], findings)).unwrap_or_default() {
        let name = forms::header_name(pair.name);
        let value = forms::header_value(pair.value.unwrap_or_default());
        for wrong in [name.as_ref().err(), value.as_ref().err()].into_iter().flatten() {
            let text = if name.is_err() { pair.name } else { pair.value.unwrap_or_default() };
            findings.error(&pair.at.place, format!("`{}` {}", shortened(text), wrong.0), wrong.1);
        }
        if let (Ok(name), Ok(value)) = (name, value) {
            if name == "host" {
                findings.error(&pair.at.place, "`host` is no condition", "name the hosts under `hosts`");
            }
            conditions.headers.insert(name, value);
        }
    }
    conditions
}
