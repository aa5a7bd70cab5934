//! The binary `bramble`: a machine's node (`up`) and the command line that speaks to it.

mod api;
mod boot;
mod certificates;
mod cli;
mod cluster;
mod config;
mod etcds;
mod handover;
mod loads;
mod roles;
mod runners;
mod seen;
mod selftest;
mod serve;
mod state;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let line = cli::Line::parse();
    // Both need it, and TLS without it would panic at the first connection.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: the TLS provider is set already");
        return ExitCode::FAILURE;
    }
    if let cli::Command::Up(args) = &line.command {
        return boot::up(args);
    }
    if let cli::Command::Worker(args) = &line.command {
        return runners::work(args);
    }
    if let cli::Command::Join(args) = &line.command {
        return boot::join(args);
    }
    cli::run(&line.shared, line.command)
}
