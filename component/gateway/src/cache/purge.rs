//! What is not given again, because somebody says so.

use super::Cache;
use super::inquiry::{host_of, plain_path};
use http::header::HeaderMap;
use std::io;

/// Answers to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// Of one address, as `shop.test/path?query`; without a query, of all queries of that path.
    Address {
        authority: String,
        target: String,
    },
    Host(String),
    /// `stack/service`.
    Service(String),
    /// That `cache-tag` or `surrogate-key` named.
    Tag(String),
    Everything,
}

/// What an answer can be forgotten by: at most so many of its own tags.
const TAGS_MAX: usize = 64;

impl Purge {
    fn label(&self) -> Option<String> {
        match self {
            Purge::Address { authority, target } if target.contains('?') => Some(address_label(authority, target)),
            Purge::Address { authority, target } => Some(path_label(authority, target)),
            Purge::Host(name) => Some(format!("host {}", host_of(name))),
            Purge::Service(name) => Some(format!("service {name}")),
            Purge::Tag(tag) => Some(format!("tag {tag}")),
            Purge::Everything => None,
        }
    }
}

impl Cache {
    /// Forgets; when this returns, no power cut brings anything of it back.
    pub(crate) async fn purge(&self, what: &Purge) -> io::Result<()> {
        self.stash.forget(what.label().as_deref(), true).await
    }

    /// Forgets one address because of what a request did there.
    pub(crate) async fn forget(&self, authority: &str, target: &str) {
        if let Err(error) = self.stash.forget(Some(&address_label(authority, target)), false).await {
            tracing::warn!(%error, authority, "cannot note for a restart that an answer is no longer right");
        }
    }
}

/// What the answer to an address can be forgotten by.
pub(crate) fn labels(service: &str, authority: &str, target: &str, headers: &HeaderMap) -> Vec<String> {
    let mut labels = vec![
        format!("service {service}"),
        format!("host {}", host_of(authority)),
        address_label(authority, target),
        path_label(authority, target),
    ];
    labels.extend(tags(headers).into_iter().map(|tag| format!("tag {tag}")));
    labels
}

fn address_label(authority: &str, target: &str) -> String {
    format!("address {authority}{target}")
}

fn path_label(authority: &str, target: &str) -> String {
    format!("path {authority}{}", plain_path(target))
}

/// `cache-tag` separates by commas, `surrogate-key` by spaces.
fn tags(headers: &HeaderMap) -> Vec<&str> {
    let named = |name: &'static str, between: char| {
        let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(move |line| line.split(between)).map(str::trim).filter(|tag| !tag.is_empty())
    };
    named("cache-tag", ',').chain(named("surrogate-key", ' ')).take(TAGS_MAX).collect()
}
