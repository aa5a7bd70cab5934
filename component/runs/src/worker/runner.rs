//! Running: a box, its program, its end.

use super::compiled::Compiled;
use super::given::Files;
use super::pool::{Pool, READY_MAX, Source};
use super::run::{Control, Run};
use super::streams::{self, Drained, Pipes, Stream};
use super::verdict::{self, Stopped};
use super::{Shared, compiled, given, tick};
use crate::language::{FOLDER, is_like};
use crate::order::{Order, of_turn};
use base64::Engine;
use rustix::termios::{Winsize, tcsetwinsize};
use sandbox::{
    BoxSpec, Collect, Collected, Command, Limits as BoxLimits, Mount, MountSource, Outcome, Parked, Placed, Root,
    RunError, RunLimits, Running, Spawner, StartError, Then, Trust,
};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use wire::run::{Channel, Ended, Phase, RunFile, RunRecord, RunVerdict, TerminalSize};

/// What compiling may take, whatever the program may.
const COMPILE_CPU_MS: u64 = 60_000;
const COMPILE_WALL_MS: u64 = 60_000;
const COMPILE_MEMORY_BYTES: u64 = 1 << 30;
const COMPILE_PROCESSES: u64 = 128;
const COMPILE_FILE_BYTES: u64 = 256 << 20;
/// What a compiler may say; the rest is left out, since its first words matter.
const COMPILER_SAYS_BYTES_MAX: u64 = 256 << 10;
/// Of what compiling leaves.
const COMPILED_FILES_MAX: u32 = 500;
/// Of what a program leaves and is sent back: it goes in one message.
const LEFT_FILES_MAX: u32 = 100;
const LEFT_BYTES_MAX: u64 = 8 << 20;
/// Open files of a program: more than exercises need, less than what would be felt.
const OPEN_FILES: u64 = 256;
/// `/tmp` and `/dev/shm`, besides the program's own folder.
const SCRATCH_BYTES: u64 = 64 << 20;
const SHARED_BYTES: u64 = 16 << 20;
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const SIGNAL_KILL: i32 = 9;

/// Takes runs as they come, for as long as the process lives.
pub(super) async fn run(shared: Arc<Shared>, spawner: Spawner, mut begun: mpsc::Receiver<Arc<Run>>) -> io::Result<()> {
    let _ticks = world::task::spawn("ticks of the runner", tick(Arc::clone(&shared), |it| &it.ran));
    let pool = Arc::new(Pool::new(spawner.client()?));
    let compiled = Arc::new(Compiled::default());
    let _trimming = world::task::spawn("boxes too many", Arc::clone(&pool).trim(Arc::clone(&shared)));
    while let Some(run) = begun.recv().await {
        let runner =
            Runner { shared: Arc::clone(&shared), pool: Arc::clone(&pool), compiled: Arc::clone(&compiled), run };
        // Ends with its program, or when it is killed.
        world::task::spawn("run", runner.go()).detach();
    }
    Ok(())
}

struct Runner {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    compiled: Arc<Compiled>,
    run: Arc<Run>,
}

/// Why there is no outcome.
enum Trouble {
    /// It was killed before or while it ran; nobody knows what it used.
    Killed,
    Run(RunError),
    Io(io::Error),
}

impl From<RunError> for Trouble {
    fn from(error: RunError) -> Trouble {
        Trouble::Run(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

/// A program that came to its end.
struct Done {
    outcome: Outcome,
    stopped: Stopped,
    left: Vec<(Collected, OwnedFd)>,
    box_time: Duration,
    time: Duration,
}

/// What one box is to do.
struct Job {
    spec: BoxSpec,
    files: Files,
    command: Command,
    limits: RunLimits,
    collect: Option<Collect>,
    terminal: Option<TerminalSize>,
    out: Channel,
    err: Channel,
    feeds: bool,
}

impl Runner {
    /// Runs it, with each of its inputs in turn.
    async fn go(self) {
        let asked = world::clock::monotonic();
        let last = self.run.turns() - 1;
        if last > 0 {
            // Of all together is told by their own id, whatever becomes of each.
            self.run.began();
            self.shared.records.begun(self.record(last, None));
        }
        for index in 0..last {
            let ended = self.with_input(index, asked).await;
            self.shared.records.ended(self.record(index, Some(&ended)));
            self.run.turned(ended);
            // What this one wrote is not in the way of the next.
            tokio::select! {
                () = self.run.has_room() => {}
                () = self.run.killed() => {}
            }
            if self.run.is_killed() {
                return self.end(killed());
            }
        }
        let ended = self.with_input(last, asked).await;
        self.end(ended);
    }

    fn end(&self, ended: Ended) {
        let ended = self.run.end(ended);
        self.shared.records.ended(self.record(self.run.turns() - 1, Some(&ended)));
    }

    async fn with_input(&self, index: usize, asked: Instant) -> Ended {
        self.run.turn(index);
        let waited = asked.elapsed();
        self.run.began();
        self.shared.records.begun(self.record(index, None));
        let mut ended = self.once().await;
        ended.output_bytes = self.run.out().written_bytes();
        let order = &self.run.order;
        (ended.times.queue_usec, ended.times.place_usec) = (order.queue_usec + micros(waited), order.place_usec);
        ended
    }

    async fn once(&self) -> Ended {
        let order = &self.run.order;
        match self.compiled_and_run().await {
            Ok(ended) => ended,
            Err(Trouble::Killed) => killed(),
            Err(Trouble::Run(error)) => {
                tracing::warn!(run = order.id, language = order.language, error = %wire::diagnostic::chain(&error), "not run");
                let hint = match &error {
                    RunError::Start(error) => error.hint(),
                    RunError::Gone { .. } => "",
                };
                let message = format!("{}; {hint}", wire::diagnostic::chain(&error)).trim_end_matches("; ").to_owned();
                Ended { verdict: RunVerdict::Refused, message, ..Ended::default() }
            }
            Err(Trouble::Io(error)) => {
                tracing::warn!(run = order.id, %error, "not run");
                Ended { verdict: RunVerdict::Lost, message: format!("its machine failed: {error}"), ..Ended::default() }
            }
        }
    }

    fn record(&self, index: usize, ended: Option<&Ended>) -> RunRecord {
        let mut begun = self.run.order.record(&self.shared.node, self.shared.number, self.run.began_ms());
        if index + 1 < self.run.turns() {
            begun.id = of_turn(&begun.id, index);
        }
        let Some(ended) = ended else { return begun };
        RunRecord {
            ended_ms: Some(world::clock::unix_ms()),
            verdict: Some(ended.verdict),
            exit_code: ended.exit_code,
            signal: ended.signal,
            cpu_usec: ended.cpu_usec,
            memory_peak_bytes: ended.memory_peak_bytes,
            output_bytes: ended.output_bytes,
            times: ended.times,
            ..begun
        }
    }

    async fn compiled_and_run(&self) -> Result<Ended, Trouble> {
        let order = &self.run.order;
        let mut times = wire::run::Times::default();
        let made = if order.compile.is_empty() {
            None
        } else {
            let found = self.compiled.find(&order.compiled, &order.compiled_as, FOLDER);
            Some(match found {
                Some(found) => {
                    self.run.push(Channel::Compiler, &found.said);
                    found.files
                }
                None => {
                    let done = self.compile(given::sources(order)?).await?;
                    times.compile_usec = micros(done.time);
                    times.box_usec = micros(done.box_time);
                    match self.keep(&done)? {
                        Some(made) => made,
                        None => return Ok(not_compiled(&done, times)),
                    }
                }
            })
        };
        let mut files = given::sources(order)?;
        if let Some(made) = made {
            // What came with the code, it may read.
            files.add(made);
        }
        self.run.enter(Phase::Running);
        let collect = order.wanted.collect.then(|| Collect {
            folder: FOLDER.to_owned(),
            files_max: LEFT_FILES_MAX,
            bytes_max: LEFT_BYTES_MAX,
        });
        let given: Vec<String> = files.placed.iter().map(|placed| placed.target.clone()).collect();
        let limits = &order.limits;
        let done = self
            .program(Job {
                spec: spec(order, limits.memory_bytes, limits.processes, limits.file_bytes),
                files,
                command: command(order, &order.run, order.wanted.terminal.is_some()),
                limits: RunLimits {
                    wall_ms: Some(limits.wall_ms),
                    cpu_ms: Some(limits.cpu_ms),
                    memory_bytes: Some(limits.memory_bytes),
                    output_bytes: None,
                },
                collect,
                terminal: order.wanted.terminal,
                out: Channel::Stdout,
                err: Channel::Stderr,
                feeds: true,
            })
            .await?;
        times.box_usec += micros(done.box_time);
        times.run_usec = micros(done.time);
        let mut ended = verdict::judge(&done.outcome, done.stopped, limits);
        ended.times = times;
        ended.files = left(done.left, &given)?;
        Ok(ended)
    }

    async fn compile(&self, files: Files) -> Result<Done, Trouble> {
        let order = &self.run.order;
        self.run.enter(Phase::Compiling);
        let bytes_max = COMPILE_FILE_BYTES;
        self.program(Job {
            spec: spec(order, COMPILE_MEMORY_BYTES, COMPILE_PROCESSES, COMPILE_FILE_BYTES),
            files,
            command: command(order, &order.compile, false),
            limits: RunLimits {
                wall_ms: Some(COMPILE_WALL_MS),
                cpu_ms: Some(COMPILE_CPU_MS),
                memory_bytes: Some(COMPILE_MEMORY_BYTES),
                output_bytes: Some(COMPILER_SAYS_BYTES_MAX),
            },
            collect: Some(Collect { folder: FOLDER.to_owned(), files_max: COMPILED_FILES_MAX, bytes_max }),
            terminal: None,
            out: Channel::Compiler,
            err: Channel::Compiler,
            feeds: false,
        })
        .await
    }

    /// Keeps what the compiler left, and gives it back as files for a box. `None` when it did not compile.
    fn keep(&self, done: &Done) -> io::Result<Option<Files>> {
        let order = &self.run.order;
        if done.outcome.code != Some(0) || done.outcome.verdict != sandbox::Verdict::Exited {
            return Ok(None);
        }
        let mut made = Vec::new();
        for (file, content) in &done.left {
            if order.keep.is_empty() || order.keep.iter().any(|pattern| is_like(&file.name, pattern)) {
                made.push((file.clone(), content.try_clone()?));
            }
        }
        if made.is_empty() {
            return Ok(None);
        }
        if let Err(error) = compiled::keep(&order.compiled, &order.compiled_as, &made, &self.run.compiler_said()) {
            // It is compiled again next time.
            tracing::warn!(%error, "what was compiled cannot be kept");
        }
        let mut files = Files::default();
        for (file, content) in made {
            // Copying read it to its end.
            File::from(content.try_clone()?).rewind()?;
            files.placed.push(Placed { target: format!("{FOLDER}/{}", file.name), mode: file.mode, text: None });
            files.contents.push(content);
        }
        Ok(Some(files))
    }

    async fn park(&self, spec: &BoxSpec) -> Result<(Parked, Source), Trouble> {
        match self.pool.take(spec).await {
            Ok(taken) => Ok(taken),
            Err(StartError::Spawner { source }) => {
                // Nothing can be run any more by this process: the node starts another.
                tracing::error!(error = %source, "the spawner is gone, and this worker with it");
                std::process::exit(1);
            }
            Err(error) => Err(Trouble::Run(error.into())),
        }
    }

    /// Runs one program in one box, with its streams.
    async fn program(&self, mut job: Job) -> Result<Done, Trouble> {
        let run = &self.run;
        if run.is_killed() {
            return Err(Trouble::Killed);
        }
        let asked = world::clock::monotonic();
        let contents: Vec<_> = job.files.contents.iter().map(AsFd::as_fd).collect();
        let mut tries = READY_MAX;
        let parked = loop {
            let (parked, source) = self.park(&job.spec).await?;
            match parked.place(&job.files.placed, &contents).await {
                Ok(()) => {
                    source.count(&mut self.shared.boxes());
                    break parked;
                }
                // All that have waited may have been killed meanwhile, for memory or by hand.
                Err(error) if tries > 0 => tracing::debug!(%error, "a box that waited is gone"),
                Err(error) => return Err(error.into()),
            }
            tries -= 1;
            for content in &job.files.contents {
                File::from(content.try_clone()?).rewind()?;
            }
        };
        // What a compiler left lies in its box, which is somebody else's by now.
        job.files = Files::default();
        let box_time = asked.elapsed();
        let started = world::clock::monotonic();
        let (mut running, io) = match job.terminal {
            None => {
                let (pipes, stdio) = streams::pipes(job.feeds.then_some(run))?;
                let then = Then { collect: job.collect, again: true };
                let running = parked.launch(job.command, stdio, job.limits, then).await;
                (running, Io::Pipes(pipes))
            }
            Some(size) => {
                let (running, terminal) = parked.launch_on_terminal(job.command, job.limits, job.collect).await?;
                resize(&terminal, size);
                (running, Io::Terminal(Stream::terminal(terminal)?))
            }
        };
        self.pool.refill(&job.spec, &self.shared);
        let controls = if job.feeds { run.controls() } else { None };
        let watched =
            Watched { run, running: &mut running, io, controls, out: job.out, err: job.err, feeds: job.feeds };
        let ended = tokio::select! {
            ended = watched.finish() => Some(ended?),
            () = run.killed() => None,
        };
        let (outcome, stopped) = match ended {
            Some(ended) => ended,
            None => {
                // What it wrote last is gone with whoever wanted it gone; how it ends is still worth knowing.
                let _ = running.signal(SIGNAL_KILL).await;
                let outcome = tokio::time::timeout(KILL_PATIENCE, running.ended()).await;
                (outcome.map_err(|_| Trouble::Killed)??, Stopped::Asked)
            }
        };
        let time = started.elapsed();
        let left = running.collected();
        // With a terminal of its own it was not asked for.
        if job.terminal.is_none() {
            self.pool.give_back(&job.spec, running.again(), &self.shared);
        }
        Ok(Done { outcome, stopped, left, box_time, time })
    }
}

/// Nobody knows what it used.
fn killed() -> Ended {
    Ended { verdict: RunVerdict::Killed, message: "it was killed".to_owned(), ..Ended::default() }
}

/// A box whose program was killed ends within milliseconds, unless the machine is about to fail.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

enum Io {
    Pipes(Pipes),
    Terminal(Stream),
}

/// A program with its streams.
struct Watched<'a> {
    run: &'a Run,
    running: &'a mut Running,
    io: Io,
    controls: Option<mpsc::Receiver<Control>>,
    out: Channel,
    err: Channel,
    feeds: bool,
}

impl Watched<'_> {
    /// Until the program has ended and all it wrote is here.
    async fn finish(self) -> Result<(Outcome, Stopped), Trouble> {
        let Watched { run, running, io, controls, out, err, feeds } = self;
        let over = Notify::new();
        let (stdin, io) = match io {
            Io::Pipes(pipes) => (pipes.stdin, Out::Pipes(pipes.stdout, pipes.stderr)),
            Io::Terminal(terminal) => (None, Out::Terminal(terminal)),
        };
        let drained = async {
            let stream = async |stream: &Stream, channel: Channel| {
                let drained = streams::drain(run, stream, channel).await;
                if !matches!(drained, Ok(Drained::End)) {
                    over.notify_one();
                }
                drained
            };
            match &io {
                Out::Pipes(stdout, stderr) => {
                    let (one, other) = tokio::join!(stream(stdout, out), stream(stderr, err));
                    one.and(other)
                }
                Out::Terminal(terminal) => stream(terminal, out).await,
            }
        };
        let fed = async {
            match (&io, &stdin) {
                (Out::Terminal(terminal), _) if feeds => streams::feed(run, terminal, true).await,
                (_, Some(stdin)) => streams::feed(run, stdin, false).await,
                (_, None) => Ok(()),
            }
        };
        let terminal = match &io {
            Out::Terminal(terminal) => Some(terminal),
            Out::Pipes(..) => None,
        };
        let both = async { tokio::join!(drained, life(running, controls, terminal, &over)) };
        let mut both = std::pin::pin!(both);
        let (drained, life) = tokio::select! {
            both = &mut both => both,
            fed = fed => {
                if let Err(error) = fed {
                    tracing::debug!(%error, "input cannot be written");
                }
                // Its closing is the end of the program's input.
                drop(stdin);
                both.await
            }
        };
        drained?;
        life
    }
}

/// What the program writes to.
enum Out {
    Pipes(Stream, Stream),
    Terminal(Stream),
}

/// Waits for the program's end, and hands on to it what is wanted meanwhile.
async fn life(
    running: &mut Running,
    mut controls: Option<mpsc::Receiver<Control>>,
    terminal: Option<&Stream>,
    over: &Notify,
) -> Result<(Outcome, Stopped), Trouble> {
    let mut stopped = Stopped::No;
    loop {
        let control = async {
            match &mut controls {
                Some(controls) => controls.recv().await,
                None => None,
            }
        };
        tokio::select! {
            ended = running.ended() => return Ok((ended?, stopped)),
            () = over.notified() => {
                stopped = Stopped::Output;
                // A program that has ended already is as good.
                let _ = running.signal(SIGNAL_KILL).await;
            }
            Some(control) = control => match (control, terminal) {
                (Control::Signal(number), _) => drop(running.signal(number).await),
                (Control::Resize(size), Some(terminal)) => resize(terminal.fd(), size),
                (Control::Resize(_), None) => {}
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn spec(order: &Order, memory_bytes: u64, processes: u64, file_bytes: u64) -> BoxSpec {
    let room = |target: &str, size_bytes| Mount {
        source: MountSource::Tmpfs { size_bytes },
        target: target.into(),
        read_only: false,
    };
    BoxSpec {
        read_only: true,
        mounts: vec![room(FOLDER, file_bytes), room("/tmp", SCRATCH_BYTES.min(file_bytes))],
        limits: BoxLimits {
            memory_bytes: Some(memory_bytes),
            pids: Some(processes),
            cpu_millis: None,
            rlimits: vec![
                ("nofile".to_owned(), OPEN_FILES, OPEN_FILES),
                ("fsize".to_owned(), file_bytes, file_bytes),
                ("memlock".to_owned(), 0, 0),
                ("msgqueue".to_owned(), 0, 0),
            ],
        },
        shm_size_bytes: SHARED_BYTES,
        idle: order.idle,
        ..BoxSpec::new("run", Trust::Untrusted, Root::Dir(order.root.clone()))
    }
}

fn command(order: &Order, words: &[String], on_terminal: bool) -> Command {
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut env = vec![
        own("PATH", PATH),
        own("HOME", FOLDER),
        own("LANG", "C.UTF-8"),
        own("USER", "runner"),
        own("TMPDIR", "/tmp"),
    ];
    if on_terminal {
        env.push(own("TERM", "xterm-256color"));
    }
    for (name, value) in order.env.iter().chain(&order.wanted.env) {
        env.retain(|(known, _)| known != name);
        env.push((name.clone(), value.clone()));
    }
    Command { argv: words.to_vec(), env, cwd: FOLDER.to_owned(), ..Command::default() }
}

fn not_compiled(done: &Done, times: wire::run::Times) -> Ended {
    let why = match (done.outcome.verdict, done.outcome.code) {
        (sandbox::Verdict::Exited, Some(0)) => "the compiler left no program".to_owned(),
        (sandbox::Verdict::Exited, code) => format!("the compiler ended with exit code {}", code.unwrap_or(-1)),
        (sandbox::Verdict::Wall | sandbox::Verdict::Cpu, _) => "compiling took longer than a minute".to_owned(),
        (sandbox::Verdict::Memory, _) => "compiling used more than 1 GiB of memory".to_owned(),
        (sandbox::Verdict::Output, _) => "the compiler said more than 256 KiB".to_owned(),
        (sandbox::Verdict::Signalled, _) => {
            format!("the compiler was killed by signal {}", done.outcome.signal.unwrap_or(0))
        }
    };
    Ended {
        verdict: RunVerdict::NotCompiled,
        message: why,
        exit_code: done.outcome.code,
        cpu_usec: done.outcome.cpu_usec,
        memory_peak_bytes: done.outcome.memory_peak_bytes,
        times,
        ..Ended::default()
    }
}

/// What the program left besides what it was given.
fn left(files: Vec<(Collected, OwnedFd)>, given: &[String]) -> io::Result<Vec<RunFile>> {
    let mut told = Vec::new();
    for (file, content) in files {
        if given.contains(&format!("{FOLDER}/{}", file.name)) {
            continue;
        }
        let mut bytes = Vec::new();
        File::from(content).take(file.size_bytes).read_to_end(&mut bytes)?;
        let (content, content_base64) = match String::from_utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(binary) => (None, Some(base64::engine::general_purpose::STANDARD.encode(binary.into_bytes()))),
        };
        told.push(RunFile { name: file.name, content, content_base64 });
    }
    Ok(told)
}

fn resize(terminal: &impl AsFd, size: TerminalSize) {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // A terminal of another size is a terminal.
    let _ = tcsetwinsize(terminal, size);
}
