//! The record's format, which machines of other versions read.

use membership::alive::{Malformed, Pressure, RECORD_BYTES_MAX, Record, Unfit};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

/// Version 1, as the first program wrote it.
const VERSION_1: &[u8] = include_bytes!("../fixtures/record-1");

fn of_version_1() -> Record {
    Record {
        zone: "room-7".to_owned(),
        roles: vec!["monitor".to_owned(), "gateway".to_owned()],
        addresses: vec![
            SocketAddr::from(([192, 168, 1, 20], 7_946)),
            SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 0x20], 7_946)),
        ],
        cores: 16,
        memory_free_bytes: 12_345_678_901,
        load_percent: 375,
        pressure: Pressure { cpu_permille: 120, memory_permille: 1, io_permille: 33 },
        runs_in_flight: 12,
        agent_version: "0.1.0".to_owned(),
        started_unix_ms: 1_795_000_000_000,
    }
}

#[test]
fn the_first_format_is_still_read() {
    assert_eq!(Record::decode(VERSION_1), Ok(of_version_1()));
}

#[test]
#[ignore = "writes the fixture of the current format, once per version"]
fn write_the_fixture() {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/record-1");
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(place, of_version_1().encode().unwrap()).unwrap();
}

#[test]
fn fields_of_later_versions_are_skipped() {
    let mut bytes = VERSION_1.to_vec();
    bytes.extend([0x7f, 3, 1, 2, 3]);
    // A number of two bytes, with nothing in it.
    bytes.extend([0x80, 0x01, 0]);
    assert_eq!(Record::decode(&bytes), Ok(of_version_1()));
}

fn check_refused(bytes: &[u8], expected: Malformed) {
    assert_eq!(Record::decode(bytes), Err(expected));
}

#[test]
fn what_is_no_record_is_refused() {
    check_refused(&[], Malformed::CutOff);
    check_refused(&[2], Malformed::Version(2));
    check_refused(&[1, 1], Malformed::CutOff);
    check_refused(&[1, 1, 5, b'x'], Malformed::CutOff);
    check_refused(&[1, 1, 1, 0xff], Malformed::OutOfRange("zone"));
    check_refused(&[1, 3, 3, 1, 2, 3], Malformed::OutOfRange("address"));
    check_refused(&[1, 4, 2, 1, 1], Malformed::OutOfRange("cores"));
    check_refused(&[1, 4, 5, 0xff, 0xff, 0xff, 0xff, 0x7f], Malformed::OutOfRange("cores"));
    // A length beyond all memory.
    check_refused(&[1, 9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Malformed::CutOff);
    check_refused(&[1; RECORD_BYTES_MAX + 1], Malformed::TooLong { bytes: 1_025, bytes_max: 1_024 });
    let long_zone: Vec<u8> = [1, 1, 65].into_iter().chain([b'z'; 65]).collect();
    check_refused(&long_zone, Malformed::TooLong { bytes: 65, bytes_max: 64 });
}

#[test]
fn what_is_too_long_to_be_told_is_said_at_once() {
    let unfit = |record: Record| record.encode().map_err(|Unfit { field, .. }| field);
    assert_eq!(unfit(Record { zone: "z".repeat(65), ..of_version_1() }), Err("zone"));
    assert_eq!(unfit(Record { roles: vec!["r".repeat(33)], ..of_version_1() }), Err("role"));
    assert_eq!(unfit(Record { roles: vec![String::new(); 9], ..of_version_1() }), Err("roles"));
    assert_eq!(unfit(Record { agent_version: "v".repeat(33), ..of_version_1() }), Err("agent version"));
    let longest = Record {
        zone: "z".repeat(64),
        roles: vec!["r".repeat(32); 8],
        addresses: vec![SocketAddr::from(([u16::MAX; 8], u16::MAX)); 8],
        cores: u32::MAX,
        memory_free_bytes: u64::MAX,
        load_percent: u32::MAX,
        pressure: Pressure { cpu_permille: u32::MAX, memory_permille: u32::MAX, io_permille: u32::MAX },
        runs_in_flight: u32::MAX,
        agent_version: "v".repeat(32),
        started_unix_ms: u64::MAX,
    };
    let bytes = longest.encode().unwrap();
    assert!(bytes.len() <= 700, "{}", bytes.len());
    assert_eq!(Record::decode(&bytes), Ok(longest));
}

fn record() -> impl Strategy<Value = Record> {
    let address = any::<(IpAddr, u16)>().prop_map(SocketAddr::from);
    let words = ("[a-z0-9é-]{0,20}", prop::collection::vec("[a-z]{1,32}", 0..=8), "[0-9.]{0,16}");
    let addresses = prop::collection::vec(address, 0..=8);
    (words, addresses, any::<[u32; 6]>(), any::<[u64; 2]>()).prop_map(
        |((zone, roles, agent_version), addresses, small, large)| Record {
            zone,
            roles,
            addresses,
            cores: small[0],
            memory_free_bytes: large[0],
            load_percent: small[1],
            pressure: Pressure { cpu_permille: small[2], memory_permille: small[3], io_permille: small[4] },
            runs_in_flight: small[5],
            agent_version,
            started_unix_ms: large[1],
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(record in record()) {
        let bytes = record.encode().unwrap();
        prop_assert!(bytes.len() <= RECORD_BYTES_MAX);
        prop_assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn changed_and_cut_records_are_read_or_refused(
        record in record(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = record.encode().unwrap();
        let _ = Record::decode(&bytes[..cut.index(bytes.len())]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(read) = Record::decode(&bytes) {
            // What was read can be written again.
            prop_assert!(read.encode().is_ok());
        }
    }
}
