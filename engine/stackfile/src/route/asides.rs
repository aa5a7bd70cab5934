//! Where requests of a route go besides its own service: who is asked for leave, who gets copies.

use super::forms;
use crate::findings::{Findings, Place};
use crate::read::{At, shortened};
use crate::stack::Surroundings;
use wire::spec::{Aside, ForwardAuth, Mirror, Rules};

const DEADLINE_MS_DEFAULT: u64 = 10_000;
const DEADLINE_MS_MAX: u64 = 60_000;
const WHOLE: u32 = 10_000;
/// The gateway holds copies in memory, some at once.
const COPY_BYTES_MAX: u64 = 256 << 10;
const ADDRESS_HINT: &str = "write a service of this file as `auth:9091/verify`, or `http://auth.example.org/verify`";

/// A place written as an address: where it is, and the path that is asked for there.
pub(crate) struct Address {
    pub(crate) to: Aside,
    pub(crate) path: String,
    /// It can only be a service: one that is not there is a mistake.
    pub(crate) is_service: bool,
}

/// Services that a route names, each with where it was written.
pub(crate) type Named = Vec<(String, Place)>;

pub(super) fn read(
    at: Option<At<'_>>,
    mirror: Option<At<'_>>,
    around: &Surroundings<'_>,
    rules: &mut Rules,
    findings: &mut Findings,
) -> Named {
    let mut named = Named::new();
    rules.forward_auth = at.and_then(|at| forward_auth(&at, around, &mut named, findings));
    rules.mirror = mirror.and_then(|at| copies(&at, around, &mut named, findings));
    named
}

fn forward_auth(
    at: &At<'_>,
    around: &Surroundings<'_>,
    named: &mut Named,
    findings: &mut Findings,
) -> Option<ForwardAuth> {
    let mut auth = ForwardAuth { deadline_ms: DEADLINE_MS_DEFAULT, ..ForwardAuth::default() };
    let address = if at.is_map() {
        let mut fields = at.fields(findings)?;
        let address = fields.take("address");
        for (key, names) in
            [("response_headers", &mut auth.response_headers), ("request_headers", &mut auth.request_headers)]
        {
            for item in fields.take(key).map(|at| at.one_or_list(findings)).unwrap_or_default() {
                let form = if key == "response_headers" { forms::header_changed } else { forms::header_name };
                names.extend(item.convert(findings, form));
            }
        }
        if let Some(at) = fields.take("timeout") {
            let hint = "write up to 1m";
            auth.deadline_ms =
                super::guards::bounded_ms(&at, DEADLINE_MS_MAX, hint, findings).unwrap_or(DEADLINE_MS_DEFAULT);
        }
        fields.finish(&[], findings);
        address
    } else {
        Some(at.clone())
    };
    let Some(address) = address else {
        findings.error(&at.place, "it is not said who is asked: there is no `address`", ADDRESS_HINT);
        return None;
    };
    let read = place(&address, around, named, findings)?;
    (auth.to, auth.path) = (read.to, read.path);
    Some(auth)
}

fn copies(at: &At<'_>, around: &Surroundings<'_>, named: &mut Named, findings: &mut Findings) -> Option<Mirror> {
    let mut mirror = Mirror { share: WHOLE, ..Mirror::default() };
    let service = if at.is_map() {
        let mut fields = at.fields(findings)?;
        let service = fields.take("service");
        if let Some(at) = fields.take("percent") {
            mirror.share = at.convert(findings, percent)?;
        }
        mirror.body_bytes_max = fields.take("body_max").and_then(|at| at.convert(findings, copied_bytes));
        fields.finish(&[], findings);
        service
    } else {
        Some(at.clone())
    };
    let Some(service) = service else {
        findings.error(
            &at.place,
            "it is not said who gets the copies: there is no `service`",
            "write `{service: \"next:8080\"}`",
        );
        return None;
    };
    let read = place(&service, around, named, findings)?;
    if read.path != "/" {
        findings.error(
            &service.place,
            "a copy asks for the path that the request asks for",
            "write the service and its port alone",
        );
        return None;
    }
    mirror.to = read.to;
    Some(mirror)
}

fn place(at: &At<'_>, around: &Surroundings<'_>, named: &mut Named, findings: &mut Findings) -> Option<Address> {
    let text = at.filled_text(findings)?;
    match address(text, |name| around.services.contains(name)) {
        Ok(address) => {
            if address.is_service {
                named.push((address.to.service.clone(), at.place.clone()));
            }
            Some(address)
        }
        Err((wrong, hint)) => {
            findings.error(&at.place, format!("`{}` {wrong}", shortened(text)), hint);
            None
        }
    }
}

/// Reads `service:port/path` or `http://host:port/path`; a host that names a service of the file is that service.
pub(crate) fn address(text: &str, is_service: impl Fn(&str) -> bool) -> Result<Address, crate::units::Wrong> {
    const NO_ADDRESS: crate::units::Wrong = ("is not an address", ADDRESS_HINT);
    if text.starts_with("https://") {
        let hint =
            "TLS is not spoken there: name a service of this file, or an `http://` address on a network you trust";
        return Err(("asks for TLS", hint));
    }
    let bare = text.strip_prefix("http://");
    let rest = bare.unwrap_or(text);
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
    let path_is_good = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    let port = match port {
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(NO_ADDRESS)?),
        None => None,
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => crate::traefik::is_host(&host.to_ascii_lowercase()) && !host.starts_with('*'),
    };
    if !path_is_good || !is_host {
        return Err(NO_ADDRESS);
    }
    if bare.is_none() || is_service(host) {
        let port = match (port, bare) {
            (Some(port), _) => port,
            (None, Some(_)) => 80,
            (None, None) => return Err(("names no port", ADDRESS_HINT)),
        };
        return Ok(Address { to: Aside { service: host.to_string(), port }, path, is_service: true });
    }
    let to = Aside { service: format!("http://{}", host.to_ascii_lowercase()), port: port.unwrap_or(80) };
    Ok(Address { to, path, is_service: false })
}

/// In hundredths of a percent.
fn percent(text: &str) -> Result<u32, crate::units::Wrong> {
    const WRONG: crate::units::Wrong = ("is not a percentage", "write `10`, or `0.5`: 0 to 100, to a hundredth");
    let text = text.trim().trim_end_matches('%');
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 3 || part.len() > 2 || !digits(whole) || !digits(part) {
        return Err(WRONG);
    }
    let share = format!("{whole}{part:0<2}").parse().map_err(|_| WRONG)?;
    if share <= WHOLE { Ok(share) } else { Err(WRONG) }
}

fn copied_bytes(text: &str) -> Result<u64, crate::units::Wrong> {
    match crate::units::size_bytes(text)? {
        bytes if bytes <= COPY_BYTES_MAX => Ok(bytes),
        _ => Err(("is too much to be held for a copy", "write up to 256k; longer requests are not copied")),
    }
}
