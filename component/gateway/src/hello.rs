//! What a client says before TLS begins: the name it asks for (RFC 8446, section 4.1.2; RFC 6066, section 3).
//!
//! Owns the reading of a ClientHello, for connections that are not opened here. Bounded, and strict enough that what is
//! read here is read the same by whoever ends the TLS; all else about it is theirs. Pure.

/// The longest that is waited for. Browsers send two kilobytes since they agree on keys that resist quantum computers.
pub(crate) const HELLO_BYTES_MAX: usize = 16 << 10;

const RECORD_HEAD_BYTES: usize = 5;
const RECORD_BYTES_MAX: usize = 1 << 14;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Of names in the domain name system.
const NAME_BYTES_MAX: usize = 253;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hello {
    /// A whole ClientHello; the name in lower case, if it has one.
    Read { name: Option<String> },
    /// More bytes will tell.
    Unsure,
    /// No ClientHello: let TLS say so.
    Bad,
}

/// Reads the beginning of a connection.
pub(crate) fn read(bytes: &[u8]) -> Hello {
    match gathered(bytes) {
        Gathered::Whole(hello) => match name(&hello) {
            Some(name) => Hello::Read { name },
            None => Hello::Bad,
        },
        Gathered::Part if bytes.len() < HELLO_BYTES_MAX => Hello::Unsure,
        Gathered::Part | Gathered::Other => Hello::Bad,
    }
}

enum Gathered {
    Whole(Vec<u8>),
    Part,
    Other,
}

/// The message, which may come in several records.
fn gathered(bytes: &[u8]) -> Gathered {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if let Some((head, body)) = message.split_first_chunk::<4>() {
            let [kind, high, middle, low] = *head;
            let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(usize::MAX);
            if kind != CLIENT_HELLO || length > HELLO_BYTES_MAX {
                return Gathered::Other;
            }
            if let Some(body) = body.get(..length) {
                return Gathered::Whole(body.to_vec());
            }
        }
        let Some((head, body)) = rest.split_first_chunk::<RECORD_HEAD_BYTES>() else {
            // What there is must not contradict it.
            let fits =
                rest.first().is_none_or(|kind| *kind == HANDSHAKE) && rest.get(1).is_none_or(|major| *major == 3);
            return if fits { Gathered::Part } else { Gathered::Other };
        };
        let [kind, major, _, high, low] = *head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        // An empty record would let a message take for ever.
        if kind != HANDSHAKE || major != 3 || length == 0 || length > RECORD_BYTES_MAX {
            return Gathered::Other;
        }
        let Some(fragment) = body.get(..length) else { return Gathered::Part };
        message.extend_from_slice(fragment);
        rest = body.get(length..).unwrap_or_default();
    }
}

/// The name in a ClientHello; `None` when it is damaged.
#[expect(clippy::option_option, reason = "a hello without a name is whole, and a damaged one has none to speak of")]
fn name(hello: &[u8]) -> Option<Option<String>> {
    let mut rest = Reader(hello);
    let _version_and_random = rest.take(2 + 32)?;
    let _session = rest.short()?;
    let _ciphers = rest.long()?;
    let _compression = rest.short()?;
    if rest.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(rest.long()?);
    if !rest.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let body = extensions.long()?;
        if kind != SERVER_NAME {
            continue;
        }
        // Twice the same extension: who reads on may take the other.
        if found.is_some() {
            return None;
        }
        found = Some(host(body)?);
    }
    Some(found)
}

/// The one host name of the extension.
fn host(body: &[u8]) -> Option<String> {
    let mut body = Reader(body);
    let mut names = Reader(body.long()?);
    let [kind] = *names.take(1)?.first_chunk()?;
    let name = names.long()?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.iter().all(plain);
    let only = body.0.is_empty() && names.0.is_empty() && kind == HOST_NAME;
    let text = std::str::from_utf8(name).ok().filter(|_| is_name && only)?;
    Some(text.to_ascii_lowercase())
}

struct Reader<'h>(&'h [u8]);

impl<'h> Reader<'h> {
    fn take(&mut self, length: usize) -> Option<&'h [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk()?))
    }

    /// What a length of one byte stands before.
    fn short(&mut self) -> Option<&'h [u8]> {
        let [length] = *self.take(1)?.first_chunk()?;
        self.take(usize::from(length))
    }

    /// What a length of two bytes stands before.
    fn long(&mut self) -> Option<&'h [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::{HELLO_BYTES_MAX, Hello, read};
    use proptest::prelude::*;
    use rustls::pki_types::ServerName;
    use std::sync::Arc;

    /// What rustls itself says first.
    fn said(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of this many bytes.
    fn cut(hello: &[u8], record_bytes: usize) -> Vec<u8> {
        let fragments = hello[5..].chunks(record_bytes);
        fragments
            .flat_map(|fragment| {
                let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
                [&[22, 3, 1][..], &length, fragment].concat()
            })
            .collect()
    }

    #[test]
    fn the_name_is_read_however_the_bytes_are_cut() {
        let check = |name: &str, expected: Option<&str>| {
            let hello = said(name, &["h2", "http/1.1"]);
            let expected = Hello::Read { name: expected.map(str::to_owned) };
            assert_eq!(read(&hello), expected);
            for end in 0..hello.len() {
                assert_eq!(read(&hello[..end]), Hello::Unsure, "{end}");
            }
            for record_bytes in [1, 3, 4, 100] {
                assert_eq!(read(&cut(&hello, record_bytes)), expected, "{record_bytes}");
            }
            assert_eq!(read(&[&hello[..], b"more"].concat()), expected);
        };
        check("shop.test", Some("shop.test"));
        check("Shop.TEST", Some("shop.test"));
        check("10.0.0.1", None);
    }

    #[test]
    fn what_is_none_is_not_waited_for() {
        let hello = said("shop.test", &[]);
        let with = |at: usize, byte: u8| {
            let mut changed = hello.clone();
            changed[at] = byte;
            changed
        };
        let check = |bytes: &[u8]| assert_eq!(read(bytes), Hello::Bad, "{}", bytes.escape_ascii());
        check(b"GET / HTTP/1.1\r\n");
        check(b"G");
        check(&[22, 2]);
        check(&[22, 3, 1, 0, 0]);
        check(&[22, 3, 1, 0xff, 0xff]);
        check(&with(5, 2));
        check(&with(6, 1));
        let name = hello.windows(9).position(|part| part == b"shop.test").unwrap();
        check(&with(name, 0));
        check(&with(name - 3, 1));
        let endless: Vec<u8> = [&[22, 3, 1, 0, 1, 1][..], &[22, 3, 1, 0, 1, 0].repeat(HELLO_BYTES_MAX)].concat();
        assert_ne!(read(&endless[..HELLO_BYTES_MAX]), Hello::Unsure);
    }

    proptest! {
        #[test]
        fn any_bytes_may_come(bytes in prop::collection::vec(any::<u8>(), 0..600), begins in any::<bool>()) {
            let whole = if begins { [&[22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3][..], &bytes].concat() } else { bytes };
            let _ = read(&whole);
        }

        #[test]
        fn no_damage_makes_another_name(at in 0..300_usize, byte in any::<u8>(), record_bytes in 1..400_usize) {
            let mut hello = said("shop.test", &["h2"]);
            let at = at.min(hello.len() - 1);
            hello[at] = byte;
            if let Hello::Read { name: Some(name) } = read(&hello) {
                prop_assert_eq!(name.len(), "shop.test".len());
            }
            let _ = read(&cut(&hello, record_bytes));
        }
    }
}
