//! Configuration: the only reader of the environment and of settings files, into plain data.

mod acme;

use crate::cli::UpArgs;
pub use acme::Acme;
use base64::Engine;
use images::Credentials;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use wire::spec::AccessLog;

/// Where the API listens and is looked for, unless said otherwise.
pub const API_DEFAULT: &str = "127.0.0.1:7700";
/// Where other machines of the cluster reach this one, once there are others.
pub const PEERS_DEFAULT: &str = "0.0.0.0:7701";
/// Where host names are served unless said otherwise: high, so that it works without root.
pub const HTTP_DEFAULT: &str = "0.0.0.0:7780";

/// Says that the process before has standard input: see [`crate::handover`].
const TAKE_OVER: &str = "--take-over";
/// For the pages and images that most requests are for.
pub const CACHE_MEMORY_DEFAULT: &str = "64m";
/// For the rest of a site, and over a restart.
pub const CACHE_DISK_DEFAULT: &str = "1g";
/// The cache's disk is written in blocks, of which it needs several.
const CACHE_DISK_BYTES_MIN: u64 = 64 << 20;
/// Memory that holds less than one large answer is none.
const CACHE_MEMORY_BYTES_MIN: u64 = 16 << 20;

/// How this node runs.
#[derive(Debug, Clone)]
pub struct Node {
    pub data: PathBuf,
    pub api: SocketAddr,
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
    /// Where other machines of the cluster are listened to.
    pub peers: SocketAddr,
    /// Where other machines may be now, besides where they were.
    pub hinted: Vec<SocketAddr>,
    /// Where clients of etcd are served.
    pub etcd: Option<SocketAddr>,
    /// Addresses and networks of balancers that may name their clients.
    pub trusted: Vec<String>,
    pub acme: Option<Acme>,
    pub cache_memory_bytes: u64,
    pub cache_disk_bytes: u64,
    /// As `runs::pressure::Bounds` reads it.
    pub runs_psi: String,
    /// Where code may be handed in through the gateway.
    pub runs_host: Option<String>,
    /// Which requests are told of, where a route does not say.
    pub access_log: AccessLog,
    /// For how long something is wrong at most before an alert fires.
    pub alerts_after_ms: Option<u64>,
    /// Names cores that are to be wrong, in builds for tests.
    pub selftest_lab: Option<PathBuf>,
    /// Says by how much this machine's clock is to be wrong, in builds for tests.
    pub clock_lab: Option<PathBuf>,
    /// What is read of the machine instead of `/proc`, in builds for tests.
    pub proc_lab: Option<PathBuf>,
    pub labels: BTreeMap<String, String>,
    pub mirrors: BTreeMap<String, String>,
    pub credentials: BTreeMap<String, Credentials>,
}

/// How a command reaches the API.
#[derive(Debug, Clone)]
pub struct Client {
    pub api: String,
    pub token: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--trust {given:?} is not an address or a network such as 10.0.0.0/8")]
    Network { given: String },
    #[error("--access-log {given:?} does not say which requests are logged")]
    AccessLog { given: String },
    #[error("{what} {given:?} is not an address and a port")]
    Address { what: &'static str, given: String },
    #[error("no folder for data: neither --data nor XDG_DATA_HOME nor HOME is set")]
    NoData,
    #[error("{what} {given:?} {wrong}")]
    Acme { what: &'static str, given: String, wrong: String, hint: &'static str },
    #[error("{what} needs {needed}")]
    Needs { what: &'static str, needed: &'static str, hint: &'static str },
    #[error("read {path} for {what}")]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what} {given:?} is not a size, 0 or at least {at_least} MiB")]
    Size { what: &'static str, given: String, at_least: u64 },
    #[error("{what} {given:?} has no `=`")]
    Pair { what: &'static str, given: String },
}

impl ConfigError {
    pub fn hint(&self) -> &'static str {
        match self {
            ConfigError::Address { .. } => "write it as 127.0.0.1:7700, [::1]:7700 or :7700",
            ConfigError::AccessLog { .. } => "write off, errors, sampled(0.01) or all",
            ConfigError::NoData => "name one with --data DIR",
            ConfigError::Pair { .. } => "write it as name=value",
            ConfigError::Acme { hint, .. } | ConfigError::Needs { hint, .. } => hint,
            ConfigError::File { .. } => "name a file that this user may read",
            ConfigError::Size { .. } => "write it as 512m or 2g; 0 is none",
            ConfigError::Network { .. } => "write it as 10.0.0.7, 10.0.0.0/8 or fd00::/8",
        }
    }
}

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the reader of the environment")]
    let value = std::env::var(name);
    value.ok().filter(|value| !value.is_empty())
}

/// The whole environment, for `${NAME}` in stack files.
pub fn variables() -> BTreeMap<String, String> {
    #[expect(clippy::disallowed_methods, reason = "this is the reader of the environment")]
    let all = std::env::vars_os();
    all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Where this program was started from.
pub fn program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// What this process was started with, for the process that takes over from it.
pub fn arguments_to_take_over() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if !arguments.iter().any(|argument| argument == TAKE_OVER) {
        arguments.push(TAKE_OVER.into());
    }
    arguments
}

/// What this process, which has joined with `token`, is to be started with from now on.
pub fn arguments_to_go_on(token: &str) -> Vec<OsString> {
    let rest = std::env::args_os().skip(1).filter(|argument| argument != "join" && argument != token);
    std::iter::once("up".into()).chain(rest).collect()
}

/// The folder of the node that a command is about.
pub fn data_folder(given: Option<&Path>) -> Result<PathBuf, ConfigError> {
    data(given)
}

/// Where other machines reach the one that a command is about.
pub fn peers(given: &str) -> Result<SocketAddr, ConfigError> {
    address("--peers", given)
}

/// What `tracing` shows: `BRAMBLE_LOG` in tracing's own syntax.
pub fn log_filter() -> String {
    variable("BRAMBLE_LOG").unwrap_or_else(|| "info,openraft=warn,openraft::replication=off,foyer=warn".to_owned())
}

pub fn node(args: &UpArgs) -> Result<Node, ConfigError> {
    let pair = |what, given: &String| match given.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(ConfigError::Pair { what, given: given.clone() }),
    };
    let network = |given: &String| match is_network(given) {
        true => Ok(given.clone()),
        false => Err(ConfigError::Network { given: given.clone() }),
    };
    Ok(Node {
        data: data(args.data.as_deref())?,
        api: address("--api", &args.api)?,
        http: address("--http", &args.http)?,
        https: args.https.as_deref().map(|given| address("--https", given)).transpose()?,
        etcd: args.etcd.as_deref().map(|given| address("--etcd", given)).transpose()?,
        peers: address("--peers", &args.peers)?,
        hinted: args.find.iter().map(|given| address("--find", given)).collect::<Result<_, _>>()?,
        access_log: match &args.access_log {
            Some(given) => given.parse().map_err(|_| ConfigError::AccessLog { given: given.clone() })?,
            None => AccessLog::DEFAULT,
        },
        trusted: args.trust.iter().map(network).collect::<Result<_, _>>()?,
        acme: acme::read(&args.acme, args.https.is_some())?,
        cache_memory_bytes: size("--cache-memory", &args.cache_memory, CACHE_MEMORY_BYTES_MIN)?,
        runs_host: args.runs_host.clone(),
        runs_psi: args.runs_psi.clone().unwrap_or_default(),
        cache_disk_bytes: size("--cache-disk", &args.cache_disk, CACHE_DISK_BYTES_MIN)?,
        alerts_after_ms: args.alerts_after.map(|seconds| seconds * 1_000),
        #[cfg(debug_assertions)]
        selftest_lab: args.selftest_lab.clone(),
        #[cfg(not(debug_assertions))]
        selftest_lab: None,
        #[cfg(debug_assertions)]
        clock_lab: args.clock_lab.clone(),
        #[cfg(not(debug_assertions))]
        clock_lab: None,
        #[cfg(debug_assertions)]
        proc_lab: args.proc_lab.clone(),
        #[cfg(not(debug_assertions))]
        proc_lab: None,
        labels: args.label.iter().map(|given| pair("--label", given)).collect::<Result<_, _>>()?,
        mirrors: args.mirror.iter().map(|given| pair("--mirror", given)).collect::<Result<_, _>>()?,
        credentials: credentials(),
    })
}

/// Has this process's clock be wrong by the milliseconds that the lab's file says now, if there is one.
pub fn set_clock(node: &Node) -> Result<(), ConfigError> {
    let Some(path) = &node.clock_lab else { return Ok(()) };
    let failed = |source| ConfigError::File { what: "the lab's clock", path: path.clone(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let wrong_ms = text.trim().parse().map_err(|error| failed(std::io::Error::other(error)))?;
    world::clock::be_wrong_by(wrong_ms);
    Ok(())
}

/// Bytes with a binary unit: `64m`, `1g`.
pub fn size(what: &'static str, given: &str, bytes_min: u64) -> Result<u64, ConfigError> {
    let lower = given.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let bytes = digits.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    let fits = |bytes: &u64| *bytes == 0 || (*bytes >= bytes_min && usize::try_from(*bytes).is_ok());
    let wrong = || ConfigError::Size { what, given: given.to_owned(), at_least: bytes_min >> 20 };
    bytes.filter(fits).ok_or_else(wrong)
}

fn is_network(given: &str) -> bool {
    let (address, bits) = given.split_once('/').unwrap_or((given, "0"));
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

pub fn client(api: Option<&str>, data_dir: Option<&Path>) -> Client {
    let api =
        api.map(str::to_owned).or_else(|| variable("BRAMBLE_API")).unwrap_or_else(|| format!("http://{API_DEFAULT}"));
    let api = if api.contains("://") { api } else { format!("http://{api}") };
    let token = variable("BRAMBLE_TOKEN").or_else(|| {
        // On the machine itself the token is found where `up` put it.
        let token = std::fs::read_to_string(data(data_dir).ok()?.join("token")).ok()?;
        Some(token.trim().to_owned())
    });
    Client { api: api.trim_end_matches('/').to_owned(), token }
}

fn address(what: &'static str, given: &str) -> Result<SocketAddr, ConfigError> {
    let whole =
        if given.starts_with(':') { format!("0.0.0.0{given}") } else { given.replace("localhost:", "127.0.0.1:") };
    whole.parse().map_err(|_| ConfigError::Address { what, given: given.to_owned() })
}

fn data(given: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if let Some(home) = variable("XDG_DATA_HOME") {
        return Ok(Path::new(&home).join("bramble"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/bramble"));
    }
    // XDG's own default when its variable is not set.
    let home = variable("HOME").ok_or(ConfigError::NoData)?;
    Ok(Path::new(&home).join(".local/share/bramble"))
}

/// First id and how many that /etc/subuid and /etc/subgid give this user, where both say the same.
pub fn subordinate_ids() -> Option<(u32, u32)> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    });
    let range = |file: &str| range_of(&std::fs::read_to_string(file).ok()?, name.unwrap_or(&uid), &uid);
    range("/etc/subuid").filter(|given| range("/etc/subgid").as_ref() == Some(given))
}

/// The largest range that a file of subordinate ids gives a user, by name or by number.
fn range_of(file: &str, name: &str, uid: &str) -> Option<(u32, u32)> {
    let ranges = file.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (owner == name || owner == uid).then_some(range)
    });
    ranges.max_by_key(|(_, count)| *count)
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
}

/// What `docker login` or `podman login` left, so that nobody has to say it twice. A broken file is told and left out.
fn credentials() -> BTreeMap<String, Credentials> {
    let home = variable("HOME").unwrap_or_default();
    let docker = variable("DOCKER_CONFIG").unwrap_or_else(|| format!("{home}/.docker"));
    let path = variable("REGISTRY_AUTH_FILE").unwrap_or_else(|| format!("{docker}/config.json"));
    let Ok(text) = std::fs::read_to_string(&path) else { return BTreeMap::new() };
    let parsed: DockerConfig = match serde_json::from_str(&text) {
        Ok(parsed) => parsed,
        Err(error) => {
            tracing::warn!(path, %error, "registry credentials cannot be read");
            return BTreeMap::new();
        }
    };
    let decoded = parsed.auths.into_iter().filter_map(|(registry, auth)| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(auth.auth).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (username, password) = text.split_once(':')?;
        let registry = registry.trim_start_matches("https://").split('/').next().unwrap_or_default();
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        Some((registry.to_owned(), Credentials { username: username.to_owned(), password: password.to_owned() }))
    });
    decoded.collect()
}

#[cfg(test)]
mod tests {
    use super::{range_of, size};

    #[test]
    fn sizes_have_units_and_a_least() {
        let check =
            |given: &str, expected: Option<u64>| assert_eq!(size("--x", given, 1 << 20).ok(), expected, "{given}");
        check("0", Some(0));
        check("64m", Some(64 << 20));
        check("1GiB", Some(1 << 30));
        check("1048576", Some(1 << 20));
        for wrong in ["", "m", "1k", "-1", "1.5g", "99999999999999t", "1x", "ü"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_users_range_is_found_by_name_and_by_number() {
        let check = |file: &str, expected: Option<(u32, u32)>| assert_eq!(range_of(file, "ann", "1000"), expected);
        check("bob:100000:65536\nann:165536:65536\n", Some((165_536, 65_536)));
        check("1000:165536:65536", Some((165_536, 65_536)));
        check("ann:1:10\nann:200000:65536", Some((200_000, 65_536)));
        check("", None);
        check("annabel:100000:65536\nann\nann:x:1\nann:5:-1\n\0", None);
    }
}
