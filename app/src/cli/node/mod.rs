//! `bramble node …`.

mod considerate;

use super::failure::Failure;
use super::remote::{Remote, segment};
use super::shown;
use clap::{Args, Subcommand};
use reqwest::Method;
use std::process::ExitCode;
use wire::api::{Availability, NodeDetail, NodeWanted};
use wire::resource::{Considerate, CoreFault, Presence};

#[derive(Subcommand)]
pub enum Verb {
    /// List machines
    Ls,
    /// Show a machine: what it is, how busy it is, what it cannot do
    Show(Arguments),
    /// Nothing new comes to a machine; what is there stays
    Cordon(Arguments),
    /// Nothing new comes to a machine, and what is there moves to others
    Drain(Arguments),
    /// A machine whose owner comes first: work gives way when it is busy, and outside its hours
    Considerate(considerate::Arguments),
    /// A machine that was cordoned or drained takes work again
    Activate(Arguments),
    /// Take a machine out of the cluster for good; drained first, or down
    Rm(Removal),
}

#[derive(Args)]
pub struct Removal {
    #[command(flatten)]
    which: Arguments,
    /// Although instances run there: what is on it is cut off
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub struct Arguments {
    /// The machine's id or host name
    node: String,
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => ls(remote).await,
        Verb::Show(arguments) => show(remote, &arguments).await,
        Verb::Cordon(arguments) => change(remote, &arguments, Availability::Cordoned).await,
        Verb::Drain(arguments) => change(remote, &arguments, Availability::Drained).await,
        Verb::Activate(arguments) => change(remote, &arguments, Availability::Active).await,
        Verb::Considerate(arguments) => considerate::run(remote, arguments).await,
        Verb::Rm(Removal { which, force }) => {
            let path = format!("/v1/nodes/{}?force={force}", segment(&which.node)?);
            remote.tell(Method::DELETE, &path).await?;
            eprintln!("{} is no longer of this cluster; with a new data folder it can join again", which.node);
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn change(remote: &Remote, arguments: &Arguments, availability: Availability) -> Result<ExitCode, Failure> {
    remote.put_only(&format!("/v1/nodes/{}", segment(&arguments.node)?), &NodeWanted { availability }).await?;
    let now = match availability {
        Availability::Active => "takes work",
        Availability::Cordoned => "takes nothing new",
        Availability::Drained => "takes nothing new, and what is there moves away: `bramble ps` shows how far it is",
    };
    eprintln!("{} {now}", arguments.node);
    Ok(ExitCode::SUCCESS)
}

async fn ls(remote: &Remote) -> Result<ExitCode, Failure> {
    let nodes: Vec<NodeDetail> = remote.get("/v1/nodes").await?;
    if remote.json {
        shown::json(&nodes);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = nodes.into_iter().map(|one| {
        let (cores, total) = (one.node.cores, shown::size(one.node.memory_bytes));
        // Nothing was heard of it yet, or it is down.
        let is_known = one.load.memory_available_bytes > 0;
        let used = one.node.memory_bytes.saturating_sub(one.load.memory_available_bytes);
        let busy = format!("{:.0}%", one.load.cpu_busy * 100.0);
        let cpu = format!("{} of {cores}", if is_known { busy } else { "-".to_owned() });
        let memory = format!("{} of {total}", if is_known { shown::size(used) } else { "-".to_owned() });
        let (instances, state) = (one.instances.to_string(), state(&one));
        let roles = if one.roles.is_empty() { "-".to_owned() } else { one.roles.join(", ") };
        vec![one.node.id, one.node.hostname, state, roles, instances, cpu, memory, shown::age(one.node.started_ms)]
    });
    shown::table(&["NODE", "HOST", "STATE", "ROLES", "INSTANCES", "CPU", "MEMORY", "UP"], rows.collect());
    Ok(ExitCode::SUCCESS)
}

/// Whether a machine is there, and whether it takes work.
fn state(one: &NodeDetail) -> String {
    match one.presence {
        Presence::Down { since_ms } => format!("down for {}", shown::age(since_ms)),
        Presence::Silent { .. } => "silent".to_owned(),
        Presence::Up if one.node.drained && !one.node.faults.is_empty() => {
            let cores: Vec<String> = one.node.faults.iter().map(|fault| fault.core.to_string()).collect();
            format!("drained: core {} is wrong", cores.join(", "))
        }
        Presence::Up if one.node.drained => "drained".to_owned(),
        Presence::Up if one.node.cordoned => "cordoned".to_owned(),
        Presence::Up if !one.shut.is_empty() => one.shut.clone(),
        Presence::Up => "up".to_owned(),
    }
}

async fn show(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let one: NodeDetail = remote.get(&format!("/v1/nodes/{}", segment(&arguments.node)?)).await?;
    if remote.json {
        shown::json(&one);
        return Ok(ExitCode::SUCCESS);
    }
    let (node, load) = (&one.node, &one.load);
    println!("{}  {}  {}/{}  bramble {}", node.id, node.hostname, node.os, node.arch, node.version);
    println!("cpu     {:.0}% of {} cores busy, load {:.2}", load.cpu_busy * 100.0, node.cores, load.load_1m);
    let used = node.memory_bytes.saturating_sub(load.memory_available_bytes);
    println!("memory  {} of {}", shown::size(used), shown::size(node.memory_bytes));
    println!("disk    {} of {} free", shown::size(load.disk_available_bytes), shown::size(load.disk_total_bytes));
    println!(
        "waiting cpu {:.1}%  memory {:.1}%  io {:.1}%",
        load.psi_cpu * 100.0,
        load.psi_memory * 100.0,
        load.psi_io * 100.0
    );
    let owner_cores = load.owner_cpu_millis as f64 / 1_000.0;
    println!(
        "others  {owner_cores:.1} cores, {} used by programs that are not Bramble's",
        shown::size(load.owner_memory_bytes)
    );
    if let Some(owner) = &node.considerate {
        println!("owner   {}", comes_first(owner));
        for hours in wire::hours::told(&owner.hours) {
            println!("hours   {hours}");
        }
    }
    if !one.shut.is_empty() {
        println!("state   {}: nothing new comes", one.shut);
    }
    for fault in &node.faults {
        let CoreFault { core, test, expected, got, found_ms, elsewhere } = fault;
        let others = if *elsewhere { "; other cores too: is it the memory?" } else { "" };
        println!("wrong   core {core}, {test}: {got} instead of {expected}, {} ago{others}", shown::age(*found_ms));
    }
    for (name, value) in &node.labels {
        println!("label   {name}={value}");
    }
    for role in &one.roles {
        println!("role    {role}");
    }
    for limit in &node.limits {
        println!("limit   {limit}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What a machine's owner asks, in a sentence.
fn comes_first(owner: &Considerate) -> String {
    let Considerate { psi_percent_max, hold_ms, calm_ms, memory_kept_bytes, cpu_kept_millis, .. } = owner;
    let (hold_s, calm_s) = (hold_ms / 1_000, calm_ms / 1_000);
    let mut told = format!(
        "comes first: work leaves when programs wait more than {psi_percent_max}% of the time for {hold_s}s, and comes again \
         after {calm_s}s of calm"
    );
    if *memory_kept_bytes > 0 {
        told.push_str(&format!("; {} kept free", shown::size(*memory_kept_bytes)));
    }
    if *cpu_kept_millis > 0 {
        told.push_str(&format!("; {:.1} cores kept free", *cpu_kept_millis as f64 / 1_000.0));
    }
    told
}
