//! Published UDP ports: flows, their bounds, and what becomes of them when instances change.

use crate::bed::{Doors, HANG, SERVICE, endpoints, until};
use gateway::{Gateway, Limits, Listener, ListenerKind, Settings, Speaks, Table, UdpDialer, UdpDialing};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UdpSocket;
use wire::spec::Protocol;
use world::task::Task;

#[derive(Default)]
struct Sockets {
    open: Mutex<HashMap<String, SocketAddr>>,
}

impl UdpDialer for Sockets {
    fn dial<'a>(&'a self, instance: &'a str, _port: u16, _client: SocketAddr) -> UdpDialing<'a> {
        let address = self.open.lock().unwrap().get(instance).copied();
        Box::pin(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.connect(address.ok_or(std::io::ErrorKind::ConnectionRefused)?).await?;
            Ok(socket)
        })
    }
}

impl Sockets {
    /// An instance that answers every datagram with its name before it.
    async fn add(&self, name: &'static str) -> Task {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        self.open.lock().unwrap().insert(name.to_owned(), socket.local_addr().unwrap());
        world::task::spawn("udp instance", async move {
            let mut bytes = [0; 2048];
            loop {
                let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
                let answer = [name.as_bytes(), &bytes[..length]].concat();
                socket.send_to(&answer, from).await.unwrap();
            }
        })
    }
}

fn table(ids: &[&str]) -> Table {
    let kind = ListenerKind::Service { service: SERVICE.to_owned(), port: 53, protocol: Protocol::Udp };
    Table {
        listeners: vec![Listener {
            address: "127.0.0.1:0".parse().unwrap(),
            kind,
            speaks: Speaks::Detect,
            tls: false,
            proxy_protocol: None,
        }],
        routes: Vec::new(),
        services: BTreeMap::from([(SERVICE.to_owned(), endpoints(ids))]),
        ..Table::default()
    }
}

async fn start(limits: Limits, ids: &[&str]) -> (Gateway, Arc<Sockets>, SocketAddr) {
    let sockets = Arc::new(Sockets::default());
    let udp = Some(Arc::clone(&sockets) as Arc<dyn UdpDialer>);
    let settings = Settings { udp, limits, ..Settings::default() };
    let gateway = Gateway::start(settings, Arc::new(Doors::default()), meter::Meter::new());
    let applied = gateway.apply(table(ids)).await;
    assert_eq!(applied.failed, []);
    (gateway, sockets, applied.listening[0].1)
}

async fn client(gateway: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(gateway).await.unwrap();
    socket
}

async fn ask(client: &UdpSocket, question: &str) -> String {
    client.send(question.as_bytes()).await.unwrap();
    let mut bytes = [0; 2048];
    let length = tokio::time::timeout(HANG, client.recv(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn each_client_has_a_flow_to_one_instance() {
    let (gateway, sockets, address) = start(Limits::default(), &["a", "b"]).await;
    let _instances = [sockets.add("a").await, sockets.add("b").await];
    let (one, two) = (client(address).await, client(address).await);
    let first = ask(&one, "1").await;
    for number in ["2", "3"] {
        assert_eq!(ask(&one, number).await[..1], first[..1], "a flow stays where it is");
    }
    assert_ne!(ask(&two, "1").await, first, "and the next goes where there is less");
    assert_eq!((gateway.in_flight("a"), gateway.in_flight("b")), (1, 1));
}

#[tokio::test]
async fn a_flow_moves_when_its_instance_drains() {
    let (gateway, sockets, address) = start(Limits::default(), &["a"]).await;
    let _instances = [sockets.add("a").await, sockets.add("b").await];
    let one = client(address).await;
    assert_eq!(ask(&one, "1").await, "a1");
    gateway.apply(table(&["-a", "b"])).await;
    tokio::time::timeout(HANG, gateway.drained("a")).await.unwrap();
    assert_eq!(ask(&one, "2").await, "b2");
}

#[tokio::test]
async fn a_silent_flow_ends() {
    let limits = Limits { flow_idle_deadline: Duration::from_millis(30), ..Limits::default() };
    let (gateway, sockets, address) = start(limits, &["a"]).await;
    let _instance = sockets.add("a").await;
    let one = client(address).await;
    assert_eq!(ask(&one, "1").await, "a1");
    until(|| gateway.in_flight("a") == 0).await;
    assert_eq!(ask(&one, "2").await, "a2");
}

#[tokio::test]
async fn flows_are_bounded_and_datagrams_wait_for_an_instance() {
    let limits = Limits { flows_max: 1, ..Limits::default() };
    let (gateway, sockets, address) = start(limits, &[]).await;
    let _instance = sockets.add("a").await;
    let (one, two) = (client(address).await, client(address).await);
    one.send(b"1").await.unwrap();
    two.send(b"1").await.unwrap();
    gateway.apply(table(&["a"])).await;
    let mut bytes = [0; 16];
    let length = tokio::time::timeout(HANG, one.recv(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(&bytes[..length], b"a1");
    assert_eq!(gateway.in_flight("a"), 1);
    assert!(two.try_recv(&mut bytes).is_err());
}

#[tokio::test]
async fn without_a_dialer_udp_is_refused_with_a_reason() {
    let gateway = Gateway::start(Settings::default(), Arc::new(Doors::default()), meter::Meter::new());
    let applied = gateway.apply(table(&[])).await;
    assert!(applied.failed[0].1.contains("UDP ports are not published"), "{applied:?}");
}
