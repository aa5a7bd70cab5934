//! `bramble run`: code from files, streamed both ways.

mod line;
mod watch;

pub(crate) use watch::Watch;

use super::failure::Failure;
use super::remote::Remote;
use super::shown;
use base64::Engine;
use clap::Args;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use wire::run::{RunAnswer, RunFile, RunLimits, RunVerdict, RunWanted};

/// As `timeout` and shells have them; the last as sysexits' "try again".
const OUT_OF_TIME: u8 = 124;
const KILLED: u8 = 137;
const NO_ROOM: u8 = 75;

/// Code, and how it is to be run. Its exit code is the program's, or 124 out of time, 137 killed, 75 no room.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  bramble run main.py\n  bramble run main.c util.c util.h --time 2s --memory 64m\n  \
                        echo 5 | bramble run --lang python sum.txt -- --fast\n  bramble run -t snake.py"
)]
pub struct Arguments {
    /// Files; the first is run or compiled
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Language [default: by the first file's name]
    #[arg(long, short, value_name = "LANGUAGE")]
    lang: Option<String>,
    /// A file that is all of the input
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// How long it may run, as 5s, 200ms or 2m; its processor time is bounded by the same
    #[arg(long, value_name = "TIME", value_parser = line::milliseconds)]
    time: Option<u64>,
    /// How much memory it may use, as 64m or 1g
    #[arg(long, value_name = "SIZE", value_parser = line::bytes)]
    memory: Option<u64>,
    /// How many processes and threads it may have
    #[arg(long, value_name = "NUMBER")]
    processes: Option<u64>,
    /// How much it may write, as 10m
    #[arg(long, value_name = "SIZE", value_parser = line::bytes)]
    output: Option<u64>,
    /// Set a variable of its environment; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = line::variable)]
    env: Vec<(String, String)>,
    /// Have it go on by itself; prints its id for `bramble runs attach`
    #[arg(long, short)]
    detach: bool,
    /// Begin it anew elsewhere if its machine is lost
    #[arg(long)]
    repeatable: bool,
    /// Give it a terminal
    #[arg(long, short, conflicts_with = "stdin")]
    terminal: bool,
    /// Keep files that it leaves, in this folder
    #[arg(long, value_name = "DIR")]
    collect: Option<PathBuf>,
    /// Print how long it took and what it used
    #[arg(long, short)]
    verbose: bool,
    /// Arguments of the program
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

pub(crate) async fn run(remote: &Remote, arguments: Arguments) -> Result<ExitCode, Failure> {
    let wanted = wanted(&arguments)?;
    if remote.json {
        if arguments.detach || arguments.terminal {
            return Err(Failure::usage("--json waits for all of the answer: it takes neither --detach nor --terminal"));
        }
        let stdin = Some(wanted.stdin.clone().map_or_else(line::piped, Ok)?);
        let answer: RunAnswer = remote.post_patiently("/v1/runs", &RunWanted { stdin, ..wanted }).await?;
        shown::json(&answer);
        return Ok(exit_code(&answer.ended));
    }
    Watch::begin(remote, wanted, arguments.collect, arguments.verbose).await
}

fn wanted(arguments: &Arguments) -> Result<RunWanted, Failure> {
    let files = arguments.files.iter().map(|path| file(path)).collect::<Result<Vec<_>, _>>()?;
    let stdin = arguments.stdin.as_ref().map(|path| {
        std::fs::read_to_string(path).map_err(|error| Failure::local(format!("read {}: {error}", path.display())))
    });
    Ok(RunWanted {
        language: arguments.lang.clone().unwrap_or_default(),
        files,
        args: arguments.arguments.clone(),
        env: BTreeMap::from_iter(arguments.env.iter().cloned()),
        stdin: stdin.transpose()?,
        limits: RunLimits {
            cpu_ms: arguments.time,
            wall_ms: arguments.time,
            memory_bytes: arguments.memory,
            processes: arguments.processes,
            output_bytes: arguments.output,
            file_bytes: None,
        },
        terminal: arguments.terminal.then(line::terminal_size),
        detach: arguments.detach,
        repeatable: arguments.repeatable,
        collect: arguments.collect.is_some(),
        inputs: Vec::new(),
    })
}

/// A file under the name it has in the box: as it was written, if that leads nowhere else.
fn file(path: &Path) -> Result<RunFile, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::local(format!("read {}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    let below = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let name =
        if below { path.strip_prefix("./").unwrap_or(path).as_os_str() } else { path.file_name().unwrap_or_default() };
    let name = name.to_str().ok_or_else(|| failed(&"its name is no text"))?.to_owned();
    Ok(match String::from_utf8(bytes) {
        Ok(text) => RunFile { name, content: Some(text), content_base64: None },
        Err(error) => {
            let coded = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
            RunFile { name, content: None, content_base64: Some(coded) }
        }
    })
}

/// How this process ends for a run that ended so.
pub(crate) fn exit_code(ended: &wire::run::Ended) -> ExitCode {
    let of_program = || ended.exit_code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    ExitCode::from(match ended.verdict {
        RunVerdict::Finished => 0,
        RunVerdict::WrongExit => of_program(),
        RunVerdict::NotCompiled | RunVerdict::Refused => 1,
        RunVerdict::OutOfTime => OUT_OF_TIME,
        RunVerdict::Lost => NO_ROOM,
        RunVerdict::OutOfMemory | RunVerdict::TooMuchOutput => KILLED,
        RunVerdict::Killed => ended.signal.and_then(|signal| u8::try_from(128 + signal).ok()).unwrap_or(KILLED),
    })
}
