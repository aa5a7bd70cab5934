//! A floating address among machines: namespaces of the network with a bridge between them, made and taken away by the test.
//!
//! Each skips itself where such namespaces cannot be made.

mod net;
mod seen;

use net::{Holding, Net};
use seen::Seen;
use std::time::Duration;

const V4: &str = "10.77.0.80";
const V6: &str = "fd77::80";
/// What `hold` is leased, and what then may pass until another has it.
const LEASE_MS: u64 = 2_100;
const LEASE_OVER: Duration = Duration::from_millis(2_100 + address::KERNEL_LATE_MS);
/// A program on a busy machine is woken up late by so much, at most.
const BUSY: Duration = Duration::from_millis(400);

#[test]
fn it_moves_when_handed_over_and_neighbours_know_at_once() {
    let Some(net) = Net::of(3) else { return };
    for address in [V4, V6] {
        let mut first = Holding::start(&net, 0, address, LEASE_MS, false);
        first.says("Taken");
        net.client_meets(2, address);
        assert_eq!(net.neighbour(2, address).as_deref(), Some(net.mac(0).as_str()), "{address}");
        let seen = Seen::start(&net, &[0, 1], address);
        seen.wait_for(0, true);
        first.tell("release");
        first.says("gone");
        let mut second = Holding::start(&net, 1, address, LEASE_MS, false);
        second.says("Taken");
        seen.wait_for(1, true);
        net.until("the neighbour knows the new place", Duration::from_secs(1), || {
            net.neighbour(2, address).as_deref() == Some(net.mac(1).as_str())
        });
        seen.never_both();
    }
}

#[test]
fn a_frozen_or_killed_holder_loses_it_to_the_kernel_and_never_two_have_it() {
    let Some(net) = Net::of(3) else { return };
    for (address, freeze) in [(V4, true), (V4, false), (V6, true), (V6, false)] {
        let mut first = Holding::start(&net, 0, address, LEASE_MS, false);
        first.says("Taken");
        net.client_meets(2, address);
        let seen = Seen::start(&net, &[0, 1], address);
        seen.wait_for(0, true);
        let began = world::clock::monotonic();
        if freeze {
            first.freeze()
        } else {
            first.kill()
        };
        // A successor that asks who is there takes it as soon as the kernel of the first has let go.
        let mut second = Holding::start(&net, 1, address, LEASE_MS, true);
        second.says("Occupied");
        second.says("Taken");
        let after = began.elapsed();
        assert!(after < LEASE_OVER + BUSY, "{address}: {after:?}");
        net.until("the neighbour knows the new place", Duration::from_secs(1), || {
            net.neighbour(2, address).as_deref() == Some(net.mac(1).as_str())
        });
        if freeze {
            // It wakes up, finds its time over, and keeps quiet.
            first.thaw();
            first.says("Expired");
        }
        seen.never_both();
        assert_eq!(net.neighbour(2, address).as_deref(), Some(net.mac(1).as_str()), "{address}");
        second.tell("release");
        second.says("gone");
    }
}

#[test]
fn a_machine_that_is_off_is_told_from_one_that_is_frozen() {
    let Some(net) = Net::of(2) else { return };
    for address in [V4, V6] {
        let mut first = Holding::start(&net, 0, address, 60_000, false);
        first.says("Taken");
        net.cut(0);
        let began = world::clock::monotonic();
        let mut second = Holding::start(&net, 1, address, 60_000, true);
        second.says("Taken");
        let after = began.elapsed();
        assert!(after < Duration::from_millis(address::QUIET_MS) + BUSY, "{address}: {after:?}");
        drop(first);
        net.mend(0);
    }
}

#[test]
fn who_takes_it_without_asking_is_noticed_and_answered() {
    let Some(net) = Net::of(2) else { return };
    for address in [V4, V6] {
        let mut first = Holding::start(&net, 0, address, 60_000, false);
        first.says("Taken");
        let mut second = Holding::start(&net, 1, address, 60_000, false);
        second.says("Taken");
        let said = first.says("Contested");
        assert!(said.contains(&net.mac(1)), "{said}");
        second.says("Contested");
    }
}

#[test]
fn what_cannot_be_held_is_refused_with_what_to_do() {
    let Some(net) = Net::of(2) else { return };
    let check = |address: &str, expected: &[&str]| {
        let said = Holding::refused(&net, 0, address, &[]);
        for word in expected {
            assert!(said.contains(word), "{address}: {said}");
        }
    };
    check("192.0.2.80", &["no interface", "v0", "hint:", "name the interface"]);
    check("10.77.0.1", &["10.77.0.1/32 is on v0 for good", "hint:"]);
    check("127.0.0.1", &["no floating address"]);
    // Neither may be missing.
    for (dropped, name) in [("-net_admin", "CAP_NET_ADMIN"), ("-net_raw", "CAP_NET_RAW")] {
        let drop = format!("--bounding-set={dropped}");
        let inherited = format!("--inh-caps={dropped}");
        let Some(said) = Holding::refused_by(&net, 0, V4, &["setpriv", &drop, &inherited]) else { return };
        assert!(said.contains(name) && said.contains("setcap cap_net_admin,cap_net_raw+ep"), "{said}");
    }
}
