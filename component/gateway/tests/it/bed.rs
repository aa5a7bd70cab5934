//! The test bed: a gateway, instances made of whatever a test wants, and a client that sees every byte.

use bytes::Bytes;
use gateway::{Endpoint, Gateway, Limits, Listener, ListenerKind, Route, Settings, Speaks, Table};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use world::net::{Dialer, Dialing};
use world::task::Task;

/// Only for what would otherwise hang for ever: no test measures time.
pub(crate) const HANG: Duration = Duration::from_secs(60);
pub(crate) const SERVICE: &str = "shop/web";

/// Knows where the instances of a test listen.
#[derive(Default)]
pub(crate) struct Doors {
    open: Mutex<HashMap<String, SocketAddr>>,
    dials: Mutex<HashMap<String, usize>>,
}

impl Doors {
    pub(crate) fn set(&self, instance: &str, address: SocketAddr) {
        self.open.lock().unwrap().insert(instance.to_owned(), address);
    }

    pub(crate) fn remove(&self, instance: &str) {
        self.open.lock().unwrap().remove(instance);
    }

    pub(crate) fn dials(&self, instance: &str) -> usize {
        self.dials.lock().unwrap().get(instance).copied().unwrap_or(0)
    }
}

impl Dialer for Doors {
    fn dial<'a>(&'a self, instance: &'a str, _port: u16, _client: Option<SocketAddr>) -> Dialing<'a> {
        *self.dials.lock().unwrap().entry(instance.to_owned()).or_default() += 1;
        let address = self.open.lock().unwrap().get(instance).copied();
        Box::pin(async move {
            match address {
                Some(address) => TcpStream::connect(address).await,
                None => Err(std::io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

/// Bodies have to come fast at once, and are looked at often.
pub(crate) fn in_a_hurry() -> Limits {
    Limits {
        head_deadline: Duration::from_millis(30),
        body_grace: Duration::from_millis(100),
        body_bytes_per_s_min: 1_000_000,
        ..Limits::default()
    }
}

/// An instance; dropped, it dies with all its connections.
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    _task: Task,
}

pub(crate) type Body = Full<Bytes>;

pub(crate) fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
}

impl Instance {
    /// Serves each connection with `serve`.
    pub(crate) async fn raw<F, R>(serve: F) -> Instance
    where
        F: Fn(TcpStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = world::task::spawn("test instance", async move {
            let mut open = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                open.push(world::task::spawn("test connection", serve(stream)));
            }
        });
        Instance { address, _task: task }
    }

    /// Answers each request with `answer`.
    pub(crate) async fn http<F, R>(answer: F) -> Instance
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Instance::raw(move |stream| {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            async move {
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                drop(serving.await);
            }
        })
        .await
    }

    /// Answers every request with `name`.
    pub(crate) async fn named(name: &'static str) -> Instance {
        Instance::http(move |_| async move { Response::new(text(name)) }).await
    }

    /// Never answers; counts how many of its answers are being waited for.
    pub(crate) async fn waiting(waiting: Arc<AtomicUsize>) -> Instance {
        struct Waits(Arc<AtomicUsize>);
        impl Drop for Waits {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        Instance::http(move |_| {
            let waiting = Arc::clone(&waiting);
            async move {
                waiting.fetch_add(1, Ordering::SeqCst);
                let _waits = Waits(waiting);
                std::future::pending::<Response<Body>>().await
            }
        })
        .await
    }

    /// Says back what it got: the request line, the headers sorted, an empty line, the body.
    pub(crate) async fn mirror() -> Instance {
        Instance::http(|request| async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut lines: Vec<String> =
                head.headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
            lines.sort();
            let mut said = format!("{} {}\n{}\n", head.method, head.uri, lines.concat()).into_bytes();
            said.extend_from_slice(&body);
            Response::new(text(said))
        })
        .await
    }
}

/// A gateway with its doors.
pub(crate) struct Bed {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) doors: Arc<Doors>,
    pub(crate) meter: meter::Meter,
    pub(crate) address: SocketAddr,
}

impl Bed {
    /// A gateway whose one routed port sends everything to [`SERVICE`], with these instances.
    pub(crate) async fn new(instances: &[(&str, &Instance)]) -> Bed {
        Bed::with(instances, Limits::default()).await
    }

    pub(crate) async fn with(instances: &[(&str, &Instance)], limits: Limits) -> Bed {
        let ids: Vec<&str> = instances.iter().map(|(id, _)| *id).collect();
        let bed = Bed::start(limits, table(ListenerKind::Routed, Speaks::Detect, &ids)).await;
        bed.open(instances);
        bed
    }

    /// A gateway with one published port.
    pub(crate) async fn published(instances: &[(&str, &Instance)], speaks: Speaks) -> Bed {
        let ids: Vec<&str> = instances.iter().map(|(id, _)| *id).collect();
        let bed = Bed::start(Limits::default(), table(published(), speaks, &ids)).await;
        bed.open(instances);
        bed
    }

    pub(crate) async fn start(limits: Limits, table: Table) -> Bed {
        Bed::start_with(Settings { limits, ..Settings::default() }, table).await
    }

    pub(crate) async fn start_with(settings: Settings, table: Table) -> Bed {
        let doors = Arc::new(Doors::default());
        let meter = meter::Meter::new();
        // As on a machine of two processors; in others, all is served where the test runs.
        let settings = Settings { threads: 2, ..settings };
        let gateway = Gateway::start(settings, Arc::clone(&doors) as Arc<dyn Dialer>, meter.clone());
        let applied = gateway.apply(table).await;
        assert_eq!(applied.failed, []);
        let (_, address) = applied.listening[0];
        Bed { gateway: Arc::new(gateway), doors, meter, address }
    }

    fn open(&self, instances: &[(&str, &Instance)]) {
        for (id, instance) in instances {
            self.doors.set(id, instance.address);
        }
    }

    /// Makes `instances` the ready ones; a `-` before the id says draining.
    pub(crate) async fn serve(&self, instances: &[&str]) {
        let applied = self.gateway.apply(table(ListenerKind::Routed, Speaks::Detect, instances)).await;
        assert_eq!(applied.listening[0].1, self.address);
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Waits until what is counted has come to `expected`: that may be a moment after the answer.
    pub(crate) async fn counts(&self, name: &str, label: &str, expected: f64) {
        until(|| self.counted(name, label) >= expected).await;
        assert_eq!(self.counted(name, label), expected, "{name} {label}");
    }

    /// The sum of a counter's series.
    pub(crate) fn counted(&self, name: &str, label: &str) -> f64 {
        let text = self.meter.encode();
        let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

pub(crate) fn published() -> ListenerKind {
    ListenerKind::Service { service: SERVICE.to_owned(), port: 80, protocol: wire::spec::Protocol::Tcp }
}

pub(crate) fn endpoints(ids: &[&str]) -> Vec<Endpoint> {
    let endpoint = |id: &&str| match id.strip_prefix('-') {
        Some(id) => Endpoint { instance: id.to_owned(), draining: true, ..Endpoint::default() },
        None => Endpoint { instance: (*id).to_owned(), ..Endpoint::default() },
    };
    ids.iter().map(endpoint).collect()
}

pub(crate) fn route(hosts: &[&str], path_prefix: &str, service: &str) -> Route {
    Route {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        path_prefix: path_prefix.to_owned(),
        service: service.to_owned(),
        port: 80,
        ..Route::default()
    }
}

pub(crate) fn listener(kind: ListenerKind, speaks: Speaks) -> Listener {
    Listener { address: "127.0.0.1:0".parse().unwrap(), kind, speaks, tls: false, proxy_protocol: None }
}

pub(crate) fn table(kind: ListenerKind, speaks: Speaks, ids: &[&str]) -> Table {
    Table {
        listeners: vec![listener(kind, speaks)],
        routes: vec![route(&[], "/", SERVICE)],
        services: BTreeMap::from([(SERVICE.to_owned(), endpoints(ids))]),
        ..Table::default()
    }
}

/// A client connection, byte by byte.
pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        Client { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a GET and reads the answer.
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.ask(format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n\r\n")).await
    }

    pub(crate) async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes).await;
        self.answer().await.expect("an answer")
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let read = tokio::time::timeout(HANG, self.stream.read_until(b'\n', &mut line));
        match read.await.expect("an answer before the hang guard") {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
        }
    }

    /// Reads a head; `None` when the connection ended instead.
    pub(crate) async fn head(&mut self) -> Option<Answer> {
        let status_line = self.line().await?;
        assert!(status_line.starts_with("HTTP/1."), "{status_line}");
        let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_owned(), value.to_owned());
        }
        Some(Answer { status, headers, body: Vec::new() })
    }

    /// Reads an answer to a request that was not HEAD; `None` when the connection ended instead.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head().await?;
        if answer.headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            while let Some(chunk) = self.chunk().await? {
                answer.body.extend_from_slice(&chunk);
            }
        } else if let Some(length) = answer.headers.get("content-length") {
            answer.body = self.exactly(length.parse().unwrap()).await?;
        } else if answer.status != 101 && answer.status != 204 && answer.status != 304 {
            answer.body = self.rest().await;
        }
        Some(answer)
    }

    /// One chunk of a chunked body; `Some(None)` for the last.
    pub(crate) async fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let length = usize::from_str_radix(&self.line().await?, 16).unwrap();
        if length == 0 {
            while !self.line().await?.is_empty() {}
            return Some(None);
        }
        let chunk = self.exactly(length).await?;
        self.line().await?;
        Some(Some(chunk))
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = tokio::time::timeout(HANG, self.stream.read_exact(&mut bytes));
        read.await.expect("bytes before the hang guard").ok()?;
        Some(bytes)
    }

    /// Everything until the connection ends, however it ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(HANG, self.stream.read_to_end(&mut bytes));
        drop(read.await.expect("an end before the hang guard"));
        bytes
    }
}

/// Waits until `condition` holds, giving way to everything else in between.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, waiting).await.expect("the condition before the hang guard");
}
