//! What a box uses and where it listens: from its control groups where there are some, otherwise summed over its
//! processes.

use crate::cgroup::Cgroup;
use crate::proc;
use crate::protocol::Usage;
use std::fs;

/// Socket state "listening" in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Counters of the box whose process 1 is `init`, as seen from outside.
pub(crate) fn usage(init: u32, cgroup: &Cgroup) -> Usage {
    let mut sum = Usage::default();
    for pid in members(init) {
        add_process(&mut sum, pid);
    }
    let (received_bytes, sent_bytes) = network(init);
    Usage {
        cpu_usec: cgroup.cpu_usec().unwrap_or(sum.cpu_usec),
        memory_bytes: cgroup.memory_bytes().unwrap_or(sum.memory_bytes),
        processes: cgroup.processes().unwrap_or(sum.processes),
        received_bytes,
        sent_bytes,
        ..sum
    }
}

/// Whether the box holds more than `limit_bytes`.
pub(crate) fn holds_more_than(init: u32, limit_bytes: u64) -> bool {
    let members = members(init);
    let resident: u64 = members.iter().filter_map(|pid| proc::glance(*pid)).map(|glance| glance.resident_bytes).sum();
    resident > limit_bytes && proc::memory_bytes(&members) > limit_bytes
}

/// Processes of the box: its process 1 and what descends from it. In a process namespace nothing leaves that tree.
fn members(init: u32) -> Vec<u32> {
    let mut members = vec![init];
    let mut looked_at = 0;
    while let Some(pid) = members.get(looked_at).copied() {
        looked_at += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            members.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    members
}

fn add_process(sum: &mut Usage, pid: u32) {
    let Some(glance) = proc::glance(pid) else { return };
    sum.cpu_usec += glance.cpu_usec;
    sum.memory_bytes += glance.resident_bytes;
    sum.processes += 1;
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let io_field = |name: &str| {
        io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse::<u64>().ok()).unwrap_or(0)
    };
    sum.read_bytes += io_field("read_bytes");
    sum.written_bytes += io_field("write_bytes");
}

/// Bytes over the box's loopback, which is all the network it has. Both directions pass it, so each counts half
/// received, half sent, as the kernel counts it.
fn network(init: u32) -> (u64, u64) {
    let devices = fs::read_to_string(format!("/proc/{init}/net/dev")).unwrap_or_default();
    let Some(line) = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:")) else { return (0, 0) };
    let fields: Vec<u64> = line.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    (fields.first().copied().unwrap_or(0), fields.get(8).copied().unwrap_or(0))
}

/// TCP ports with a listener on every or the loopback address, which is where programs listen. Those of the door are
/// elsewhere, except the catch-all one, which is `ours`.
pub(crate) fn listening(init: u32, ours: u16) -> Vec<u16> {
    // As the kernel writes them: words of four bytes in the machine's order.
    const ADDRESSES: [&str; 5] = [
        "00000000",
        "0100007F",
        "00000000000000000000000000000000",
        "00000000000000000000000001000000",
        "0000000000000000FFFF00000100007F",
    ];
    let mut ports = Vec::new();
    for file in ["tcp", "tcp6"] {
        let sockets = fs::read_to_string(format!("/proc/{init}/net/{file}")).unwrap_or_default();
        for line in sockets.lines().skip(1) {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (Some(local), Some(_remote), Some(state)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let Some((address, port)) = local.rsplit_once(':') else { continue };
            if let Ok(port) = u16::from_str_radix(port, 16)
                && state == LISTENING
                && ADDRESSES.contains(&address)
                && port != ours
            {
                ports.push(port);
            }
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}
