//! Our gateway and others as proxies in front of one backend, each a process with a configuration of its own.
//!
//! The others run as their distribution ships them, with what anybody would set for this work: connections to the
//! backend kept and shared, no log of requests, the headers that say who the client is, and the bounds of ours.

use super::alone;
use lab::cores::Cores;
use lab::{http, node, process, program, wait};
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const HAPROXY: &str = "haproxy";
pub(crate) const NGINX: &str = "nginx";

/// A proxy there is, and how it is started.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    command: fn(&Plan<'_>) -> Command,
    /// Prints its version and ends, where it may be missing.
    version: Option<[&'static str; 2]>,
}

/// Ours first.
pub(crate) const KINDS: [Kind; 3] = [
    Kind { name: "bramble", command: ours, version: None },
    Kind { name: HAPROXY, command: haproxy, version: Some([HAPROXY, "-v"]) },
    Kind { name: NGINX, command: nginx, version: Some([NGINX, "-v"]) },
];

/// What a proxy is to do.
struct Plan<'a> {
    folder: &'a Path,
    address: SocketAddr,
    /// The same behind TLS, with HTTP/2 for those who want it.
    secure: SocketAddr,
    /// A file with a certificate and its key.
    certificate: &'a Path,
    backend: SocketAddr,
    threads: usize,
}

/// Where its files are and what it answers.
pub(super) const SMALL: &str = "/small";
pub(super) const LARGE: &str = "/large";
const LARGE_BYTES: usize = 1 << 20;
const SMALL_ANSWER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

const CERTIFICATE: &str = "certificate.pem";

/// Client connections at once, as ours bounds them.
const CONNECTIONS_MAX: usize = 16_384;
/// Connections kept to the backend, as ours does.
const KEPT_MAX: usize = 1_024;
/// A connection carries requests until it is closed from outside.
const REQUESTS_MAX: u32 = 1_000_000_000;
/// From being told to being gone.
const END_DEADLINE: Duration = Duration::from_secs(5);

impl Kind {
    /// Whether it is there; if not, a sentence that says so.
    pub(crate) fn tried(&self) -> Result<(), String> {
        let Some([program, argument]) = self.version else { return Ok(()) };
        match Command::new(program).arg(argument).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!("{}: not measured: it ended with {}", self.name, output.status)),
            Err(error) => Err(format!("{}: not measured: {error}", self.name)),
        }
    }

    /// Starts it on `cores` and waits until it answers for the backend.
    pub(crate) fn start(&self, folder: &Path, backend: SocketAddr, threads: usize, cores: &Cores) -> Server {
        let (address, secure) = (free_address(), free_address());
        let certificate = &folder.join(CERTIFICATE);
        let plan = Plan { folder, address, secure, certificate, backend, threads };
        Server::start(self.name, address, secure, (self.command)(&plan), cores)
    }
}

/// A program that serves at an address. Dropped, it ends.
pub(crate) struct Server {
    name: &'static str,
    pub(crate) address: SocketAddr,
    pub(super) secure: SocketAddr,
    child: Child,
}

impl Server {
    /// Answers with few bytes at [`SMALL`] and many at [`LARGE`].
    pub(super) fn backend(folder: &Path, cores: &Cores) -> Server {
        std::fs::write(folder.join(LARGE.trim_start_matches('/')), vec![b'x'; LARGE_BYTES])
            .expect("a temporary folder takes a file");
        let address = free_address();
        let places = format!(
            "server {{\n listen {address} reuseport;\n root {};\n location = {SMALL} {{ return 200 {SMALL_ANSWER}; }}\n}}",
            folder.display()
        );
        // Nobody asks it by TLS.
        Server::start("backend", address, address, nginx_with(folder, address, cores.count(), &places), cores)
    }

    /// Takes upgrades, and gives back what it gets from then on.
    pub(super) fn echoing(_folder: &Path, cores: &Cores) -> Server {
        let address = free_address();
        let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
        command.args([program::PROGRAM, &address.port().to_string()]);
        Server::start("echoing backend", address, address, command, cores)
    }

    fn start(
        name: &'static str,
        address: SocketAddr,
        secure: SocketAddr,
        mut command: Command,
        cores: &Cores,
    ) -> Server {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = cores.start(&mut command).unwrap_or_else(|error| panic!("{command:?} starts: {error}"));
        let server = Server { name, address, secure, child };
        let answers = || http::get(address, SMALL).ok().filter(|answer| answer.status == 200);
        wait::until(&format!("{name} answers"), 20, answers);
        server
    }

    /// It and what it started.
    fn processes(&self) -> Vec<u32> {
        process::with_children(&[self.child.id()])
    }

    /// Processor time used so far.
    pub(super) fn cpu_seconds(&self) -> f64 {
        self.processes().into_iter().map(process::cpu_ticks).sum::<u64>() as f64 / process::TICKS_PER_SECOND
    }

    pub(crate) fn resident_bytes(&self) -> f64 {
        self.processes().into_iter().map(process::resident_bytes).sum::<u64>() as f64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx's workers are not ours: told to end, it ends them.
        process::signal(self.child.id(), Signal::TERM);
        let deadline = world::clock::monotonic() + END_DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if world::clock::monotonic() > deadline {
                println!("{}: does not end when told to", self.name);
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Writes the certificate all of them show.
pub(crate) fn certify(folder: &Path) {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs (apt-get install openssl)");
    assert!(made.status.success(), "openssl makes a certificate: {}", String::from_utf8_lossy(&made.stderr));
    let read = |path| std::fs::read_to_string(path).expect("openssl wrote it");
    let both = read(&certificate) + &read(&key);
    std::fs::write(&certificate, both).expect("a temporary folder takes a file");
}

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, node::free_port()))
}

fn ours(plan: &Plan<'_>) -> Command {
    alone::command(&[plan.address, plan.secure, plan.backend], plan.certificate, plan.threads)
}

fn haproxy(plan: &Plan<'_>) -> Command {
    let Plan { folder, address, secure, certificate, backend, threads } = plan;
    let certificate = certificate.display();
    let configuration = format!(
        "global
  nbthread {threads}
  maxconn {CONNECTIONS_MAX}
  no strict-limits
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 300s
  timeout http-request 10s
  timeout http-keep-alive 75s
  option forwardfor
  http-reuse always
  unique-id-format %[uuid()]
  unique-id-header X-Request-ID
listen measured
  bind {address} backlog 65535
  bind {secure} backlog 65535 ssl crt {certificate} alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  server one {backend} pool-max-conn {KEPT_MAX}
"
    );
    let path = folder.join("haproxy.conf");
    std::fs::write(&path, configuration).expect("a temporary folder takes a file");
    let mut command = Command::new(HAPROXY);
    command.args(["-db", "-f"]).arg(path);
    command
}

fn nginx(plan: &Plan<'_>) -> Command {
    let Plan { folder, address, secure, certificate, backend, threads } = plan;
    let certificate = certificate.display();
    let places = format!(
        "map $http_upgrade $upgrade {{
  default $http_connection;
  '' '';
}}
upstream measured {{
  server {backend};
  keepalive {KEPT_MAX};
  keepalive_requests {REQUESTS_MAX};
}}
server {{
  listen {address} reuseport backlog=65535;
  listen {secure} reuseport backlog=65535 ssl http2;
  ssl_certificate {certificate};
  ssl_certificate_key {certificate};
  ssl_protocols TLSv1.2 TLSv1.3;
  location / {{
    proxy_pass http://measured;
    proxy_http_version 1.1;
    proxy_max_temp_file_size 0;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $upgrade;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Request-ID $request_id;
  }}
}}"
    );
    nginx_with(folder, *address, *threads, &places)
}

/// nginx with its files in `folder`, whoever runs it.
fn nginx_with(folder: &Path, address: SocketAddr, workers: usize, places: &str) -> Command {
    let place = folder.join(format!("nginx-{}", address.port()));
    std::fs::create_dir(&place).expect("a temporary folder takes another");
    // Its workers would otherwise be a user that may not read the folder.
    let user = if process::is_root() { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", place.display()))
        .concat();
    let configuration = format!(
        "{user}
daemon off;
worker_processes {workers};
error_log stderr error;
pid {}/pid;
events {{ worker_connections {CONNECTIONS_MAX}; }}
http {{
{temporary}access_log off;
sendfile on;
keepalive_timeout 75s;
keepalive_requests {REQUESTS_MAX};
{places}
}}
",
        place.display()
    );
    let path = place.join("conf");
    std::fs::write(&path, configuration).expect("a temporary folder takes a file");
    let mut command = Command::new(NGINX);
    command.args(["-e", "stderr", "-c"]).arg(path);
    command
}
