//! `ports` and `expose`: short and long form, ranges.

use super::Reader;
use crate::findings::{Findings, Place};
use crate::read::{At, Fields, shortened};
use crate::route::secrecy;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use wire::spec::{Expose, Port, Protocol};

/// Ports one service may publish: each is a listener on every machine.
const PORTS_MAX: usize = 1000;

const PORT_HINT: &str = "write `80`, `8080:80`, `127.0.0.1:8080:80/udp` or `3000-3005:3000-3005`";

impl Reader<'_, '_> {
    pub(super) fn ports(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        for item in fields.take("ports").map(|at| at.list(findings)).unwrap_or_default() {
            if item.is_map() {
                self.long_port(&item, findings);
            } else if let Some(text) = item.filled_text(findings) {
                match short_ports(text) {
                    Ok(ports) => self.add_ports(ports, &item.place, findings),
                    Err(wrong) => {
                        findings.error(&item.place, format!("`{}` is not a port: {wrong}", shortened(text)), PORT_HINT);
                    }
                }
            }
        }
        for item in fields.take("expose").map(|at| at.list(findings)).unwrap_or_default() {
            let Some(text) = item.filled_text(findings) else { continue };
            let parsed = protocol_of(text).and_then(|(ports, protocol)| Ok((range(ports)?, protocol)));
            match parsed {
                Ok((ports, protocol)) if self.spec.expose.len() + ports.clone().count() <= PORTS_MAX => {
                    self.spec.expose.extend(ports.map(|port| Expose { port, protocol }));
                }
                Ok(_) => findings.error(&item.place, format!("the service has more than {PORTS_MAX} ports"), ""),
                Err(wrong) => {
                    let message = format!("`{}` is not a port: {wrong}", shortened(text));
                    findings.error(&item.place, message, "write `80`, `53/udp` or `3000-3005`");
                }
            }
        }
    }

    fn add_ports(&mut self, ports: Vec<Port>, place: &Place, findings: &mut Findings) {
        if self.spec.ports.len() + ports.len() > PORTS_MAX {
            findings.error(place, format!("the service has more than {PORTS_MAX} ports"), "publish fewer");
            return;
        }
        self.marks.ports.extend(ports.iter().map(|_| place.clone()));
        self.spec.ports.extend(ports);
    }

    fn long_port(&mut self, item: &At<'_>, findings: &mut Findings) {
        let Some(mut fields) = item.fields(findings) else { return };
        let target = fields.take("target");
        let published = fields.take("published");
        let host_ip = fields.take("host_ip");
        let protocol = fields.take("protocol");
        let front = fields.take("x-bramble").map(|at| front(&at, findings)).unwrap_or_default();
        // Names and application protocols change nothing about how a port is served.
        fields.take("name");
        fields.take("app_protocol");
        if let Some(mode) = fields.take("mode")
            && mode.one_of(&[("ingress", false), ("host", true)], findings) == Some(true)
        {
            let hint = "every gateway serves it and passes it on to an instance, as with `ingress`";
            findings.warn(&mode.place, "`mode: host` is not honoured", hint);
        }
        fields.finish(&[], findings);
        let Some(target) = target else {
            findings.error(&item.place, "the port has no `target`", "name the port inside the container");
            return;
        };
        let Some(target) = target.whole(1, u64::from(u16::MAX), findings) else { return };
        let protocol = match protocol {
            Some(at) => match at.one_of(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)], findings) {
                Some(protocol) => protocol,
                None => return,
            },
            None => Protocol::Tcp,
        };
        let published = match &published {
            Some(at) => match at.text(findings).map(|text| (text, published_range(text))) {
                Some((_, Ok(range))) => range,
                Some((text, Err(wrong))) => {
                    findings.error(&at.place, format!("`{}` is not a port: {wrong}", shortened(text)), "write `8080`");
                    return;
                }
                None => return,
            },
            None => None,
        };
        let host_ip = match &host_ip {
            Some(at) => match at.text(findings).map(|text| (text, address(text))) {
                Some((_, Ok(ip))) => ip,
                Some((text, Err(wrong))) => {
                    findings.error(
                        &at.place,
                        format!("`{}` {wrong}", shortened(text)),
                        "write an address such as `127.0.0.1`",
                    );
                    return;
                }
                None => return,
            },
            None => None,
        };
        let target = u16::try_from(target).unwrap_or(u16::MAX);
        let published = published.map(|range| *range.start());
        let port = Port { host_ip, published, target, protocol, ..front };
        if port.protocol == Protocol::Udp && (port.tls || port.proxy_protocol.is_some()) {
            let hint = "remove it; both are for connections";
            findings.error(&item.place, "neither `tls` nor `proxy_protocol` goes with UDP", hint);
        }
        self.add_ports(vec![port], &item.place, findings);
    }
}

/// `x-bramble` of a port: what is done before its instances hear from a client.
fn front(at: &At<'_>, findings: &mut Findings) -> Port {
    let Some(mut fields) = at.fields(findings) else { return Port::default() };
    let tls = fields.truth("tls", findings);
    let proxy_protocol = secrecy::proxy_protocol(&mut fields, findings);
    fields.finish(&[], findings);
    Port { tls, proxy_protocol, ..Port::default() }
}

/// `[[address:]published:]target[/protocol]`, where both may be ranges.
fn short_ports(text: &str) -> Result<Vec<Port>, &'static str> {
    let (rest, protocol) = protocol_of(text)?;
    let (before, target) = match rest.rsplit_once(':') {
        Some((before, target)) => (Some(before), target),
        None => (None, rest),
    };
    let (host, published) = match before {
        Some(before) => match before.rsplit_once(':') {
            Some((host, published)) => (Some(host), published),
            None if before.contains('.') => (Some(before), ""),
            None => (None, before),
        },
        None => (None, ""),
    };
    let host_ip = match host {
        Some(host) => address(host)?,
        None => None,
    };
    let targets = range(target)?;
    let published = published_range(published)?;
    if targets.clone().count() > PORTS_MAX {
        return Err("the range holds more than 1000 ports");
    }
    let Some(published) = published else {
        return Ok(targets
            .map(|target| Port { host_ip: host_ip.clone(), target, protocol, ..Port::default() })
            .collect());
    };
    let port = |(published, target)| Port {
        host_ip: host_ip.clone(),
        published: Some(published),
        target,
        protocol,
        ..Port::default()
    };
    match (published.clone().count(), targets.clone().count()) {
        (outside, inside) if outside == inside => Ok(published.zip(targets).map(port).collect()),
        // A choice of ports for one: the first will do.
        (_, 1) => Ok(vec![port((*published.start(), *targets.start()))]),
        _ => Err("the two ranges differ in length"),
    }
}

fn protocol_of(text: &str) -> Result<(&str, Protocol), &'static str> {
    match text.split_once('/') {
        None => Ok((text, Protocol::Tcp)),
        Some((rest, "tcp" | "TCP")) => Ok((rest, Protocol::Tcp)),
        Some((rest, "udp" | "UDP")) => Ok((rest, Protocol::Udp)),
        Some(_) => Err("the protocol is neither tcp nor udp"),
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first == 0 {
        return Err("port 0 does not exist");
    }
    if first > last {
        return Err("the range ends before it begins");
    }
    Ok(first..=last)
}

/// Empty and `0` let the gateway pick.
fn published_range(text: &str) -> Result<Option<RangeInclusive<u16>>, &'static str> {
    if text.is_empty() || text == "0" { Ok(None) } else { range(text).map(Some) }
}

fn port(text: &str) -> Result<u16, &'static str> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a port is a number");
    }
    text.parse().map_err(|_| "ports go up to 65535")
}

/// `None` is every address.
fn address(text: &str) -> Result<Option<String>, &'static str> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.is_empty() {
        return Ok(None);
    }
    let ip: IpAddr = bare.parse().map_err(|_| "is not an address to listen on")?;
    Ok(if ip.is_unspecified() { None } else { Some(ip.to_string()) })
}
