//! A request as the cache sees it: as the client sent it, before it is made ready for the service.

use super::answer::Stored;
use super::purge::labels;
use super::{Cache, Rule};
use crate::asked::Asked;
use crate::header::ClientName;
use crate::upstream::Upstream;
use http::Method;
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::uri::PathAndQuery;
use httpcache::{Directives, selection};
use stash::Trace;
use std::sync::Arc;

/// What the cache can do for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Answer it.
    Look,
    /// Learn that what it has is wrong now.
    Change,
    /// Nothing.
    Pass,
}

/// A request of a route with a cache.
pub(crate) struct Inquiry {
    pub(crate) cache: Arc<Cache>,
    pub(crate) rule: Arc<Rule>,
    pub(crate) role: Role,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) scheme: &'static str,
    /// With the port, as the client named it, in lower case.
    pub(crate) authority: String,
    /// Path and query, as far as they count.
    pub(crate) target: String,
    pub(crate) service: String,
    port: u16,
}

impl Inquiry {
    /// `is_plain` says that the request is nothing but HTTP, and has no body.
    pub(crate) fn new(
        cache: &Arc<Cache>,
        rule: &Arc<Rule>,
        (asked, head): (&Asked, &Parts),
        client: &ClientName,
        upstream: &Upstream,
        is_plain: bool,
    ) -> Inquiry {
        let conditional =
            [header::IF_MATCH, header::IF_UNMODIFIED_SINCE].iter().any(|name| head.headers.contains_key(name));
        let role = match head.method {
            Method::GET | Method::HEAD if is_plain && !conditional => Role::Look,
            ref method if !method.is_safe() => Role::Change,
            _ => Role::Pass,
        };
        let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        Inquiry {
            cache: Arc::clone(cache),
            rule: Arc::clone(rule),
            role,
            method: head.method.clone(),
            headers: head.headers.clone(),
            scheme: if client.is_secure() { "https" } else { "http" },
            authority: asked.host.to_str().unwrap_or_default().to_ascii_lowercase(),
            target: rule.plain(target).into_owned(),
            service: upstream.service.clone(),
            port: upstream.port,
        }
    }

    /// Under which the answers to `target` lie: nobody else's do.
    pub(crate) fn key(&self, target: &str) -> String {
        let Inquiry { rule, scheme, authority, service, port, .. } = self;
        format!("{service}:{port}\n{}\n{scheme}://{authority}{target}", rule.mark)
    }

    pub(crate) fn address(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.target)
    }

    pub(crate) fn selection(&self, names: &[HeaderName]) -> String {
        selection(names, &self.headers)
    }

    /// What the client says, if that is heard.
    pub(crate) fn said(&self) -> Option<Directives> {
        self.rule.policy.obey_clients.then(|| Directives::of_request(&self.headers))
    }

    /// What is kept for the request, and under which key it lies or would lie.
    pub(crate) async fn find(&self) -> Found {
        let primary = self.key(&self.target);
        let first = self.get(&primary).await;
        let names = match first {
            None => return Found { key: primary, answer: None, varies: false },
            Some(Stored::Answer(answer)) => {
                let fits = self.selection(&answer.names) == answer.selection;
                return Found { key: primary, answer: fits.then_some(answer), varies: !fits };
            }
            Some(Stored::Sheet(names)) => names,
        };
        let selection = self.selection(&names);
        let key = variant_key(&primary, &selection);
        let answer = match self.get(&key).await {
            Some(Stored::Answer(answer)) if self.selection(&answer.names) == answer.selection => Some(answer),
            Some(Stored::Answer(_) | Stored::Sheet(_)) | None => None,
        };
        Found { key, varies: answer.is_none(), answer }
    }

    /// By what an answer with these headers can be forgotten.
    pub(crate) fn trace(&self, headers: &HeaderMap) -> Trace {
        let labels = labels(&self.service, &self.authority, &self.target, headers);
        self.cache.stash.trace(&labels.iter().map(String::as_str).collect::<Vec<_>>())
    }

    async fn get(&self, key: &str) -> Option<Stored> {
        if let Some(stored) = self.cache.stash.at_hand(key) {
            return Some(stored);
        }
        let stored = self.cache.stash.find(key).await?;
        if let Stored::Answer(answer) = &stored {
            self.cache.catalogue.note(key, answer, || self.trace(&answer.headers));
        }
        Some(stored)
    }
}

/// What is kept for a request.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) key: String,
    pub(crate) answer: Option<Arc<super::answer::Answer>>,
    /// There is something for the address, for other requests.
    pub(crate) varies: bool,
}

pub(crate) fn variant_key(primary: &str, selection: &str) -> String {
    format!("{primary}\n{selection}")
}

/// A host without its port, in lower case.
pub(crate) fn host_of(authority: &str) -> String {
    let lower = authority.to_ascii_lowercase();
    let name = match lower.rfind(':') {
        // The colons of an IPv6 address are within brackets.
        Some(at) if !lower.get(at..).is_some_and(|rest| rest.contains(']')) => lower.get(..at).unwrap_or_default(),
        Some(_) | None => &lower,
    };
    name.trim_end_matches('.').to_owned()
}

/// Without the query.
pub(crate) fn plain_path(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}
