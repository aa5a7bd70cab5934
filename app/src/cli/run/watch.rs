//! Watching a run over its stream: input from here, output to here, and coming back to it when the line breaks.

use super::line::{Raw, terminal_size};
use super::{NO_ROOM, exit_code};
use crate::cli::failure::Failure;
use crate::cli::remote::{Remote, Stream};
use crate::cli::runs::millis;
use crate::cli::shown;
use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use std::collections::VecDeque;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use wire::run::{Asked, Attach, Block, Channel, Ended, INPUT_WINDOW_BYTES, Phase, RunFile, RunWanted, Told};

const PATH: &str = "/v1/runs/stream";
/// How long a node that is replaced, or another one, has to be there again.
const RETURN_PATIENCE: Duration = Duration::from_secs(15);
const RETURN_PAUSE: Duration = Duration::from_millis(200);
/// Whoever is told that nobody listens any more closes at once.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);
/// One read of the input.
const INPUT_BYTES: usize = 16 << 10;
/// Read ahead of what is sent.
const READS_AHEAD: usize = 4;
/// Acknowledged after so much, well before the worker waits for it.
const ACKNOWLEDGE_BYTES: usize = 64 << 10;
/// As shells tell of SIGPIPE.
const BROKEN_PIPE: u8 = 141;
/// Heard before anything else is looked after, if so much is there.
const MESSAGES_AT_ONCE: usize = 64;

/// One run as it is watched.
pub(crate) struct Watch<'a> {
    remote: &'a Remote,
    id: String,
    detached: bool,
    collect: Option<PathBuf>,
    verbose: bool,
    /// The last block that arrived.
    arrived: u64,
    unacknowledged_bytes: usize,
    /// Of standard output, what is not shown yet.
    written: Vec<u8>,
    /// Blocks of input that were not taken yet, to be sent again after a break.
    sent: VecDeque<(u64, Bytes)>,
    sent_bytes: usize,
    next_input: u64,
    interrupts: u32,
    said_waiting: bool,
}

/// What one connection came to.
enum Came {
    Ended(Box<Ended>),
    Detached,
    Broken(String),
    /// The output can be shown to nobody.
    Unheard(std::io::Error),
    Refused(Failure),
}

impl<'a> Watch<'a> {
    pub(crate) async fn begin(
        remote: &'a Remote,
        wanted: RunWanted,
        collect: Option<PathBuf>,
        verbose: bool,
    ) -> Result<ExitCode, Failure> {
        let has_input = wanted.stdin.is_none() && !wanted.detach;
        let on_terminal = wanted.terminal.is_some();
        let mut watch = Watch::new(remote, wanted.detach);
        (watch.collect, watch.verbose) = (collect, verbose);
        watch.follow(Asked::Run(Box::new(wanted)), has_input, on_terminal).await
    }

    pub(crate) async fn attach(remote: &'a Remote, attach: Attach) -> Result<ExitCode, Failure> {
        let mut watch = Watch::new(remote, false);
        watch.id.clone_from(&attach.id);
        watch.follow(Asked::Attach(attach), true, false).await
    }

    fn new(remote: &'a Remote, detached: bool) -> Watch<'a> {
        Watch {
            remote,
            id: String::new(),
            detached,
            collect: None,
            verbose: false,
            arrived: 0,
            unacknowledged_bytes: 0,
            written: Vec::new(),
            sent: VecDeque::new(),
            sent_bytes: 0,
            next_input: 1,
            interrupts: 0,
            said_waiting: false,
        }
    }

    async fn follow(&mut self, first: Asked, has_input: bool, on_terminal: bool) -> Result<ExitCode, Failure> {
        let raw = (on_terminal && std::io::stdin().is_terminal()).then(Raw::enter);
        let mut input = has_input.then(read_input);
        let failed = |error: std::io::Error| Failure::local(format!("listen for signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
        let mut opening = first;
        let mut broken_since = None;
        loop {
            let came = match self.remote.stream(PATH).await {
                Ok(mut stream) => self.watch(&mut stream, &opening, &mut input, (&mut interrupt, &mut resized)).await,
                Err(failure) if self.id.is_empty() => return Err(failure),
                Err(failure) => Came::Broken(failure.problem().message.clone()),
            };
            match came {
                Came::Ended(ended) => {
                    drop(raw);
                    return self.finish(&ended);
                }
                Came::Detached => {
                    println!("{}", self.id);
                    return Ok(ExitCode::SUCCESS);
                }
                Came::Refused(failure) => {
                    drop(raw);
                    let no_room = failure.problem().code == "B0902";
                    return if no_room { Ok(shown_with(&failure, self.remote.json)) } else { Err(failure) };
                }
                // Whoever read it has had enough, as in `| head`.
                Came::Unheard(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    return Ok(ExitCode::from(BROKEN_PIPE));
                }
                Came::Unheard(error) => return Err(Failure::local(format!("write the output: {error}"))),
                Came::Broken(why) => {
                    let now = world::clock::monotonic();
                    if self.id.is_empty() || now.duration_since(*broken_since.get_or_insert(now)) > RETURN_PATIENCE {
                        return Err(Failure::local(format!("the line to the run broke: {why}"))
                            .hint("`bramble runs ls` shows what became of it"));
                    }
                    tokio::time::sleep(RETURN_PAUSE).await;
                    opening = Asked::Attach(Attach { id: self.id.clone(), after: self.arrived });
                }
            }
        }
    }

    /// One connection, to its end.
    async fn watch(
        &mut self,
        stream: &mut Stream,
        opening: &Asked,
        input: &mut Option<mpsc::Receiver<Vec<u8>>>,
        (interrupt, resized): (&mut Signal, &mut Signal),
    ) -> Came {
        if let Err(why) = say(stream, opening).await {
            return Came::Broken(why);
        }
        let mut accepted = false;
        loop {
            let wants_input = accepted && self.sent_bytes < INPUT_WINDOW_BYTES / 2;
            let read = async {
                match input {
                    Some(input) => input.recv().await,
                    None => std::future::pending().await,
                }
            };
            let said = tokio::select! {
                message = stream.next() => match self.hear_some(message, stream, &mut accepted).await {
                    Ok(None) => Ok(()),
                    Ok(Some(came)) => return came,
                    Err(why) => Err(why),
                },
                bytes = read, if wants_input => {
                    if bytes.is_none() {
                        *input = None;
                    }
                    self.feed(stream, bytes.unwrap_or_default()).await
                }
                _ = interrupt.recv() => {
                    self.interrupts += 1;
                    // Who presses it again means it.
                    let name = if self.interrupts > 1 { "KILL" } else { "INT" };
                    say(stream, &Asked::Signal(name.to_owned())).await
                }
                _ = resized.recv() => say(stream, &Asked::Resize(terminal_size())).await,
            };
            if let Err(why) = said {
                return Came::Broken(why);
            }
        }
    }

    /// Sends input, and keeps it until the program has it.
    async fn feed(&mut self, stream: &mut Stream, bytes: Vec<u8>) -> Result<(), String> {
        let block = Bytes::from([&Block::head(self.next_input, Channel::Stdin)[..], &bytes].concat());
        self.sent.push_back((self.next_input, block.clone()));
        self.sent_bytes += bytes.len();
        self.next_input += 1;
        stream.send(Message::Binary(block)).await.map_err(|error| error.to_string())
    }

    /// What came, and what else is there already: what was written is shown in one go.
    async fn hear_some(
        &mut self,
        first: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
        stream: &mut Stream,
        accepted: &mut bool,
    ) -> Result<Option<Came>, String> {
        let (mut message, mut heard) = (first, 0);
        let came = loop {
            let came = match message {
                Some(Ok(message)) => self.hear(message, stream, accepted).await,
                Some(Err(error)) => Err(error.to_string()),
                None => Err("it was closed".to_owned()),
            };
            heard += 1;
            if !matches!(came, Ok(None)) || heard == MESSAGES_AT_ONCE {
                break came;
            }
            match stream.next().now_or_never() {
                Some(next) => message = next,
                None => break came,
            }
        };
        let came = self.show_written().map_or_else(|error| Ok(Some(Came::Unheard(error))), |()| came);
        if matches!(came, Ok(Some(Came::Unheard(_)))) {
            // That nobody comes back: it is killed, unless it may go on alone. Heard to the end: closed with output unread, the
            // connection would be reset, and with it what was said last.
            let _ = stream.close(None).await;
            let rest = async { while stream.next().await.is_some_and(|message| message.is_ok()) {} };
            let _ = tokio::time::timeout(LEAVE_DEADLINE, rest).await;
        }
        came
    }

    async fn hear(
        &mut self,
        message: Message,
        stream: &mut Stream,
        accepted: &mut bool,
    ) -> Result<Option<Came>, String> {
        match message {
            Message::Binary(bytes) => {
                let block = Block::parse(&bytes).ok_or("a block that is none")?;
                if block.sequence <= self.arrived {
                    return Ok(None);
                }
                if let Err(error) = self.show(block) {
                    return Ok(Some(Came::Unheard(error)));
                }
                self.arrived = block.sequence;
                self.unacknowledged_bytes += bytes.len();
                if self.unacknowledged_bytes >= ACKNOWLEDGE_BYTES {
                    self.unacknowledged_bytes = 0;
                    say(stream, &Asked::Ack(self.arrived)).await?;
                }
                Ok(None)
            }
            Message::Text(text) => {
                let told: Told = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                self.told(told, stream, accepted).await
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
            Message::Close(_) => Err("it was closed".to_owned()),
        }
    }

    async fn told(&mut self, told: Told, stream: &mut Stream, accepted: &mut bool) -> Result<Option<Came>, String> {
        match told {
            Told::Queued(queued) => {
                eprintln!("waiting: {} before this one", queued.before);
                self.said_waiting = true;
            }
            Told::Preparing(what) => eprintln!("{what}"),
            Told::Accepted(taken) => {
                *accepted = true;
                if self.id.is_empty() || self.sent.is_empty() {
                    self.next_input = self.next_input.max(taken.next_input);
                }
                self.id = taken.id;
                if self.detached {
                    return Ok(Some(Came::Detached));
                }
                // What was sent on a line that broke.
                for (_, block) in &self.sent {
                    stream.send(Message::Binary(block.clone())).await.map_err(|error| error.to_string())?;
                }
            }
            Told::Phase(Phase::Compiling) if self.verbose => eprintln!("compiling"),
            Told::Phase(_) => {}
            Told::Taken(number) => {
                while let Some((_, block)) = self.sent.pop_front_if(|(sent, _)| *sent <= number) {
                    self.sent_bytes -= block.len() - wire::run::BLOCK_HEAD_BYTES;
                }
            }
            Told::Ended(ended) => {
                // It is forgotten there then; if it does not arrive, a little later.
                let _ = say(stream, &Asked::Ack(ended.sequence)).await;
                return Ok(Some(Came::Ended(ended)));
            }
            Told::Again(why) => {
                eprintln!("{why}; as it is repeatable, it is run again from its beginning");
                (self.arrived, self.unacknowledged_bytes) = (0, 0);
            }
            Told::Superseded => {}
            Told::Problem(problem) => return Ok(Some(Came::Refused(Failure::from(problem)))),
        }
        Ok(None)
    }

    /// Output where it belongs. Standard output may wait for more that is there.
    fn show(&mut self, block: Block<'_>) -> std::io::Result<()> {
        match block.channel {
            Channel::Stdout => self.written.extend_from_slice(block.payload),
            Channel::Stderr | Channel::Compiler => {
                self.show_written()?;
                std::io::stderr().write_all(block.payload)?;
            }
            Channel::Stdin | Channel::End | Channel::Turn => {}
        }
        Ok(())
    }

    fn show_written(&mut self) -> std::io::Result<()> {
        if !self.written.is_empty() {
            let mut out = std::io::stdout().lock();
            out.write_all(&self.written)?;
            out.flush()?;
            self.written.clear();
        }
        Ok(())
    }

    fn finish(&self, ended: &Ended) -> Result<ExitCode, Failure> {
        use wire::run::RunVerdict::{Finished, WrongExit};
        if !matches!(ended.verdict, Finished | WrongExit) || self.verbose {
            eprintln!("{}: {}", ended.verdict.as_str(), ended.message);
        }
        if self.verbose {
            let times = ended.times;
            eprintln!(
                "processor {}, memory {}, output {}; waited {}, box {}, compiled {}, ran {}",
                millis(ended.cpu_usec),
                shown::size(ended.memory_peak_bytes),
                shown::size(ended.output_bytes),
                millis(times.queue_usec),
                millis(times.box_usec),
                millis(times.compile_usec),
                millis(times.run_usec),
            );
        }
        if let Some(folder) = &self.collect {
            for file in &ended.files {
                keep(folder, file)?;
            }
        }
        Ok(exit_code(ended))
    }
}

fn shown_with(failure: &Failure, json: bool) -> ExitCode {
    let _ = failure.show(json);
    ExitCode::from(NO_ROOM)
}

async fn say(stream: &mut Stream, asked: &Asked) -> Result<(), String> {
    let text = serde_json::to_string(asked).map_err(|error| error.to_string())?;
    stream.send(Message::Text(text.into())).await.map_err(|error| error.to_string())
}

/// Standard input, as it comes. A thread of its own reads it, and ends with this process.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (read, input) = mpsc::channel(READS_AHEAD);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut bytes = vec![0; INPUT_BYTES];
        loop {
            match stdin.read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    if read.blocking_send(bytes[..count].to_vec()).is_err() {
                        return;
                    }
                }
            }
        }
    });
    input
}

/// Writes a file that a program left below a folder. Its name was checked there, and is again here.
fn keep(folder: &Path, file: &RunFile) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::local(format!("write {}: {error}", file.name));
    runs::language::file_name(&file.name).map_err(|error| failed(&error))?;
    let path = folder.join(&file.name);
    let bytes = runs::files::content(file).map_err(|error| failed(&error))?;
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, bytes));
    made.map_err(|error| failed(&error))
}
