//! Bytes to values and back: what datagrams and records have in common.
//!
//! Promises that reading is total: any bytes give a value or an error.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why bytes from elsewhere say nothing. The datagram is dropped; a later one will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Written in a format that came after this program.
    Version(u8),
    /// It ends within a field.
    CutOff,
    /// Longer than anything of its kind may be.
    TooLong { bytes: usize, bytes_max: usize },
    /// This field has a value it cannot have.
    OutOfRange(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot read what another machine said: ")?;
        match self {
            Malformed::Version(version) => write!(f, "format {version} is not known here"),
            Malformed::CutOff => f.write_str("it ends within a field"),
            Malformed::TooLong { bytes, bytes_max } => write!(f, "{bytes} bytes, of at most {bytes_max}"),
            Malformed::OutOfRange(field) => write!(f, "{field} has a value it cannot have"),
        }
    }
}

impl std::error::Error for Malformed {}

/// What is left to read.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed::CutOff)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::CutOff)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A number in groups of seven bits, the lowest first, as protobuf has them.
    pub(crate) fn number(&mut self, field: &'static str) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                return Err(Malformed::OutOfRange(field));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::OutOfRange(field))
    }

    /// A number that says how many bytes follow, and those bytes.
    pub(crate) fn sized(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let bytes = self.number(field)?;
        self.take(usize::try_from(bytes).map_err(|_| Malformed::CutOff)?)
    }
}

/// The opposite of [`Reader::number`].
pub(crate) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while let Ok(low) = u8::try_from(value & 0x7f) {
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// How many bytes [`put_number`] takes.
pub(crate) fn number_bytes(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    usize::try_from(bits.div_ceil(7).max(1)).unwrap_or(usize::MAX)
}

/// Small differences of either sign to small numbers.
pub(crate) fn fold(difference: i64) -> u64 {
    ((difference << 1) ^ (difference >> 63)).cast_unsigned()
}

pub(crate) fn unfold(folded: u64) -> i64 {
    (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed()
}

/// An address by its octets and its port; which family it is of shows from the length. Scopes of link-local addresses
/// are left out: they mean something on one machine only.
pub(crate) fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(address.port().to_be_bytes());
}

pub(crate) fn address(bytes: &[u8]) -> Result<SocketAddr, Malformed> {
    let (ip, port) = bytes.split_last_chunk::<2>().ok_or(Malformed::OutOfRange("address"))?;
    let ip = if let Ok(octets) = <[u8; 4]>::try_from(ip) {
        IpAddr::V4(Ipv4Addr::from(octets))
    } else {
        let octets = <[u8; 16]>::try_from(ip).map_err(|_| Malformed::OutOfRange("address"))?;
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}
