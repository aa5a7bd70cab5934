//! Our gateway beside other proxies, all in front of the same backend, in turns: what each gets done, what processor
//! time it takes for that, how long its answers take, what its connections weigh.
//!
//! The proxy has a core of its own; backend and load generator share the next. Then everything shares both. Processor
//! time is the figure to go by: what else runs on the machine changes it least.

mod alone;
mod echo;
mod h2load;
mod handshakes;
mod memory;
pub(crate) mod proxies;
mod series;
mod wrk;

pub use alone::{GATEWAY_ALONE, serve_alone};

use super::figures::{go_first, median};
use super::report::Goal;
use super::{Measured, Options};
use lab::arrivals::Arrivals;
use lab::cores::Cores;
use proxies::{HAPROXY, KINDS, Kind, LARGE, SMALL, Server};
use series::{Figure, Series, rows};
use std::path::Path;
use wrk::{Asking, Counted, Wrk};

const ROUNDS: usize = 5;
const SECONDS: u32 = 2;
/// What the figures of others were taken with, and enough to keep one core busy.
const CONNECTIONS: usize = 64;
/// Of what HAProxy can do at most: busy, and not yet a queue that only grows.
const SHARE_OF_SATURATION: f64 = 0.7;
const MEGABYTE: f64 = 1e6;

/// How a client speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Front {
    Plain,
    Tls,
    /// With a session from before.
    TlsResumed,
    /// Over TLS.
    Http2,
    /// Messages there and back, over connections that stay.
    WebSocket,
}

/// Requests of one kind.
struct Load {
    name: &'static str,
    front: Front,
    path: &'static str,
    /// Each over a connection of its own.
    anew: bool,
    figures: &'static [Figure<Run>],
}

/// What a proxy did in one run, and what it took.
struct Run {
    counted: Counted,
    cpu_seconds: f64,
}

const RATE: Figure<Run> =
    Figure { what: "", unit: "requests/s", of: |run| run.counted.requests / run.counted.seconds, judged: None };
const PER_CPU: Figure<Run> =
    Figure { what: "", unit: "requests/CPU s", of: |run| run.counted.requests / run.cpu_seconds, judged: None };

/// No less than HAProxy does with the same processor time.
const AS_MUCH: Figure<Run> = Figure { judged: Some((HAPROXY, Goal::LeastTimesPeer(1.0))), ..PER_CPU };

const LOADS: [Load; 7] = [
    Load {
        name: "small answers",
        front: Front::Plain,
        path: SMALL,
        anew: false,
        figures: &[
            RATE,
            AS_MUCH,
            Figure { what: " p50", unit: "ms", of: |run| run.counted.p50_ms, judged: None },
            Figure { what: " p99", unit: "ms", of: |run| run.counted.p99_ms, judged: None },
        ],
    },
    Load {
        name: "1 MB answers",
        front: Front::Plain,
        path: LARGE,
        anew: false,
        figures: &[Figure { unit: "MB/CPU s", of: |run| run.counted.bytes / MEGABYTE / run.cpu_seconds, ..AS_MUCH }],
    },
    Load { name: "a connection each", front: Front::Plain, path: SMALL, anew: true, figures: &[RATE, AS_MUCH] },
    Load { name: "TLS, small answers", front: Front::Tls, path: SMALL, anew: false, figures: &[RATE, AS_MUCH] },
    Load { name: "TLS, a connection each", front: Front::Tls, path: SMALL, anew: true, figures: &[RATE, AS_MUCH] },
    Load { name: "TLS, resumed each", front: Front::TlsResumed, path: SMALL, anew: true, figures: &[AS_MUCH] },
    Load { name: "HTTP/2, 100 streams", front: Front::Http2, path: SMALL, anew: false, figures: &[RATE, AS_MUCH] },
];

/// In front of a backend that takes upgrades.
const ECHOES: [Load; 1] = [Load {
    name: "WebSocket echo",
    front: Front::WebSocket,
    path: echo::PATH,
    anew: false,
    figures: &[Figure { unit: "messages/s", ..RATE }, Figure { unit: "messages/CPU s", ..AS_MUCH }],
}];

const LATENCY: Figure<Vec<f64>> = Figure {
    what: " p99",
    unit: "ms",
    of: |took| took.get(took.len() * 99 / 100).copied().unwrap_or(f64::INFINITY),
    judged: Some((HAPROXY, Goal::TimesPeer(1.0))),
};

impl Load {
    /// Whether it can be made; if not, a sentence that says why.
    fn tried(&self) -> Result<(), String> {
        match self.front {
            Front::Plain | Front::Tls | Front::TlsResumed | Front::WebSocket => Ok(()),
            Front::Http2 => h2load::tried(),
        }
    }

    fn ask(&self, server: &Server, wrk: &Wrk, cores: &Cores) -> Counted {
        let asking = |url| Asking { url, connections: CONNECTIONS, seconds: SECONDS, anew: self.anew };
        let plain = format!("http://{}{}", server.address, self.path);
        let secure = format!("https://{}{}", server.secure, self.path);
        match self.front {
            Front::Plain => wrk.run(&asking(&plain), cores),
            Front::Tls => wrk.run(&asking(&secure), cores),
            Front::TlsResumed => handshakes::run(server.secure, self.path, SECONDS, cores),
            Front::Http2 => h2load::run(&asking(&secure), cores),
            Front::WebSocket => cores.on(|| echo::run(server.address, self.path, CONNECTIONS, SECONDS)),
        }
    }
}

/// Who runs where.
struct Seats {
    name: &'static str,
    threads: usize,
    proxy: Cores,
    load: Cores,
}

impl Seats {
    fn new(name: &'static str, threads: usize) -> Seats {
        let (proxy, load) = Cores::here().split(threads);
        Seats { name, threads, proxy, load }
    }
}

/// Proxies that run, in front of a backend that does.
struct Field<'a> {
    seats: &'a Seats,
    kinds: &'a [&'a Kind],
    servers: Vec<Server>,
    _backend: Server,
}

pub(super) fn run(_options: &Options) -> Measured {
    go_first();
    let files_max = memory::raise_open_files();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wrk = Wrk::new(folder.path());
    proxies::certify(folder.path());
    let kinds: Vec<&Kind> =
        KINDS.iter().filter(|kind| kind.tried().map_err(|reason| println!("{reason}")).is_ok()).collect();
    let mut all = Vec::new();

    let seats = Seats::new("1 core", 1);
    let field = Field::new(&seats, &kinds, folder.path(), Server::backend);
    let saturated = field.saturated(&LOADS, &wrk);
    let rate = saturation(&kinds, &saturated) * SHARE_OF_SATURATION;
    all.extend(saturated);
    all.extend(field.paced(rate));
    drop(field);
    all.extend(Field::new(&seats, &kinds, folder.path(), Server::echoing).saturated(&ECHOES, &wrk));
    all.extend(memory::measure(&seats, &kinds, folder.path(), files_max));

    let seats = Seats::new("2 cores", 2);
    all.extend(Field::new(&seats, &kinds, folder.path(), Server::backend).saturated(&LOADS, &wrk));
    all.extend(Field::new(&seats, &kinds, folder.path(), Server::echoing).saturated(&ECHOES, &wrk));
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    Measured::Rows(rows(&names, &all))
}

/// Requests per second of the first load that HAProxy answers, or, where it is missing, that we do.
fn saturation(kinds: &[&Kind], saturated: &[Series]) -> f64 {
    let place = kinds.iter().position(|kind| kind.name == HAPROXY).unwrap_or(0);
    saturated.first().and_then(|series| series.values.get(place)).map_or(0.0, |values| median(values))
}

impl<'a> Field<'a> {
    fn new(seats: &'a Seats, kinds: &'a [&'a Kind], folder: &Path, backend: fn(&Path, &Cores) -> Server) -> Field<'a> {
        let backend = backend(folder, &seats.load);
        let start = |kind: &&Kind| kind.start(folder, backend.address, seats.threads, &seats.proxy);
        let servers = kinds.iter().map(start).collect();
        Field { seats, kinds, servers, _backend: backend }
    }

    fn series<T>(&self, load: &str, figure: &Figure<T>) -> Series {
        Series::new(format!("{}: {load}{}", self.seats.name, figure.what), figure, self.kinds.len())
    }

    /// As much as each can do.
    fn saturated(&self, loads: &[Load], wrk: &Wrk) -> Vec<Series> {
        let mut all = Vec::new();
        for load in loads {
            if let Err(reason) = load.tried() {
                println!("{reason}");
                continue;
            }
            let mut series: Vec<Series> = load.figures.iter().map(|figure| self.series(load.name, figure)).collect();
            self.take_turns(|place, server| {
                let before = server.cpu_seconds();
                let counted = load.ask(server, wrk, &self.seats.load);
                let run = Run { counted, cpu_seconds: server.cpu_seconds() - before };
                for (series, figure) in series.iter_mut().zip(load.figures) {
                    series.values[place].push((figure.of)(&run));
                }
            });
            all.extend(series);
        }
        all
    }

    /// The same for all.
    fn paced(&self, per_second: f64) -> Vec<Series> {
        println!("{}: paced is {per_second:.0} requests/s", self.seats.name);
        let mut series = self.series("paced", &LATENCY);
        let mut seed = 0;
        self.take_turns(|place, server| {
            seed += 1;
            let arrivals = Arrivals { per_second, seconds: f64::from(SECONDS), connections: CONNECTIONS, seed };
            match self.seats.load.on(|| arrivals.send(server.address, SMALL)) {
                Ok(took) => series.values[place].push((LATENCY.of)(&took)),
                Err(error) => println!("{}: a paced run failed: {error}", self.kinds[place].name),
            }
        });
        vec![series]
    }

    /// Round by round, each round begun by another one.
    fn take_turns(&self, mut turn: impl FnMut(usize, &Server)) {
        for round in 0..ROUNDS {
            for step in 0..self.servers.len() {
                let place = (round + step) % self.servers.len();
                turn(place, &self.servers[place]);
            }
        }
    }
}
