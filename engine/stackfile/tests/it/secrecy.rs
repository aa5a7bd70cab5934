//! TLS in stack files: where it is opened, whose certificates clients show, what browsers remember.

use crate::support::{Case, errors, web_source};
use wire::spec::{ClientCertificates, Hsts, Port, Protocol, ProxyProtocol, Route, Rules};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

/// A file with one route with these keys, and a config `clients` that holds a certificate.
fn source(keys: &str) -> String {
    let route = format!("x-bramble: {{routes: [{{port: 80, {keys}}}]}}");
    format!("{}configs:\n  clients: {{file: ./clients.pem}}\n", web_source(&route))
}

#[track_caller]
fn route(keys: &str) -> Route {
    let stack = Case::new().file("./clients.pem", PEM).stack(&source(keys));
    let [route] = &stack.services["web"].routes[..] else { panic!("one route: {stack:?}") };
    route.clone()
}

#[track_caller]
fn refused(keys: &str, expected: &[&str]) {
    let report = Case::new().file("./clients.pem", PEM).parse(source(keys)).report;
    // Where in the line is the reader's to say, and tested there.
    let said = |line: &String| line.split_once(' ').map(|(_, said)| said.replace("services.web.x-bramble.", ""));
    let found: Vec<String> = errors(&report).iter().filter_map(said).collect();
    assert_eq!(found, expected, "{keys}");
}

#[test]
fn a_route_says_where_tls_ends() {
    let usual = route("host: a.org, tls: true");
    assert_eq!((usual.tls, usual.passthrough, usual.proxy_protocol), (true, false, None));
    let carried = route("hosts: [a.org, '*.a.org'], tls: passthrough, proxy_protocol: v1");
    assert_eq!((carried.tls, carried.passthrough), (true, true));
    assert_eq!(carried.proxy_protocol, Some(ProxyProtocol::V1));
    let plain = serde_json::to_value(route("host: a.org")).expect("a route");
    assert!(
        plain.get("passthrough").is_none() && plain.get("proxy_protocol").is_none(),
        "older specs lack both: {plain}"
    );
}

#[test]
fn a_route_names_whose_certificates_count() {
    let wanted = |optional| {
        Some(Box::new(Rules {
            client_certificates: Some(ClientCertificates { authority: PEM.to_owned(), optional }),
            ..Rules::default()
        }))
    };
    assert_eq!(route("client_certificates: {authority: clients}").rules, wanted(false));
    assert_eq!(route("client_certificates: {authority: clients, optional: true}").rules, wanted(true));
}

#[test]
fn browsers_are_told_for_how_long() {
    let check = |keys: &str, expected: Option<Hsts>| {
        let rules = expected.map(|hsts| Box::new(Rules { hsts: Some(hsts), ..Rules::default() }));
        assert_eq!(route(keys).rules, rules, "{keys}");
    };
    let year_s = 31_536_000;
    check("hsts: true", Some(Hsts { max_age_s: year_s, ..Hsts::default() }));
    check("hsts: false", None);
    check("hsts: {max_age: 0s}", Some(Hsts::default()));
    check(
        "hsts: {include_subdomains: true, preload: true}",
        Some(Hsts { max_age_s: year_s, include_subdomains: true, preload: true }),
    );
}

#[test]
fn a_port_says_what_comes_before_its_instances() {
    let web = Case::new()
        .web("ports:\n  - {target: 5432, published: 5432, x-bramble: {tls: true, proxy_protocol: v2}}\n  - 8080:80");
    let first = Port {
        tls: true,
        proxy_protocol: Some(ProxyProtocol::V2),
        target: 5432,
        published: Some(5432),
        ..Port::default()
    };
    assert_eq!(web.ports, [first, Port { target: 80, published: Some(8080), ..Port::default() }]);
    assert_eq!(web.ports[1].protocol, Protocol::Tcp);
    let udp = web_source("ports:\n  - {target: 53, protocol: udp, x-bramble: {tls: true}}");
    assert_eq!(
        errors(&Case::new().parse(udp).report),
        ["5:9 services.web.ports[0]: neither `tls` nor `proxy_protocol` goes with UDP"]
    );
    let unknown = web_source("ports:\n  - {target: 53, x-bramble: {tlss: true}}");
    assert_eq!(errors(&Case::new().parse(unknown).report).len(), 1);
}

#[test]
fn what_does_not_go_together_is_refused() {
    refused("tls: maybe", &["routes[0].tls: `maybe` is not a truth value"]);
    refused("tls: passthrough", &["routes[0]: `tls: passthrough` has no `host`"]);
    refused(
        "host: a.org, tls: passthrough, path: /a",
        &["routes[0]: what goes by requests does not go with `tls: passthrough`"],
    );
    refused(
        "host: a.org, tls: passthrough, hsts: true",
        &["routes[0]: what goes by requests does not go with `tls: passthrough`"],
    );
    refused("host: a.org, proxy_protocol: v1", &["routes[0]: `proxy_protocol` is for connections that are not opened"]);
    refused(
        "host: a.org, tls: passthrough, proxy_protocol: v3",
        &["routes[0].proxy_protocol: `v3` is not one of `v1`, `v2`"],
    );
    refused(
        "client_certificates: {authority: others}",
        &["routes[0].client_certificates.authority: there is no config `others`"],
    );
    refused(
        "client_certificates: {}",
        &["routes[0].client_certificates: nobody says whose certificates count: there is no `authority`"],
    );
    refused("hsts: {preload: true}", &["routes[0].hsts: `preload` alone is not taken into browsers' list"]);
    let empty = Case::new().file("./clients.pem", "nothing").parse(source("client_certificates: {authority: clients}"));
    let found = errors(&empty.report);
    assert!(found.len() == 1 && found[0].contains("`clients` holds no certificate"), "{found:?}");
}
