//! `completion`: a script for a shell, made from the commands themselves.

use super::Line;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::process::ExitCode;

#[derive(Args)]
pub struct Arguments {
    /// Which shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    clap_complete::generate(arguments.shell, &mut Line::command(), "bramble", &mut std::io::stdout());
    ExitCode::SUCCESS
}
