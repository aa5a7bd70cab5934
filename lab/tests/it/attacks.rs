//! Attacks on the gateway, short ones: honest clients get their answers all the while.

use lab::node::binary;
use std::process::Command;

#[test]
fn honest_clients_are_served_while_others_attack() {
    let drill = Command::new(binary("lab")).args(["attack", "--short"]).output().expect("the drill starts");
    let said = String::from_utf8_lossy(&drill.stdout);
    assert!(drill.status.success(), "{said}\n{}", String::from_utf8_lossy(&drill.stderr));
    assert_eq!(said.matches("\n  held\n").count(), 8, "{said}");
    assert!(!said.contains("attackers: 0 connections"), "each attack took place: {said}");
}
