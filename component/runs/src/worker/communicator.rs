//! Speaking with whoever watches runs, and with the machine's node.

use super::run::{Control, Run};
use super::{Shared, tick};
use crate::link::{Frame, Reader, Writer, payloads};
use crate::order::{Numbered, Opening, Order, Said, ToWorker, whole_of};
use crate::pressure::Pressure;
use crate::talk::Watching;
use bytes::{Bytes, BytesMut};
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use wire::api::Problem;
use wire::run::{Accepted, Asked, Block, Channel, Phase, Told};

/// A connection that was replaced and does not take so much as a word is closed without one.
const SUPERSEDED_DEADLINE: Duration = Duration::from_millis(500);
/// How long a connection has to say what it is for.
const OPENING_DEADLINE: Duration = Duration::from_secs(10);
/// A connection that broke without a word: whoever watched comes back by another way within this, or not at all.
const BROKEN_GRACE: Duration = Duration::from_secs(15);
/// How long the end of a run is kept for a watcher that has not got it.
const ENDED_GRACE: Duration = Duration::from_secs(60);
/// The same for one that was left alone on purpose.
const DETACHED_GRACE: Duration = Duration::from_secs(600);

/// Refused for now; another worker may have room.
pub(crate) const NO_ROOM: &str = "B0902";
pub(crate) const NO_RUN: &str = "B0903";

pub(super) struct Communicator {
    pub(super) shared: Arc<Shared>,
    pub(super) begin: mpsc::Sender<Arc<Run>>,
    pub(super) beats: SyncSender<StdUnixStream>,
    pub(super) pressure: Pressure,
}

impl Communicator {
    /// Serves for as long as the process lives.
    pub(super) async fn serve(self, listener: UnixListener) -> io::Result<()> {
        let _ticks = world::task::spawn("ticks of the communicator", tick(Arc::clone(&self.shared), |it| &it.carried));
        let this = Arc::new(self);
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    let this = Arc::clone(&this);
                    let served = async move {
                        if let Err(error) = this.connection(connection).await {
                            tracing::debug!(%error, "a connection to this worker ended");
                        }
                    };
                    // Ends with its connection.
                    world::task::spawn("connection", served).detach();
                }
                Err(error) => {
                    // Out of descriptors: some come back when a run ends.
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, connection: UnixStream) -> io::Result<()> {
        // For the heartbeat, should it be that: its thread writes and nobody reads.
        let beats = rustix::io::fcntl_dupfd_cloexec(&connection, 3)?;
        let (reader, writer) = connection.into_split();
        let mut reader = Reader::new(reader);
        let first =
            tokio::time::timeout(OPENING_DEADLINE, reader.next()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let Some(Frame::Word(word)) = first else { return Err(io::ErrorKind::InvalidData.into()) };
        let opening = Frame::word::<Opening>(&word)?;
        if opening == Opening::Beats {
            // Dropped, it would end the connection for the heartbeat too.
            writer.forget();
            let beats = StdUnixStream::from(beats);
            beats.set_nonblocking(false)?;
            return self.beats.try_send(beats).map_err(|_| io::ErrorKind::WouldBlock.into());
        }
        drop(beats);
        let mut writer = Writer::new(writer);
        match opening {
            Opening::Node => self.node(reader, writer).await,
            Opening::Beats => Ok(()),
            Opening::Run(order) => match self.begin(*order) {
                Ok(run) => self.watch(run, &Watching::default(), reader, writer).await,
                Err(problem) => writer.word(&Told::Problem(problem)).await,
            },
            Opening::Kill(id) => {
                // One of several inputs ends with all of them.
                if let Some(run) = self.shared.find(whole_of(&id)) {
                    run.kill();
                }
                // That the connection closes says that it was heard.
                Ok(())
            }
            Opening::Attach(watching) => match self.shared.find(&watching.id).filter(|run| run.is_for(&watching)) {
                Some(run) => self.watch(run, &watching, reader, writer).await,
                None => writer.word(&Told::Problem(no_run(&watching.id))).await,
            },
        }
    }

    /// Takes a run, or says why not.
    fn begin(&self, order: Order) -> Result<Arc<Run>, Problem> {
        if self.shared.retires.load(Ordering::Relaxed) {
            return Err(no_room("this worker is being replaced"));
        }
        if let Some(why) = self.pressure.refuses() {
            return Err(no_room(&why));
        }
        let run = Arc::new(Run::new(order));
        if !self.shared.add(&run) {
            return Err(no_room("this worker has as many runs as it takes"));
        }
        if self.begin.try_send(Arc::clone(&run)).is_err() {
            self.shared.forget(&run.order.id);
            return Err(no_room("this worker begins as many runs as it can"));
        }
        Ok(run)
    }

    /// Carries a run's bytes and words until one side ends.
    async fn watch(&self, run: Arc<Run>, watching: &Watching, reader: Reader, mut writer: Writer) -> io::Result<()> {
        let mut number = 0;
        let counts = run.connection.send_if_modified(|newest| {
            // Whoever carries a connection on that is not the last has been replaced meanwhile.
            let is_own = !watching.keeper.is_empty() && *run.keeper() == watching.keeper;
            let counts = watching.instead_of.is_none_or(|last| last == *newest) || is_own;
            if counts {
                run.keeper().clone_from(&watching.keeper);
            }
            *newest += u64::from(counts);
            number = *newest;
            counts
        });
        if !counts {
            return writer.word(&Told::Superseded).await;
        }
        // Whoever watched before wakes up, and finds out.
        run.wrote.notify_waiters();
        // Its connection has ended by then: nobody waits for more of it.
        if self.carry(&run, (number, watching.after), reader, writer).await {
            self.linger(&run, number).await;
        }
        Ok(())
    }

    /// Carries what comes on this connection, by its number, until one side ends; output from behind this block. False when
    /// another connection is the run's now.
    async fn carry(&self, run: &Run, (number, after): (u64, u64), reader: Reader, mut writer: Writer) -> bool {
        let accepted = Accepted {
            id: run.order.id.clone(),
            node: self.shared.node.clone(),
            worker: self.shared.number,
            language: run.order.language.clone(),
            next_input: run.input().expected(),
            terminal: run.order.wanted.terminal.is_some(),
            connection: number,
            detached: run.order.wanted.detach,
        };
        if writer.word(&Told::Accepted(accepted)).await.is_err() {
            return true;
        }
        run.acknowledge(after);
        let mut newest = run.connection.subscribe();
        let superseded = async {
            // Its sender is the run, which is here.
            let _ = newest.wait_for(|newest| *newest != number).await;
        };
        let mut heard = std::pin::pin!(hear(run, reader));
        let said = async {
            let end = tokio::select! {
                said = say(run, after, number > 1, &mut writer) => Some(said),
                () = superseded => None,
            };
            if end.is_none() {
                // It finds out by the end of the connection, if not by this.
                let _ = tokio::time::timeout(SUPERSEDED_DEADLINE, writer.word(&Told::Superseded)).await;
            }
            end
        };
        let end = tokio::select! {
            end = &mut heard => end,
            said = said => match said {
                Some(Ok(())) => Ok(End::Over),
                // Nobody listens any more; whether on purpose is in what they said last.
                Some(Err(_)) => heard.await,
                None => return false,
            },
        };
        if matches!(end, Ok(End::Left)) && !run.order.wanted.detach {
            run.abandon();
        }
        true
    }

    /// Keeps a run that nobody watches for as long as somebody may come back to it, then forgets it.
    async fn linger(&self, run: &Arc<Run>, number: u64) {
        let mut newest = run.connection.subscribe();
        let taken_up = async {
            // Its sender is the run, which is here.
            let _ = newest.wait_for(|newest| *newest != number).await;
        };
        let gone = async {
            if !run.order.wanted.detach && !run.is_abandoned() {
                tokio::select! {
                    () = tokio::time::sleep(BROKEN_GRACE) => run.abandon(),
                    () = over(run) => {}
                }
            }
            ended(run).await;
            if !run.is_over() && !run.is_abandoned() {
                tokio::time::sleep(if run.order.wanted.detach { DETACHED_GRACE } else { ENDED_GRACE }).await;
            }
        };
        tokio::select! {
            biased;
            () = taken_up => {}
            () = gone => self.shared.forget(&run.order.id),
        }
    }

    /// The node's own connection.
    async fn node(&self, mut reader: Reader, mut writer: Writer) -> io::Result<()> {
        let mut told = 0;
        loop {
            while let Some((number, record)) = self.shared.records.after(told) {
                writer.word(&Numbered { number, record }).await?;
                told = number;
            }
            let due = async {
                match self.shared.records.due() {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                frame = reader.next() => match frame? {
                    Some(Frame::Word(word)) => match Frame::word::<ToWorker>(&word)? {
                        ToWorker::Kept(number) => self.shared.records.kept(number),
                        ToWorker::Retire => self.shared.retires.store(true, Ordering::Relaxed),
                    },
                    Some(Frame::Blocks(_)) => return Err(io::ErrorKind::InvalidData.into()),
                    None => return Ok(()),
                },
                () = self.shared.records.more.notified() => {}
            }
        }
    }
}

/// How a watcher's side of a connection ended.
enum End {
    /// Nothing is left to say.
    Over,
    Left,
    Broken,
}

/// What the watcher says, until it says no more.
async fn hear(run: &Run, mut reader: Reader) -> io::Result<End> {
    loop {
        match reader.next().await {
            Ok(Some(Frame::Word(word))) => match Frame::word::<Said>(&word)? {
                Said::Left => return Ok(End::Left),
                Said::Asked(Asked::Ack(sequence)) => run.acknowledge(sequence),
                Said::Asked(Asked::Signal(name)) => {
                    if let Some(number) = signal_number(&name) {
                        run.control(Control::Signal(number));
                    }
                }
                Said::Asked(Asked::Resize(size)) => run.control(Control::Resize(size)),
                Said::Asked(Asked::Run(_) | Asked::Attach(_)) => return Err(io::ErrorKind::InvalidData.into()),
            },
            Ok(Some(Frame::Blocks(frames))) => {
                for bytes in payloads(&frames) {
                    let block = Block::parse(bytes).filter(|block| block.channel == Channel::Stdin);
                    let block = block.ok_or(io::ErrorKind::InvalidData)?;
                    if let Err(error) = run.feed(block.sequence, block.payload) {
                        // Nobody who keeps to the words does this; the run is not worth more than the machine.
                        run.push(Channel::Compiler, format!("input was refused: {error}\n").as_bytes());
                        run.kill();
                        return Ok(End::Left);
                    }
                }
            }
            Ok(None) | Err(_) => return Ok(End::Broken),
        }
    }
}

/// Tells what there is after `cursor`, for as long as there is more to come.
async fn say(run: &Run, mut cursor: u64, attached: bool, writer: &mut Writer) -> io::Result<()> {
    let (mut taken, mut phase): (u64, Option<Phase>) = (0, None);
    // Input that came before a break need not come again.
    let had = run.input().taken();
    if attached {
        writer.word(&Told::Taken(had)).await?;
        taken = had;
    }
    loop {
        let more = run.wrote.notified();
        let now = run.phase();
        if now != phase
            && let Some(entered) = now
        {
            phase = now;
            writer.word(&Told::Phase(entered)).await?;
        }
        loop {
            let blocks = next(run, cursor);
            // Looked up after the blocks and told before them: of a run that has ended nothing is told after its end.
            let has = run.input().taken();
            if has != taken && !run.is_input_whole() {
                taken = has;
                writer.word(&Told::Taken(taken)).await?;
            }
            let Some((last, frames)) = blocks else { break };
            writer.frames(&frames).await?;
            cursor = last;
        }
        if run.is_over() {
            return Ok(());
        }
        // What was acknowledged may end it; what was written is told at once.
        tokio::select! {
            () = more => {}
            () = run.room.notified() => {}
        }
    }
}

/// The blocks after this one; little ones are told in one go.
fn next(run: &Run, cursor: u64) -> Option<(u64, Bytes)> {
    const LITTLE: usize = 16 << 10;
    let (mut last, mut frames) = run.after(cursor)?;
    while frames.len() < LITTLE
        && let Some((more_last, more)) = run.after(last).filter(|(_, more)| more.len() < LITTLE)
    {
        let mut both = BytesMut::from(frames);
        both.extend_from_slice(&more);
        (last, frames) = (more_last, both.freeze());
    }
    Some((last, frames))
}

async fn ended(run: &Run) {
    loop {
        let more = run.wrote.notified();
        if run.has_ended() {
            return;
        }
        more.await;
    }
}

/// Its end has arrived.
async fn over(run: &Run) {
    loop {
        let acknowledged = run.room.notified();
        if run.is_over() {
            return;
        }
        tokio::select! {
            () = acknowledged => {}
            () = run.wrote.notified() => {}
        }
    }
}

pub(crate) fn problem(code: &str, message: &str, hint: &str) -> Problem {
    Problem { code: code.to_owned(), message: message.to_owned(), hint: hint.to_owned(), diagnostics: Vec::new() }
}

pub(crate) fn no_room(why: &str) -> Problem {
    problem(NO_ROOM, why, "it is tried elsewhere, or again")
}

pub(crate) fn no_run(id: &str) -> Problem {
    problem(
        NO_RUN,
        &format!("there is no run {id} to come back to"),
        "it has ended, or its machine is gone; `bramble runs ls` shows what became of it",
    )
}

/// Signals that people send, by name.
pub(crate) fn signal_number(name: &str) -> Option<i32> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let known = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", 15),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
    ];
    known.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}
