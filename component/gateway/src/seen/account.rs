//! A request that is over, in words.
//!
//! Owns what a line of the access log says. Values of a query that look like secrets do not get into it.

use super::{Account, Told};
use http::{HeaderValue, Uri, Version};
use std::time::Instant;
use wire::api::{RequestRecord, Retry, Split};

/// A path longer than this is cut: a line is for people, and thousands of them are read at once.
const PATH_BYTES_MAX: usize = 1 << 10;
/// What secrets are called in addresses.
const SECRETS: [&str; 12] =
    ["apikey", "token", "secret", "password", "passwd", "pwd", "key", "signature", "sig", "auth", "code", "session"];

impl Account {
    pub(super) fn record(self) -> RequestRecord {
        let Account { record, story, why } = self;
        let split = split(&record);
        let host = story.host.as_ref().map(text).or_else(|| story.uri.authority().map(|host| host.as_str().to_owned()));
        let identity = &story.identity;
        RequestRecord {
            time_ms: record.ended_unix_ms.saturating_sub(split.total_us / 1_000),
            trace: identity.trace().unwrap_or_default().to_owned(),
            span: identity.span().unwrap_or_default().to_owned(),
            parent: identity.parent().unwrap_or_default().to_owned(),
            request_id: identity.request_id.as_ref().map(text).unwrap_or_default(),
            client: story.client.to_string(),
            method: record.method.as_str().to_owned(),
            host: host.unwrap_or_default(),
            path: path(&story.uri),
            version: version(story.version).to_owned(),
            tls: story.tls.as_deref().cloned(),
            status: record.status,
            code: record.code.to_owned(),
            service: story.upstream.as_ref().map(|upstream| upstream.service.clone()).unwrap_or_default(),
            route: record.route.as_ref().map(|route| route.name.clone()).unwrap_or_default(),
            instance: record.steps.instance.as_ref().map(|instance| instance.id.to_string()).unwrap_or_default(),
            bytes_in: story.bytes_in(),
            bytes_out: record.bytes_out,
            sends: record.steps.sends,
            retries: retries(&record),
            hedged: record.steps.hedged,
            reused: record.steps.reused,
            split,
            end: record.end,
            why,
        }
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn retries(record: &Told) -> Vec<Retry> {
    let retries = record.steps.retries.iter();
    retries
        .map(|(instance, trouble)| Retry { instance: instance.to_string(), why: trouble.word().to_owned() })
        .collect()
}

/// Each part begins where the one before ended, and the last ends with the request.
fn split(record: &Told) -> Split {
    let marks = [record.steps.found, record.steps.connected, record.answered];
    let mut begun = Some(record.started);
    let mut parts = [0; 4];
    for (part, mark) in parts.iter_mut().zip(marks.into_iter().chain([None])) {
        let Some(from) = begun else { break };
        *part = micros(from, mark.unwrap_or(record.ended));
        begun = mark;
    }
    let [queue_us, connect_us, answer_us, body_us] = parts;
    Split { queue_us, connect_us, answer_us, body_us, total_us: micros(record.started, record.ended) }
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        // The others are not served.
        _ => "HTTP/1.1",
    }
}

/// Path and query as they came, secrets starred, cut where they get too long.
fn path(uri: &Uri) -> String {
    let mut path = uri.path().to_owned();
    if let Some(query) = uri.query() {
        for (at, pair) in query.split('&').enumerate() {
            path.push(if at == 0 { '?' } else { '&' });
            match pair.split_once('=') {
                Some((name, _)) if is_secret(name) => path.extend([name, "=***"]),
                Some(_) | None => path.push_str(pair),
            }
        }
    }
    path.truncate(path.floor_char_boundary(PATH_BYTES_MAX));
    path
}

/// Whether one of the words of a name, however it is written, is what secrets are called.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|letter: char| !letter.is_ascii_alphabetic());
    words.any(|word| SECRETS.iter().any(|secret| word == *secret || (secret.len() > 4 && word.ends_with(secret))))
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn secrets_in_addresses_are_starred() {
        let check = |uri: &str, expected: &str| assert_eq!(path(&uri.parse().unwrap()), expected, "{uri}");
        check("/a?b=c&d", "/a?b=c&d");
        check("http://a.test/x", "/x");
        check("/a?token=t&q=1", "/a?token=***&q=1");
        check("/a?accessToken=t&X-Amz-Signature=s&api_key=k", "/a?accessToken=***&X-Amz-Signature=***&api_key=***");
        check("/a?monkey=m&keyboard=b&code=c", "/a?monkey=m&keyboard=b&code=***");
        check("/a?token", "/a?token");
        let long = format!("/{}", "x".repeat(5_000));
        assert_eq!(path(&long.parse().unwrap()).len(), super::PATH_BYTES_MAX);
    }
}
