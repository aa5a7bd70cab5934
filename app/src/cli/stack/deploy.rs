//! `stack deploy`: make a file so, and wait until it serves.

use super::{file, plan};
use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, segment};
use crate::cli::shown;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use wire::api::{Changed, Deployed, RevisionSummary, ServiceSummary, StackDetail};

/// In the state of a service whose port the gateway cannot have.
const CLOSED: &str = "cannot listen on";

#[derive(Args)]
pub struct Arguments {
    /// The stack file [default: stack.yml, compose.yaml, docker-compose.yml here]
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The stack's name [default: the name of the file's folder]
    name: Option<String>,
    /// Return as soon as the revision is accepted
    #[arg(long)]
    detach: bool,
    /// Give up waiting after so many seconds; the deploy itself goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

pub(crate) async fn run(remote: &Remote, arguments: Arguments) -> Result<ExitCode, Failure> {
    let loaded = file::load(arguments.file.as_deref())?;
    let name = loaded.name(arguments.name.as_deref());
    let put = remote.put(&format!("/v1/stacks/{}", segment(&name)?), &loaded.body()?).await;
    let deployed: Deployed = put.map_err(|failure| plan::placed(failure, &loaded))?;
    if !remote.json {
        let report = wire::diagnostic::Report { ok: true, errors: Vec::new(), warnings: deployed.warnings.clone() };
        eprint!("{}", stackfile::render(&report, &loaded.path.display().to_string(), &loaded.source));
        plan::print(&deployed.plan.services);
    }
    if !arguments.detach {
        wait(remote, &deployed, Duration::from_secs(arguments.timeout)).await?;
    }
    if remote.json {
        shown::json(&deployed);
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until a revision serves; says what it waits for meanwhile.
pub(crate) async fn wait(remote: &Remote, deployed: &Deployed, deadline: Duration) -> Result<(), Failure> {
    let bar = if remote.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    bar.set_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is right"));
    bar.enable_steady_tick(Duration::from_millis(100));
    let ended = tokio::time::timeout(deadline, settle(remote, deployed, &bar)).await;
    bar.finish_and_clear();
    let detail = ended.map_err(|_| {
        let seconds = deadline.as_secs();
        Failure::local(format!("stack {} does not serve yet after {seconds} s", deployed.stack))
            .hint(format!("it goes on by itself: `bramble stack show {}` says what it waits for", deployed.stack))
    })??;
    if remote.json {
        return Ok(());
    }
    eprintln!("stack {} serves at revision {}", deployed.stack, detail.summary.revision);
    for service in detail.services {
        for endpoint in service.endpoints {
            println!("{}/{}  {endpoint}", service.stack, service.service);
        }
    }
    Ok(())
}

async fn settle(remote: &Remote, deployed: &Deployed, bar: &ProgressBar) -> Result<StackDetail, Failure> {
    let path = format!("/v1/stacks/{}", deployed.stack);
    loop {
        // The watch is opened before the state is read, so that no change falls between the two.
        let mut judged = None;
        let (changed, mut woken) = tokio::sync::mpsc::channel::<()>(1);
        let wake = move |_: Changed| {
            // Full means that it will look anyway.
            let _ = changed.try_send(());
            true
        };
        let watch = remote.lines(Method::GET, "/v1/watch", None::<&()>, wake);
        tokio::pin!(watch);
        while judged.is_none() {
            tokio::select! {
                ended = &mut watch => { ended?; break }
                Some(()) = woken.recv() => {
                    let detail: StackDetail = remote.get(&path).await?;
                    if detail.summary.revision > deployed.revision {
                        return Err(replaced(remote, deployed).await?);
                    }
                    judged = judge(detail, deployed, bar)?;
                }
            }
        }
        if let Some(detail) = judged {
            return Ok(detail);
        }
    }
}

/// Why a newer revision took the place of the deployed one: undone because it failed, or somebody changed the stack.
async fn replaced(remote: &Remote, deployed: &Deployed) -> Result<Failure, Failure> {
    let (stack, number) = (&deployed.stack, deployed.revision);
    let history: Vec<RevisionSummary> = remote.get(&format!("/v1/stacks/{stack}/revisions")).await?;
    let next = history.into_iter().find(|revision| revision.number == number + 1);
    let cause = next.map_or_else(String::new, |revision| revision.cause);
    if let Some((service, reason)) = undone(&cause) {
        return Ok(Failure::local(format!("revision {number} of stack {stack} failed and was undone: {reason}"))
            .hint(format!("what served before serves again; `bramble logs {stack}/{service}` shows what it said")));
    }
    Ok(Failure::local(format!("revision {number} of stack {stack} was replaced meanwhile: {cause}"))
        .hint(format!("`bramble stack history {stack}` shows who came after")))
}

/// The service and the reason in the cause of a revision that undoes another.
fn undone(cause: &str) -> Option<(&str, &str)> {
    let (service, rest) = cause.strip_prefix("rollback of ")?.split_once(" from ")?;
    Some((service, rest.split_once(": ")?.1))
}

/// The detail when it serves, an error when it never will, nothing while it is on its way.
fn judge(detail: StackDetail, deployed: &Deployed, bar: &ProgressBar) -> Result<Option<StackDetail>, Failure> {
    let summary = &detail.summary;
    bar.set_message(format!("{}: {} of {} ready", summary.name, summary.instances_ready, summary.instances_wanted));
    let failed =
        |service: &&ServiceSummary| service.state.starts_with("failed") && service.revision == deployed.revision;
    if let Some(service) = detail.services.iter().find(failed) {
        let message = format!("{}/{} {}", service.stack, service.service, service.state);
        let hint = if service.state.contains(CLOSED) {
            "another program holds the port, or only root may: stop that program, or publish another port".to_owned()
        } else {
            format!("`bramble logs {}/{}` shows what it said", service.stack, service.service)
        };
        return Err(Failure::local(message).hint(hint));
    }
    if let Some(service) = detail.services.iter().find(|service| service.state.contains(": ")) {
        bar.set_message(format!("{}: {}", service.service, service.state));
    }
    // What was accepted may not have arrived in the view yet.
    let arrived = summary.revision == deployed.revision;
    let done = arrived && detail.services.iter().all(|service| service.state == "running");
    Ok(done.then_some(detail))
}
