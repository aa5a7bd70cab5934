//! The command line: noun, then verb; the common ones short. Data on standard output, the rest on standard error.
//!
//! Exit codes: 0 done, 1 failed, 2 used wrongly. `--json` on every command prints what the API answered.

mod cache;
mod certificate;
mod cluster;
mod completion;
mod failure;
mod gateway;
mod image;
mod language;
mod node;
mod remote;
mod route;
mod run;
mod runs;
mod service;
mod shown;
mod stack;
mod upgrade;

use clap::{Args, Parser, Subcommand};
use failure::Failure;
use remote::Remote;
use std::path::PathBuf;
use std::process::ExitCode;

/// Turns the machines you have into a cloud.
#[derive(Parser)]
#[command(name = "bramble", version, arg_required_else_help = true, propagate_version = true)]
pub struct Line {
    #[command(flatten)]
    pub shared: Shared,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args)]
pub struct Shared {
    /// Where the API is [env: BRAMBLE_API] [default: http://127.0.0.1:7700]
    #[arg(long = "server", global = true, value_name = "URL")]
    server: Option<String>,
    /// Print the API's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run this machine's node in the foreground; founds a cluster of one
    Up(Box<UpArgs>),
    /// Make this machine a member of a cluster and run its node in the foreground
    Join(Box<JoinArgs>),
    /// Deploy a stack file (short for `stack deploy`)
    Deploy(stack::deploy::Arguments),
    /// List services (short for `service ls`)
    Ps,
    /// Stacks: services deployed, changed and reverted together
    #[command(subcommand)]
    Stack(stack::Verb),
    /// Services and their instances
    #[command(subcommand)]
    Service(service::Verb),
    /// Show and follow a service's log (short for `service logs`)
    Logs(service::logs::Arguments),
    /// Machines
    #[command(subcommand)]
    Node(node::Verb),
    /// The cluster: letting machines in, its state as a file
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Images
    #[command(subcommand)]
    Image(image::Verb),
    /// Which requests go to which service
    #[command(subcommand)]
    Route(route::Verb),
    /// What came in at the front, and what the gateway does about clients
    #[command(subcommand)]
    Gateway(gateway::Verb),
    /// Answers that the gateway keeps
    #[command(subcommand)]
    Cache(cache::Verb),
    /// Certificates for TLS
    #[command(subcommand)]
    Certificate(certificate::Verb),
    /// Have another binary, or another process of the same, take over from this machine's node; nobody notices
    Upgrade(upgrade::Arguments),
    /// Print a completion script for a shell
    Completion(completion::Arguments),
    /// Run code, as `bramble run main.py`; see `bramble run --help`
    Run(Box<run::Arguments>),
    /// What was run, and what runs
    #[command(subcommand)]
    Runs(runs::Verb),
    /// Languages code can be run in
    #[command(subcommand)]
    Language(language::Verb),
    /// One of the processes in which code is run: how a node starts them
    #[command(hide = true)]
    Worker(WorkerArgs),
}

/// How a node starts a worker, whose socket is standard input.
#[derive(Args)]
pub struct WorkerArgs {
    /// The node's folder, so that it is seen whose worker this is
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    #[arg(long, value_name = "NUMBER")]
    pub number: u32,
    #[arg(long, value_name = "ID")]
    pub node: String,
    #[arg(long, value_name = "BOUNDS", default_value = "", value_parser = ::runs::pressure::Bounds::parse)]
    pub psi: ::runs::pressure::Bounds,
}

/// A name that routes could have.
fn host_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() > 253 || !text.split('.').all(label) {
        return Err("it is no host name, as runs.example.org".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

/// As it was written, once it is known to be understood.
fn bounds(text: &str) -> Result<String, String> {
    ::runs::pressure::Bounds::parse(text).map(|_| text.to_owned())
}

/// How a machine joins.
#[derive(Args)]
pub struct JoinArgs {
    /// What `bramble cluster token` printed on a member
    pub token: String,
    #[command(flatten)]
    pub up: UpArgs,
}

/// How this machine's node runs.
#[derive(Args)]
pub struct UpArgs {
    /// Folder for all data [default: $XDG_DATA_HOME/bramble, as root /var/lib/bramble]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the API and the dashboard listen
    #[arg(long, value_name = "ADDR", default_value = crate::config::API_DEFAULT)]
    pub api: String,
    /// Where requests by host name are served
    #[arg(long, value_name = "ADDR", default_value = crate::config::HTTP_DEFAULT)]
    pub http: String,
    /// Where requests by host name are served with TLS
    #[arg(long, value_name = "ADDR")]
    pub https: Option<String>,
    /// Where other machines of the cluster reach this one; nobody listens there before the first join token
    #[arg(long, value_name = "ADDR", default_value = crate::config::PEERS_DEFAULT)]
    pub peers: String,
    /// Where another machine of the cluster is now, if all have other addresses than before and none is on this link; may be
    /// repeated
    #[arg(long, value_name = "ADDR")]
    pub find: Vec<String>,
    /// Where clients of etcd are served, as 127.0.0.1:2379: whoever reaches it may do everything there, and nothing else;
    /// nobody is unless this is given
    #[arg(long, value_name = "ADDR")]
    pub etcd: Option<String>,
    /// Address or network of a balancer in front that may name its clients (PROXY protocol, X-Forwarded-For); may be repeated
    #[arg(long, value_name = "CIDR")]
    pub trust: Vec<String>,
    #[command(flatten)]
    pub acme: AcmeArgs,
    /// Memory for answers of routes with a cache; 0 for none at all
    #[arg(long, value_name = "SIZE", default_value = crate::config::CACHE_MEMORY_DEFAULT)]
    pub cache_memory: String,
    /// Disk for them, in the data folder; 0, or 64m and more
    #[arg(long, value_name = "SIZE", default_value = crate::config::CACHE_DISK_DEFAULT)]
    pub cache_disk: String,
    /// Take no code to run while something waits for more than so many percent of ten seconds, as
    /// cpu=80,memory=20,io=60; `off` is no bound [default: memory=30]
    #[arg(long, value_name = "BOUNDS", value_parser = bounds)]
    pub runs_psi: Option<String>,
    /// Take code to run at this host name of the gateway as well, with the API's token; nothing else of
    /// the API is served there
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    pub runs_host: Option<String>,
    /// Which requests are logged beside failed and slow ones: off, errors, sampled(0.01), all [default: sampled(0.01)]
    #[arg(long, value_name = "WHICH")]
    pub access_log: Option<String>,
    /// Let alerts fire after so many seconds at most, to try whether they are heard [default: as long as each says]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub alerts_after: Option<u64>,
    /// A file that names cores which are to answer the self-test wrong, for the lab
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "FILE", hide = true)]
    pub selftest_lab: Option<PathBuf>,
    /// A file that says by how many milliseconds this machine's clock is to be wrong, for the lab
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "FILE", hide = true)]
    pub clock_lab: Option<PathBuf>,
    /// A folder with the kernel's files about the machine instead of /proc, for the lab
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "DIR", hide = true)]
    pub proc_lab: Option<PathBuf>,
    /// A label of this machine, for placement constraints; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Where images of a registry are looked for first, as docker.io=http://localhost:5000; may be repeated
    #[arg(long, value_name = "REGISTRY=URL")]
    pub mirror: Vec<String>,
    /// Take over from the running node at standard input: how `bramble upgrade` starts a binary
    #[arg(long, hide = true)]
    pub take_over: bool,
}

/// Certificates from a public authority.
#[derive(Args, Default)]
#[command(next_help_heading = "Certificates from an authority that speaks ACME")]
pub struct AcmeArgs {
    /// Directory of the authority: letsencrypt, letsencrypt-staging or a URL; using it accepts its terms of service
    #[arg(long, value_name = "URL")]
    pub acme: Option<String>,
    /// Whom the authority writes to, as mailto:ops@example.org; may be repeated
    #[arg(long, value_name = "URL", requires = "acme")]
    pub acme_contact: Vec<String>,
    /// How it is proven that a name is ours: http-01, tls-alpn-01 or dns-01 [default: http-01]
    #[arg(long, value_name = "KIND", requires = "acme")]
    pub acme_challenge: Option<String>,
    /// Where dns-01's records are posted to, as {"action":"present","name":"_acme-challenge.…","value":"…"}
    #[arg(long, value_name = "URL", requires = "acme")]
    pub acme_dns_webhook: Option<String>,
    /// PEM file with the roots of a private authority; private names are asked for too then
    #[arg(long, value_name = "FILE", requires = "acme")]
    pub acme_ca: Option<PathBuf>,
    /// Id of the customer's account that the new one is bound to
    #[arg(long, value_name = "ID", requires = "acme_binding_key")]
    pub acme_binding_id: Option<String>,
    /// File with the key of that account, as the authority prints it
    #[arg(long, value_name = "FILE", requires = "acme_binding_id")]
    pub acme_binding_key: Option<PathBuf>,
}

/// Runs one command against the API.
pub fn run(shared: &Shared, command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::local(format!("start the runtime: {error}")).show(shared.json),
    };
    let remote = Remote::new(crate::config::client(shared.server.as_deref(), None), shared.json);
    match runtime.block_on(perform(&remote, command)) {
        Ok(code) => code,
        Err(failure) => failure.show(shared.json),
    }
}

async fn perform(remote: &Remote, command: Command) -> Result<ExitCode, Failure> {
    match command {
        // `main` has taken them before.
        Command::Up(_) | Command::Join(_) | Command::Worker(_) => Ok(ExitCode::from(2)),
        Command::Deploy(arguments) => stack::deploy::run(remote, arguments).await,
        Command::Ps => service::ls::run(remote).await,
        Command::Stack(verb) => stack::run(remote, verb).await,
        Command::Service(verb) => service::run(remote, verb).await,
        Command::Logs(arguments) => service::logs::run(remote, arguments).await,
        Command::Node(verb) => node::run(remote, verb).await,
        Command::Cluster(verb) => cluster::run(remote, verb).await,
        Command::Image(verb) => image::run(remote, verb).await,
        Command::Route(verb) => route::run(remote, verb).await,
        Command::Gateway(verb) => gateway::run(remote, verb).await,
        Command::Cache(verb) => cache::run(remote, verb).await,
        Command::Certificate(verb) => certificate::run(remote, verb).await,
        Command::Upgrade(arguments) => upgrade::run(remote, arguments).await,
        Command::Completion(arguments) => Ok(completion::run(&arguments)),
        Command::Run(arguments) => run::run(remote, *arguments).await,
        Command::Runs(verb) => runs::run(remote, verb).await,
        Command::Language(verb) => language::run(remote, verb).await,
    }
}
