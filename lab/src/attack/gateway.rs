//! The gateway under attack: in a process of its own, so that its memory is its alone, with a service behind it. Another
//! proxy can have its place.
//!
//! This program, started twice again, so that neither takes descriptors from the other. `lab attacked-service` answers
//! requests. `lab attacked-gateway ADDRESS` passes them on to it with the bounds a gateway always has. Both serve at a free
//! port of loopback, write that address to their standard output, and end with their standard input; the gateway answers
//! each line of it with its counters.

use crate::bench::proxying::proxies::{self, Kind, Server};
use gateway::{Applied, Endpoint, Gateway, Listener, ListenerKind, Route, Settings, Speaks, Table};
use lab::cores::Cores;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use world::net::{Dialer, Dialing};
use world::task;

/// The first arguments that mean this.
pub const ATTACKED: &str = "attacked-gateway";
pub const SERVED: &str = "attacked-service";
const SERVICE: &str = "drill/web";
const INSTANCE: &str = "drill/web/0";
const END: &str = "# EOF";

/// The gateway's process, seen from outside, and the service's.
pub struct Attacked {
    gateway: Proxy,
    _service: Part,
    pub address: SocketAddr,
}

enum Proxy {
    Ours(Part),
    Other {
        server: Server,
        /// Its files, gone with it.
        _folder: TempDir,
    },
}

struct Part {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Part {
    fn start(arguments: &[&str]) -> Part {
        let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program starts again");
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut output = BufReader::new(output.expect("its output is ours"));
        let mut line = String::new();
        output.read_line(&mut line).expect("its output can be read");
        let address = line.trim().parse().expect("it says where it listens");
        Part { child, input, output, address }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

impl Attacked {
    pub fn start() -> Attacked {
        let service = Part::start(&[SERVED]);
        let gateway = Part::start(&[ATTACKED, &service.address.to_string()]);
        let address = gateway.address;
        Attacked { gateway: Proxy::Ours(gateway), _service: service, address }
    }

    /// The same with another proxy, on as many cores.
    pub fn other(kind: &Kind) -> Attacked {
        let service = Part::start(&[SERVED]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        proxies::certify(folder.path());
        let cores = Cores::here();
        let other = kind.start(folder.path(), service.address, cores.count(), &cores);
        let address = other.address;
        Attacked { gateway: Proxy::Other { server: other, _folder: folder }, _service: service, address }
    }

    pub fn resident_bytes(&self) -> f64 {
        match &self.gateway {
            Proxy::Ours(part) => lab::process::resident_bytes(part.child.id()) as f64,
            Proxy::Other { server, .. } => server.resident_bytes(),
        }
    }

    /// The sum of a counter's or gauge's series. `None` where nobody counts.
    pub fn counted(&mut self, name: &str) -> Option<f64> {
        let counters = self.counters()?;
        let series = counters.lines().filter(|line| belongs(line, name));
        Some(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    fn counters(&mut self) -> Option<String> {
        let Proxy::Ours(gateway) = &mut self.gateway else { return None };
        let asked = gateway.input.as_mut().map(|input| writeln!(input, "counters"));
        assert!(matches!(asked, Some(Ok(()))), "the gateway's process is there");
        let mut text = String::new();
        while !text.ends_with(&format!("{END}\n")) {
            let read = gateway.output.read_line(&mut text).expect("its output can be read");
            assert!(read > 0, "the gateway's process is there");
        }
        Some(text)
    }
}

fn belongs(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
}

/// Passes requests on until standard input ends.
pub fn serve(backend: Option<String>) -> ExitCode {
    let Some(backend) = backend.and_then(|text| text.parse().ok()) else {
        eprintln!("usage: lab {ATTACKED} ADDRESS");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let meter = meter::Meter::new();
    let (gateway, applied) = runtime.block_on(start(meter.clone(), backend));
    let Some((_, address)) = applied.listening.first() else {
        eprintln!("lab: the gateway to be attacked does not listen: {:?}", applied.failed);
        return ExitCode::FAILURE;
    };
    println!("{address}");
    let mut byte = [0];
    let mut input = std::io::stdin().lock();
    while input.read(&mut byte).is_ok_and(|read| read > 0) {
        if byte == *b"\n" {
            println!("{}\n{END}", meter.encode());
        }
    }
    runtime.block_on(async { drop(gateway) });
    ExitCode::SUCCESS
}

async fn start(meter: meter::Meter, backend: SocketAddr) -> (Gateway, Applied) {
    let gateway = Gateway::start(Settings::default(), Arc::new(Direct(backend)), meter);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let route = Route { path_prefix: "/".to_owned(), service: SERVICE.to_owned(), port: 80, ..Route::default() };
    let endpoint = Endpoint { instance: INSTANCE.to_owned(), ..Endpoint::default() };
    let table = Table {
        listeners: vec![Listener {
            address,
            kind: ListenerKind::Routed,
            speaks: Speaks::Http,
            tls: false,
            proxy_protocol: None,
        }],
        routes: vec![route],
        services: BTreeMap::from([(SERVICE.to_owned(), vec![endpoint])]),
        ..Table::default()
    };
    let applied = gateway.apply(table).await;
    (gateway, applied)
}

/// Answers requests until standard input ends.
pub fn serve_alone() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let listening = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listening = listening.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = match listening {
        Ok(listening) => listening,
        Err(error) => {
            eprintln!("lab: the service behind the gateway does not listen: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{address}");
    // It ends with the runtime.
    let _serving = runtime.block_on(async { task::spawn("drill service", service(listener)) });
    let ended = std::io::stdin().read_to_end(&mut Vec::new());
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Answers each request with the same few bytes, when its body is through.
async fn service(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        task::spawn("drill service connection", async move {
            // A gateway that breaks off is nothing to a service.
            drop(answer(BufStream::new(stream)).await);
        })
        .detach();
    }
}

async fn answer(mut stream: BufStream<TcpStream>) -> std::io::Result<()> {
    loop {
        let mut body_bytes = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    body_bytes = value.trim().parse().unwrap_or(0);
                }
                Some(_) => {}
                None if line.trim_end().is_empty() => break,
                None => {}
            }
        }
        tokio::io::copy(&mut (&mut stream).take(body_bytes), &mut tokio::io::sink()).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await?;
        stream.flush().await?;
    }
}

/// Connects to one address, whatever is asked for.
struct Direct(SocketAddr);

impl Dialer for Direct {
    fn dial<'a>(&'a self, _instance: &'a str, _port: u16, _client: Option<SocketAddr>) -> Dialing<'a> {
        Box::pin(TcpStream::connect(self.0))
    }
}
