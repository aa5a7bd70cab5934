//! `bramble cluster backup`.

use super::super::failure::Failure;
use super::super::remote::Remote;
use super::super::shown;
use clap::Args;
use control::backup::{self, Contents};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{BufReader, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wire::diagnostic::chain;

#[derive(Args)]
pub struct Arguments {
    /// Where to; `-` for standard output
    file: PathBuf,
    /// What the machine that is asked knows, where nobody leads: the last changes may be missing
    #[arg(long)]
    stale: bool,
}

/// A file that is there only when it is whole.
struct Unfinished {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl Unfinished {
    fn beside(path: &Path) -> std::io::Result<Unfinished> {
        let name = path.file_name().ok_or(std::io::ErrorKind::InvalidFilename)?.to_string_lossy().into_owned();
        let path = path.with_file_name(format!(".{name}.{}", world::random::word(8)));
        let file = File::options().write(true).read(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Unfinished { file, path, kept: false })
    }

    /// Gives it its name, for good.
    fn keep(mut self, path: &Path) -> std::io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, path)?;
        self.kept = true;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.kept {
            // Nobody knows its name; there is nothing more to be done about it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

pub(crate) async fn run(remote: &Remote, arguments: Arguments) -> Result<ExitCode, Failure> {
    let path = if arguments.stale { "/v1/cluster/backup?stale=true" } else { "/v1/cluster/backup" };
    if arguments.file.as_os_str() == "-" {
        let mut out = std::io::stdout();
        if out.is_terminal() {
            return Err(Failure::usage("a backup is not for a terminal").hint("name a file, or pass it on with `|`"));
        }
        received(remote, path, &mut out).await?;
        out.flush().map_err(|error| unwritten(&arguments.file, &error))?;
        return Ok(ExitCode::SUCCESS);
    }
    let failed = |error: std::io::Error| unwritten(&arguments.file, &error);
    let mut unfinished = Unfinished::beside(&arguments.file).map_err(failed)?;
    received(remote, path, &mut unfinished.file).await?;
    // What has come is what was sent: read again, as a restore will.
    let written = File::open(&unfinished.path).map_err(failed)?;
    let contents = backup::check(BufReader::new(written)).map_err(|error| unusable(&arguments.file, &error))?;
    unfinished.keep(&arguments.file).map_err(failed)?;
    if remote.json {
        shown::json(&contents);
        return Ok(ExitCode::SUCCESS);
    }
    tell(&arguments.file, &contents);
    eprintln!(
        "It has the key of the cluster's authority and every secret in clear: keep it as you would a password. Volumes, \n\
         images and logs are not in it."
    );
    Ok(ExitCode::SUCCESS)
}

async fn received(remote: &Remote, path: &str, out: &mut impl Write) -> Result<(), Failure> {
    let bar = if remote.json { ProgressBar::hidden() } else { ProgressBar::no_length() };
    bar.set_style(ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}").expect("the template is right"));
    let ended = remote
        .bytes(path, |piece| {
            bar.inc(piece.len() as u64);
            out.write_all(piece)
        })
        .await;
    bar.finish_and_clear();
    ended
}

/// What is in a backup, in a few lines.
pub(super) fn tell(file: &Path, contents: &Contents) {
    let head = &contents.head;
    let cluster = if head.cluster.is_empty() { "no cluster" } else { head.cluster.as_str() };
    println!("{}  {}, whole", file.display(), shown::size(contents.size_bytes));
    println!("cluster   {cluster}");
    println!(
        "taken     {}, by {} ({}), bramble {}",
        shown::time(head.taken_ms),
        head.machine,
        head.hostname,
        head.program
    );
    println!("revision  {}, {} keys", head.revision, head.keys);
    println!("stacks    {}", listed(&contents.stacks));
    println!("machines  {}", listed(&contents.machines));
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

pub(super) fn unusable(file: &Path, error: &backup::BackupError) -> Failure {
    Failure::local(format!("{}: {}", file.display(), chain(error))).code("B0802").hint(error.hint())
}

fn unwritten(file: &Path, error: &std::io::Error) -> Failure {
    Failure::local(format!("write the backup to {}: {error}", file.display()))
        .code("B0804")
        .hint("name a file in a folder where this user may write and there is room")
}
