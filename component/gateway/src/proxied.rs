//! The PROXY protocol, versions 1 and 2: what a load balancer in front of us says about the client behind it, and what we
//! say to instances that want to be told.
//!
//! Owns the reading and writing of both headers (HAProxy's proxy-protocol.txt). Strict: what is not one to the letter is refused,
//! since whoever speaks it speaks it first. Pure; who may speak it at all is for others to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use wire::spec::ProxyProtocol;

/// Version 1 is one line of at most so much, with its end.
const LINE_BYTES_MAX: usize = 107;
const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const BINARY_HEAD_BYTES: usize = 16;
/// Addresses and what some add after them: certificates' names, ids. HAProxy reads no more either.
const BINARY_BYTES_MAX: usize = 4 << 10;
/// The longest of either version.
pub(crate) const HEADER_BYTES_MAX: usize = BINARY_HEAD_BYTES + BINARY_BYTES_MAX;
const VERSION_2_LOCAL: u8 = 0x20;
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// A header of so many bytes. Without a client the balancer speaks for itself, as its health checks do.
    Read { bytes: usize, client: Option<SocketAddr> },
    /// No header: the connection begins at once.
    Absent,
    /// More bytes will tell.
    Unsure,
    /// It begins as one and is none.
    Bad(&'static str),
}

/// Reads the beginning of a connection.
pub(crate) fn read(bytes: &[u8]) -> Header {
    let begins = |whole: &[u8]| bytes.iter().zip(whole).all(|(byte, expected)| byte == expected);
    if begins(&SIGNATURE) {
        return if bytes.len() < SIGNATURE.len() { Header::Unsure } else { binary(bytes) };
    }
    if begins(LINE_START) {
        return if bytes.len() < LINE_START.len() { Header::Unsure } else { line(bytes) };
    }
    Header::Absent
}

fn line(bytes: &[u8]) -> Header {
    let shown = bytes.get(..bytes.len().min(LINE_BYTES_MAX)).unwrap_or_default();
    let Some(end) = shown.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX { Header::Unsure } else { Header::Bad("its line does not end") };
    };
    let text = shown.get(LINE_START.len()..end).and_then(|text| std::str::from_utf8(text).ok());
    let Some(text) = text else { return Header::Bad("its line is no text") };
    let bytes = end + 2;
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        ["UNKNOWN", ..] => Header::Read { bytes, client: None },
        [family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let read = |address: &str, port: &str| -> Option<SocketAddr> {
                let address: IpAddr = address.parse().ok()?;
                let plain = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                let fits = address.is_ipv4() == (*family == "TCP4");
                (plain && fits).then(|| Some(SocketAddr::new(address, port.parse().ok()?))).flatten()
            };
            match (read(source, source_port), read(destination, destination_port)) {
                (Some(client), Some(_)) => Header::Read { bytes, client: Some(client) },
                (_, _) => Header::Bad("its addresses are none"),
            }
        }
        _ => Header::Bad("its line is not as version 1 has it"),
    }
}

fn binary(bytes: &[u8]) -> Header {
    let Some((head, rest)) = bytes.split_first_chunk::<BINARY_HEAD_BYTES>() else { return Header::Unsure };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > BINARY_BYTES_MAX {
        return Header::Bad("it is too long");
    }
    if command != VERSION_2_LOCAL && command != VERSION_2_PROXY {
        return Header::Bad("its version or command is not known");
    }
    let Some(addresses) = rest.get(..length) else { return Header::Unsure };
    let read = Header::Read { bytes: BINARY_HEAD_BYTES + length, client: None };
    if command == VERSION_2_LOCAL {
        return read;
    }
    let client = match family {
        TCP_OVER_IPV4 => source::<4, 12>(addresses).map(|(ip, port)| SocketAddr::new(Ipv4Addr::from(ip).into(), port)),
        TCP_OVER_IPV6 => source::<16, 36>(addresses).map(|(ip, port)| SocketAddr::new(Ipv6Addr::from(ip).into(), port)),
        // Sockets of other kinds have no address to go by.
        _ => return read,
    };
    match client {
        Some(client) => Header::Read { bytes: BINARY_HEAD_BYTES + length, client: Some(client) },
        None => Header::Bad("its addresses are cut short"),
    }
}

/// The header that says of a connection that it is `client`'s, who reached `reached`.
pub(crate) fn write(version: ProxyProtocol, client: SocketAddr, reached: SocketAddr) -> Vec<u8> {
    let (client_ip, reached_ip) = match (client.ip().to_canonical(), reached.ip().to_canonical()) {
        same @ ((IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_))) => same,
        // Both have to be of one kind.
        (one, other) => (mapped(one), mapped(other)),
    };
    let (family, family_name) = if client_ip.is_ipv4() { (TCP_OVER_IPV4, "TCP4") } else { (TCP_OVER_IPV6, "TCP6") };
    match version {
        ProxyProtocol::V1 => {
            let ports = (client.port(), reached.port());
            format!("PROXY {family_name} {client_ip} {reached_ip} {} {}\r\n", ports.0, ports.1).into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut block = Vec::new();
            for ip in [client_ip, reached_ip] {
                match ip {
                    IpAddr::V4(ip) => block.extend(ip.octets()),
                    IpAddr::V6(ip) => block.extend(ip.octets()),
                }
            }
            block.extend(client.port().to_be_bytes());
            block.extend(reached.port().to_be_bytes());
            let length = u16::try_from(block.len()).unwrap_or(0).to_be_bytes();
            [&SIGNATURE[..], &[VERSION_2_PROXY, family], &length, &block].concat()
        }
    }
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

/// The source of a block of addresses: both addresses, then both ports.
fn source<const ADDRESS: usize, const BLOCK: usize>(addresses: &[u8]) -> Option<([u8; ADDRESS], u16)> {
    let block: &[u8; BLOCK] = addresses.first_chunk()?;
    let ip = *block.first_chunk()?;
    let port = block.get(2 * ADDRESS..)?.first_chunk()?;
    Some((ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::{Header, read, write};
    use proptest::prelude::*;
    use wire::spec::ProxyProtocol;

    #[test]
    fn what_is_written_is_read() {
        let check = |version: ProxyProtocol, client: &str, reached: &str, expected: &str| {
            let header = write(version, client.parse().unwrap(), reached.parse().unwrap());
            let client = Some(expected.parse().unwrap());
            assert_eq!(read(&header), Header::Read { bytes: header.len(), client }, "{}", header.escape_ascii());
        };
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            check(version, "203.0.113.7:56324", "10.0.0.1:443", "203.0.113.7:56324");
            check(version, "[2001:db8::7]:1", "[::1]:65535", "[2001:db8::7]:1");
            check(version, "[::ffff:203.0.113.7]:1", "10.0.0.1:443", "203.0.113.7:1");
            check(version, "203.0.113.7:1", "[::1]:443", "[::ffff:203.0.113.7]:1");
        }
        let line = write(ProxyProtocol::V1, "203.0.113.7:5".parse().unwrap(), "10.0.0.1:443".parse().unwrap());
        assert_eq!(line, b"PROXY TCP4 203.0.113.7 10.0.0.1 5 443\r\n");
    }

    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, addresses].concat()
    }

    #[test]
    fn headers_of_both_versions_are_read() {
        let check = |bytes: &[u8], length: usize, client: Option<&str>| {
            let client = client.map(|client| client.parse().unwrap());
            let whole = [bytes, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(read(&whole), Header::Read { bytes: length, client }, "{}", bytes.escape_ascii());
            for end in 0..length {
                assert_eq!(read(&whole[..end]), Header::Unsure, "{} cut at {end}", bytes.escape_ascii());
            }
        };
        check(b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n", 43, Some("203.0.113.7:56324"));
        check(b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n", 38, Some("[2001:db8::7]:56324"));
        check(b"PROXY UNKNOWN\r\n", 15, None);
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", 35, None);
        let four = [203, 0, 113, 7, 10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb];
        check(&version_2(0x21, 0x11, &four), 28, Some("203.0.113.7:56324"));
        check(&version_2(0x21, 0x11, &[&four[..], &[4, 0, 1, 9]].concat()), 32, Some("203.0.113.7:56324"));
        let mut six = [0; 36];
        (six[15], six[31], six[33]) = (1, 2, 80);
        check(&version_2(0x21, 0x21, &six), 52, Some("[::1]:80"));
        check(&version_2(0x20, 0, &[]), 16, None);
        check(&version_2(0x21, 0x31, &[0; 216]), 232, None);
    }

    #[test]
    fn what_is_none_is_told_apart_from_what_lies() {
        for absent in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0", b"\x16\x03\x01", b"PROXYS", b"P\0", b"\r\nGET"] {
            assert_eq!(read(absent), Header::Absent, "{}", absent.escape_ascii());
        }
        for bad in [
            &b"PROXY TCP4 203.0.113.7 10.0.0.1 56324\r\n"[..],
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
            b"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
            b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY \xff\r\n",
            &[b"PROXY ", [b'x'; 200].as_slice()].concat(),
            &version_2(0x11, 0x11, &[0; 12]),
            &version_2(0x22, 0x11, &[0; 12]),
            &version_2(0x21, 0x11, &[0; 11]),
            &version_2(0x21, 0x21, &[0; 12]),
            &version_2(0x21, 0x11, &[0; 5_000]),
        ] {
            assert!(matches!(read(bad), Header::Bad(_)), "{}: {:?}", bad.escape_ascii(), read(bad));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_may_come(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..3_u8) {
            let start: &[u8] = match kind {
                0 => b"",
                1 => b"PROXY ",
                _ => b"\r\n\r\n\0\r\nQUIT\n",
            };
            let whole = [start, &bytes].concat();
            if let Header::Read { bytes, .. } = read(&whole) {
                prop_assert!(bytes <= whole.len());
                prop_assert_eq!(read(&whole[..bytes]), read(&whole), "what follows changes nothing");
            }
        }
    }
}
