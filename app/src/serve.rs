//! What the gateway serves, made from what control wants: published ports, host names, ready instances.
//!
//! The gateway knows no stacks and control knows no sockets; this is where they meet.

use crate::certificates::Shown;
use crate::handover::Previous;
use containers::{Agent, Boxes};
use control::view::{Snapshot, View};
use gateway::{
    AccessSink, Endpoint, Gateway, Listener, ListenerKind, Passage, Route, Speaks, Table, UdpDialer, UdpDialing,
};
use scheduler::Machine;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use telemetry::Telemetry;
use telemetry::requests::Requests;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use wire::api::RequestRecord;
use wire::resource::{Load, Presence, Wanted};
use wire::spec::{Port, Protocol, Redirect, Rules, Service};
use world::net::{Dialer, Dialing};

/// A port another program holds may become free: tried again this often.
const RETRY: Duration = Duration::from_secs(5);

/// Ports that cannot be served, with the reason, for whoever shows endpoints.
pub type Unserved = Arc<Mutex<BTreeMap<SocketAddr, String>>>;

/// Where services are reached from outside.
pub struct Edge {
    /// Where the gateway's shared HTTP port listens.
    pub http: SocketAddr,
    /// The same with TLS.
    pub https: Option<SocketAddr>,
    pub unserved: Unserved,
}

impl Edge {
    /// Where a route is reached, without its path. `host` as the route names it.
    pub fn origin(&self, host: &str, tls: bool) -> String {
        let (scheme, port, usual) = match self.https {
            Some(address) if tls => ("https", address.port(), 443),
            Some(_) | None => ("http", self.http.port(), 80),
        };
        if port == usual { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") }
    }

    /// Why people do not reach a service where its file says.
    pub fn closed(&self, service: &Service) -> Option<String> {
        let unserved = self.unserved.lock().unwrap_or_else(PoisonError::into_inner);
        if unserved.is_empty() {
            return None;
        }
        let shared = [Some(self.http), self.https].into_iter().flatten().filter(|_| !service.routes.is_empty());
        let mut addresses = service.ports.iter().filter_map(published).chain(shared);
        addresses.find_map(|address| Some(format!("cannot listen on {address}: {}", unserved.get(&address)?)))
    }
}

/// The address a port is published at.
fn published(port: &Port) -> Option<SocketAddr> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let ip = port.host_ip.as_deref().and_then(|ip| ip.parse().ok()).unwrap_or(any);
    Some(SocketAddr::new(ip, port.published?))
}

/// As services are called; no stack can be called so.
const RUNS: &str = "@bramble/runs";
/// As instances are.
const OWN: &str = "@bramble";

/// Where code may be handed in through the gateway.
#[derive(Debug, Clone)]
pub struct RunsHost {
    pub host: String,
    /// The node's own API, which answers.
    pub api: SocketAddr,
    /// This machine.
    pub node: String,
}

/// Connections to instances, and to this node's own API.
pub struct Doors {
    pub instances: Arc<dyn Dialer>,
    pub api: SocketAddr,
}

impl Dialer for Doors {
    fn dial<'a>(&'a self, instance: &'a str, port: u16, client: Option<SocketAddr>) -> Dialing<'a> {
        if instance == OWN {
            return Box::pin(TcpStream::connect(self.api));
        }
        self.instances.dial(instance, port, client)
    }
}

/// Where this machine itself reaches what listens at `address`.
pub fn from_here(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// What the gateway is served from, besides the view.
pub struct Front {
    /// Where requests by host name are served.
    pub http: SocketAddr,
    /// The same with TLS.
    pub https: Option<SocketAddr>,
    /// Where code may be handed in besides the API's own address.
    pub runs: Option<RunsHost>,
    pub certificates: watch::Receiver<Shown>,
    pub unserved: Unserved,
    /// Processes before this one, which have to know where instances are as long as they have requests.
    pub previous: Previous,
    /// True from when clients may be accepted: another process does until then.
    pub may_serve: watch::Receiver<bool>,
}

/// Keeps the gateway's table as the view says. Owner: the boot list. May be dropped anywhere.
pub async fn run(gateway: Arc<Gateway>, agent: Arc<Agent>, mut view: View, mut front: Front, meter: meter::Meter) {
    let mut holding = Holding::new();
    let failing = meter.gauge("bramble_gateway_listeners_failed", "Ports that could not be listened on.", &[]);
    let mut last = None;
    let mut retry = false;
    if front.may_serve.wait_for(|may| *may).await.is_err() {
        return;
    }
    loop {
        let mut wanted = table(&view.borrow_and_update().clone(), front.http, front.https);
        if let Some(runs) = &front.runs {
            add_runs(&mut wanted, runs);
        }
        if let Some(address) = front.https {
            wanted.listeners.push(shared(address, true));
        }
        if wanted.listeners.iter().any(|listener| listener.tls) {
            wanted.certificates.clone_from(&front.certificates.borrow_and_update().certificates);
        }
        let ports_changed = last.as_ref().is_none_or(|last: &Table| last.listeners != wanted.listeners) || retry;
        if last.as_ref() != Some(&wanted) || retry {
            let applied = gateway.apply(wanted.clone()).await;
            if last.as_ref() != Some(&wanted) {
                for (address, reason) in &applied.failed {
                    tracing::warn!(%address, reason, "cannot listen");
                }
                for (names, reason) in &applied.unusable {
                    tracing::warn!(names, reason, "a certificate cannot be shown");
                }
            }
            failing.set(applied.failed.len() as f64);
            retry = !applied.failed.is_empty();
            *front.unserved.lock().unwrap_or_else(PoisonError::into_inner) = applied.failed.into_iter().collect();
            front.previous.tell(&wanted.services);
            last = Some(wanted);
        }
        if ports_changed || agent.running().iter().any(|(_, pid)| !holding.contains_key(pid)) {
            hold(&gateway, &agent, &view, &mut holding).await;
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = front.certificates.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if retry => {}
        }
    }
}

/// What each box was given to hold, by its process id: a box that is replaced is given it again.
type Holding = BTreeMap<u32, BTreeSet<SocketAddr>>;

/// Has every box hold the sockets it is served through: its own service's published ports, and the shared one. When
/// this process dies its listening sockets live on there, clients wait in their queues, and the next process goes on
/// accepting from them.
async fn hold(gateway: &Gateway, agent: &Agent, view: &View, holding: &mut Holding) {
    let running = agent.running();
    holding.retain(|pid, _| running.iter().any(|(_, running)| running == pid));
    // Not those of datagrams: what arrives meanwhile is lost with or without them.
    let is_tcp = |one: &gateway::Socket| one.protocol == Protocol::Tcp;
    let sockets = gateway.sockets().await.into_iter().filter(is_tcp).map(|one| (one.address, one.socket));
    let sockets: Vec<_> = sockets.collect();
    let snapshot = view.borrow().clone();
    for (instance, pid) in running {
        let service = snapshot.service(&instance.stack, &instance.service);
        let ports: BTreeSet<u16> =
            service.into_iter().flat_map(|service| &service.ports).filter_map(|port| port.published).collect();
        let of_others = |address: &SocketAddr| {
            snapshot.services().any(|(stack, name, service)| {
                (stack, name) != (&instance.stack, &instance.service)
                    && service.ports.iter().any(|port| port.published == Some(address.port()))
            })
        };
        let mine: Vec<_> =
            sockets.iter().filter(|(address, _)| ports.contains(&address.port()) || !of_others(address)).collect();
        let addresses: BTreeSet<SocketAddr> = mine.iter().map(|(address, _)| *address).collect();
        if holding.get(&pid) == Some(&addresses) {
            continue;
        }
        let named: Vec<_> = mine.iter().map(|(address, socket)| (address.to_string(), socket.as_fd())).collect();
        match agent.hold(&instance.id, &named).await {
            Ok(()) => {
                holding.insert(pid, addresses);
            }
            Err(error) => tracing::debug!(instance = instance.id, %error, "its shim holds no sockets"),
        }
    }
}

fn table(snapshot: &Snapshot, http: SocketAddr, https: Option<SocketAddr>) -> Table {
    let mut table = Table::default();
    table.listeners.push(shared(http, false));
    for (stack, name, service) in snapshot.services() {
        let target = format!("{stack}/{name}");
        for port in &service.ports {
            let Some(address) = published(port) else { continue };
            let kind = ListenerKind::Service { service: target.clone(), port: port.target, protocol: port.protocol };
            let Port { tls, proxy_protocol, .. } = *port;
            // Who wants to be told of clients is told before anything else, so that nothing may be taken for HTTP.
            let speaks = if proxy_protocol.is_some() { Speaks::Tcp } else { Speaks::Detect };
            table.listeners.push(Listener { address, kind, speaks, tls, proxy_protocol });
        }
        for route in &service.routes {
            if route.passthrough {
                // Without a place for TLS there is nothing to carry on.
                if https.is_none() {
                    continue;
                }
                let (hosts, service, proxy_protocol) = (route.hosts.clone(), target.clone(), route.proxy_protocol);
                table.passages.push(Passage { hosts, service, port: route.port, proxy_protocol });
            }
            table.routes.push(Route {
                hosts: route.hosts.clone(),
                path_prefix: route.path_prefix.clone(),
                strip_prefix: route.strip_prefix,
                priority: route.priority,
                conditions: route.conditions.clone(),
                weight: route.weight,
                rules: rules(stack, route, https),
                delivery: route.delivery.clone(),
                service: target.clone(),
                port: route.port,
            });
        }
        // Every browser takes *.localhost for this machine: a name for each service without anybody's doing. Whoever
        // asks may claim that name, so a service with a guarded route has none.
        let guarded = service.routes.iter().any(|route| route.rules.as_ref().is_some_and(|rules| rules.guards()));
        if let Some(port) = service.ports.iter().find(|port| port.protocol == Protocol::Tcp && !guarded) {
            table.routes.push(Route {
                hosts: vec![format!("{name}.{stack}.localhost")],
                path_prefix: "/".to_owned(),
                service: target.clone(),
                port: port.target,
                ..Route::default()
            });
        }
        let endpoints = snapshot
            .instances_of(stack, name)
            .filter(|instance| snapshot.statuses.get(&instance.id).is_some_and(|status| status.ready))
            .filter(|instance| !matches!(snapshot.presence(&instance.node), Presence::Down { .. }))
            .map(|instance| Endpoint {
                instance: instance.id.clone(),
                machine: instance.node.clone(),
                zone: snapshot.machines.get(&instance.node).and_then(zone_of),
                draining: instance.wanted == Wanted::Stopped,
            });
        table.services.insert(target.clone(), endpoints.collect());
    }
    table
}

/// Code is handed in at one host: nothing else of the API is there.
fn add_runs(table: &mut Table, RunsHost { host, api, node }: &RunsHost) {
    table.routes.extend(["/v1/runs", "/v1/languages"].map(|path| Route {
        hosts: vec![host.clone()],
        path_prefix: path.to_owned(),
        service: RUNS.to_owned(),
        port: api.port(),
        ..Route::default()
    }));
    let own = Endpoint { instance: OWN.to_owned(), machine: node.clone(), zone: None, draining: false };
    table.services.insert(RUNS.to_owned(), vec![own]);
}

/// A port that all host names share.
fn shared(address: SocketAddr, tls: bool) -> Listener {
    Listener { address, kind: ListenerKind::Routed, speaks: Speaks::Http, tls, proxy_protocol: None }
}

/// The rules of a route of `stack`, with the services they name as the table names them.
fn rules(stack: &str, route: &wire::spec::Route, https: Option<SocketAddr>) -> Option<Box<Rules>> {
    let mut rules = with_tls_only(route, https)?;
    for aside in rules.asides_mut().filter(|aside| aside.outside().is_none()) {
        aside.service = format!("{stack}/{}", aside.service);
    }
    Some(rules)
}

/// The label that says where a machine is, of a room or a site: what is near is asked first.
const ZONE: &str = "zone";

/// Where a machine is, as its join token or its label says.
fn zone_of(machine: &Machine) -> Option<Arc<str>> {
    if machine.node.zone.is_empty() { zone(&machine.node.labels) } else { Some(Arc::from(machine.node.zone.as_str())) }
}

/// Where a machine with these labels is.
pub fn zone(labels: &BTreeMap<String, String>) -> Option<Arc<str>> {
    labels.get(ZONE).filter(|zone| !zone.is_empty()).map(|zone| Arc::from(zone.as_str()))
}

/// Between two looks at how busy the machines are.
const LOAD_EVERY: Duration = Duration::from_secs(1);

/// Tells the gateway how busy the machines are, as each has reported. Owner: the boot list. May be dropped anywhere.
pub async fn tell_load(gateway: Arc<Gateway>, telemetry: Arc<Telemetry>, view: View) {
    loop {
        let snapshot = view.borrow().clone();
        let of = |machine: &Machine| machine.load.as_ref().map_or(0.0, |load| busy(load, machine.node.cores));
        gateway.note_loads(&snapshot.machines.iter().map(|(id, machine)| (id.clone(), of(machine))).collect());
        gateway.note_waiting(telemetry.load().psi_cpu);
        tokio::time::sleep(LOAD_EVERY).await;
    }
}

/// How busy a machine is, from 0.0 to 1.0. Busy is not overloaded, and waiting programs are not always a busy machine: the
/// worse of the two counts.
fn busy(load: &Load, cores: u32) -> f64 {
    let used = load.cpu_busy_millis as f64 / (f64::from(cores.max(1)) * 1_000.0);
    used.max(f64::from(load.psi_percent) / 100.0)
}

/// The rules of a route; one for TLS only sends all others to where there is TLS, if this node has such a place.
fn with_tls_only(route: &wire::spec::Route, https: Option<SocketAddr>) -> Option<Box<Rules>> {
    let mut rules = route.rules.clone();
    if let Some(https) = https.filter(|_| route.tls) {
        let port = if https.port() == 443 { String::new() } else { format!(":{}", https.port()) };
        let to = format!("https://{{host}}{port}{{path}}");
        let rules = rules.get_or_insert_default();
        // A request that was opened here although its host's are not came under another name.
        let plain_only = !route.passthrough;
        rules.redirect.get_or_insert(Redirect { to, status: 308, plain_only });
    }
    rules
}

/// The gateway's access log is where all of telemetry is.
pub struct Ledger(pub Requests);

impl AccessSink for Ledger {
    fn write(&self, records: &[RequestRecord]) {
        self.0.append(records);
    }
}

/// Published UDP ports: sockets made inside an instance's box, connected to its port.
pub struct Datagrams(pub Arc<Boxes>);

impl UdpDialer for Datagrams {
    fn dial<'a>(&'a self, instance: &'a str, port: u16, client: SocketAddr) -> UdpDialing<'a> {
        Box::pin(async move {
            let socket = self.0.datagrams(instance).await?;
            // Every IPv4 address is local in there, so the program sees its client's own. It answers from the address
            // that it was asked at as the kernel chooses it, which is the client's too. Loopback stays loopback.
            let own = client.is_ipv4() && !client.ip().is_loopback();
            let ip = if own && rustix::net::bind(&socket, &SocketAddr::new(client.ip(), 0)).is_ok() {
                client.ip()
            } else {
                IpAddr::V4(Ipv4Addr::LOCALHOST)
            };
            let socket = std::net::UdpSocket::from(socket);
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from_std(socket)?;
            socket.connect(SocketAddr::new(ip, port)).await?;
            Ok(socket)
        })
    }
}
