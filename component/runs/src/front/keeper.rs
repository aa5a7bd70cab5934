//! Keeps a client's line to its run: when a machine between is lost, another way is found to the same run, and the client
//! does not notice; when the run's own machine is lost, the client is told, and the run begins anew if that was declared harmless.

use super::Front;
use crate::link::{self, Frame, Reader, Writer, payloads};
use crate::order::Said;
use crate::outgoing;
use crate::session::{RefusedRun, Session};
use crate::talk::{Led, Watching, Wish};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::run::{Accepted, Asked, Block, Channel, Ended, RunVerdict, Told};

/// How long another way is looked for. A worker gives its run up when nobody has come within as long.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);
/// A machine that is judged to be gone may be one whose node begins again: its workers wait for that.
const GONE_PATIENCE: Duration = Duration::from_secs(6);
const TOLD_MAX: usize = 16;
/// Of input, while there is no line: a client that keeps to its window has less.
const INPUT_FRAMES_MAX: usize = 4_096;
/// Times a repeatable run is begun anew: a program that takes its machine down does so everywhere.
const AGAIN_MAX: u32 = 3;

pub(super) struct Keeper {
    front: Arc<Front>,
    wish: Wish,
    accepted: Accepted,
    led: Led,
    line: (Reader, Writer),
    client: (Reader, Writer),
    /// The last block that was handed to the client, and the last one it acknowledged.
    handed: u64,
    acknowledged: u64,
    /// Input that may not have arrived, in frames.
    input: VecDeque<(u64, Bytes)>,
    /// Whether the program has had any.
    has_read: bool,
    kills: bool,
    size: Option<Asked>,
    begun_again: u32,
}

/// How a line's time ended.
enum Stop {
    /// Nothing more is to be said, or nobody is there to hear it.
    Over,
    /// A machine between, or the run's own, is gone.
    Broken,
}

impl Keeper {
    /// The client's end of a line that is kept for as long as the run lasts.
    pub(super) fn keep(front: Arc<Front>, wish: Wish, session: Session, led: Led) -> Session {
        Keeper::resumed(front, wish, session, led, 0)
    }

    /// The same, for a client that has had some of it.
    pub(super) fn resumed(front: Arc<Front>, wish: Wish, session: Session, led: Led, after: u64) -> Session {
        let Session { accepted, reader, writer } = session;
        let (ours, (reader_end, writer_end)) = link::pair();
        let keeper = Keeper {
            front,
            wish,
            accepted: accepted.clone(),
            led,
            line: (reader, writer),
            client: ours,
            handed: after,
            acknowledged: after,
            input: VecDeque::new(),
            has_read: accepted.next_input > 1,
            kills: false,
            size: None,
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
            drop(carried);
            match stop {
                Stop::Over => return,
                Stop::Broken => {}
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
        let elsewhere = self.front.elsewhere();
        let (assigner, machine) = (self.led.assigner.clone(), self.accepted.node.clone());
        let me = self.front.house.node().to_owned();
        let lost = async {
            let Some(elsewhere) = elsewhere else { return std::future::pending().await };
            let of = |machine: String| {
                let elsewhere = Arc::clone(&elsewhere);
                let is_me = machine == me;
                async move { if is_me { std::future::pending().await } else { elsewhere.lost(&machine).await } }
            };
            tokio::select! {
                () = of(assigner) => {}
                () = of(machine) => {}
            }
        };
        let mut lost = std::pin::pin!(lost);
        loop {
            tokio::select! {
                frame = self.line.0.next() => match frame {
                    Ok(Some(frame)) => match self.hand_on(frame).await {
                        Ok(false) => {}
                        Ok(true) | Err(_) => return Stop::Over,
                    },
                    Ok(None) | Err(_) => return Stop::Broken,
                },
                said = self.client.0.next() => match said {
                    Ok(Some(frame)) => {
                        let frame = self.bounded(frame);
                        if self.note(&frame) {
                            // If nobody hears it, the run is gone, or soon will be.
                            let _ = self.line.1.frame(frame).await;
                            return Stop::Over;
                        }
                        // A line that broke is found out by reading from it.
                        let _ = self.line.1.frame(frame).await;
                    }
                    // Gone without a word; the worker waits a while for it.
                    Ok(None) | Err(_) => return Stop::Over,
                },
                () = &mut lost => return Stop::Broken,
            }
        }
    }

    /// To the client. True when it was the end.
    async fn hand_on(&mut self, frame: Frame) -> io::Result<bool> {
        let frames = match frame {
            Frame::Blocks(frames) => frames,
            Frame::Word(json) => {
                match Frame::word::<Told>(&json)? {
                    Told::Superseded => return Ok(true),
                    Told::Taken(number) => {
                        self.has_read |= number > 0;
                        while self.input.front().is_some_and(|(first, _)| *first <= number) {
                            self.input.pop_front();
                        }
                    }
                    _other => {}
                }
                self.client.1.frame(Frame::Word(json)).await?;
                return Ok(false);
            }
        };
        let mut fresh_from = 0;
        let (mut at, mut ends) = (0, false);
        for bytes in payloads(&frames) {
            let whole = bytes.len() + outgoing::FRAME_HEAD_BYTES;
            at += whole;
            let Some(block) = Block::parse(bytes) else { return Err(io::ErrorKind::InvalidData.into()) };
            if block.sequence <= self.handed {
                fresh_from = at;
            } else {
                self.handed = block.sequence;
                ends |= block.channel == Channel::End;
            }
        }
        if fresh_from < frames.len() {
            self.client.1.frame(Frame::Blocks(frames.slice(fresh_from..))).await?;
        }
        if ends {
            self.see_off().await;
        }
        Ok(ends)
    }

    /// The end was handed on: what the client still says is that it has arrived.
    async fn see_off(&mut self) {
        let arrived = async {
            while let Ok(Some(frame)) = self.client.0.next().await {
                let frame = self.bounded(frame);
                self.note(&frame);
                if self.line.1.frame(frame).await.is_err() || self.acknowledged >= self.handed {
                    return;
                }
            }
        };
        // It is kept by its worker for as long.
        let _ = tokio::time::timeout(PATIENCE, arrived).await;
    }

    /// Nothing is acknowledged that was not handed on: of a run that began anew, what its client says of the one before.
    fn bounded(&self, frame: Frame) -> Frame {
        let Frame::Word(json) = &frame else { return frame };
        match Frame::word::<Said>(json) {
            Ok(Said::Asked(Asked::Ack(sequence))) if sequence > self.handed => {
                let json = serde_json::to_vec(&Said::Asked(Asked::Ack(self.handed)));
                json.map_or(frame, |json| Frame::Word(json.into()))
            }
            _other => frame,
        }
    }

    /// Remembers what would have to be said again. True when the client leaves.
    fn note(&mut self, frame: &Frame) -> bool {
        match frame {
            Frame::Blocks(frames) => {
                for bytes in payloads(frames) {
                    if let Some(block) = Block::parse(bytes) {
                        self.input.push_back((block.sequence, link::block(bytes)));
                    }
                }
            }
            Frame::Word(json) => match Frame::word::<Said>(json) {
                Ok(Said::Left) => return true,
                Ok(Said::Asked(Asked::Ack(sequence))) => self.acknowledged = self.acknowledged.max(sequence),
                Ok(Said::Asked(Asked::Signal(name))) => self.kills |= name.trim_start_matches("SIG") == "KILL",
                Ok(Said::Asked(size @ Asked::Resize(_))) => self.size = Some(size),
                Ok(Said::Asked(Asked::Run(_) | Asked::Attach(_))) | Err(_) => {}
            },
        }
        false
    }

    /// Another way to the same run. `false`: the client needs none any more. An error is why the run is lost.
    async fn find_again(&mut self) -> Result<bool, String> {
        let machine = self.accepted.node.clone();
        let until = world::clock::monotonic() + PATIENCE;
        let mut tried = BTreeSet::from([self.led.assigner.clone()]);
        let mut gone_until = None;
        loop {
            let watching = Watching {
                id: self.accepted.id.clone(),
                after: self.acknowledged,
                instead_of: Some(self.accepted.connection),
            };
            let front = Arc::clone(&self.front);
            let resumed = tokio::select! {
                resumed = front.resume_somewhere(&machine, &watching, &tried) => resumed,
                left = self.client_leaves() => {
                    if left {
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
                    let elsewhere = self.front.elsewhere();
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

    /// Listens to the client meanwhile, as far as there is room for what it says. Ends when it is gone; true if it said so.
    async fn client_leaves(&mut self) -> bool {
        loop {
            if self.input.len() > INPUT_FRAMES_MAX {
                std::future::pending::<()>().await;
            }
            match self.client.0.next().await {
                Ok(Some(frame)) => {
                    let frame = self.bounded(frame);
                    if self.note(&frame) {
                        return true;
                    }
                }
                Ok(None) | Err(_) => return false,
            }
        }
    }

    /// What may have been under way when the line broke.
    async fn say_again(&mut self) {
        let mut said: Vec<Frame> = Vec::new();
        let word = |asked: Asked| serde_json::to_vec(&Said::Asked(asked)).map(|json| Frame::Word(json.into()));
        said.extend(word(Asked::Ack(self.acknowledged)).ok());
        said.extend(self.size.clone().and_then(|size| word(size).ok()));
        said.extend(self.input.iter().map(|(_, frame)| Frame::Blocks(frame.clone())));
        if self.kills {
            said.extend(word(Asked::Signal("KILL".to_owned())).ok());
        }
        for frame in said {
            // A line that broke again is found out by reading from it.
            let _ = self.line.1.frame(frame).await;
        }
    }

    fn may_begin_again(&self) -> bool {
        let has_read = self.has_read && self.wish.wanted.stdin.is_none();
        self.wish.wanted.repeatable && !has_read && !self.kills && self.begun_again < AGAIN_MAX
    }

    /// The run is lost. Begun anew if it may be; else the client is told. False when nothing follows.
    async fn begin_again(&mut self, why: &str) -> bool {
        if self.may_begin_again() {
            self.wish.attempt = 0;
            self.begun_again += 1;
            self.wish.id = world::random::word(20);
            let (told, _nobody) = mpsc::channel(TOLD_MAX);
            let front = Arc::clone(&self.front);
            if let Ok((session, led)) = front.begin_somewhere(self.wish.clone(), &told).await {
                front.house.meters().begun_again();
                let words = [Told::Again(why.to_owned()), Told::Accepted(session.accepted.clone())];
                for word in words {
                    if self.client.1.word(&word).await.is_err() {
                        front.kill(&session.accepted.id).await;
                        return false;
                    }
                }
                (self.handed, self.acknowledged, self.led) = (0, 0, led);
                self.accepted = session.accepted;
                self.line = (session.reader, session.writer);
                self.say_again().await;
                return true;
            }
        }
        let ended =
            Ended { verdict: RunVerdict::Lost, message: why.to_owned(), sequence: self.handed + 1, ..Ended::default() };
        let json = serde_json::to_vec(&ended).unwrap_or_default();
        let block = [&Block::head(ended.sequence, Channel::End)[..], &json].concat();
        // A client that is gone finds it in the record.
        let _ = self.client.1.frame(Frame::Blocks(link::block(&block))).await;
        false
    }
}
