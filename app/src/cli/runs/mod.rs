//! `bramble runs …`.

use super::failure::Failure;
use super::remote::{Remote, segment};
use super::run::Watch;
use super::shown;
use clap::Subcommand;
use std::process::ExitCode;
use wire::run::{Attach, RunRecord, Times};

#[derive(Subcommand)]
pub enum Verb {
    /// List runs: those that run, then the last ones
    Ls {
        /// How many to list
        #[arg(long, value_name = "NUMBER", default_value_t = 20)]
        limit: usize,
    },
    /// Show what became of a run, and where its time went
    Show {
        /// As `bramble runs ls` lists it
        id: String,
    },
    /// Watch a run that goes on, and send it input; leaving it does not end one that was detached
    Attach {
        /// As `bramble runs ls` lists it
        id: String,
    },
    /// End a run
    Kill {
        /// As `bramble runs ls` lists it
        id: String,
    },
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls { limit } => list(remote, limit).await?,
        Verb::Show { id } => show(remote, &id).await?,
        Verb::Attach { id } => return Watch::attach(remote, Attach { id, after: 0 }).await,
        Verb::Kill { id } => remote.tell(reqwest::Method::DELETE, &format!("/v1/runs/{}", segment(&id)?)).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(remote: &Remote, limit: usize) -> Result<(), Failure> {
    let runs: Vec<RunRecord> = remote.get(&format!("/v1/runs?limit={limit}")).await?;
    if remote.json {
        shown::json(&runs);
        return Ok(());
    }
    let rows = runs.into_iter().map(|run| {
        let verdict = run.verdict.map_or("runs", |verdict| verdict.as_str()).to_owned();
        let time = millis(run.times.run_usec);
        let memory = shown::size(run.memory_peak_bytes);
        let at = format!("{}/{}", run.node, run.worker);
        vec![run.id, run.language, verdict, at, shown::age(run.began_ms), time, memory]
    });
    shown::table(&["RUN", "LANGUAGE", "VERDICT", "WORKER", "AGE", "TIME", "MEMORY"], rows.collect());
    Ok(())
}

async fn show(remote: &Remote, id: &str) -> Result<(), Failure> {
    let run: RunRecord = remote.get(&format!("/v1/runs/{}", segment(id)?)).await?;
    if remote.json {
        shown::json(&run);
        return Ok(());
    }
    println!("run       {}", run.id);
    println!("language  {}", run.language);
    println!("code      sha256:{}", run.code_sha256);
    println!("by        {}", run.who);
    println!("trace     {}", run.trace);
    println!("worker    {} of machine {}", run.worker, run.node);
    println!("began     {} ago", shown::age(run.began_ms));
    println!("verdict   {}", run.verdict.map_or("it runs", |verdict| verdict.as_str()));
    if let Some(code) = run.exit_code {
        println!("exit code {code}");
    }
    if let Some(signal) = run.signal {
        println!("signal    {signal}");
    }
    println!("processor {}", millis(run.cpu_usec));
    println!("memory    {}", shown::size(run.memory_peak_bytes));
    println!("output    {}", shown::size(run.output_bytes));
    let Times { queue_usec, place_usec, box_usec, compile_usec, run_usec } = run.times;
    println!();
    let spans = [
        ("waited", queue_usec),
        ("placed", place_usec),
        ("box", box_usec),
        ("compiled", compile_usec),
        ("ran", run_usec),
    ];
    shown::table(&["SPAN", "TIME"], spans.map(|(name, usec)| vec![name.to_owned(), millis(usec)]).to_vec());
    Ok(())
}

pub(crate) fn millis(usec: u64) -> String {
    if usec < 1_000_000 { format!("{:.1} ms", usec as f64 / 1e3) } else { format!("{:.2} s", usec as f64 / 1e6) }
}
