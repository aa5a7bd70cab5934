//! Names and passwords: HTTP's basic authentication (RFC 7617).
//!
//! Owns which logins have been proven lately, so that a page of fifty pictures costs one bcrypt. Hashing happens on
//! the blocking threads, a few at a time: whoever guesses passwords slows down guessing and nothing else.

use super::password;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use wire::spec::BasicAuth;

/// How long a proven login is taken as such without hashing.
const PROVEN_NS: u64 = 300_000_000_000;
/// Proven logins kept per route; more people than that at once pay with a hash now and then.
const PROVEN_MAX: usize = 1_024;
/// Hashes at once, over all routes: the rest of a small machine's cores stay for requests.
static HASHING: Semaphore = Semaphore::const_new(2);
/// Logins that wait for it, over all routes: at 60 ms a hash, the last is through in four seconds.
static WAITING: Semaphore = Semaphore::const_new(128);
/// Longer passwords are nobody's.
const PASSWORD_BYTES_MAX: usize = 1_024;

pub(crate) struct Logins {
    users: HashMap<String, Arc<str>>,
    /// Hashed for names that do not exist, so that answers take as long for them.
    decoy: Option<Arc<str>>,
    pub(crate) challenge: HeaderValue,
    pub(crate) hide: bool,
    /// What digests of proven logins begin with, so that they mean nothing elsewhere.
    salt: [u8; 16],
    /// Until when each is proven.
    proven: Mutex<HashMap<[u8; 32], u64>>,
}

/// What a request's name and password are worth.
pub(crate) enum Standing {
    Proven,
    Unproven(Claim),
    /// None were sent, or nothing that could be read.
    Missing,
}

/// A name and password that have yet to be compared.
pub(crate) struct Claim {
    hash: Option<Arc<str>>,
    is_known: bool,
    password: Vec<u8>,
    digest: [u8; 32],
}

/// How a comparison ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Right,
    Wrong,
    /// Too many wait already.
    Busy,
}

impl Logins {
    pub(crate) fn new(wanted: &BasicAuth) -> Logins {
        let users: HashMap<String, Arc<str>> =
            wanted.users.iter().map(|(name, hash)| (name.clone(), hash.as_str().into())).collect();
        let realm: String = wanted.realm.chars().filter(|letter| !matches!(letter, '"' | '\\')).collect();
        let challenge = HeaderValue::try_from(format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
        let random = [world::random::number().to_le_bytes(), world::random::number().to_le_bytes()].concat();
        Logins {
            decoy: users.values().max().cloned(),
            users,
            challenge: challenge.unwrap_or(HeaderValue::from_static("Basic realm=\"restricted\"")),
            hide: wanted.hide,
            salt: random.try_into().unwrap_or_default(),
            proven: Mutex::default(),
        }
    }

    pub(crate) fn judge(&self, headers: &HeaderMap, now_ns: u64) -> Standing {
        let Some((name, password)) = headers.get(header::AUTHORIZATION).and_then(credentials) else {
            return Standing::Missing;
        };
        let digest = Sha256::new_with_prefix(self.salt)
            .chain_update(u64::try_from(name.len()).unwrap_or_default().to_le_bytes())
            .chain_update(&name)
            .chain_update(&password)
            .finalize()
            .into();
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.get(&digest).is_some_and(|until_ns| *until_ns > now_ns) {
            return Standing::Proven;
        }
        let hash = self.users.get(&name).cloned();
        Standing::Unproven(Claim { is_known: hash.is_some(), hash: hash.or(self.decoy.clone()), password, digest })
    }

    /// Compares; may be dropped when the client leaves, the comparison then ends unheard.
    pub(crate) async fn prove(&self, claim: &Claim, now_ns: u64) -> Proof {
        let (Ok(_waiting), Some(hash)) = (WAITING.try_acquire(), claim.hash.clone()) else {
            return if claim.hash.is_none() { Proof::Wrong } else { Proof::Busy };
        };
        let Ok(hashing) = HASHING.acquire().await else { return Proof::Busy };
        let password = claim.password.clone();
        let compared = tokio::task::spawn_blocking(move || {
            let _hashing = hashing;
            password::fits(&hash, &password)
        });
        if !compared.await.unwrap_or(false) || !claim.is_known {
            return Proof::Wrong;
        }
        let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.len() >= PROVEN_MAX {
            proven.retain(|_, until_ns| *until_ns > now_ns);
        }
        if proven.len() >= PROVEN_MAX {
            proven.clear();
        }
        proven.insert(claim.digest, now_ns.saturating_add(PROVEN_NS));
        Proof::Right
    }
}

/// The name and password of an `Authorization` header.
fn credentials(value: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = (&decoded[..colon], &decoded[colon + 1..]);
    let name = String::from_utf8(name.to_vec()).ok()?;
    (password.len() <= PASSWORD_BYTES_MAX).then(|| (name, password.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::try_from(value).expect("a value"))])
    }

    fn logins() -> Logins {
        let users = [("ann", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="), ("bob", "{SHA}nonsense")];
        let users = users.map(|(name, hash)| (name.to_owned(), hash.to_owned())).into();
        Logins::new(&BasicAuth { users, realm: "the \"shop\"".to_owned(), hide: false })
    }

    fn basic(login: &str) -> HeaderMap {
        headers(&format!("Basic {}", STANDARD.encode(login)))
    }

    #[tokio::test]
    async fn a_login_is_proven_once_and_for_a_while() {
        let logins = logins();
        let right = basic("ann:secret");
        let Standing::Unproven(claim) = logins.judge(&right, 0) else { panic!("nobody has proven it") };
        assert_eq!(logins.prove(&claim, 0).await, Proof::Right);
        assert!(matches!(logins.judge(&right, 1), Standing::Proven));
        assert!(matches!(logins.judge(&right, PROVEN_NS), Standing::Unproven(_)));
        for wrong in ["ann:Secret", "ann:", "bob:secret", "eve:secret", "ann:secret:"] {
            let Standing::Unproven(claim) = logins.judge(&basic(wrong), 1) else { panic!("{wrong} is not proven") };
            assert_eq!(logins.prove(&claim, 1).await, Proof::Wrong, "{wrong}");
        }
        assert_eq!(logins.proven.lock().expect("no panic").len(), 1, "failures are not remembered");
    }

    #[test]
    fn what_is_no_login_is_missing() {
        for value in ["", "Basic", "Basic !", "Bearer abc", "Basic bm9jb2xvbg=="] {
            assert!(matches!(logins().judge(&headers(value), 0), Standing::Missing), "{value}");
        }
        assert!(matches!(logins().judge(&HeaderMap::new(), 0), Standing::Missing));
        assert_eq!(logins().challenge, "Basic realm=\"the shop\", charset=\"UTF-8\"");
    }
}
