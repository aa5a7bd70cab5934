//! What each kind of Traefik's middlewares becomes.
//!
//! Pure. Promises that a guard is taken over as a whole or not at all: an option of it that is not understood makes the
//! whole of it not honoured, since it may be the one that matters. Of the other kinds, what is not understood is left
//! out and said.

use super::middleware::Options;
use crate::read::shortened;
use crate::route::{answers, asides, forms, rewriting};
use crate::units;
use std::collections::BTreeSet;
use wire::spec::{BasicAuth, Compress, Cors, ForwardAuth, RateKey, RateLimit, Rules};

/// Without these, requests are answered by the same program with the same content, only less well.
const IDLE: [&str; 8] = [
    "circuitbreaker",
    "contenttype",
    "errors",
    "grpcweb",
    "inflightreq",
    "passtlsclientcert",
    "redirectregex",
    "retry",
];
/// Traefik waits for 30 s.
const FORWARD_AUTH_MS: u64 = 30_000;
/// What Traefik calls it.
const REALM_DEFAULT: &str = "traefik";

#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Strips(Vec<String>),
    /// Everything else a route can do.
    Rules(Box<Rules>),
    /// Of this kind, and dispensable.
    Idle(String),
    /// Why the route must not be made, to follow the middleware's name.
    Guards(String),
}

/// The effects of one middleware.
pub(super) fn effects_of(kind: &str, options: &Options, services: &BTreeSet<String>) -> Vec<Effect> {
    let mut reading = Reading { kind, left: options.clone(), services, rules: Rules::default(), idle: Vec::new() };
    let read = match kind {
        "stripprefix" => {
            let prefixes = reading.list("prefixes");
            return [Effect::Strips(prefixes)].into_iter().chain(reading.leftovers()).collect();
        }
        "addprefix" => reading.path(|rules| &mut rules.add_prefix, "prefix", forms::prefix_sent),
        "replacepath" => reading.path(|rules| &mut rules.replace_path, "path", forms::path_sent),
        "redirectscheme" => reading.redirect(),
        "headers" => reading.headers(),
        "basicauth" => reading.basic_auth(),
        "ipallowlist" | "ipwhitelist" => reading.addresses(),
        "ratelimit" => reading.rate(),
        "buffering" => reading.size(),
        "compress" => reading.compress(),
        "forwardauth" => reading.forward_auth(),
        idle if IDLE.contains(&idle) => return vec![Effect::Idle(idle.to_string())],
        other => return vec![Effect::Guards(format!("({}) is not honoured", shortened(other)))],
    };
    match read {
        Ok(()) => {
            let rules = std::mem::take(&mut reading.rules);
            let made = (rules != Rules::default()).then(|| Effect::Rules(Box::new(rules)));
            made.into_iter().chain(reading.leftovers()).collect()
        }
        Err(why) => vec![Effect::Guards(format!("({kind}) {why}"))],
    }
}

/// Puts `more` beside what a route does already. `Err` names what both want to do.
pub(super) fn merge(into: &mut Rules, more: Rules) -> Result<(), &'static str> {
    fn once<T>(into: &mut Option<T>, more: Option<T>, what: &'static str) -> Result<(), &'static str> {
        match (into.is_some(), more) {
            (_, None) => Ok(()),
            (false, more) => {
                *into = more;
                Ok(())
            }
            (true, Some(_)) => Err(what),
        }
    }
    if !into.allow.is_empty() && !more.allow.is_empty() {
        return Err("addresses");
    }
    once(&mut into.add_prefix, more.add_prefix, "paths")?;
    once(&mut into.replace_path, more.replace_path, "paths")?;
    once(&mut into.redirect, more.redirect, "redirects")?;
    once(&mut into.basic_auth, more.basic_auth, "passwords")?;
    once(&mut into.rate_limit, more.rate_limit, "rates")?;
    once(&mut into.body_bytes_max, more.body_bytes_max, "sizes")?;
    once(&mut into.cors, more.cors, "origins")?;
    once(&mut into.forward_auth, more.forward_auth, "leave")?;
    once(&mut into.compress, more.compress, "coding")?;
    into.allow.extend(more.allow);
    into.request_headers.extend(more.request_headers);
    into.response_headers.extend(more.response_headers);
    Ok(())
}

/// One middleware being read option by option.
struct Reading<'k> {
    kind: &'k str,
    /// Options nobody has asked for.
    left: Options,
    services: &'k BTreeSet<String>,
    rules: Rules,
    /// Options that are not honoured.
    idle: Vec<String>,
}

/// How reading goes on; `Err` says why there may be no route.
type Read = Result<(), String>;

impl Reading<'_> {
    fn take(&mut self, option: &str) -> Option<String> {
        self.left.remove(option)
    }

    /// The parts of a value between commas.
    fn list(&mut self, option: &str) -> Vec<String> {
        let value = self.take(option).unwrap_or_default();
        value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(String::from).collect()
    }

    /// What was not honoured, to be said.
    fn leftovers(self) -> impl Iterator<Item = Effect> {
        let kind = self.kind.to_string();
        let names = self.left.into_keys().chain(self.idle);
        names.map(move |option| Effect::Idle(format!("{kind}.{}", shortened(&option))))
    }

    /// Of a guard, every option counts.
    fn whole(&self) -> Read {
        match self.left.keys().next() {
            Some(option) => Err(format!("has the option `{}`, which is not honoured", shortened(option))),
            None => Ok(()),
        }
    }

    fn path(
        &mut self,
        place: impl FnOnce(&mut Rules) -> &mut Option<String>,
        option: &str,
        form: impl FnOnce(&str) -> Result<String, units::Wrong>,
    ) -> Read {
        let path = self.take(option).unwrap_or_default();
        // Another path may be one that was meant to be hidden.
        let path = form(&path).map_err(|_| format!("has `{}`, which is no path", shortened(&path)))?;
        *place(&mut self.rules) = Some(path);
        Ok(())
    }

    fn redirect(&mut self) -> Read {
        let scheme = self.take("scheme");
        let permanent = self.truth("permanent");
        let port = self.take("port").unwrap_or_default();
        let port: Option<u16> = if port.is_empty() { Some(443) } else { port.parse().ok() };
        let (Some("https"), Some(port)) = (scheme.as_deref(), port) else {
            self.idle.push("scheme".to_string());
            return Ok(());
        };
        let to = if port == 443 { rewriting::TO_HTTPS.to_string() } else { format!("https://{{host}}:{port}{{path}}") };
        let mut redirect = rewriting::redirect_to(to, if permanent { 308 } else { 307 });
        redirect.plain_only = true;
        self.rules.redirect = Some(redirect);
        Ok(())
    }

    fn truth(&mut self, option: &str) -> bool {
        self.take(option).and_then(|text| units::truth(&text)).unwrap_or_default()
    }

    fn headers(&mut self) -> Read {
        let cors = Cors {
            origins: self.forms("accesscontrolalloworiginlist", forms::origin),
            methods: self.forms("accesscontrolallowmethods", |text| star_or(text, forms::method)),
            headers: self.forms("accesscontrolallowheaders", |text| star_or(text, forms::header_name)),
            expose: self.forms("accesscontrolexposeheaders", |text| star_or(text, forms::header_name)),
            credentials: self.truth("accesscontrolallowcredentials"),
            max_age_s: self.take("accesscontrolmaxage").and_then(|text| text.trim().parse().ok()),
        };
        // Answers always say that they differ by origin, where they do.
        self.take("addvaryheader");
        if !cors.origins.is_empty() {
            let every = cors.origins.iter().any(|origin| origin == "*");
            if every && cors.credentials {
                self.idle.push("accesscontrolallowcredentials".to_string());
            }
            self.rules.cors = Some(Cors { credentials: cors.credentials && !every, ..cors });
        }
        for (prefix, is_request) in [("customrequestheaders.", true), ("customresponseheaders.", false)] {
            for (option, value) in self.left.clone() {
                let Some(name) = option.strip_prefix(prefix) else { continue };
                if let (Ok(name), Ok(value)) = (forms::header_changed(name), forms::header_value(&value)) {
                    let headers =
                        if is_request { &mut self.rules.request_headers } else { &mut self.rules.response_headers };
                    headers.insert(name, value);
                    self.left.remove(&option);
                }
            }
        }
        Ok(())
    }

    /// The values of a list that are of a form; the others are not honoured.
    fn forms(&mut self, option: &str, form: impl Fn(&str) -> Result<String, units::Wrong>) -> Vec<String> {
        let given = self.list(option);
        let good: Vec<String> = given.iter().filter_map(|text| form(text).ok()).collect();
        if good.len() < given.len() {
            self.idle.push(option.to_string());
        }
        good
    }

    fn basic_auth(&mut self) -> Read {
        let mut auth = BasicAuth { realm: REALM_DEFAULT.to_string(), ..BasicAuth::default() };
        for user in self.list("users") {
            let (name, hash) = user.split_once(':').unwrap_or((&user, ""));
            forms::password_hash(hash).map_err(|_| format!("has no password hash for `{}`", shortened(name)))?;
            auth.users.insert(name.to_string(), hash.to_string());
        }
        if auth.users.is_empty() {
            return Err("names no users here".to_string());
        }
        auth.hide = self.truth("removeheader");
        if let Some(realm) = self.take("realm") {
            auth.realm =
                realm.chars().filter(|c| (c.is_ascii_graphic() || *c == ' ') && !"\"\\".contains(*c)).collect();
        }
        self.rules.basic_auth = Some(auth);
        self.whole()
    }

    fn addresses(&mut self) -> Read {
        for text in self.list("sourcerange") {
            let network = forms::network(&text);
            self.rules.allow.push(network.map_err(|(wrong, _)| format!("has `{}`, which {wrong}", shortened(&text)))?);
        }
        if self.rules.allow.is_empty() {
            return Err("names no addresses".to_string());
        }
        self.whole()
    }

    fn rate(&mut self) -> Read {
        let whole = |text: Option<String>, default| text.map_or(Some(default), |text| text.trim().parse().ok());
        let requests: Option<u32> = whole(self.take("average"), 0);
        let burst: Option<u32> = whole(self.take("burst"), 1);
        let period_ms = self.take("period").map_or(Some(1_000), |text| units::duration_ms(&text).ok());
        let header = self.take("sourcecriterion.requestheadername").map(|name| forms::header_name(&name));
        let by = match header {
            None => Some(RateKey::Address),
            Some(Ok(name)) => Some(RateKey::Header(name)),
            Some(Err(_)) => None,
        };
        match (requests, burst, period_ms.filter(|ms| *ms > 0), by) {
            // None, says Traefik.
            (Some(0), ..) => {}
            (Some(requests), Some(burst), Some(period_ms), Some(by)) => {
                self.rules.rate_limit = Some(RateLimit { requests, period_ms, burst: burst.max(1), by });
            }
            _ => self.idle.push("average".to_string()),
        }
        Ok(())
    }

    fn compress(&mut self) -> Read {
        let mut compress = Compress::default();
        for coding in self.list("encodings") {
            match answers::CODINGS.iter().find(|(name, _)| *name == coding) {
                Some((_, coding)) => compress.codings.push(*coding),
                None => self.idle.push("encodings".to_string()),
            }
        }
        compress.types = self.forms("includedcontenttypes", forms::media_type);
        compress.except = self.forms("excludedcontenttypes", forms::media_type);
        compress.bytes_min = self.take("minresponsebodybytes").and_then(|text| text.trim().parse().ok());
        // What a client gets that does not say what it likes: here always the answer as it is.
        self.take("defaultencoding");
        self.rules.compress = Some(compress);
        Ok(())
    }

    fn forward_auth(&mut self) -> Read {
        let text = self.take("address").unwrap_or_default();
        let read = asides::address(&text, |name| self.services.contains(name));
        let read = read.map_err(|(wrong, _)| format!("has the address `{}`, which {wrong}", shortened(&text)))?;
        let names = |list: Vec<String>, form: fn(&str) -> Result<String, units::Wrong>| {
            let names: Result<Vec<String>, String> = list
                .iter()
                .map(|name| form(name).map_err(|(wrong, _)| format!("has `{}`, which {wrong}", shortened(name))))
                .collect();
            names
        };
        let auth = ForwardAuth {
            to: read.to,
            path: read.path,
            response_headers: names(self.list("authresponseheaders"), forms::header_changed)?,
            request_headers: names(self.list("authrequestheaders"), forms::header_name)?,
            deadline_ms: FORWARD_AUTH_MS,
        };
        // What a client says about whence it came is not believed here, whoever is asked.
        if self.truth("trustforwardheader") {
            self.idle.push("trustforwardheader".to_string());
        }
        self.rules.forward_auth = Some(auth);
        self.whole()
    }

    fn size(&mut self) -> Read {
        let size = self.take("maxrequestbodybytes").unwrap_or_default();
        match size.trim().parse::<u64>() {
            Ok(0) => {}
            Ok(bytes) => self.rules.body_bytes_max = Some(bytes),
            Err(_) if size.is_empty() => {}
            Err(_) => self.idle.push("maxrequestbodybytes".to_string()),
        }
        Ok(())
    }
}

fn star_or(text: &str, form: impl Fn(&str) -> Result<String, units::Wrong>) -> Result<String, units::Wrong> {
    if text == "*" { Ok(text.to_string()) } else { form(text) }
}
