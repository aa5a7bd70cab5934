//! Keeps a client's line to its run: when a machine between is lost, another way is found to the same run, and the client
//! does not notice; when the run's own machine is lost, the client is told, and the run begins anew if that was declared harmless.
//!
//! The two directions go on independently of each other, whatever either waits for.

use super::Front;
use crate::link::{self, Frame, Reader, Writer, payloads};
use crate::order::Said;
use crate::outgoing;
use crate::session::{RefusedRun, Session};
use crate::talk::{Led, Watching, Wish};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use wire::run::{Accepted, Asked, Block, Channel, Ended, INPUT_WINDOW_BYTES, RunVerdict, Told};

/// How long another way is looked for. A worker gives its run up when nobody has come within as long.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);
/// A machine that is judged to be gone may be one whose node begins again: its workers wait for that.
const GONE_PATIENCE: Duration = Duration::from_secs(6);
const TOLD_MAX: usize = 16;
/// Of input that may not have arrived, with its heads. A worker ends a run that is sent more than its window.
const INPUT_BYTES_MAX: usize = 2 * INPUT_WINDOW_BYTES;
/// Times a repeatable run is begun anew: a program that takes its machine down does so everywhere.
const AGAIN_MAX: u32 = 3;

pub(super) struct Keeper {
    front: Arc<Front>,
    wish: Wish,
    accepted: Accepted,
    led: Led,
    /// Who keeps it: a connection of its own that it has not heard of is no other's.
    token: String,
    line: (Reader, Writer),
    client: (Reader, Writer),
    state: State,
    begun_again: u32,
}

/// What both directions know.
#[derive(Default)]
struct State {
    known: Mutex<Known>,
    /// Something was acknowledged.
    acknowledged: Notify,
}

#[derive(Default)]
struct Known {
    /// The last block that was handed to the client.
    handed: u64,
    /// The last one it acknowledged, and the last of these that was said to the worker.
    acknowledged: u64,
    passed_on: u64,
    /// Input that may not have arrived, in frames.
    input: VecDeque<(u64, Bytes)>,
    input_bytes: usize,
    last_input: u64,
    /// Whether the program has had any.
    has_read: bool,
    kills: bool,
    left: bool,
    size: Option<Asked>,
}

/// How a line's time ended.
enum Stop {
    /// Nothing more is to be said, or nobody is there to hear it.
    Over,
    /// A machine between, or the run's own, is gone.
    Broken,
}

impl Keeper {
    /// The client's end of a line that is kept for as long as the run lasts; the client has had some of it already.
    pub(super) fn keep(front: Arc<Front>, wish: Wish, session: Session, led: Led, after: u64) -> Session {
        let Session { accepted, reader, writer } = session;
        let (ours, (reader_end, writer_end)) = link::pair();
        let known = Known {
            handed: after,
            acknowledged: after,
            passed_on: after,
            last_input: accepted.next_input.saturating_sub(1),
            has_read: accepted.next_input > 1,
            ..Known::default()
        };
        let keeper = Keeper {
            front,
            wish,
            accepted: accepted.clone(),
            led,
            token: world::random::word(10),
            line: (reader, writer),
            client: ours,
            state: State { known: Mutex::new(known), acknowledged: Notify::new() },
            begun_again: 0,
        };
        // Ends with the run, or with the client.
        world::task::spawn("a client's run", keeper.run()).detach();
        Session { accepted, reader: reader_end, writer: writer_end }
    }

    async fn run(mut self) {
        loop {
            let carried = (self.led.assigner == self.front.house.node()).then(|| self.front.desk.carry(&self.accepted));
            let stop = self.carry().await;
            // What was said last arrives before the line ends.
            self.line.1.end().await;
            match stop {
                Stop::Over => return self.line.0.hear_out().await,
                Stop::Broken => drop(carried),
            }
            match self.find_again().await {
                Ok(true) => self.front.house.meters().resumed(),
                Ok(false) => return,
                Err(why) => {
                    if !self.begin_again(&why).await {
                        return;
                    }
                }
            }
        }
    }

    /// Hands on what comes, both ways.
    async fn carry(&mut self) -> Stop {
        let lost = lost(&self.front, [self.led.assigner.clone(), self.accepted.node.clone()]);
        let (state, (from_line, to_line), (from_client, to_client)) = (&self.state, &mut self.line, &mut self.client);
        tokio::select! {
            stop = state.down(from_line, to_client) => stop,
            stop = state.up(from_client, to_line) => stop,
            () = lost => Stop::Broken,
        }
    }

    /// Another way to the same run. `false`: the client needs none any more. An error is why the run is lost.
    async fn find_again(&mut self) -> Result<bool, String> {
        let machine = self.accepted.node.clone();
        let until = world::clock::monotonic() + PATIENCE;
        let mut tried = BTreeSet::from([self.led.assigner.clone()]);
        let mut gone_until = None;
        let front = Arc::clone(&self.front);
        loop {
            let watching = Watching {
                id: self.accepted.id.clone(),
                after: self.state.known().acknowledged,
                instead_of: Some(self.accepted.connection),
                keeper: self.token.clone(),
                turns: true,
            };
            let resumed = tokio::select! {
                resumed = front.resume_somewhere(&machine, &watching, &tried) => resumed,
                left = self.state.client_leaves(&mut self.client.0) => {
                    if left && !self.accepted.detached {
                        front.kill(&self.accepted.id).await;
                    }
                    return Ok(false);
                }
            };
            match resumed {
                Ok((session, led)) => {
                    self.led = led;
                    self.accepted = session.accepted;
                    self.line = (session.reader, session.writer);
                    self.say_again().await;
                    return Ok(true);
                }
                Err(RefusedRun::Superseded) => return Ok(false),
                Err(refused) if refused.is_unknown() => {
                    if machine == front.house.node() {
                        // That it is gone is on record before it is told.
                        let _ = front.house.outcome(&self.accepted.id).await;
                    }
                    return Err(format!("worker {} of {machine}, which had it, is gone", self.accepted.worker));
                }
                Err(refused) => {
                    let elsewhere = front.elsewhere();
                    let is_gone = elsewhere.is_some_and(|elsewhere| elsewhere.cast().gone.contains(&machine));
                    if is_gone && gone_until.is_none() {
                        // Whose run may begin elsewhere need not wait for its machine's node to be back.
                        let patience = if self.may_begin_again() { Duration::ZERO } else { GONE_PATIENCE };
                        gone_until = Some(world::clock::monotonic() + patience);
                    }
                    let over = gone_until.filter(|_| is_gone).map_or(until, |gone| gone.min(until));
                    if world::clock::monotonic() >= over {
                        return Err(format!("{machine}, which had it, is gone: {refused}"));
                    }
                    tracing::debug!(run = self.accepted.id, %refused, "a run is not reached yet");
                    // All others were tried: the first may be there again.
                    tried.clear();
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What may have been under way when the line broke.
    async fn say_again(&mut self) {
        let word = |asked: Asked| serde_json::to_vec(&Said::Asked(asked)).map(|json| Frame::Word(json.into()));
        let mut said: Vec<Frame> = Vec::new();
        {
            let known = self.state.known();
            said.extend(word(Asked::Ack(known.acknowledged)).ok());
            said.extend(known.size.clone().and_then(|size| word(size).ok()));
            said.extend(known.input.iter().map(|(_, frame)| Frame::Blocks(frame.clone())));
            if known.kills {
                said.extend(word(Asked::Signal("KILL".to_owned())).ok());
            }
        }
        for frame in said {
            // A line that broke again is found out by reading from it.
            let _ = self.line.1.frame(frame).await;
        }
    }

    fn may_begin_again(&self) -> bool {
        let known = self.state.known();
        let has_read = known.has_read && self.wish.wanted.stdin.is_none() && self.wish.wanted.inputs.is_empty();
        self.wish.wanted.repeatable && !has_read && !known.kills && self.begun_again < AGAIN_MAX
    }

    /// The run is lost. Begun anew if it may be; else the client is told. False when nothing follows.
    async fn begin_again(&mut self, why: &str) -> bool {
        if self.may_begin_again() {
            self.begun_again += 1;
            (self.wish.attempt, self.wish.id) = (0, world::random::word(20));
            let (told, _nobody) = mpsc::channel(TOLD_MAX);
            let front = Arc::clone(&self.front);
            let begun = tokio::select! {
                begun = front.begin_somewhere(self.wish.clone(), &told) => begun,
                // What was begun for it meanwhile is killed.
                _ = self.state.client_leaves(&mut self.client.0) => return false,
            };
            if let Ok((session, led)) = begun {
                front.house.meters().begun_again();
                let words = [Told::Again(why.to_owned()), Told::Accepted(session.accepted.clone())];
                for word in words {
                    if self.client.1.word(&word).await.is_err() {
                        front.kill(&session.accepted.id).await;
                        return false;
                    }
                }
                self.state.known().begin_again();
                (self.led, self.accepted) = (led, session.accepted);
                self.line = (session.reader, session.writer);
                self.say_again().await;
                return true;
            }
        }
        let sequence = self.state.known().handed.saturating_add(1);
        let ended = Ended { verdict: RunVerdict::Lost, message: why.to_owned(), sequence, ..Ended::default() };
        let json = serde_json::to_vec(&ended).unwrap_or_default();
        let block = [&Block::head(sequence, Channel::End)[..], &json].concat();
        // A client that is gone finds it in the record.
        let _ = self.client.1.frame(Frame::Blocks(link::block(&block))).await;
        false
    }
}

impl State {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the run to the client.
    async fn down(&self, from: &mut Reader, to: &mut Writer) -> Stop {
        loop {
            let frame = match from.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(_) => return Stop::Broken,
            };
            let (frame, is_last) = match frame {
                Frame::Word(json) => match Frame::word::<Told>(&json) {
                    Ok(Told::Superseded) => return Stop::Over,
                    Ok(Told::Taken(number)) => {
                        self.known().taken(number);
                        (Some(Frame::Word(json)), false)
                    }
                    // What this version does not know is for the client.
                    _other => (Some(Frame::Word(json)), false),
                },
                Frame::Blocks(frames) => match self.known().fresh(frames) {
                    Ok(handed) => handed,
                    Err(_) => return Stop::Broken,
                },
            };
            if let Some(frame) = frame
                && to.frame(frame).await.is_err()
            {
                // The client hears no more. Whether it left is in what it said last.
                std::future::pending::<()>().await;
            }
            if is_last {
                // What the client still says is that it has arrived. It is kept by its worker for as long.
                let _ = tokio::time::timeout(PATIENCE, self.arrived()).await;
                return Stop::Over;
            }
        }
    }

    async fn arrived(&self) {
        loop {
            let more = self.acknowledged.notified();
            {
                let known = self.known();
                if known.passed_on >= known.handed {
                    return;
                }
            }
            more.await;
        }
    }

    /// From the client to the run.
    async fn up(&self, from: &mut Reader, to: &mut Writer) -> Stop {
        loop {
            // Gone without a word; the worker waits a while for it.
            let Ok(Some(frame)) = from.next().await else { return Stop::Over };
            let (frame, left) = self.known().note(frame);
            // If nobody hears it, the line has broken, which is found out by reading from it.
            let _ = to.frame(frame).await;
            if left {
                return Stop::Over;
            }
            {
                let mut known = self.known();
                known.passed_on = known.acknowledged;
            }
            self.acknowledged.notify_waiters();
        }
    }

    /// Listens to the client while there is no line. Ends when it is gone; true if it said so.
    async fn client_leaves(&self, from: &mut Reader) -> bool {
        loop {
            if self.known().left {
                return true;
            }
            match from.next().await {
                Ok(Some(frame)) => drop(self.known().note(frame)),
                Ok(None) | Err(_) => return self.known().left,
            }
        }
    }
}

impl Known {
    /// What of these blocks the client has not had, and whether the end is among them.
    fn fresh(&mut self, frames: Bytes) -> io::Result<(Option<Frame>, bool)> {
        let (mut at, mut fresh_from, mut ends) = (0, 0, false);
        for bytes in payloads(&frames) {
            at += bytes.len() + outgoing::FRAME_HEAD_BYTES;
            let block = Block::parse(bytes).ok_or(io::ErrorKind::InvalidData)?;
            if block.sequence <= self.handed {
                fresh_from = at;
            } else {
                self.handed = block.sequence;
                ends |= block.channel == Channel::End;
            }
        }
        Ok(((fresh_from < frames.len()).then(|| Frame::Blocks(frames.slice(fresh_from..))), ends))
    }

    /// Of what was written so far nothing counts.
    fn begin_again(&mut self) {
        (self.handed, self.acknowledged, self.passed_on) = (0, 0, 0);
    }

    fn taken(&mut self, number: u64) {
        self.has_read |= number > 0;
        while let Some((_, frame)) = self.input.pop_front_if(|(first, _)| *first <= number) {
            self.input_bytes -= frame.len();
        }
    }

    /// Remembers what would have to be said again. What is to be handed on, and whether the client leaves with it.
    fn note(&mut self, frame: Frame) -> (Frame, bool) {
        let json = match frame {
            Frame::Blocks(frames) => {
                for bytes in payloads(&frames) {
                    let Some(block) = Block::parse(bytes) else { continue };
                    // What comes twice is kept once; what is too much ends the run where it arrives.
                    if block.sequence > self.last_input && self.input_bytes <= INPUT_BYTES_MAX {
                        self.last_input = block.sequence;
                        let kept = link::block(bytes);
                        self.input_bytes += kept.len();
                        self.input.push_back((block.sequence, kept));
                    }
                }
                return (Frame::Blocks(frames), false);
            }
            Frame::Word(json) => json,
        };
        match Frame::word::<Said>(&json) {
            Ok(Said::Left) => self.left = true,
            Ok(Said::Asked(Asked::Ack(sequence))) => {
                // Nothing is acknowledged that was not handed on: of a run that began anew, what its client says of the one
                // before.
                let bounded = sequence.min(self.handed);
                self.acknowledged = self.acknowledged.max(bounded);
                if bounded != sequence
                    && let Ok(json) = serde_json::to_vec(&Said::Asked(Asked::Ack(bounded)))
                {
                    return (Frame::Word(json.into()), false);
                }
            }
            Ok(Said::Asked(Asked::Signal(name))) => self.kills |= name.trim_start_matches("SIG") == "KILL",
            Ok(Said::Asked(size @ Asked::Resize(_))) => self.size = Some(size),
            Ok(Said::Asked(Asked::Run(_) | Asked::Attach(_))) | Err(_) => {}
        }
        (Frame::Word(json), self.left)
    }
}

/// Ends when one of these machines is found to be gone. This one never is.
async fn lost(front: &Arc<Front>, machines: [String; 2]) {
    let Some(elsewhere) = front.elsewhere() else { return std::future::pending().await };
    let [one, other] = machines.map(|machine| {
        let (elsewhere, is_me) = (Arc::clone(&elsewhere), machine == front.house.node());
        async move {
            if is_me {
                std::future::pending::<()>().await;
            }
            elsewhere.lost(&machine).await;
        }
    });
    tokio::select! {
        () = one => {}
        () = other => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(sequences: impl IntoIterator<Item = u64>, channel: Channel) -> Bytes {
        let framed = |sequence| link::block(&[&Block::head(sequence, channel)[..], b"x"].concat());
        sequences.into_iter().flat_map(|sequence| framed(sequence).to_vec()).collect::<Vec<u8>>().into()
    }

    fn sequences(frame: Option<Frame>) -> Vec<u64> {
        let Some(Frame::Blocks(frames)) = frame else { return Vec::new() };
        payloads(&frames).filter_map(Block::parse).map(|block| block.sequence).collect()
    }

    fn word(said: &Said) -> Frame {
        Frame::Word(serde_json::to_vec(said).expect("words").into())
    }

    #[test]
    fn what_comes_again_after_a_break_is_handed_on_once() {
        let mut known = Known::default();
        let mut hand = |from: u64, to: u64, channel| {
            let (frame, ends) = known.fresh(blocks(from..=to, channel)).expect("blocks");
            (sequences(frame), ends)
        };
        assert_eq!(hand(1, 3, Channel::Stdout), (vec![1, 2, 3], false));
        assert_eq!(hand(2, 5, Channel::Stdout), (vec![4, 5], false));
        assert_eq!(hand(1, 5, Channel::Stdout), (vec![], false));
        assert_eq!(hand(6, 6, Channel::End), (vec![6], true));
        assert_eq!(hand(6, 6, Channel::End), (vec![], false));
        assert!(known.fresh(link::block(b"no block")).is_err());
    }

    #[test]
    fn input_is_kept_until_it_is_taken_each_block_once_and_bounded() {
        let mut known = Known::default();
        known.note(Frame::Blocks(blocks([1, 2, 2, 1, 3], Channel::Stdin)));
        let kept = |known: &Known| known.input.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>();
        assert_eq!(kept(&known), [1, 2, 3]);
        known.taken(2);
        assert_eq!((kept(&known), known.has_read), (vec![3], true));
        known.taken(3);
        assert_eq!(known.input_bytes, 0);
        let much = vec![0; INPUT_WINDOW_BYTES];
        for sequence in 4..100 {
            known.note(Frame::Blocks(link::block(&[&Block::head(sequence, Channel::Stdin)[..], &much].concat())));
        }
        assert!(known.input_bytes <= INPUT_BYTES_MAX + INPUT_WINDOW_BYTES + 64, "{}", known.input_bytes);
    }

    #[test]
    fn nothing_is_acknowledged_that_was_not_handed_on() {
        let mut known = Known { handed: 7, ..Known::default() };
        let (frame, left) = known.note(word(&Said::Asked(Asked::Ack(500))));
        assert_eq!((frame, left, known.acknowledged), (word(&Said::Asked(Asked::Ack(7))), false, 7));
        let (frame, _) = known.note(word(&Said::Asked(Asked::Ack(5))));
        assert_eq!((frame, known.acknowledged), (word(&Said::Asked(Asked::Ack(5))), 7));
        assert!(known.note(word(&Said::Left)).1);
    }
}
