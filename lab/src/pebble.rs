//! Let's Encrypt's own small authority for tests, and the domain name system it looks at: programs of their makers, not
//! ours.
//!
//! Promises that every name leads to this machine, and that validation is as real as elsewhere. Ends with its owner.

use crate::{node, wait};
use pki::Authority;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// How an authority differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where it looks for proofs.
    pub http: u16,
    pub https: u16,
    /// How long its certificates live.
    pub life_s: Option<u64>,
    /// The id and key that accounts have to be bound to.
    pub customer: Option<(String, String)>,
}

/// An authority's place in the world. Dropped, what runs there ends.
pub struct Pebble {
    folder: tempfile::TempDir,
    port: u16,
    management: u16,
    names: u16,
    names_management: u16,
    running: Vec<Child>,
}

impl Pebble {
    /// Whether this machine has the programs; says so when it has not.
    pub fn is_there() -> bool {
        let missing = ["pebble", "pebble-challtestsrv"]
            .iter()
            .find(|name| Command::new(name).arg("-help").stderr(Stdio::null()).stdout(Stdio::null()).status().is_err());
        if let Some(name) = missing {
            eprintln!("skipped: {name} is not installed (Debian's package pebble)");
        }
        missing.is_none()
    }

    /// Takes a place; nothing runs there yet.
    pub fn place() -> Pebble {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let now_s = i64::try_from(world::clock::unix_ms() / 1_000).expect("it is not that late");
        let authority = Authority::create("lab", now_s).expect("an authority");
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = authority.issue(&names, now_s).expect("a certificate");
        let [port, management, names, names_management] = [(); 4].map(|()| node::free_port());
        let pebble = Pebble { folder, port, management, names, names_management, running: Vec::new() };
        let chain: String = certificate.chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
        std::fs::write(pebble.path("server.crt"), chain).expect("a fresh folder takes a file");
        let key = pem("PRIVATE KEY", certificate.key().secret_der());
        std::fs::write(pebble.path("server.key"), key).expect("a fresh folder takes a file");
        std::fs::write(pebble.roots(), authority.certificate_pem()).expect("a fresh folder takes a file");
        pebble
    }

    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// Whom to believe that it is the authority.
    pub fn roots(&self) -> PathBuf {
        self.path("roots.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the authority, and waits until it answers.
    pub fn start(&mut self, settings: &Settings) {
        let life = settings.life_s.map(|life_s| format!("\"certificateValidityPeriod\": {life_s},"));
        let bound = settings.customer.as_ref().map(|(id, key)| {
            format!("\"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {{\"{id}\": \"{key}\"}},")
        });
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{}", "managementListenAddress": "127.0.0.1:{}",
            "certificate": "{}", "privateKey": "{}", {} {} "httpPort": {}, "tlsPort": {}}}}}"#,
            self.port,
            self.management,
            self.path("server.crt").display(),
            self.path("server.key").display(),
            life.unwrap_or_default(),
            bound.unwrap_or_default(),
            settings.http,
            settings.https,
        );
        std::fs::write(self.path("config.json"), config).expect("the folder takes a file");
        self.run(
            Command::new("pebble-challtestsrv")
                .args([
                    "-defaultIPv4",
                    "127.0.0.1",
                    "-defaultIPv6",
                    "",
                    "-http01",
                    "",
                    "-https01",
                    "",
                    "-tlsalpn01",
                    "",
                ])
                .args(["-dns01", &format!("127.0.0.1:{}", self.names)])
                .args(["-management", &format!("127.0.0.1:{}", self.names_management)]),
        );
        self.run(
            Command::new("pebble")
                .arg("-config")
                .arg(self.path("config.json"))
                .args(["-dnsserver", &format!("127.0.0.1:{}", self.names), "-strict"])
                // It need not be slow on purpose; that one in ten answers has to be repeated stays.
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_WFE_NONCEREJECT", "10"),
        );
        for port in [self.names, self.names_management, self.port, self.management] {
            wait::until("the authority listens", 20, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        }
    }

    fn run(&mut self, command: &mut Command) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let errors = log.try_clone().expect("a second handle");
        let started = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.running.push(started.expect("the authority starts"));
    }

    /// The root of what it issues, fresh at every start, in a file.
    pub fn issuing_root(&self) -> PathBuf {
        let (path, url) = (self.path("issuing.pem"), format!("https://127.0.0.1:{}/roots/0", self.management));
        let fetched = Command::new("curl").args(["--silent", "--fail", "--cacert"]).arg(self.roots()).arg(url).output();
        let fetched = fetched.expect("curl runs");
        assert!(fetched.status.success(), "the authority shows its root");
        std::fs::write(&path, fetched.stdout).expect("the folder takes a file");
        path
    }

    /// Where records of the domain name system are set.
    pub fn names(&self) -> std::net::SocketAddr {
        (Ipv4Addr::LOCALHOST, self.names_management).into()
    }

    /// How many orders it took. What asks for one may come more often: one in ten has to be said again.
    pub fn orders(&self) -> usize {
        self.log().matches("Added order").count()
    }

    /// What it and the domain name system said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Ends what runs; the place stays.
    pub fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
