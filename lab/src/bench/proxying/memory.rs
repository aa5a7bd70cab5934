//! What ten thousand connections that nobody uses weigh, each of which has carried a request.

use super::proxies::{Kind, NGINX, SMALL, Server};
use super::series::{Figure, Series};
use super::{MEGABYTE, Seats};
use crate::bench::report::Goal;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const ROUNDS: usize = 3;
const CLIENTS: usize = 10_000;
/// Requests before the first look, for what is made once.
const WARM_UP: usize = 200;
/// For both ends of all connections and whatever else a process has open.
const FILES_WANTED: u64 = 65_536;
/// Of ours and of a proxy, besides the clients' connections.
const OTHER_FILES: usize = 512;
const DEADLINE: Duration = Duration::from_secs(10);
const KILOBYTE: f64 = 1e3;

struct Weight {
    before_bytes: f64,
    after_bytes: f64,
    clients: f64,
}

const FIGURES: [Figure<Weight>; 2] = [
    Figure {
        what: ", each",
        unit: "KB",
        of: |weight| (weight.after_bytes - weight.before_bytes) / weight.clients / KILOBYTE,
        judged: None,
    },
    // What the machine has to have: nginx has room for its connections from the start.
    Figure {
        what: ", all",
        unit: "MB",
        of: |weight| weight.after_bytes / MEGABYTE,
        judged: Some((NGINX, Goal::TimesPeer(1.0))),
    },
];

/// Lets this process and those it starts open as many files as they may; how many that is.
pub(super) fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.is_none_or(|maximum| maximum >= FILES_WANTED);
    // Above the maximum only root may go, and not everywhere.
    if enough || setrlimit(Resource::Nofile, same(Some(FILES_WANTED))).is_err() {
        // Lowering one's own limit to its maximum, or raising it there, is always allowed.
        let _ = setrlimit(Resource::Nofile, same(limit.maximum.map(|maximum| maximum.min(FILES_WANTED))));
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

fn same(files: Option<u64>) -> Rlimit {
    Rlimit { current: files, maximum: files }
}

/// Each time with a proxy just started: what an allocator kept from before would hide what is added.
pub(super) fn measure(seats: &Seats, kinds: &[&Kind], folder: &Path, files_max: usize) -> Vec<Series> {
    let clients = CLIENTS.min(files_max.saturating_sub(OTHER_FILES));
    let name = format!("{}: {clients} idle", seats.name);
    let series = |figure: &Figure<Weight>| Series::new(format!("{name}{}", figure.what), figure, kinds.len());
    let mut all: Vec<Series> = FIGURES.iter().map(series).collect();
    let backend = Server::backend(folder, &seats.load);
    for _round in 0..ROUNDS {
        for (place, kind) in kinds.iter().enumerate() {
            let server = kind.start(folder, backend.address, seats.threads, &seats.proxy);
            match weigh(&server, clients) {
                Ok(weight) => {
                    all.iter_mut()
                        .zip(&FIGURES)
                        .for_each(|(series, figure)| series.values[place].push((figure.of)(&weight)));
                }
                Err(error) => println!("{}: its idle connections were not weighed: {error}", kind.name),
            }
        }
    }
    all
}

fn weigh(server: &Server, clients: usize) -> std::io::Result<Weight> {
    let first = asked(server.address)?;
    for _request in 0..WARM_UP {
        ask(&first)?;
    }
    let before_bytes = server.resident_bytes();
    let open = (0..clients).map(|_| asked(server.address)).collect::<std::io::Result<Vec<TcpStream>>>()?;
    let after_bytes = server.resident_bytes();
    Ok(Weight { before_bytes, after_bytes, clients: open.len() as f64 })
}

/// A connection that has carried a request.
fn asked(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    ask(&stream)?;
    Ok(stream)
}

fn ask(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(format!("GET {SMALL} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = [0; 4096];
    match stream.read(&mut answer)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
