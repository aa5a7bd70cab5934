//! Which instance a request would rather have: the one its key falls to, or the one it had before.
//!
//! Owns the cookie that remembers an instance. It says nothing about the instance to those who do not know its name, can
//! be read by no script, and is made anew where its instance is gone. Pure.

use bytes::BytesMut;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use wire::spec::{Balance, HashKey};

/// Digits of a cookie's value: enough that two of ten thousand instances of a service are never taken for one another.
const MARK_BYTES: usize = 8;

/// The rule of one route.
#[derive(Debug)]
pub(crate) enum Affinity {
    Address,
    Header(HeaderName),
    /// The value of a cookie of the service's own.
    Cookie(String),
    /// A cookie of ours, and the path it is for.
    Sticky {
        name: String,
        path: String,
    },
}

/// What one request asks of the choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Wish {
    #[default]
    LeastLoad,
    Hash(u64),
    /// The instance with this mark, if the client has one.
    Marked(Option<String>),
}

impl Affinity {
    /// `service` and `path` are those of the route.
    pub(crate) fn new(balance: &Balance, service: &str, path: &str) -> Option<Affinity> {
        Some(match balance {
            Balance::Hash(HashKey::Address) => Affinity::Address,
            Balance::Hash(HashKey::Header(name)) => Affinity::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            Balance::Hash(HashKey::Cookie(name)) => Affinity::Cookie(name.clone()),
            Balance::Sticky(name) => {
                let made_up = || format!("bramble_{}", mark("cookie", service).get(..8).unwrap_or_default());
                let name = if name.is_empty() { made_up() } else { name.clone() };
                let plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
                Affinity::Sticky { name, path: if plain { path.to_owned() } else { "/".to_owned() } }
            }
        })
    }

    pub(crate) fn wish(&self, headers: &HeaderMap, client: IpAddr) -> Wish {
        let key = match self {
            Affinity::Address => Some(hash(client.to_canonical().to_string().as_bytes())),
            Affinity::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
            Affinity::Cookie(name) => cookie(headers, name).map(|value| hash(value.as_bytes())),
            Affinity::Sticky { name, .. } => return Wish::Marked(cookie(headers, name).map(str::to_owned)),
        };
        // Those without a key are alike in nothing.
        key.map_or(Wish::LeastLoad, Wish::Hash)
    }

    /// Has the client remember the instance that answered, if it does not.
    pub(crate) fn remember(&self, wish: &Wish, mark: &str, secure: bool, headers: &mut HeaderMap) {
        let Affinity::Sticky { name, path } = self else { return };
        if matches!(wish, Wish::Marked(Some(known)) if known == mark) {
            return;
        }
        let mut text = BytesMut::new();
        for part in [name, "=", mark, "; Path=", path, "; HttpOnly; SameSite=Lax"] {
            text.extend_from_slice(part.as_bytes());
        }
        if secure {
            text.extend_from_slice(b"; Secure");
        }
        if let Ok(value) = HeaderValue::from_maybe_shared(text.freeze()) {
            headers.append(SET_COOKIE, value);
        }
    }
}

/// What stands for an instance in cookies: the same at every gateway and after every restart.
pub(crate) fn mark(service: &str, instance: &str) -> String {
    let digest = Sha256::new().chain_update(service).chain_update([0]).chain_update(instance).finalize();
    digest.iter().take(MARK_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// FNV-1a with a finish (Murmur's) that spreads it: the same everywhere and for ever.
fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut mixed = bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn keys_are_of_the_address_a_header_or_a_cookie() {
        let wish = |key: HashKey, given: &HeaderMap, client: IpAddr| {
            Affinity::new(&Balance::Hash(key), "s", "/").unwrap().wish(given, client)
        };
        let none = headers(&[]);
        assert_eq!(
            wish(HashKey::Address, &none, CLIENT),
            wish(HashKey::Address, &none, "::ffff:127.0.0.1".parse().unwrap())
        );
        assert_ne!(wish(HashKey::Address, &none, CLIENT), wish(HashKey::Address, &none, "::1".parse().unwrap()));
        let user = || HashKey::Header("x-user".to_owned());
        let (ann, bob) = (headers(&[("x-user", "ann")]), headers(&[("x-user", "bob")]));
        assert_ne!(wish(user(), &ann, CLIENT), wish(user(), &bob, CLIENT));
        assert_eq!(wish(user(), &none, CLIENT), Wish::LeastLoad);
        let session = || HashKey::Cookie("sid".to_owned());
        let one = headers(&[("cookie", "a=1; sid=7; b=2")]);
        assert_eq!(wish(session(), &one, CLIENT), wish(session(), &headers(&[("cookie", "sid=7")]), CLIENT));
        assert_eq!(wish(session(), &headers(&[("cookie", "xsid=7")]), CLIENT), Wish::LeastLoad);
    }

    #[test]
    fn an_instance_is_remembered_once() {
        let sticky = Affinity::new(&Balance::Sticky(String::new()), "shop/web", "/a").unwrap();
        let mark = mark("shop/web", "shop.web.1");
        let mut answer = HeaderMap::new();
        let wish = sticky.wish(&headers(&[]), CLIENT);
        sticky.remember(&wish, &mark, true, &mut answer);
        let set = answer[SET_COOKIE].to_str().unwrap().to_owned();
        let (pair, rest) = set.split_once("; ").unwrap();
        assert_eq!(rest, "Path=/a; HttpOnly; SameSite=Lax; Secure");
        assert!(!pair.contains("shop") && pair.starts_with("bramble_") && pair.ends_with(&mark), "{pair}");
        let known: HeaderMap = [(COOKIE, HeaderValue::from_str(pair).unwrap())].into_iter().collect();
        let wish = sticky.wish(&known, CLIENT);
        assert_eq!(wish, Wish::Marked(Some(mark.clone())));
        let mut again = HeaderMap::new();
        sticky.remember(&wish, &mark, true, &mut again);
        assert!(again.is_empty());
        sticky.remember(&wish, "another", false, &mut again);
        assert!(again[SET_COOKIE].to_str().unwrap().ends_with("SameSite=Lax"), "{again:?}");
    }
}
