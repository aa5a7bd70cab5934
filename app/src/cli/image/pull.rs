//! `image pull`, with a progress bar.

use crate::cli::failure::Failure;
use crate::cli::remote::Remote;
use crate::cli::shown;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use std::process::ExitCode;
use wire::api::{Pull, PullProgress};

#[derive(Args)]
pub struct Arguments {
    /// The image
    reference: String,
}

pub(crate) async fn run(remote: &Remote, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let bar = if remote.json { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let template = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is right"));
    let mut last = PullProgress::default();
    let body = Pull { reference: arguments.reference.clone() };
    let each = |progress: PullProgress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
        bar.set_message(format!("{}/{} layers", progress.layers_done, progress.layers));
        last = progress;
        true
    };
    let ended = remote.lines(Method::POST, "/v1/images/pull", Some(&body), each).await;
    bar.finish_and_clear();
    ended?;
    if let Some(problem) = last.problem {
        return Err(problem.into());
    }
    if remote.json {
        shown::json(&last);
    } else {
        println!("{} {}", arguments.reference, last.digest.unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}
