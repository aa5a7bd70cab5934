//! Our gateway and nothing else, in a process of its own: what it uses can then be told apart, as others' can.
//!
//! This program, started again: `lab gateway-alone ADDRESS SECURE BACKEND CERTIFICATE THREADS`. It serves as a node does,
//! by one route to one service with one instance, which is reached by connecting to `BACKEND`. It ends when whoever
//! started it closes its standard input, or is gone.

use gateway::{
    AccessSink, Endpoint, Gateway, Limits, Listener, ListenerKind, RequestRecord, Route, Settings, Speaks, Table,
};
use pki::Certificate;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use tokio::net::TcpStream;
use world::net::{Dialer, Dialing};

/// The first argument that means this.
pub const GATEWAY_ALONE: &str = "gateway-alone";
const SERVICE: &str = "measured/web";
const INSTANCE: &str = "measured/web/0";

pub(super) fn command(addresses: &[SocketAddr; 3], certificate: &Path, threads: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command.arg(GATEWAY_ALONE).args(addresses.map(|address| address.to_string()));
    command.arg(certificate).arg(threads.to_string()).stdin(Stdio::piped());
    command
}

/// Serves until standard input ends.
pub fn serve_alone(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut address = || arguments.next().and_then(|text| text.parse::<SocketAddr>().ok());
    let addresses = (address(), address(), address());
    let certificate = arguments.next().and_then(|path| std::fs::read_to_string(path).ok());
    let certificate = certificate.and_then(|both| Certificate::from_pem(&both, &both).ok());
    let threads = arguments.next().and_then(|text| text.parse().ok()).filter(|threads| *threads > 0);
    let ((Some(plain), Some(secure), Some(backend)), Some(certificate), Some(threads)) =
        (addresses, certificate, threads)
    else {
        eprintln!("usage: lab {GATEWAY_ALONE} ADDRESS SECURE BACKEND CERTIFICATE THREADS");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let gateway = runtime.block_on(start(table(plain, secure, certificate), backend, threads));
    // This thread waits for the end; the runtime's own do the work.
    let ended = std::io::stdin().read_to_end(&mut Vec::new());
    runtime.block_on(async { drop(gateway) });
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn start(table: Table, backend: SocketAddr, threads: usize) -> Gateway {
    // All clients of a measurement have one address.
    let usual = Limits::default();
    let most = usual.connections_max;
    let limits = Limits { connections_per_client_max: most, requests_per_client_max: most, ..usual };
    // As a node does, it tells of one in a hundred requests; writing them down is another process's affair.
    let settings = Settings { limits, access: Some(Arc::new(Nowhere)), threads, ..Settings::default() };
    let gateway = Gateway::start(settings, Arc::new(Direct(backend)), meter::Meter::new());
    let applied = gateway.apply(table).await;
    assert!(applied.failed.is_empty(), "the gateway serves: {:?}", applied.failed);
    gateway
}

fn table(plain: SocketAddr, secure: SocketAddr, certificate: Certificate) -> Table {
    let listener = |address, tls| Listener {
        address,
        kind: ListenerKind::Routed,
        speaks: Speaks::default(),
        tls,
        proxy_protocol: None,
    };
    Table {
        listeners: vec![listener(plain, false), listener(secure, true)],
        routes: vec![Route { path_prefix: "/".to_owned(), service: SERVICE.to_owned(), port: 80, ..Route::default() }],
        services: BTreeMap::from([(
            SERVICE.to_owned(),
            vec![Endpoint { instance: INSTANCE.to_owned(), ..Endpoint::default() }],
        )]),
        certificates: vec![Arc::new(certificate)],
        ..Table::default()
    }
}

/// Takes in what requests were and keeps none.
struct Nowhere;

impl AccessSink for Nowhere {
    fn write(&self, records: &[RequestRecord]) {
        std::hint::black_box(records);
    }
}

/// Connects to one address, whatever is asked for.
struct Direct(SocketAddr);

impl Dialer for Direct {
    fn dial<'a>(&'a self, _instance: &'a str, _port: u16, _client: Option<SocketAddr>) -> Dialing<'a> {
        Box::pin(TcpStream::connect(self.0))
    }
}
