//! From bytes to one tree: variables filled in, `include` and `extends` resolved.
//!
//! Owns what several files become together. After it, one map of services is left and nobody knows from which file a
//! key came, except findings, by its spot.

use crate::Input;
use crate::findings::{Findings, Place, Spot};
use crate::interpolate::interpolate;
use crate::read::{At, shortened};
use crate::stack::SERVICES_MAX;
use crate::yaml::{self, Entry, Node, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// Files one stack may consist of, and how deep they may bring in each other.
const FILES_MAX: usize = 64;
const CHAIN_MAX: usize = 16;
/// What all services may weigh after `extends` copied them: a hostile file must not copy one large service ten
/// thousand times.
const COPIED_NODES_MAX: usize = 1_000_000;
/// What all values together may grow to when variables are filled in.
const FILLED_BYTES_MAX: usize = 16 << 20;

/// The sections that an included file adds to.
const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "secrets", "configs"];

pub(crate) struct Loader<'i> {
    input: &'i Input<'i>,
    /// The caller's variables, or those of the file being included.
    variables: BTreeMap<String, String>,
    unset: BTreeSet<String>,
    filled_bytes: usize,
    copied_nodes: usize,
    loaded: BTreeMap<String, Option<Rc<Node>>>,
}

/// Reads the main file and everything it brings in.
pub(crate) fn load(input: &Input<'_>, findings: &mut Findings) -> Option<Node> {
    let mut loader = Loader {
        input,
        variables: input.variables.clone(),
        unset: BTreeSet::new(),
        filled_bytes: 0,
        copied_nodes: 0,
        loaded: BTreeMap::new(),
    };
    let root = loader.document(input.source, 0, findings)?;
    loader.complete(root, 0, findings)
}

impl Loader<'_> {
    fn document(&mut self, source: &[u8], file: u16, findings: &mut Findings) -> Option<Node> {
        let mut root = yaml::read(source, file, findings)?;
        if !matches!(root.value, Value::Map(_)) {
            At::root(&root).expected("a map with `services:`", findings);
            return None;
        }
        self.fill(&mut root, &mut String::new(), findings);
        Some(root)
    }

    /// Resolves a document's `include` and `extends`.
    fn complete(&mut self, root: Node, depth: usize, findings: &mut Findings) -> Option<Node> {
        let mut root = self.extend_services(root, findings);
        let Some(include) = root.get("include").cloned() else { return Some(root) };
        let at = At { place: Place { spot: include.spot, path: "include".to_string() }, node: &include };
        for item in at.list(findings) {
            self.include(&mut root, &item, depth, findings);
        }
        Some(root)
    }

    /// Fills in the variables of every value below. Keys hold none, as in compose.
    fn fill(&mut self, node: &mut Node, path: &mut String, findings: &mut Findings) {
        let spot = node.spot;
        match &mut node.value {
            Value::Null => {}
            Value::Text { text, plain } => {
                if text.contains('$') {
                    *text = self.filled(text, *plain, spot, path, findings);
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let length = path.len();
                    path.push_str(&format!("[{index}]"));
                    self.fill(item, path, findings);
                    path.truncate(length);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    if entry.key.starts_with("x-") && entry.key != "x-bramble" {
                        continue;
                    }
                    let length = path.len();
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(&shortened(&entry.key));
                    self.fill(&mut entry.value, path, findings);
                    path.truncate(length);
                }
            }
        }
    }

    fn filled(&mut self, text: &str, plain: bool, spot: Spot, path: &str, findings: &mut Findings) -> String {
        let place = Place { spot, path: path.to_string() };
        match interpolate(text, &self.variables) {
            Ok(done) => {
                for name in done.unset {
                    findings.note_empty(spot, &name);
                    self.warn_unset(&name, text, plain, &place, findings);
                }
                self.filled_bytes += done.text.len();
                if self.filled_bytes > FILLED_BYTES_MAX {
                    findings.error(&Place::default(), "the file grows too large when its variables are filled in", "");
                    return String::new();
                }
                done.text
            }
            Err(error) => {
                findings.error(&place, error.to_string(), error.hint());
                findings.spoil(spot);
                String::new()
            }
        }
    }

    /// Once per variable, at its first place: a variable used twenty times is one thing to set.
    fn warn_unset(&mut self, name: &str, text: &str, plain: bool, place: &Place, findings: &mut Findings) {
        if !self.unset.insert(name.to_string()) {
            return;
        }
        let mut place = place.clone();
        if let (true, Some(offset)) = (plain && !text.contains('\n'), text.find('$')) {
            let letters = text[..offset].chars().count();
            place.spot.column = place.spot.column.saturating_add(u32::try_from(letters).unwrap_or(0));
        }
        if let Some(hint) = generated_by_coolify(name) {
            findings.warn(
                &place,
                format!("variable `{name}` is not set: Coolify would make it up, here it is empty"),
                hint,
            );
        } else {
            let hint = format!("set it in the environment or in `.env`, or write `${{{name}:-default}}`");
            findings.warn(&place, format!("variable `{name}` is not set and becomes empty"), hint);
        }
    }

    fn include(&mut self, root: &mut Node, item: &At<'_>, depth: usize, findings: &mut Findings) {
        let mut paths = Vec::new();
        let mut variables = self.variables.clone();
        if item.is_map() {
            let Some(mut fields) = item.fields(findings) else { return };
            if let Some(path) = fields.take("path") {
                paths = path
                    .one_or_list(findings)
                    .into_iter()
                    .filter_map(|at| at.filled_text(findings).map(|p| (at.place.clone(), p)))
                    .collect();
            } else {
                findings.error(&item.place, "`include` needs a `path`", "");
            }
            if let Some(env_file) = fields.take("env_file") {
                for at in env_file.one_or_list(findings) {
                    self.include_variables(&at, &mut variables, findings);
                }
            }
            let instead = &[("project_directory", "paths in an included file start from that file's folder")];
            fields.finish(instead, findings);
        } else if let Some(path) = item.filled_text(findings) {
            paths.push((item.place.clone(), path));
        }
        if depth >= CHAIN_MAX {
            findings.error(&item.place, format!("files include each other more than {CHAIN_MAX} deep"), "");
            return;
        }
        let outer = std::mem::replace(&mut self.variables, variables);
        for (place, path) in paths {
            let Some(included) = self.file(path, &place, findings) else { continue };
            if !self.may_copy(&included, &place, findings) {
                return;
            }
            let Some(included) = self.complete(Node::clone(&included), depth + 1, findings) else { continue };
            add_sections(root, included, findings);
        }
        self.variables = outer;
    }

    fn include_variables(&self, at: &At<'_>, variables: &mut BTreeMap<String, String>, findings: &mut Findings) {
        let Some(path) = at.filled_text(findings) else { return };
        let Some(content) = crate::files::find(self.input, findings.folder(at.place.spot), path) else {
            findings.missing_file(&at.place, format!("the file `{}` is not there", shortened(path)), "");
            return;
        };
        match crate::dotenv::dotenv(content) {
            // The caller's variables win over the file's, as with `.env`.
            Ok(found) => found.into_iter().for_each(|(name, value)| {
                variables.entry(name).or_insert(value);
            }),
            Err(wrong) => {
                let message = format!("in {} line {}: {}", shortened(path), wrong.line, wrong.message);
                findings.error(&at.place, message, wrong.hint);
            }
        }
    }

    /// Another file's document, variables filled in.
    fn file(&mut self, path: &str, place: &Place, findings: &mut Findings) -> Option<Rc<Node>> {
        let folder = findings.folder(place.spot).to_string();
        let Some(content) = crate::files::find(self.input, &folder, path) else {
            let message = format!("the file `{}` is not there", shortened(path));
            findings.error(place, message, "paths start from the folder of the file that names them");
            return None;
        };
        let full = crate::files::joined(&folder, path);
        if let Some(node) = self.loaded.get(&full) {
            return node.clone();
        }
        if findings.file_count() >= FILES_MAX {
            findings.error(place, format!("the stack consists of more than {FILES_MAX} files"), "");
            return None;
        }
        let number = findings.add_file(&full, place.spot);
        let node = self.document(content, number, findings).map(Rc::new);
        self.loaded.insert(full, node.clone());
        node
    }

    fn extend_services(&mut self, mut root: Node, findings: &mut Findings) -> Node {
        let Some(services) = root.get("services") else { return root };
        if !services.entries().iter().any(|entry| entry.value.get("extends").is_some()) {
            return root;
        }
        if services.entries().len() > SERVICES_MAX {
            // The section's own reader says so.
            return root;
        }
        let document = Rc::new(root.clone());
        let resolved: Vec<Entry> = services
            .entries()
            .iter()
            .map(|entry| {
                let value = self.extended(&document, entry, &mut Vec::new(), findings);
                Entry { key: entry.key.clone(), spot: entry.spot, value }
            })
            .collect();
        if let Some(services) = root.get_mut("services") {
            services.value = Value::Map(resolved);
        }
        root
    }

    /// The service with what it extends laid under it; as it is, `extends` included, if that cannot be had.
    fn extended(
        &mut self,
        document: &Rc<Node>,
        entry: &Entry,
        chain: &mut Vec<(u16, String)>,
        findings: &mut Findings,
    ) -> Node {
        let mut own = entry.value.clone();
        let Value::Map(entries) = &mut own.value else { return own };
        let Some(index) = entries.iter().position(|entry| entry.key == "extends") else { return own };
        let extends = entries.remove(index).value;
        let path = format!("services.{}.extends", shortened(&entry.key));
        let at = At { place: Place { spot: extends.spot, path }, node: &extends };
        let link = (entry.value.spot.file, entry.key.clone());
        if let Some(start) = chain.iter().position(|known| *known == link) {
            // Those before the ring only lead into it; each ring is reported at its own services.
            if start == 0 {
                let ring: Vec<String> = chain.iter().map(|(_, name)| name.clone()).chain([link.1]).collect();
                findings.error(&at.place, format!("services extend each other in a ring: {}", ring.join(" -> ")), "");
            }
            return entry.value.clone();
        }
        if chain.len() >= CHAIN_MAX {
            findings.error(&at.place, format!("services extend each other more than {CHAIN_MAX} deep"), "");
            return entry.value.clone();
        }
        chain.push(link);
        let base = self.base(document, &at, chain, findings);
        chain.pop();
        match base {
            Some(base) => laid_over(base, own, ""),
            None => entry.value.clone(),
        }
    }

    /// What `extends` names, itself extended.
    fn base(
        &mut self,
        document: &Rc<Node>,
        at: &At<'_>,
        chain: &mut Vec<(u16, String)>,
        findings: &mut Findings,
    ) -> Option<Node> {
        let (file, name) = extends_target(at, findings)?;
        let other = match file {
            Some((place, file)) => self.file(&file, &place, findings)?,
            None => document.clone(),
        };
        let services = other.get("services").map(Node::entries).unwrap_or_default();
        let Some(base) = services.iter().find(|entry| entry.key == name) else {
            findings.error(&at.place, format!("`extends` names `{}`, which is no service there", shortened(&name)), "");
            return None;
        };
        let base = self.extended(&other, base, chain, findings);
        self.may_copy(&base, &at.place, findings).then_some(base)
    }

    fn may_copy(&mut self, node: &Node, place: &Place, findings: &mut Findings) -> bool {
        self.copied_nodes += node_count(node);
        let fits = self.copied_nodes <= COPIED_NODES_MAX;
        if !fits {
            findings.error(place, "the stack grows too large when `extends` and `include` are resolved", "");
        }
        fits
    }
}

/// `extends: name` or `extends: {service: name, file: path}`.
fn extends_target(at: &At<'_>, findings: &mut Findings) -> Option<(Option<(Place, String)>, String)> {
    if !at.is_map() {
        return at.filled_text(findings).map(|name| (None, name.to_string()));
    }
    let mut fields = at.fields(findings)?;
    let file =
        fields.take("file").and_then(|file| file.filled_text(findings).map(|t| (file.place.clone(), t.to_string())));
    let service = fields.take("service");
    fields.finish(&[], findings);
    match service {
        Some(service) => service.filled_text(findings).map(|name| (file, name.to_string())),
        None => {
            findings.error(&at.place, "`extends` needs a `service`", "");
            None
        }
    }
}

fn node_count(node: &Node) -> usize {
    let below: usize = node.items().iter().map(node_count).sum();
    let members: usize = node.entries().iter().map(|entry| node_count(&entry.value)).sum();
    1 + below + members
}

fn add_sections(root: &mut Node, included: Node, findings: &mut Findings) {
    let Value::Map(sections) = included.value else { return };
    for section in sections {
        if !SECTIONS.contains(&section.key.as_str()) {
            continue;
        }
        let Value::Map(added) = section.value.value else { continue };
        if root.get(&section.key).is_none_or(|node| matches!(node.value, Value::Null)) {
            let empty = Node { spot: section.spot, value: Value::Map(Vec::new()) };
            if let Value::Map(entries) = &mut root.value {
                entries.retain(|entry| entry.key != section.key);
                entries.push(Entry { key: section.key.clone(), spot: section.spot, value: empty });
            }
        }
        let Some(target) = root.get_mut(&section.key) else { continue };
        let places: HashMap<String, usize> =
            target.entries().iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
        for entry in added {
            match places.get(&entry.key).map(|at| &target.entries()[*at].value) {
                Some(existing) if existing == &entry.value => {}
                Some(existing) => {
                    let place = Place { spot: entry.spot, path: format!("{}.{}", section.key, shortened(&entry.key)) };
                    let message = format!(
                        "`{}` is declared in an included file and at {}",
                        shortened(&entry.key),
                        findings.describe(existing.spot)
                    );
                    findings.error(&place, message, "give one of the two another name");
                }
                None => {
                    if let Value::Map(entries) = &mut target.value {
                        entries.push(entry);
                    }
                }
            }
        }
    }
}

/// `over` laid over `base` by the rules of compose: maps join, lists add up, texts and whole commands replace.
fn laid_over(base: Node, over: Node, key: &str) -> Node {
    let spot = over.spot;
    match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) => Node { spot, value: Value::Map(maps_joined(base, over)) },
        (Value::List(base), Value::List(over)) => match key {
            "command" | "entrypoint" | "test" => Node { spot, value: Value::List(over) },
            "volumes" => Node { spot, value: Value::List(lists_joined(base, over, mount_target)) },
            _ => Node { spot, value: Value::List(lists_joined(base, over, |item| item.text().map(String::from))) },
        },
        (base @ Value::List(_), over @ Value::Map(_)) | (base @ Value::Map(_), over @ Value::List(_))
            if key != "test" =>
        {
            let value = Value::Map(maps_joined(as_map(base), as_map(over)));
            Node { spot, value }
        }
        (base, Value::Null) => Node { spot, value: base },
        (_, over) => Node { spot, value: over },
    }
}

fn maps_joined(base: Vec<Entry>, over: Vec<Entry>) -> Vec<Entry> {
    let places: HashMap<String, usize> = over.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
    let mut over: Vec<Option<Entry>> = over.into_iter().map(Some).collect();
    let mut joined = Vec::with_capacity(base.len() + over.len());
    for entry in base {
        let own = places.get(&entry.key).and_then(|at| over[*at].take());
        joined.push(match own {
            Some(own) => {
                let value = laid_over(entry.value, own.value, &own.key);
                Entry { key: own.key, spot: own.spot, value }
            }
            None => entry,
        });
    }
    joined.extend(over.into_iter().flatten());
    joined
}

/// Items of `base` that `over` has too, by their identity, are replaced.
fn lists_joined(base: Vec<Node>, over: Vec<Node>, identity: impl Fn(&Node) -> Option<String>) -> Vec<Node> {
    let replaced: BTreeSet<String> = over.iter().filter_map(&identity).collect();
    let kept = base.into_iter().filter(|item| identity(item).is_none_or(|own| !replaced.contains(&own)));
    kept.chain(over).collect()
}

fn mount_target(item: &Node) -> Option<String> {
    match item.text() {
        Some(text) => text.split(':').nth(1).or(Some(text)).map(String::from),
        None => item.get("target").and_then(Node::text).map(String::from),
    }
}

/// `["A=b", "C"]` as `{A: b, C: }`.
fn as_map(value: Value) -> Vec<Entry> {
    match value {
        Value::Map(entries) => entries,
        Value::List(items) => items
            .into_iter()
            .filter_map(|item| {
                let spot = item.spot;
                let text = item.text()?.to_string();
                let (key, value) = match text.split_once('=') {
                    Some((key, value)) => (key, Value::Text { text: value.to_string(), plain: false }),
                    None => (text.as_str(), Value::Null),
                };
                Some(Entry { key: key.to_string(), spot, value: Node { spot, value } })
            })
            .collect(),
        Value::Null | Value::Text { .. } => Vec::new(),
    }
}

/// What to do about a variable that Coolify generates per deployment.
pub(crate) fn generated_by_coolify(name: &str) -> Option<String> {
    let rest = name.strip_prefix("SERVICE_")?;
    let (kind, _) = rest.split_once('_')?;
    match kind {
        "PASSWORD" | "BASE64" | "REALBASE64" | "HEX" => {
            Some(format!("make one and keep it in `.env`: `{name}=` and the output of `openssl rand -hex 32`"))
        }
        "USER" => Some(format!("choose a user name and keep it in `.env`: `{name}=admin`")),
        "FQDN" | "URL" => {
            Some(format!("set `{name}` in `.env` to the address it is reached at, and add a route under `x-bramble`"))
        }
        _ => None,
    }
}
