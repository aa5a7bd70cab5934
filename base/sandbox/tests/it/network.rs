use crate::world::{host_box, log_lines, overlay_box, shell, until, with_world};
use sandbox::{Network, SocketKind};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

/// A program that connects somewhere and says what it is sent.
fn connector(address: &str, port: u16) -> String {
    format!("exec 3<>/dev/tcp/{address}/{port} && cat <&3")
}

fn bash(line: &str) -> sandbox::Command {
    let mut command = shell(line);
    command.argv[0] = "/bin/bash".to_owned();
    command
}

#[test]
fn every_connection_arrives_at_the_door_with_its_destination() {
    with_world(|world| async move {
        let mut spec = overlay_box(&world, "door");
        spec.network = Network::Door;
        let start = world.start(spec, bash(&connector("198.18.0.7", 5432)));
        let dir = start.dir.clone();
        let shim = world.spawner.start(start).await.unwrap();
        assert!(shim.network().redirect, "{}", shim.network().redirect_lack);
        let catch_all = TcpListener::from(shim.catch_all().await.unwrap().unwrap());
        catch_all.set_nonblocking(false).unwrap();
        let (mut connection, _) = catch_all.accept().unwrap();
        let original = rustix::net::sockopt::ip_original_dst(&connection).unwrap();
        assert_eq!(original, SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 7), 5432));
        connection.write_all(b"welcome\n").unwrap();
        drop(connection);
        assert_eq!(shim.exited().await.code, Some(0));
        assert_eq!(log_lines(&dir), ["o welcome"]);
    });
}

#[test]
fn names_are_asked_for_at_the_door() {
    with_world(|world| async move {
        let mut spec = host_box("dns");
        spec.network = Network::Door;
        let shim = world
            .spawner
            .start(world.start(spec, bash("echo question >/dev/udp/127.0.0.53/53; sleep 1000")))
            .await
            .unwrap();
        let (udp, _tcp) = shim.dns().await.unwrap();
        let udp = std::net::UdpSocket::from(udp);
        udp.set_nonblocking(false).unwrap();
        let mut bytes = [0; 64];
        let (count, _) = udp.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"question\n");
        shim.kill().await.unwrap();
        shim.exited().await;
    });
}

#[test]
fn a_handed_out_socket_reaches_into_the_box() {
    with_world(|world| async move {
        let line = "python3 -c 'import socket
s = socket.create_server((\"0.0.0.0\", 80)); c, _ = s.accept(); c.sendall(b\"from inside\")'";
        let mut spec = host_box("inside");
        spec.network = Network::Door;
        let mut command = shell(line);
        command.env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let shim = world.spawner.start(world.start(spec, command)).await.unwrap();
        while shim.listening().await.unwrap() != [80] {
            tokio::task::yield_now().await;
        }
        let socket: OwnedFd = shim.socket(SocketKind::Tcp4).await.unwrap();
        rustix::io::ioctl_fionbio(&socket, false).unwrap();
        rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 80))).unwrap();
        let mut said = String::new();
        TcpStream::from(socket).read_to_string(&mut said).unwrap();
        assert_eq!(said, "from inside");
        assert_eq!(shim.exited().await.code, Some(0));
        assert!(shim.socket(SocketKind::Udp4).await.is_err());
    });
}

#[test]
fn a_box_without_a_door_reaches_nothing() {
    with_world(|world| async move {
        let start = world.start(host_box("alone"), bash("echo >/dev/tcp/198.18.0.7/80; sleep 1000"));
        let dir = start.dir.clone();
        let shim = world.spawner.start(start).await.unwrap();
        assert!(shim.catch_all().await.unwrap().is_none());
        assert!(shim.dns().await.is_err());
        until(|| log_lines(&dir).iter().any(|line| line.contains("Network is unreachable"))).await;
        shim.kill().await.unwrap();
        shim.exited().await;
    });
}

#[test]
fn many_askers_get_sockets_of_their_own() {
    with_world(|world| async move {
        let mut spec = host_box("askers");
        spec.network = Network::Door;
        let shim = world.spawner.start(world.start(spec, shell("sleep 1000"))).await.unwrap();
        let listener = shim.listen((Ipv4Addr::new(127, 0, 0, 9), 80).into(), SocketKind::Tcp4).await.unwrap();
        assert_eq!(shim.listening().await.unwrap(), [0; 0]);
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(false).unwrap();
        let mut peers = std::collections::BTreeSet::new();
        for _connection in 0..50 {
            let socket = shim.socket(SocketKind::Tcp4).await.unwrap();
            rustix::io::ioctl_fionbio(&socket, false).unwrap();
            rustix::net::connect(&socket, &listener.local_addr().unwrap()).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!(accepted.local_addr().unwrap(), listener.local_addr().unwrap());
            peers.insert((peer, std::os::fd::AsRawFd::as_raw_fd(&accepted)));
            drop(socket);
        }
        assert_eq!(peers.len(), 50);
        shim.kill().await.unwrap();
        shim.exited().await;
    });
}
