//! Single values of a route: paths, methods, headers, networks, origins, password hashes.
//!
//! Pure; each function says what is wrong in words that follow "`value`", and what would be right.

use crate::units::Wrong;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;
use wire::spec::FRAMING_HEADERS;

/// Each step doubles the time; 14 is a second on a small machine.
const BCRYPT_COST_MAX: u32 = 14;
const BCRYPT_COST_MIN: u32 = 4;
/// Salt and digest after the cost.
const BCRYPT_LETTERS: usize = 53;
const APR1_DIGEST_LETTERS: usize = 22;
const APR1_SALT_LETTERS_MAX: usize = 8;
const SHA1_BYTES: usize = 20;
/// Long enough for any policy, and the head of an answer stays far below what clients take.
const HEADER_VALUE_LETTERS_MAX: usize = 4_096;

pub(crate) fn path(text: &str) -> Result<String, Wrong> {
    let good = text.starts_with('/') && !text.contains(char::is_whitespace);
    if good { Ok(text.to_string()) } else { Err(("is not a path", "a path starts with `/`")) }
}

/// A path as it goes into a request line.
pub(crate) fn path_sent(text: &str) -> Result<String, Wrong> {
    let hint = "a path starts with `/` and holds neither `?`, `#` nor letters beyond ASCII: write those as %20";
    let good =
        text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
    if good { Ok(text.to_string()) } else { Err(("is not a path", hint)) }
}

/// A path that stands before another one.
pub(crate) fn prefix_sent(text: &str) -> Result<String, Wrong> {
    let path = path_sent(text)?;
    let bare = path.trim_end_matches('/');
    if bare.is_empty() { Err(("adds nothing", "write a path such as `/api`")) } else { Ok(bare.to_string()) }
}

pub(crate) fn method(text: &str) -> Result<String, Wrong> {
    let upper = text.to_ascii_uppercase();
    if !upper.is_empty() && upper.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        Ok(upper)
    } else {
        Err(("is not a method", "write `GET`, `POST` and so on"))
    }
}

/// The name of a header, in lower case.
pub(crate) fn header_name(text: &str) -> Result<String, Wrong> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(token) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(("is not the name of a header", "write a name such as `X-Version`"))
    }
}

/// The name of a cookie, as it is written (RFC 6265, section 4.1.1).
pub(crate) fn cookie_name(text: &str) -> Result<String, Wrong> {
    const LETTERS_MAX: usize = 64;
    if text.len() <= LETTERS_MAX && header_name(text).is_ok() {
        Ok(text.to_string())
    } else {
        Err(("is not the name of a cookie", "write a short name such as `shop_session`"))
    }
}

/// The name of a header that may be set or removed.
pub(crate) fn header_changed(text: &str) -> Result<String, Wrong> {
    let name = header_name(text)?;
    if FRAMING_HEADERS.contains(&name.as_str()) {
        let hint = "where a message ends and whom it is for cannot be changed: remove the line";
        return Err(("is not a header that may be changed", hint));
    }
    Ok(name)
}

pub(crate) fn header_value(text: &str) -> Result<String, Wrong> {
    let visible = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    if text.len() <= HEADER_VALUE_LETTERS_MAX && text.bytes().all(visible) {
        Ok(text.to_string())
    } else {
        Err(("is not the value of a header", "one line of ASCII letters, 4096 at most"))
    }
}

/// A type of content, `*` standing for the rest of it.
pub(crate) fn media_type(text: &str) -> Result<String, Wrong> {
    let lower = text.to_ascii_lowercase();
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    match lower.split_once('/') {
        Some((kind, rest)) if token(kind) && (rest == "*" || token(rest)) => Ok(lower),
        Some(_) | None => Err(("is not a type of content", "write `text/html`, or `text/*` for all of a kind")),
    }
}

/// An address, or a network as address and bits.
pub(crate) fn network(text: &str) -> Result<String, Wrong> {
    let text = text.trim();
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let digits = |bits: &&str| !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let bits_max: u8 = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return Err(("is not an address or network", "write `192.168.1.7`, `10.0.0.0/8` or `2001:db8::/32`")),
    };
    match bits {
        None => Ok(text.to_string()),
        Some(bits)
            if Some(bits).as_ref().is_some_and(digits) && bits.parse().is_ok_and(|bits: u8| bits <= bits_max) =>
        {
            Ok(text.to_string())
        }
        Some(_) => {
            Err(("has too many bits after the slash", "an IPv4 network has 0 to 32 of them, an IPv6 one 0 to 128"))
        }
    }
}

/// Where a page comes from: scheme, host and port, as browsers write it.
pub(crate) fn origin(text: &str) -> Result<String, Wrong> {
    let lower = text.to_ascii_lowercase();
    let rest = lower.split_once("://").filter(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    let host = |rest: &str| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
    };
    match rest {
        _ if lower == "*" => Ok(lower),
        Some((_, rest)) if host(rest) => Ok(lower),
        Some(_) | None => Err(("is not an origin", "write `https://shop.example.org`, without a path, or `*` for all")),
    }
}

/// A password hash as `htpasswd` writes it.
pub(crate) fn password_hash(text: &str) -> Result<(), Wrong> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
    let bcrypt = ["$2a$", "$2b$", "$2x$", "$2y$"].iter().find_map(|start| text.strip_prefix(start));
    if let Some((cost, rest)) = bcrypt.and_then(|rest| rest.split_once('$')) {
        let cost = cost.parse::<u32>().ok().filter(|_| cost.len() == 2 && rest.len() == BCRYPT_LETTERS && digits(rest));
        return match cost {
            Some(BCRYPT_COST_MIN..=BCRYPT_COST_MAX) => Ok(()),
            Some(_) => Err(("has a cost that is not 4 to 14", "make one with `htpasswd -nbB -C 10 NAME PASSWORD`")),
            None => Err(NO_HASH),
        };
    }
    let apr1 = text.strip_prefix("$apr1$").and_then(|rest| rest.split_once('$'));
    let is_apr1 = apr1.is_some_and(|(salt, digest)| {
        (1..=APR1_SALT_LETTERS_MAX).contains(&salt.len()) && digest.len() == APR1_DIGEST_LETTERS && digits(digest)
    });
    let sha1 = text.strip_prefix("{SHA}").and_then(|digest| STANDARD.decode(digest).ok());
    if is_apr1 || sha1.is_some_and(|digest| digest.len() == SHA1_BYTES) { Ok(()) } else { Err(NO_HASH) }
}

const NO_HASH: Wrong = (
    "is not a hash of bcrypt, apr1 or SHA1",
    "make one with `htpasswd -nbB NAME PASSWORD`; in a stack file each `$` of it is written `$$`",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_hashes_are_told_from_other_texts() {
        let bcrypt = "$2y$05$P6wIgCSN38XRY0s63Vq8C.0CN8TgU2k.wT5jehAHTpNzA4oSI3.qa";
        for good in [bcrypt, "$apr1$12345678$0lqb/6VUFP8JY/s/jTrIk0", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="] {
            assert_eq!(password_hash(good), Ok(()), "{good}");
        }
        let costly = bcrypt.replace("$05$", "$15$");
        for bad in ["", "secret", "$2y$05$short", &bcrypt[..59], &costly, "$1$a$b", "{SHA}x", "$apr1$$x", "y"] {
            assert!(password_hash(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_origins_and_headers() {
        for good in ["10.0.0.0/8", "1.2.3.4", "::1", "2001:db8::/32", "0.0.0.0/0", " 10.0.0.1 "] {
            assert!(network(good).is_ok(), "{good}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "::/129", "localhost"] {
            assert!(network(bad).is_err(), "{bad}");
        }
        for good in ["*", "https://a.test", "http://localhost:3000", "HTTPS://A.test", "capacitor://localhost"] {
            assert!(origin(good).is_ok(), "{good}");
        }
        for bad in ["", "null", "a.test", "https://", "https://a.test/", "https://a.test/x", "https://*.a.test"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
        assert_eq!(header_changed("X-A").as_deref(), Ok("x-a"));
        for bad in ["Content-Length", "transfer-encoding", "HOST", "connection", "a b", "", "ä"] {
            assert!(header_changed(bad).is_err(), "{bad}");
        }
        assert!(header_value("a\r\nb: c").is_err());
    }
}
