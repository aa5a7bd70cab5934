//! Whether an instance can take requests: its health check, or, without one, whether it listens.
//!
//! A service that declares no check but serves a port is ready when something listens on it, so that nobody meets
//! "connection refused" during a deploy.

use crate::blueprint;
use crate::shared::Shared;
use images::Image;
use sandbox::{Command, Shim, SocketKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use wire::resource::{Health, Instance};
use wire::spec::{Expose, HealthTest, Healthcheck, Protocol};

/// A service without a check that listens on none of its ports after this long is taken as it is.
const LISTEN_MAX: Duration = Duration::from_secs(10);
/// Looking for a listener starts this often and slows down to the second figure.
const LISTEN_PAUSE_MIN: Duration = Duration::from_millis(3);
const LISTEN_PAUSE_MAX: Duration = Duration::from_millis(100);
/// The first check comes early, so that a quick service is not held back by a slow interval.
const FIRST_CHECK: Duration = Duration::from_millis(50);
/// Checks of a starting service never come more often than this.
const START_INTERVAL_MIN_MS: u64 = 50;
/// Of an answer to an HTTP check, the status line is all that matters.
const ANSWER_BYTES_MAX: usize = 512;
/// What an image's check leaves open is as Docker has it, for which such images are made.
const IMAGE_INTERVAL_MS: u64 = 30_000;
const IMAGE_TIMEOUT_MS: u64 = 30_000;
const IMAGE_RETRIES: u32 = 3;
const IMAGE_START_INTERVAL_MS: u64 = 5_000;

/// How an instance's readiness is found out.
pub(crate) struct Check {
    declared: Option<Healthcheck>,
    /// One of these is listened on when it is ready.
    ports: Vec<u16>,
    /// The instance's own program: its environment, folder and user are the check's too.
    program: Command,
}

pub(crate) struct Verdict {
    pub(crate) ready: bool,
    pub(crate) health: Health,
    pub(crate) message: String,
}

impl Check {
    pub(crate) fn of(instance: &Instance, image: Option<&Image>, image_ports: &[Expose]) -> Check {
        let service = &instance.spec;
        let of_image = image.and_then(|image| image.config.healthcheck.as_ref()).map(from_image);
        let wanted = service.healthcheck.clone().or(of_image);
        let declared = wanted.filter(|check| check.test != HealthTest::None);
        let mut ports: Vec<u16> =
            service.ports.iter().filter(|p| p.protocol == Protocol::Tcp).map(|p| p.target).collect();
        ports.extend(service.routes.iter().map(|route| route.port));
        ports.extend(service.expose.iter().filter(|p| p.protocol == Protocol::Tcp).map(|p| p.port));
        if ports.is_empty() {
            ports.extend(image_ports.iter().filter(|p| p.protocol == Protocol::Tcp).map(|p| p.port));
        }
        // An instance whose program cannot be named does not run and is not checked.
        let program = blueprint::program(instance, image).unwrap_or_default();
        Check { declared, ports, program }
    }

    pub(crate) fn is_declared(&self) -> bool {
        self.declared.is_some()
    }
}

fn from_image(check: &images::Healthcheck) -> Healthcheck {
    let test = match check.test.first().map(String::as_str) {
        Some("CMD") => HealthTest::Command(check.test[1..].to_vec()),
        Some("CMD-SHELL") => HealthTest::Shell(check.test[1..].join(" ")),
        Some(_) | None => HealthTest::None,
    };
    let or = |given: u64, otherwise: u64| if given == 0 { otherwise } else { given };
    Healthcheck {
        test,
        interval_ms: or(check.interval_ms, IMAGE_INTERVAL_MS),
        timeout_ms: or(check.timeout_ms, IMAGE_TIMEOUT_MS),
        retries: if check.retries == 0 { IMAGE_RETRIES } else { check.retries },
        start_period_ms: check.start_period_ms,
        start_interval_ms: IMAGE_START_INTERVAL_MS,
    }
}

/// Looks until the box ends (its owner drops this) or nobody listens to the verdicts.
pub(crate) async fn watch(
    shared: Arc<Shared>,
    shim: Arc<Shim>,
    check: Check,
    started_ms: u64,
    verdicts: mpsc::Sender<Verdict>,
) {
    match check.declared.clone() {
        Some(declared) => ask(&shared, &shim, &check, &declared, started_ms, &verdicts).await,
        None => listen(&shim, &check.ports, &verdicts).await,
    }
}

/// Waits until one of the ports is listened on.
async fn listen(shim: &Shim, ports: &[u16], verdicts: &mpsc::Sender<Verdict>) {
    let began = world::clock::monotonic();
    let mut pause = LISTEN_PAUSE_MIN;
    let mut message = String::new();
    while !ports.is_empty() {
        let listening = shim.listening().await.unwrap_or_default();
        if ports.iter().any(|port| listening.contains(port)) {
            break;
        }
        if began.elapsed() > LISTEN_MAX {
            message = format!("listens on {listening:?}, not on {ports:?}");
            break;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LISTEN_PAUSE_MAX);
    }
    let _ = verdicts.send(Verdict { ready: true, health: Health::None, message }).await;
}

/// Asks the declared check for as long as the box lives.
async fn ask(
    shared: &Shared,
    shim: &Shim,
    check: &Check,
    declared: &Healthcheck,
    started_ms: u64,
    verdicts: &mpsc::Sender<Verdict>,
) {
    let mut health = Health::Starting;
    let mut failures = 0;
    let mut pause = FIRST_CHECK;
    loop {
        tokio::time::sleep(pause).await;
        let timeout = Duration::from_millis(declared.timeout_ms);
        let answer = match tokio::time::timeout(timeout, once(shim, check, &declared.test, timeout)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", declared.timeout_ms)),
        };
        let age_ms = world::clock::unix_ms().saturating_sub(started_ms);
        let starting = health == Health::Starting && age_ms < declared.start_period_ms;
        let interval_ms = if starting {
            declared.start_interval_ms.clamp(START_INTERVAL_MIN_MS, declared.interval_ms.max(START_INTERVAL_MIN_MS))
        } else {
            declared.interval_ms
        };
        let before = health;
        let mut message = String::new();
        match answer {
            Ok(()) => {
                failures = 0;
                health = Health::Healthy;
            }
            Err(reason) => {
                failures += u32::from(!starting);
                if failures >= declared.retries.max(1) {
                    health = Health::Unhealthy;
                }
                message = reason;
            }
        }
        // While it starts, quick and cheap looks find the moment it is up; afterwards the declared interval holds.
        pause = if health == Health::Starting && failures == 0 {
            (pause * 2).min(Duration::from_millis(interval_ms))
        } else {
            Duration::from_millis(interval_ms)
        };
        if health != before || (health == Health::Starting && !message.is_empty()) {
            if health == Health::Unhealthy {
                shared.meter.counter("bramble_health_failures_total", "Instances that became unhealthy.", &[]).inc();
            }
            let verdict = Verdict { ready: health == Health::Healthy, health, message };
            if verdicts.send(verdict).await.is_err() {
                return;
            }
        }
    }
}

/// One look. The reason is a sentence for people.
async fn once(shim: &Shim, check: &Check, test: &HealthTest, timeout: Duration) -> Result<(), String> {
    match test {
        HealthTest::None => Ok(()),
        HealthTest::Command(argv) => run(shim, check, argv.clone(), timeout).await,
        HealthTest::Shell(line) => {
            let argv = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
            run(shim, check, argv, timeout).await
        }
        HealthTest::Tcp { port } => connect(shim, *port).await.map(drop),
        HealthTest::Http { port, path } => get(shim, *port, path).await,
    }
}

async fn run(shim: &Shim, check: &Check, argv: Vec<String>, timeout: Duration) -> Result<(), String> {
    let command = Command { argv, tty: false, ..check.program.clone() };
    let result = shim.exec(command, timeout).await.map_err(|error| wire::diagnostic::chain(&error))?;
    let said = String::from_utf8_lossy(&result.output);
    let said = said.trim();
    if result.timed_out {
        return Err(format!("the check took longer than {} ms: {said}", timeout.as_millis()));
    }
    if result.code == 0 { Ok(()) } else { Err(format!("the check exited with {}: {said}", result.code)) }
}

async fn connect(shim: &Shim, port: u16) -> Result<tokio::net::TcpStream, String> {
    let failed = |error: std::io::Error| format!("port {port}: {error}");
    let socket = shim.socket(SocketKind::Tcp4).await.map_err(failed)?;
    let socket = tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await.map_err(failed)
}

async fn get(shim: &Shim, port: u16, path: &str) -> Result<(), String> {
    let mut stream = connect(shim, port).await?;
    let failed = |error: std::io::Error| format!("port {port}: {error}");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bramble-health\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES_MAX);
    while answer.len() < ANSWER_BYTES_MAX && !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await.map_err(failed)? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default();
    let code = line.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(200..=399) => Ok(()),
        Some(_) | None => Err(format!("GET {path} on port {port} answered {line:?}")),
    }
}
