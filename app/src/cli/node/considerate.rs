//! `bramble node considerate`.

use super::super::failure::Failure;
use super::super::remote::{Remote, segment};
use clap::Args;
use reqwest::Method;
use std::process::ExitCode;
use wire::api::ConsiderateWanted;

/// Of `--hours`: none in particular.
const ALWAYS: &str = "always";
const MINUTE_S: u64 = 60;

#[derive(Args)]
pub struct Arguments {
    /// The machine's id or host name
    node: String,
    /// Work moves away when something waits for the processor, memory or the disk more than so much of the time [default: 20]
    #[arg(long, value_name = "PERCENT")]
    psi: Option<u32>,
    /// Memory that is kept free besides what the owner uses, as 2g [default: 0]
    #[arg(long, value_name = "SIZE")]
    keep_memory: Option<String>,
    /// Cores that are kept free besides what the owner uses, as 1 or 0.5 [default: 0]
    #[arg(long, value_name = "CORES", value_parser = cores)]
    keep_cpu: Option<u64>,
    /// When work may be there, as 'mon-fri 18:00-08:00' or 'sat,sun', by the machine's own clock; may be repeated [default: always]
    #[arg(long, value_name = "HOURS")]
    hours: Vec<String>,
    /// Work moves away this long before the hours end [default: 10]
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(0..=1_440))]
    leave: Option<u64>,
    /// It has to wait too much for this long before work moves away [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    hold: Option<u64>,
    /// It has to wait half as much for this long before work comes again [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    calm: Option<u64>,
    /// Nobody comes first there any more
    #[arg(long, conflicts_with_all = ["psi", "keep_memory", "keep_cpu", "hours", "leave", "hold", "calm"])]
    off: bool,
}

/// In thousandths.
fn cores(text: &str) -> Result<u64, String> {
    let cores: Option<f64> = text.parse().ok().filter(|cores| (0.0..=65_536.0).contains(cores));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded a line above")]
    cores.map(|cores| (cores * 1_000.0).round() as u64).ok_or_else(|| "a number of cores, as 1 or 0.5".to_owned())
}

pub(crate) async fn run(remote: &Remote, arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { node, psi, keep_memory, keep_cpu, hours, leave, hold, calm, off } = arguments;
    let path = format!("/v1/nodes/{}/considerate", segment(&node)?);
    if off {
        remote.tell(Method::DELETE, &path).await?;
        eprintln!("nobody comes first on {node} any more");
        return Ok(ExitCode::SUCCESS);
    }
    let kept = keep_memory.as_deref().map(|given| crate::config::size("--keep-memory", given, 0)).transpose();
    let memory_kept_bytes = kept.map_err(|error| Failure::usage(error.to_string()).hint(error.hint()))?;
    let is_always = hours.len() == 1 && hours.iter().all(|hours| hours.trim().eq_ignore_ascii_case(ALWAYS));
    let wanted = ConsiderateWanted {
        psi_percent_max: psi,
        hold_ms: hold.map(|seconds| seconds * 1_000),
        calm_ms: calm.map(|seconds| seconds * 1_000),
        leave_ms: leave.map(|minutes| minutes * MINUTE_S * 1_000),
        memory_kept_bytes,
        cpu_kept_millis: keep_cpu,
        hours: if is_always { Some(Vec::new()) } else { Some(hours).filter(|hours| !hours.is_empty()) },
    };
    remote.put_only(&path, &wanted).await?;
    eprintln!("the owner of {node} comes first: `bramble node show {node}` says how");
    Ok(ExitCode::SUCCESS)
}
