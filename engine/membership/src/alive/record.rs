//! What a machine says of itself, and how that is written.
//!
//! Owns the format: a version, then fields as (number, length, value). Fields this program does not know are skipped, so a
//! field may be added without a new version, and machines of different versions understand one another; the bytes are
//! passed on as they came. A new version is for a change that would be misread. Nothing here is ever written to a disk.

use super::coding::{self, Malformed, Reader};
use std::fmt;
use std::net::SocketAddr;

/// The longest record: one fits into a datagram beside what goes with it, and the bounds below keep those of this
/// version under 700 bytes. A usual one has about 120.
pub const RECORD_BYTES_MAX: usize = 1_024;

const VERSION: u8 = 1;
/// Names of zones and roles and versions are words; these are long ones.
const ZONE_BYTES_MAX: usize = 64;
const WORD_BYTES_MAX: usize = 32;
/// More roles than there are, and more addresses than a PC with two cards and two protocols has.
const ROLES_MAX: usize = 8;
const ADDRESSES_MAX: usize = 8;

/// What a machine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// What fails together: a room, a rack, a power line.
    pub zone: String,
    pub roles: Vec<String>,
    /// Where it listens for gossip, the most likely one first.
    pub addresses: Vec<SocketAddr>,
    pub cores: u32,
    pub memory_free_bytes: u64,
    /// The load average of a minute in hundredths of a processor: 100 keeps one busy.
    pub load_percent: u32,
    pub pressure: Pressure,
    pub runs_in_flight: u32,
    pub agent_version: String,
    /// When its agent began, by its own wall clock, for people to look at. Decides nothing.
    pub started_unix_ms: u64,
}

/// Pressure stall information of Linux: the share of the last ten seconds in which something waited for this
/// (`some avg10`), in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    pub cpu_permille: u32,
    pub memory_permille: u32,
    pub io_permille: u32,
}

/// Why a record cannot be told to others: this field is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfit {
    pub field: &'static str,
    pub length: usize,
    pub length_max: usize,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unfit { field, length, length_max } = self;
        write!(f, "cannot tell others of this machine: {field} has a length of {length}, of at most {length_max}")
    }
}

impl std::error::Error for Unfit {}

/// The numbers of the fields. A number is never used again for something else.
mod field {
    pub(super) const ZONE: u64 = 1;
    pub(super) const ROLE: u64 = 2;
    pub(super) const ADDRESS: u64 = 3;
    pub(super) const CORES: u64 = 4;
    pub(super) const MEMORY_FREE: u64 = 5;
    pub(super) const LOAD: u64 = 6;
    pub(super) const PRESSURE_CPU: u64 = 7;
    pub(super) const PRESSURE_MEMORY: u64 = 8;
    pub(super) const PRESSURE_IO: u64 = 9;
    pub(super) const RUNS_IN_FLIGHT: u64 = 10;
    pub(super) const AGENT_VERSION: u64 = 11;
    pub(super) const STARTED: u64 = 12;
}

impl Record {
    /// The record as it travels.
    pub fn encode(&self) -> Result<Vec<u8>, Unfit> {
        fits("zone", self.zone.len(), ZONE_BYTES_MAX)?;
        fits("roles", self.roles.len(), ROLES_MAX)?;
        fits("addresses", self.addresses.len(), ADDRESSES_MAX)?;
        fits("agent version", self.agent_version.len(), WORD_BYTES_MAX)?;
        let mut out = vec![VERSION];
        put_text(&mut out, field::ZONE, &self.zone);
        for role in &self.roles {
            fits("role", role.len(), WORD_BYTES_MAX)?;
            put_text(&mut out, field::ROLE, role);
        }
        for address in &self.addresses {
            let mut value = Vec::with_capacity(18);
            coding::put_address(&mut value, *address);
            put_field(&mut out, field::ADDRESS, &value);
        }
        put_count(&mut out, field::CORES, self.cores.into());
        put_count(&mut out, field::MEMORY_FREE, self.memory_free_bytes);
        put_count(&mut out, field::LOAD, self.load_percent.into());
        put_count(&mut out, field::PRESSURE_CPU, self.pressure.cpu_permille.into());
        put_count(&mut out, field::PRESSURE_MEMORY, self.pressure.memory_permille.into());
        put_count(&mut out, field::PRESSURE_IO, self.pressure.io_permille.into());
        put_count(&mut out, field::RUNS_IN_FLIGHT, self.runs_in_flight.into());
        put_text(&mut out, field::AGENT_VERSION, &self.agent_version);
        put_count(&mut out, field::STARTED, self.started_unix_ms);
        Ok(out)
    }

    /// The opposite of [`Record::encode`], for bytes from anywhere.
    pub fn decode(bytes: &[u8]) -> Result<Record, Malformed> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Malformed::TooLong { bytes: bytes.len(), bytes_max: RECORD_BYTES_MAX });
        }
        let mut reader = Reader::new(bytes);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let mut record = Record::default();
        while !reader.is_empty() {
            let number = reader.number("field number")?;
            let value = reader.sized("field length")?;
            record.set(number, value)?;
        }
        Ok(record)
    }

    /// Whether anything else differs than what goes up and down all the time.
    pub(crate) fn says_more_than_figures(&self, before: &Record) -> bool {
        let Record { memory_free_bytes, load_percent, pressure, runs_in_flight, .. } = *before;
        let same_figures = Record { memory_free_bytes, load_percent, pressure, runs_in_flight, ..self.clone() };
        same_figures != *before
    }

    fn set(&mut self, number: u64, value: &[u8]) -> Result<(), Malformed> {
        match number {
            field::ZONE => self.zone = text("zone", value, ZONE_BYTES_MAX)?,
            field::ROLE if self.roles.len() < ROLES_MAX => self.roles.push(text("role", value, WORD_BYTES_MAX)?),
            field::ADDRESS if self.addresses.len() < ADDRESSES_MAX => self.addresses.push(coding::address(value)?),
            field::CORES => self.cores = count("cores", value)?,
            field::MEMORY_FREE => self.memory_free_bytes = wide("memory free", value)?,
            field::LOAD => self.load_percent = count("load", value)?,
            field::PRESSURE_CPU => self.pressure.cpu_permille = count("pressure on processors", value)?,
            field::PRESSURE_MEMORY => self.pressure.memory_permille = count("pressure on memory", value)?,
            field::PRESSURE_IO => self.pressure.io_permille = count("pressure on devices", value)?,
            field::RUNS_IN_FLIGHT => self.runs_in_flight = count("runs in flight", value)?,
            field::AGENT_VERSION => self.agent_version = text("agent version", value, WORD_BYTES_MAX)?,
            field::STARTED => self.started_unix_ms = wide("started", value)?,
            // Of a later version, or more roles or addresses than this one keeps.
            _ => {}
        }
        Ok(())
    }
}

fn fits(field: &'static str, length: usize, length_max: usize) -> Result<(), Unfit> {
    if length > length_max { Err(Unfit { field, length, length_max }) } else { Ok(()) }
}

fn put_field(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    coding::put_number(out, number);
    coding::put_number(out, u64::try_from(value.len()).unwrap_or(u64::MAX));
    out.extend(value);
}

/// What has its default value is not written.
fn put_text(out: &mut Vec<u8>, number: u64, text: &str) {
    if !text.is_empty() {
        put_field(out, number, text.as_bytes());
    }
}

fn put_count(out: &mut Vec<u8>, number: u64, count: u64) {
    if count > 0 {
        let mut value = Vec::with_capacity(10);
        coding::put_number(&mut value, count);
        put_field(out, number, &value);
    }
}

fn text(field: &'static str, value: &[u8], bytes_max: usize) -> Result<String, Malformed> {
    if value.len() > bytes_max {
        return Err(Malformed::TooLong { bytes: value.len(), bytes_max });
    }
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| Malformed::OutOfRange(field))
}

fn wide(field: &'static str, value: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader::new(value);
    let count = reader.number(field)?;
    if reader.is_empty() { Ok(count) } else { Err(Malformed::OutOfRange(field)) }
}

fn count(field: &'static str, value: &[u8]) -> Result<u32, Malformed> {
    u32::try_from(wide(field, value)?).map_err(|_| Malformed::OutOfRange(field))
}
