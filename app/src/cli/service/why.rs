//! `service why`.

use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use clap::Args;
use std::process::ExitCode;
use wire::api::{ServiceWhy, SlotWhy};
use wire::resource::Placed;

#[derive(Args)]
pub struct Arguments {
    /// The service, as STACK/SERVICE or by a name only one stack has
    service: String,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let path = super::path(remote, &arguments.service).await?;
    let why: ServiceWhy = remote.get(&format!("{path}/why")).await?;
    if remote.json {
        shown::json(&why);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}/{}", why.stack, why.service);
    shown::table(&["SLOT", "MACHINE", "CHOSEN WITH", "NOW"], why.slots.into_iter().map(row).collect());
    println!("one more instance: {} of {} machines would take it", why.fitting_count, why.machines);
    if !why.fitting.is_empty() {
        println!("  the best: {}", why.fitting.join(", "));
    }
    for refused in why.refused {
        println!("  {} {}", refused.machines, refused.reason);
    }
    Ok(ExitCode::SUCCESS)
}

fn row(slot: SlotWhy) -> Vec<String> {
    let machine = if slot.node.is_empty() { "-".to_owned() } else { slot.node };
    vec![slot.slot.to_string(), machine, slot.placed.as_ref().map_or_else(String::new, chosen), slot.note]
}

/// How the machine stood before it took the instance.
fn chosen(placed: &Placed) -> String {
    let mut told = Vec::new();
    if !placed.moved_from.is_empty() {
        told.push(format!("moved from {}, since {}", placed.moved_from, placed.cause));
    }
    if let Some(in_zone) = placed.spread.last() {
        told.push(format!("{in_zone} of it in the zone"));
    }
    let percent = |per_mille: u32| f64::from(per_mille) / 10.0;
    told.push(format!("{} on the machine", placed.same));
    told.push(format!("{:.0} % used", percent(placed.used_per_mille)));
    told.push(format!("{:.0} % reserved", percent(placed.reserved_per_mille)));
    told.push(format!("{} instances", placed.instances));
    told.join(", ")
}
