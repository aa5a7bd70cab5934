//! The document's top level: names, networks, volumes, and its services one by one.
//!
//! Owns what services may refer to. Never knows what is inside a service.

use crate::files::{self, DeclaredFiles};
use crate::findings::{Findings, Place};
use crate::read::{At, Instead, shortened};
use crate::service::{self, ServiceRead};
use crate::traefik::{self, Middlewares};
use crate::yaml::Node;
use crate::{Input, Parsed, load, relations, words};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use wire::spec::{FileKind, MountSource, Network, Stack, Volume};

/// Services of one stack. A cluster holds many stacks; one with more is a mistake or an attack.
pub(crate) const SERVICES_MAX: usize = 1000;
/// A name is part of host names, whose labels hold 63 letters (RFC 1035).
const NAME_LETTERS_MAX: usize = 63;
/// Names of networks and volumes are names of folders too.
const RESOURCE_NAME_LETTERS_MAX: usize = 200;

/// What a stack's services may carry in files: specs travel through the replicated log.
const CONTENT_BYTES_MAX: usize = 16 << 20;

pub(crate) const DEFAULT_NETWORK: &str = "default";

const TOP_INSTEAD: Instead =
    &[("models", "services reach a model as they reach any other service: run one as a service")];

/// What a service may refer to.
pub(crate) struct Surroundings<'i> {
    pub(crate) input: &'i Input<'i>,
    pub(crate) networks: BTreeMap<String, Network>,
    pub(crate) volumes: BTreeMap<String, DeclaredVolume>,
    pub(crate) configs: DeclaredFiles,
    pub(crate) secrets: DeclaredFiles,
    pub(crate) middlewares: Middlewares,
    /// The names of all services.
    pub(crate) services: BTreeSet<String>,
    /// What the contents of files in all services have come to.
    content_bytes: Cell<usize>,
}

pub(crate) struct DeclaredVolume {
    pub(crate) volume: Volume,
    /// What is mounted for it.
    pub(crate) source: MountSource,
}

pub(crate) fn parse(input: &Input<'_>, lenient: bool) -> Parsed {
    let mut findings = Findings::new(lenient);
    let stack = load::load(input, &mut findings).and_then(|root| read(&root, input, &mut findings));
    let stack = if findings.has_errors() { None } else { stack };
    Parsed { stack, report: findings.into_report() }
}

fn read(root: &Node, input: &Input<'_>, findings: &mut Findings) -> Option<Stack> {
    let mut fields = At::root(root).fields(findings)?;
    fields.take("version");
    fields.take("include");
    let name = stack_name(fields.take_filled("name").as_ref(), input, findings);
    if let Some(misplaced) = fields.take("x-bramble") {
        findings.error(
            &misplaced.place,
            "`x-bramble` belongs to a service",
            "move it under the service it is meant for",
        );
    }
    let networks = fields.take("networks").map(|at| networks(&at, &name, findings)).unwrap_or_default();
    let volumes = fields.take("volumes").map(|at| volumes(&at, &name, findings)).unwrap_or_default();
    let mut declared =
        |key, kind| fields.take(key).map(|at| files::declared(&at, kind, input, findings)).unwrap_or_default();
    let configs = declared("configs", FileKind::Config);
    let secrets = declared("secrets", FileKind::Secret);
    let services = fields.take("services");
    fields.finish(TOP_INSTEAD, findings);
    let Some(services) = services else {
        let place = Place { spot: root.spot, path: "services".to_string() };
        findings.error(&place, "the file declares no services", "a stack has at least one service under `services:`");
        return None;
    };
    let middlewares = traefik::collect(services.node);
    let names = services.node.entries().iter().map(|entry| entry.key.clone()).collect();
    let content_bytes = Cell::new(0);
    let around =
        Surroundings { input, networks, volumes, configs, secrets, middlewares, services: names, content_bytes };
    let read = read_services(&services, &name, &around, findings);
    let services = relations::settle(read, findings);
    Some(assembled(name, services, around))
}

fn read_services(
    at: &At<'_>,
    stack: &str,
    around: &Surroundings<'_>,
    findings: &mut Findings,
) -> BTreeMap<String, ServiceRead> {
    let count = at.node.entries().len();
    if count == 0 && at.is_map() {
        findings.error(
            &at.place,
            "the file declares no services",
            "a stack has at least one service under `services:`",
        );
    }
    if count > SERVICES_MAX {
        findings.error(
            &at.place,
            format!("the stack has more than {SERVICES_MAX} services"),
            "split it into several stacks",
        );
        return BTreeMap::new();
    }
    let members = at.members(findings);
    let mut read = BTreeMap::new();
    for (entry, at) in members {
        let place = Place { spot: entry.spot, path: at.place.path.clone() };
        if entry.key.starts_with("x-") {
            continue;
        }
        check_name(&entry.key, "service", &place, findings);
        if let Some(service) = service::read(&entry.key, stack, place, &at, around, findings) {
            read.insert(entry.key.clone(), service);
        }
    }
    read
}

fn assembled(name: String, services: BTreeMap<String, wire::spec::Service>, around: Surroundings<'_>) -> Stack {
    let mut networks = around.networks;
    let default_name = format!("{name}_{DEFAULT_NETWORK}");
    if !networks.contains_key(DEFAULT_NETWORK) && services.values().any(|s| s.networks.contains_key(&default_name)) {
        networks.insert(DEFAULT_NETWORK.to_string(), Network { name: default_name, ..Network::default() });
    }
    let volumes = around.volumes.into_iter();
    let volumes = volumes
        .filter(|(_, declared)| matches!(declared.source, MountSource::Volume { .. }))
        .map(|(key, declared)| (key, declared.volume))
        .collect();
    Stack { name, services, networks, volumes }
}

fn stack_name(own: Option<&At<'_>>, input: &Input<'_>, findings: &mut Findings) -> String {
    let own = own.and_then(|at| at.filled_text(findings).map(|text| (at.place.clone(), text)));
    match own {
        _ if !input.name.is_empty() => {
            let place = Place { path: "name".to_string(), ..Place::default() };
            check_name(input.name, "stack", &place, findings);
            input.name.to_string()
        }
        Some((place, name)) => {
            check_name(name, "stack", &place, findings);
            name.to_string()
        }
        None => {
            let place = Place { path: "name".to_string(), ..Place::default() };
            findings.error(&place, "the stack has no name", "name it when deploying, or with `name:` in the file");
            String::new()
        }
    }
}

/// Names of stacks and services: `[a-z0-9][a-z0-9_.-]{0,62}`.
fn check_name(name: &str, what: &str, place: &Place, findings: &mut Findings) {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inner = |c: char| letter(c) || matches!(c, '_' | '.' | '-');
    if name.starts_with(letter) && name.chars().all(inner) && name.len() <= NAME_LETTERS_MAX {
        return;
    }
    let mut proposal: String = name.to_ascii_lowercase().chars().map(|c| if inner(c) { c } else { '-' }).collect();
    proposal = proposal.trim_start_matches(['-', '_', '.']).chars().take(NAME_LETTERS_MAX).collect();
    let mut hint =
        format!("names hold up to {NAME_LETTERS_MAX} of a-z, 0-9, `_`, `.` and `-`, and start with a letter or digit");
    if !proposal.is_empty() {
        hint.push_str(&format!(": `{proposal}` would do"));
    }
    findings.error(place, format!("`{}` cannot be the name of a {what}", shortened(name)), hint);
}

/// Names of networks and volumes, which may be shared with other tools and so hold capitals.
fn check_resource_name(name: &str, what: &str, place: &Place, findings: &mut Findings) {
    let letter = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| letter(c) || matches!(c, '_' | '.' | '-');
    let has_template = what == "volume" && name.contains("{{") && !name.contains(['/', '\n']);
    let good = name.starts_with(letter) && name.chars().all(inner) && name.len() <= RESOURCE_NAME_LETTERS_MAX;
    if !good && !has_template {
        let hint = "names hold letters, digits, `_`, `.` and `-`, and start with a letter or digit";
        findings.error(place, format!("`{}` cannot be the name of a {what}", shortened(name)), hint);
    }
}

/// `external: true` or the older `external: {name: …}`: whether it is external, and the name it gives.
fn external(at: Option<&At<'_>>, findings: &mut Findings) -> (bool, Option<String>) {
    let Some(at) = at else { return (false, None) };
    if !at.is_map() {
        return (at.truth(findings).unwrap_or_default(), None);
    }
    let Some(mut fields) = at.fields(findings) else { return (true, None) };
    let name = fields.text("name", findings);
    fields.finish(&[], findings);
    (true, name)
}

const NETWORK_INSTEAD: Instead = &[
    ("driver_opts", "names and sockets are the same on every machine, there is no driver to set up"),
    ("ipam", "addresses are given out by Bramble; services reach each other by name"),
    ("enable_ipv6", "services reach each other by name, whatever the machines speak"),
    ("labels", "networks keep no labels"),
];

/// Drivers of which services notice nothing but that they reach each other.
const PLAIN_NETWORK_DRIVERS: [&str; 3] = ["bridge", "overlay", "default"];

fn networks(section: &At<'_>, stack: &str, findings: &mut Findings) -> BTreeMap<String, Network> {
    let mut networks = BTreeMap::new();
    for (entry, at) in section.members(findings) {
        let place = Place { spot: entry.spot, path: at.place.path.clone() };
        check_resource_name(&entry.key, "network", &place, findings);
        let mut network = Network { name: format!("{stack}_{}", entry.key), ..Network::default() };
        if !at.is_null()
            && let Some(mut fields) = at.fields(findings)
        {
            let (is_external, external_name) = external(fields.take("external").as_ref(), findings);
            let name = fields.take("name");
            network.external = is_external;
            network.internal = fields.truth("internal", findings);
            fields.take("attachable");
            fields.take("enable_ipv4");
            if let Some(driver) = fields.take("driver")
                && let Some(text) = driver.text(findings)
                && !PLAIN_NETWORK_DRIVERS.contains(&text)
            {
                let message = format!("the network driver `{}` is not honoured", shortened(text));
                findings.warn(&driver.place, message, "its services reach each other by name, as on any network");
            }
            fields.finish(NETWORK_INSTEAD, findings);
            if let Some(own) = resource_name(name, external_name, is_external, &entry.key, "network", findings) {
                network.name = own;
            }
        }
        networks.insert(entry.key.clone(), network);
    }
    networks
}

/// The cluster-wide name, if it is not made of the stack's.
fn resource_name(
    name: Option<At<'_>>,
    external_name: Option<String>,
    is_external: bool,
    key: &str,
    what: &str,
    findings: &mut Findings,
) -> Option<String> {
    if let Some(at) = name {
        let text = at.filled_text(findings)?;
        check_resource_name(text, what, &at.place, findings);
        return Some(text.to_string());
    }
    external_name.or_else(|| is_external.then(|| key.to_string()))
}

fn volumes(section: &At<'_>, stack: &str, findings: &mut Findings) -> BTreeMap<String, DeclaredVolume> {
    let mut volumes = BTreeMap::new();
    for (entry, at) in section.members(findings) {
        let place = Place { spot: entry.spot, path: at.place.path.clone() };
        check_resource_name(&entry.key, "volume", &place, findings);
        let mut volume = Volume { name: format!("{stack}_{}", entry.key), ..Volume::default() };
        let mut source = None;
        if !at.is_null()
            && let Some(mut fields) = at.fields(findings)
        {
            let (is_external, external_name) = external(fields.take("external").as_ref(), findings);
            volume.external = is_external;
            let name = fields.take("name");
            volume.labels = fields.take("labels").map(|at| at.text_map(findings)).unwrap_or_default();
            let driver = fields.take("driver");
            let options = fields.take("driver_opts");
            fields.finish(&[], findings);
            source = driven(driver.as_ref(), options.as_ref(), findings);
            if let Some(own) = resource_name(name, external_name, is_external, &entry.key, "volume", findings) {
                volume.name = own;
            }
        }
        let source = source.unwrap_or_else(|| MountSource::Volume { name: volume.name.clone() });
        volumes.insert(entry.key.clone(), DeclaredVolume { volume, source });
    }
    volumes
}

/// What the options of docker's local driver make of a volume: a folder of the machine, or memory.
fn driven(driver: Option<&At<'_>>, options: Option<&At<'_>>, findings: &mut Findings) -> Option<MountSource> {
    if let Some(driver) = driver
        && let Some(text) = driver.text(findings)
        && text != "local"
    {
        let message = format!("the volume driver `{}` is not honoured", shortened(text));
        findings.warn(&driver.place, message, "the volume is a folder on the machine that its service runs on");
        return None;
    }
    let at = options?;
    let options = at.text_map(findings);
    let option = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
    if option("type") == "tmpfs" {
        let size = option("o").split(',').find_map(|part| part.strip_prefix("size="));
        let size_bytes = size.and_then(|size| crate::units::size_bytes(size).ok());
        return Some(MountSource::Tmpfs { size_bytes });
    }
    if option("o").split(',').any(|part| part == "bind" || part == "rbind") && option("device").starts_with('/') {
        return Some(MountSource::Bind { path: option("device").to_string() });
    }
    if !options.is_empty() {
        let hint = "the volume is a folder on the machine that its service runs on; mount a share there and bind it";
        findings.warn(&at.place, "the volume's `driver_opts` are not honoured", hint);
    }
    None
}

impl Surroundings<'_> {
    /// Counts what a service copies out of a file. False, with a finding, when it is too much.
    pub(crate) fn charge(&self, bytes: usize, place: &Place, findings: &mut Findings) -> bool {
        self.content_bytes.set(self.content_bytes.get().saturating_add(bytes));
        let fits = self.content_bytes.get() <= CONTENT_BYTES_MAX;
        if !fits {
            let message =
                format!("configs, secrets and env files of all services come to more than {CONTENT_BYTES_MAX} bytes");
            findings.error(place, message, "put large contents into volumes or images");
        }
        fits
    }

    /// What to say about a name that nothing declares.
    pub(crate) fn declare_hint<'k>(section: &str, name: &str, known: impl IntoIterator<Item = &'k String>) -> String {
        match words::closest(name, known.into_iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("declare it at the top level: `{section}:` with `{}:` under it", shortened(name)),
        }
    }
}
