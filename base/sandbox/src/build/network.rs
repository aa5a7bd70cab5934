//! The inside half of the network: loopback up, and the door's route, redirect and listeners.

use crate::failure::{During, Failure, Step};
use crate::protocol::NetworkReport;
use crate::spec::Network;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, listen, recv, send, socket_with,
    sockopt,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

/// The interface every network namespace starts with.
const LOOPBACK: u32 = 1;
/// Where a resolver in the box asks: systemd-resolved's address, so that tools know it.
const DNS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 53), 53);
/// Connections waiting for the agent to accept; the kernel's own bound is `net.core.somaxconn` (4096).
pub(crate) const BACKLOG: i32 = 1024;

/// Sockets of the door that init keeps for as long as the box lives.
#[derive(Debug, Default)]
pub(crate) struct DoorSockets {
    pub(crate) catch_all: Option<OwnedFd>,
    pub(crate) dns_udp: Option<OwnedFd>,
    pub(crate) dns_tcp: Option<OwnedFd>,
    pub(crate) report: NetworkReport,
}

/// Has loopback up in the network this process is in.
pub(crate) fn loopback() -> Result<(), Errno> {
    loopback_up(&netlink_socket(None)?)
}

pub(crate) fn set_up(network: Network) -> Result<DoorSockets, Failure> {
    let route = netlink_socket(None).during(Step::Network, || "netlink".to_owned())?;
    loopback_up(&route).during(Step::Network, || "loopback".to_owned())?;
    match network {
        Network::Isolated => Ok(DoorSockets::default()),
        Network::Door => door(&route),
    }
}

fn door(route: &OwnedFd) -> Result<DoorSockets, Failure> {
    local_everywhere(route).during(Step::Network, || "local default route".to_owned())?;
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let catch_all = tcp_listener(any).during(Step::Network, || "catch-all listener".to_owned())?;
    let catch_all_port = getsockname(&catch_all)
        .and_then(SocketAddrV4::try_from)
        .during(Step::Network, || "catch-all listener".to_owned())?
        .port();
    let redirected = super::redirect::install(catch_all_port);
    let lack = match redirected {
        Ok(()) => String::new(),
        Err(errno) => format!("this kernel refuses nftables in a user namespace ({errno})"),
    };
    let dns_udp = socket_with(AddressFamily::INET, SocketType::DGRAM, listener_flags(), None)
        .and_then(|socket| bind(&socket, &DNS).map(|()| socket))
        .during(Step::Network, || format!("udp {DNS}"))?;
    let dns_tcp = tcp_listener(DNS).during(Step::Network, || format!("tcp {DNS}"))?;
    Ok(DoorSockets {
        catch_all: Some(catch_all),
        dns_udp: Some(dns_udp),
        dns_tcp: Some(dns_tcp),
        report: NetworkReport { redirect: lack.is_empty(), redirect_lack: lack, catch_all_port },
    })
}

/// Whether the redirect can be installed; only in a network namespace of one's own.
pub(crate) fn redirect_works() -> bool {
    const ANY_PORT: u16 = 1;
    super::redirect::install(ANY_PORT).is_ok()
}

fn listener_flags() -> SocketFlags {
    SocketFlags::CLOEXEC | SocketFlags::NONBLOCK
}

fn tcp_listener(address: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, listener_flags(), None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

pub(super) fn netlink_socket(protocol: Option<rustix::net::Protocol>) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
}

/// One netlink message: header, body, and the header's length filled in.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    const HEADER_BYTES: usize = 16;
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("our messages are short");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A netlink attribute, padded.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("our attributes are short");
    let mut bytes = Vec::with_capacity(4 + value.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub(super) const FLAG_REQUEST: u16 = 1;
pub(super) const FLAG_ACK: u16 = 4;
pub(super) const FLAG_CREATE: u16 = 0x400;

/// Sends a request and reads its acknowledgement.
fn ask(socket: &OwnedFd, request: &[u8]) -> Result<(), Errno> {
    send(socket, request, SendFlags::empty())?;
    acknowledged(socket)
}

/// The next answer of the kernel, which is an acknowledgement or an error.
pub(super) fn acknowledged(socket: &OwnedFd) -> Result<(), Errno> {
    const ERROR: u16 = 2;
    let mut answer = [0; 4096];
    let (read, _whole) = recv(socket, &mut answer[..], RecvFlags::empty())?;
    let answer = answer.get(..read).unwrap_or_default();
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(Errno::from_raw_os_error(-code)),
        (_, _) => Err(Errno::PROTO),
    }
}

fn loopback_up(socket: &OwnedFd) -> Result<(), Errno> {
    const NEW_LINK: u16 = 16;
    const UP: u32 = 1;
    // struct ifinfomsg: family, pad, type, index, flags, which flags to change.
    let mut body = vec![0, 0, 0, 0];
    body.extend(LOOPBACK.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    ask(socket, &message(NEW_LINK, FLAG_REQUEST | FLAG_ACK, 1, &body))
}

/// `ip route add local default dev lo`: every IPv4 address is this box's own.
fn local_everywhere(socket: &OwnedFd) -> Result<(), Errno> {
    const NEW_ROUTE: u16 = 24;
    const OUT_INTERFACE: u16 = 4;
    const FAMILY_INET: u8 = 2;
    const TABLE_LOCAL: u8 = 255;
    const PROTOCOL_BOOT: u8 = 3;
    const SCOPE_HOST: u8 = 254;
    const TYPE_LOCAL: u8 = 2;
    // struct rtmsg: family, destination and source length, tos, table, protocol, scope, type, flags.
    let mut body = vec![FAMILY_INET, 0, 0, 0, TABLE_LOCAL, PROTOCOL_BOOT, SCOPE_HOST, TYPE_LOCAL, 0, 0, 0, 0];
    body.extend(attribute(OUT_INTERFACE, &LOOPBACK.to_ne_bytes()));
    ask(socket, &message(NEW_ROUTE, FLAG_REQUEST | FLAG_ACK | FLAG_CREATE, 2, &body))
}
