//! Programs 17 to 23 and 31: doors of the kernel that are shut, and those that are documented to be open.

use crate::world::with_world;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

#[test]
fn p17_kills_of_everybody() {
    with_world(async |world| {
        let us = std::process::id().to_string();
        world.run(&["kills", &us]).await.achieved_nothing();
        world.run(&["kills", &world.spawner_pid.to_string()]).await.achieved_nothing();
    });
}

#[test]
fn p18_looks_into_process_1() {
    with_world(async |world| {
        world.run(&["looks-into-others"]).await.achieved_nothing();
    });
}

#[test]
fn p19_mounts_of_every_kind() {
    with_world(async |world| {
        world.run(&["mounts"]).await.achieved_nothing();
    });
}

#[test]
fn p20_namespaces_in_namespaces() {
    with_world(async |world| {
        world.run(&["namespaces"]).await.achieved_nothing();
    });
}

#[test]
fn p21_socket_families() {
    with_world(async |world| {
        world.run(&["families"]).await.achieved_nothing();
        let name = format!("hostile-{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        world.run(&["abstract-socket", &name]).await.achieved_nothing();
        drop(listener);
    });
}

#[test]
fn p22_connections_to_anywhere() {
    with_world(async |world| {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        world.run(&["connects", &port]).await.achieved_nothing();
        assert!(listener.accept().is_err(), "somebody came through");
        drop(listener);
    });
}

#[test]
fn p23_system_calls_with_a_history() {
    with_world(async |world| {
        world.run(&["calls"]).await.achieved_nothing();
    });
}

#[test]
fn p23_system_calls_of_another_architecture() {
    with_world(async |world| {
        world.run(&["other-architecture"]).await.dies_of(libc::SIGSYS);
    });
}

/// Not shut: what the processor tells, and locks on the files of a root two boxes share. Machine-wide figures in
/// `/proc` and `/sys`, the widest of these channels, are not there.
#[test]
fn p31_side_channels() {
    with_world(async |world| {
        let said = world.run(&["side-channels"]).await.achieved_nothing().text();
        println!("documented as open: {said}");
    });
}
