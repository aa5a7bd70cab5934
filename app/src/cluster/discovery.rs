//! Finding members on the same link when nobody knows an address any more: announcements to a multicast group, as Syncthing
//! and mDNS have them.
//!
//! Owns what is announced and what is believed of it. Announced is only while a member is missing, and heard always. Promises that only who has the
//! secret of the cluster is believed, that nothing is answered (so that nobody can be made to send), and that what is learned is a place to look at
//! and no more: who answers there proves itself by its key. An announcement that somebody repeats later is therefore worth nothing: it costs one attempt
//! to connect. Never knows who is alive, and never takes an address away.

use super::addresses;
use super::gossip::Heard;
use super::places::Places;
use meter::{Counter, Meter};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use rpc::Peers;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use wire::identity::NodeId;

/// Of the addresses that stay within a site (RFC 2365), and the port after that of the peers.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 1);
const PORT: u16 = 7_702;
/// Between announcements, while a member is missing: found within seconds, at a hundred bytes a second.
const ANNOUNCE: Duration = Duration::from_secs(2);
/// So many are opened between two announcements; more are a flood. Forty machines that all begin say twice as many.
const HEARD_MAX: u32 = 100;
const VERSION: u8 = 1;
/// An id and eight addresses of 21 characters in JSON are below 300.
const SEALED_BYTES_MAX: usize = 512;
const ADDRESSES_MAX: usize = 8;

/// What members share and nobody else has: made of the key of the cluster's authority, which each of them keeps.
pub fn secret(authority_key_pem: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, authority_key_pem.as_bytes());
    hmac::sign(&key, b"bramble local discovery 1").as_ref().to_vec()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Announcement {
    node: NodeId,
    addresses: Vec<SocketAddr>,
}

impl Announcement {
    fn seal(&self, key: &LessSafeKey, nonce: [u8; NONCE_LEN]) -> Option<Vec<u8>> {
        let mut content = serde_json::to_vec(self).ok()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from([VERSION]), &mut content).ok()?;
        Some([&[VERSION], &nonce[..], &content].concat())
    }

    /// `None` for everything that no member has sealed.
    fn open(key: &LessSafeKey, sealed: &[u8]) -> Option<Announcement> {
        if sealed.len() > SEALED_BYTES_MAX {
            return None;
        }
        let (version, rest) = sealed.split_first()?;
        let (nonce, content) = rest.split_first_chunk::<NONCE_LEN>()?;
        if *version != VERSION {
            return None;
        }
        let mut content = content.to_vec();
        let opened =
            key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from([VERSION]), &mut content).ok()?;
        let mut announcement: Announcement = serde_json::from_slice(opened).ok()?;
        announcement.addresses.truncate(ADDRESSES_MAX);
        Some(announcement)
    }

    /// Where its machine may be: where it came from first, which is none that this machine does not reach.
    fn places(&self, from: SocketAddr) -> Vec<SocketAddr> {
        let ports = self.addresses.first().map(|first| SocketAddr::new(from.ip(), first.port()));
        let others = self.addresses.iter().copied().filter(|address| Some(*address) != ports);
        ports.into_iter().chain(others).take(ADDRESSES_MAX).collect()
    }
}

pub struct Discovery {
    pub me: NodeId,
    pub listen: SocketAddr,
    pub places: Arc<Places>,
    pub peers: Peers,
    pub heard: watch::Receiver<Heard>,
    /// `None` until this machine knows what the cluster's is.
    pub secret: watch::Receiver<Option<Vec<u8>>>,
    pub meter: Meter,
}

struct Meters {
    sent: Counter,
    found: Counter,
    refused: Counter,
}

impl Discovery {
    /// Runs until it is dropped, anywhere.
    pub async fn look(mut self) {
        if self.listen.ip().is_loopback() {
            return;
        }
        let count = |name, help| self.meter.counter(name, help, &[]);
        let meters = Meters {
            sent: count("bramble_discovery_sent_total", "Announcements of this machine to its link."),
            found: count("bramble_discovery_found_total", "Members found at an address that was not known."),
            refused: count("bramble_discovery_refused_total", "Datagrams that no member had announced."),
        };
        let key = loop {
            let key = self.secret.borrow_and_update().as_deref().and_then(key);
            match key {
                Some(key) => break key,
                None if self.secret.changed().await.is_err() => return,
                None => {}
            }
        };
        let mut buffer = [0; SEALED_BYTES_MAX + 1];
        let (mut own, mut socket) = (Vec::new(), None);
        loop {
            let now = addresses::reachable(self.listen);
            // An interface that loses its last address leaves the group, and the socket does not know.
            if socket.is_none() || now != own {
                drop(socket.take());
                own = now;
                socket = join(&own).await;
            }
            self.announce(&own, &key, &meters).await;
            let Some(socket) = &socket else {
                tokio::time::sleep(ANNOUNCE).await;
                continue;
            };
            let next = world::clock::monotonic() + ANNOUNCE;
            // What comes in a flood stays in the socket, which is bounded, and is dropped there.
            for _ in 0..HEARD_MAX {
                let Ok(received) = tokio::time::timeout_at(next.into(), socket.recv_from(&mut buffer)).await else {
                    break;
                };
                if let Ok((length, from)) = received {
                    self.hear(&key, buffer.get(..length).unwrap_or_default(), from, &meters);
                }
            }
            tokio::time::sleep_until(next.into()).await;
        }
    }

    fn hear(&self, key: &LessSafeKey, sealed: &[u8], from: SocketAddr, meters: &Meters) {
        let Some(announcement) = Announcement::open(key, sealed) else { return meters.refused.inc() };
        if announcement.node == self.me {
            return;
        }
        let places = announcement.places(from);
        if self.places.found(announcement.node, &places) {
            meters.found.inc();
            tracing::info!(node = %announcement.node, ?places, "a member announces another address");
            self.peers.set_addresses(announcement.node, &self.places.of(announcement.node));
        }
    }

    /// Says where this machine is on each of its links, if a member is missing.
    async fn announce(&self, own: &[SocketAddr], key: &LessSafeKey, meters: &Meters) {
        let alive = self.heard.borrow().alive.clone();
        if self.places.members().iter().all(|node| *node == self.me || alive.contains(node)) {
            return;
        }
        let announcement = Announcement { node: self.me, addresses: own.to_vec() };
        for address in own {
            let mut nonce = [0; NONCE_LEN];
            world::random::fill(&mut nonce);
            let Some(sealed) = announcement.seal(key, nonce) else { return };
            // The kernel takes the link that this address is of.
            let Ok(from) = UdpSocket::bind((address.ip(), 0)).await else { continue };
            if from.send_to(&sealed, (GROUP, PORT)).await.is_ok() {
                meters.sent.inc();
            }
        }
    }
}

/// Hears what is announced on the links of these addresses. `None`: another program has the port, or there is no link.
async fn join(own: &[SocketAddr]) -> Option<UdpSocket> {
    let joined = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        for address in own {
            if let IpAddr::V4(ip) = address.ip() {
                socket.join_multicast_v4(GROUP, ip).or_else(is_there)?;
            }
        }
        Ok::<_, io::Error>(socket)
    };
    joined.await.map_err(|error| tracing::debug!(%error, port = PORT, "announcements of members are not heard")).ok()
}

/// Two addresses of one link.
fn is_there(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AddrInUse { Ok(()) } else { Err(error) }
}

fn key(secret: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, secret).ok().map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use super::{Announcement, key, secret};
    use proptest::prelude::*;
    use wire::identity::NodeId;

    fn announcement() -> Announcement {
        let addresses =
            vec!["192.0.2.7:7701".parse().expect("an address"), "10.0.0.7:7701".parse().expect("an address")];
        Announcement { node: NodeId::of_key(b"ann"), addresses }
    }

    #[test]
    fn who_has_the_secret_is_understood_and_nobody_else() {
        let (ours, others) = (key(&secret("a")).expect("a key"), key(&secret("b")).expect("a key"));
        let sealed = announcement().seal(&ours, [7; 12]).expect("it can be sealed");
        assert_eq!(Announcement::open(&ours, &sealed), Some(announcement()));
        assert_eq!(Announcement::open(&others, &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(Announcement::open(&ours, &changed), None, "byte {at}");
            assert_eq!(Announcement::open(&ours, &sealed[..at]), None, "cut off at {at}");
        }
    }

    #[test]
    fn where_it_came_from_is_looked_at_first() {
        let found = announcement().places("192.0.2.9:41000".parse().expect("an address"));
        let expected = ["192.0.2.9:7701", "192.0.2.7:7701", "10.0.0.7:7701"];
        assert_eq!(found, expected.map(|address| address.parse().expect("an address")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_announcement(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            prop_assert_eq!(Announcement::open(&key(&secret("a")).expect("a key"), &bytes), None);
        }
    }
}
