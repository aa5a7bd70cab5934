//! `POST /v1/runs`: a run, or the same code with many inputs, answered when all have ended.

use super::{asker, refused};
use crate::api::App;
use crate::api::problem::{Body, Refusal};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures::{StreamExt, stream};
use runs::front::Asker;
use runs::link::{Frame, payloads};
use runs::order::{Said, of_turn};
use runs::session::{NO_WORKER, RefusedRun, Session};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use wire::run::{Accepted, Asked, Block, Channel, Ended, RunAnswer, RunAnswers, RunVerdict, RunWanted, Told};

/// What a run writes goes in one answer: unless it says otherwise this much, and never more than the other.
const OUTPUT_BYTES: u64 = 4 << 20;
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
const INPUTS_MAX: usize = 1_000;
/// Of all inputs together, in one answer.
const OUTPUT_OF_ALL_BYTES_MAX: u64 = 256 << 20;
/// Inputs that a worker has at once, what they take together by the clock, and their bytes.
const TURNS_MAX: usize = 16;
const TURNS_USEC: u64 = 100_000;
const TURNS_BYTES_MAX: usize = 1 << 20;
/// What is read before it is acknowledged: a quarter of what a worker holds.
const OWED_BYTES: usize = 256 << 10;
const TOLD_MAX: usize = 16;

pub(crate) async fn run(
    State(app): State<App>,
    headers: HeaderMap,
    Body(mut wanted): Body<RunWanted>,
) -> Result<Response, Refusal> {
    let asker = asker(&headers);
    let wrong = |message: String| refused(RefusedRun::Wrong(message));
    let output = *wanted.limits.output_bytes.get_or_insert(OUTPUT_BYTES);
    if output > OUTPUT_BYTES_MAX {
        let what =
            format!("output_bytes is {output}, {OUTPUT_BYTES_MAX} at most; a stream takes more: GET /v1/runs/stream");
        return Err(wrong(what));
    }
    if wanted.terminal.is_some() || wanted.detach {
        return Err(wrong("a terminal, or a run nobody waits for, is for GET /v1/runs/stream".to_owned()));
    }
    let inputs = std::mem::take(&mut wanted.inputs);
    if inputs.is_empty() {
        wanted.stdin.get_or_insert_default();
        return Ok(Json(one(&app, wanted, &asker).await?).into_response());
    }
    if wanted.stdin.is_some() {
        return Err(wrong("`stdin` and `inputs` exclude each other".to_owned()));
    }
    if inputs.len() > INPUTS_MAX || output.saturating_mul(inputs.len() as u64) > OUTPUT_OF_ALL_BYTES_MAX {
        let what = format!(
            "{} inputs with {output} bytes of output each: {INPUTS_MAX} at most, and {OUTPUT_OF_ALL_BYTES_MAX} bytes of all",
            inputs.len()
        );
        return Err(wrong(what));
    }
    Ok(Json(RunAnswers { runs: many(&app, &wanted, inputs, &asker).await? }).into_response())
}

/// The first compiles, and is not compiled again where that failed. The others find it compiled; a worker has several of them one after the
/// other if they are short, and each core's next ones are on their way while it runs some.
async fn many(app: &App, wanted: &RunWanted, inputs: Vec<String>, asker: &Asker) -> Result<Vec<RunAnswer>, Refusal> {
    let at_once = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let mut inputs = VecDeque::from(inputs);
    let Some(first) = inputs.pop_front() else { return Ok(Vec::new()) };
    let first = one(app, with_inputs(wanted, vec![first]), asker).await?;
    let mut answers = vec![first.clone()];
    if first.ended.verdict == RunVerdict::NotCompiled {
        answers.extend(inputs.iter().map(|_| first.clone()));
        return Ok(answers);
    }
    let usec = AtomicU64::new(first.ended.times.run_usec);
    let together = app.runs.takes_turns();
    let wanted = std::iter::from_fn(|| {
        let most = if together { turns(usec.load(Ordering::Relaxed), inputs.len(), at_once) } else { 1 };
        let taken = take(&mut inputs, most);
        (!taken.is_empty()).then(|| with_inputs(wanted, taken))
    });
    let others = wanted.map(|wanted| async {
        let inputs = wanted.inputs.len().max(1);
        // That some cannot be run is no reason to throw away what others said.
        let answers = some(app, wanted, asker).await;
        let answers = answers.unwrap_or_else(|refusal| vec![not_run(&first, &refusal); inputs]);
        // The next are as long as these, for all that is known.
        let longest = answers.iter().map(|answer| answer.ended.times.run_usec).max();
        usec.store(longest.unwrap_or(0), Ordering::Relaxed);
        answers
    });
    answers.extend(stream::iter(others).buffered(at_once).collect::<Vec<_>>().await.into_iter().flatten());
    Ok(answers)
}

/// In place of what a run would have said.
fn not_run(like: &RunAnswer, refusal: &Refusal) -> RunAnswer {
    let problem = refusal.problem();
    // Whether it began where nobody answers is not known.
    let verdict = if problem.code == NO_WORKER { RunVerdict::Lost } else { RunVerdict::Refused };
    let ended = Ended { verdict, message: problem.message.clone(), ..Ended::default() };
    RunAnswer { language: like.language.clone(), ended, ..RunAnswer::default() }
}

/// How many inputs a worker has at once, by how long those before took: nobody waits noticeably longer for that, and towards the end all
/// cores have some.
fn turns(usec: u64, left: usize, at_once: usize) -> usize {
    let short = TURNS_USEC.checked_div(usec).map_or(1, |turns| usize::try_from(turns).unwrap_or(usize::MAX));
    short.min(left.div_ceil(2 * at_once)).clamp(1, TURNS_MAX)
}

fn take(inputs: &mut VecDeque<String>, most: usize) -> Vec<String> {
    let mut bytes = 0;
    let fitting = inputs.iter().take(most).take_while(|input| {
        let fits = bytes == 0 || bytes + input.len() <= TURNS_BYTES_MAX;
        bytes += input.len().max(1);
        fits
    });
    let count = fitting.count();
    inputs.drain(..count).collect()
}

fn with_inputs(wanted: &RunWanted, mut inputs: Vec<String>) -> RunWanted {
    // One alone is a run like any other.
    let stdin = if inputs.len() == 1 { inputs.pop() } else { None };
    RunWanted { stdin, inputs, ..wanted.clone() }
}

async fn one(app: &App, wanted: RunWanted, asker: &Asker) -> Result<RunAnswer, Refusal> {
    let answers = some(app, wanted, asker).await?;
    answers.into_iter().next().ok_or_else(|| lost(io::ErrorKind::UnexpectedEof.into()))
}

fn lost(error: io::Error) -> Refusal {
    Refusal::new(502, NO_WORKER, format!("the run's worker is gone: {error}"))
}

/// A run to its end, with each of its inputs if it has several.
async fn some(app: &App, wanted: RunWanted, asker: &Asker) -> Result<Vec<RunAnswer>, Refusal> {
    let (told, _unheard) = mpsc::channel(TOLD_MAX);
    let turns = wanted.inputs.len().max(1);
    let session = app.runs.begin(wanted, asker.clone(), &told).await.map_err(refused)?;
    let (left, leaves) = oneshot::channel::<()>();
    let (answer, answered) = oneshot::channel();
    let watch = async move {
        // Whoever waits for the answer is there as long as this is: dropped, it says so.
        let _ = answer.send(watch(session, turns, leaves).await);
    };
    // Ends with the run, which it has killed when nobody waits any more.
    world::task::spawn("a run over HTTP", watch).detach();
    let answers = answered.await;
    drop(left);
    answers.map_err(|_| lost(io::ErrorKind::UnexpectedEof.into()))?.map_err(lost)
}

/// Reads a run to its end.
async fn watch(session: Session, turns: usize, mut leaves: oneshot::Receiver<()>) -> io::Result<Vec<RunAnswer>> {
    let Session { accepted, mut reader, mut writer } = session;
    let mut heard = Heard { turns, accepted, answers: Vec::new(), written: BTreeMap::new() };
    let mut owed = 0;
    loop {
        let frame = tokio::select! {
            frame = reader.next() => match frame {
                Ok(Some(frame)) => frame,
                // What some have said is not lost with the others.
                Ok(None) | Err(_) if !heard.answers.is_empty() => {
                    heard.fill(RunVerdict::Lost, "its worker is gone".to_owned());
                    return Ok(heard.answers);
                }
                Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Err(error),
            },
            _ = &mut leaves => {
                writer.word(&Said::Left).await?;
                return Err(io::ErrorKind::Interrupted.into());
            }
        };
        match frame {
            Frame::Blocks(frames) => {
                owed += frames.len();
                if let Some((last, is_over)) = heard.blocks(&frames)?
                    && (is_over || owed > OWED_BYTES)
                {
                    owed = 0;
                    // At its end its worker forgets it. A line that broke is found out by reading from it, behind what has arrived.
                    let _ = writer.word(&Said::Asked(Asked::Ack(last))).await;
                    if is_over {
                        return Ok(heard.answers);
                    }
                }
            }
            Frame::Word(word) => match Frame::word(&word)? {
                Told::Problem(problem) => return Err(io::Error::other(problem.message)),
                // What was written on the machine that is gone is not what this one writes.
                Told::Again(_) => (heard.answers, heard.written, owed) = Default::default(),
                Told::Accepted(anew) => heard.accepted = anew,
                Told::Queued(_)
                | Told::Preparing(_)
                | Told::Phase(_)
                | Told::Taken(_)
                | Told::Ended(_)
                | Told::Superseded => {}
            },
        }
    }
}

/// What has come of a run.
struct Heard {
    turns: usize,
    accepted: Accepted,
    answers: Vec<RunAnswer>,
    written: BTreeMap<Channel, Vec<u8>>,
}

impl Heard {
    /// The number of the last block of these, and whether it is the end.
    fn blocks(&mut self, frames: &[u8]) -> io::Result<Option<(u64, bool)>> {
        let mut last = None;
        for block in payloads(frames).filter_map(Block::parse) {
            last = Some((block.sequence, block.channel == Channel::End));
            match block.channel {
                Channel::Turn => {
                    let mut answer = self.answer(Frame::word(block.payload)?);
                    answer.id = of_turn(&answer.id, self.answers.len());
                    self.answers.push(answer);
                }
                Channel::End => {
                    let ended: Ended = Frame::word(block.payload)?;
                    let rest = if ended.verdict == RunVerdict::Lost { RunVerdict::Lost } else { RunVerdict::Killed };
                    let message = ended.message.clone();
                    let mut answer = self.answer(ended);
                    if self.answers.len() + 1 < self.turns {
                        answer.id = of_turn(&answer.id, self.answers.len());
                    }
                    self.answers.push(answer);
                    self.fill(rest, message);
                    break;
                }
                channel @ (Channel::Stdin | Channel::Stdout | Channel::Stderr | Channel::Compiler) => {
                    self.written.entry(channel).or_default().extend_from_slice(block.payload);
                }
            }
        }
        Ok(last)
    }

    /// Inputs that have no turn any more end so, and have used nothing.
    fn fill(&mut self, verdict: RunVerdict, message: String) {
        self.written.clear();
        let unbegun = self.answer(Ended { verdict, message, ..Ended::default() });
        self.answers.resize(self.answers.len().max(self.turns), unbegun);
    }

    /// With what was written since the one before.
    fn answer(&mut self, ended: Ended) -> RunAnswer {
        let mut text = |channel: Channel| match String::from_utf8(self.written.remove(&channel).unwrap_or_default()) {
            Ok(text) => (text, None),
            Err(error) => {
                let coded = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
                (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(coded))
            }
        };
        let ((stdout, stdout_base64), (stderr, stderr_base64)) = (text(Channel::Stdout), text(Channel::Stderr));
        let (compiler, _) = text(Channel::Compiler);
        let Accepted { id, node, language, .. } = self.accepted.clone();
        RunAnswer { id, node, language, ended, stdout, stderr, compiler, stdout_base64, stderr_base64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runs::link::block;

    #[test]
    fn a_worker_has_few_inputs_that_are_long_and_many_that_are_short() {
        let check = |usec, left, at_once, expected| assert_eq!(turns(usec, left, at_once), expected, "{usec} {left}");
        check(1_000, 800, 4, 16);
        check(20_000, 800, 4, 5);
        check(2_000_000, 800, 4, 1);
        // Not one worker has all that is left.
        check(1_000, 16, 16, 1);
        check(1_000, 40, 4, 5);
        // Of one that did not run nothing is known.
        check(0, 800, 4, 1);
    }

    #[test]
    fn inputs_that_are_large_do_not_go_together() {
        let mut inputs: VecDeque<String> =
            [0, 600 << 10, 600 << 10, 3 << 20, 0].map(|bytes: usize| "x".repeat(bytes)).into();
        let counts: Vec<usize> =
            std::iter::from_fn(|| Some(take(&mut inputs, 16).len()).filter(|count| *count > 0)).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
    }

    fn said(sequence: u64, channel: Channel, payload: &[u8]) -> Vec<u8> {
        block(&[&Block::head(sequence, channel)[..], payload].concat()).to_vec()
    }

    fn ended(verdict: RunVerdict) -> Vec<u8> {
        serde_json::to_vec(&Ended { verdict, cpu_usec: 7, ..Ended::default() }).expect("words")
    }

    fn heard(turns: usize) -> Heard {
        let accepted = Accepted { id: "id".to_owned(), ..Accepted::default() };
        Heard { turns, accepted, answers: Vec::new(), written: BTreeMap::new() }
    }

    #[test]
    fn each_input_has_its_own_answer_and_an_early_end_is_nobody_elses() {
        let mut all = heard(3);
        let blocks = [
            said(1, Channel::Stdout, b"one"),
            said(2, Channel::Turn, &ended(RunVerdict::Finished)),
            said(3, Channel::Turn, &ended(RunVerdict::WrongExit)),
            said(4, Channel::Stdout, b"three"),
            said(5, Channel::End, &ended(RunVerdict::Finished)),
        ];
        assert_eq!(all.blocks(&blocks.concat()).expect("blocks"), Some((5, true)));
        let of = |heard: &Heard| -> Vec<(String, RunVerdict, String, u64)> {
            let answers = heard.answers.iter();
            answers.map(|one| (one.id.clone(), one.ended.verdict, one.stdout.clone(), one.ended.cpu_usec)).collect()
        };
        let answer = |id: &str, verdict, stdout: &str, usec| (id.to_owned(), verdict, stdout.to_owned(), usec);
        let expected = [
            answer("id.1", RunVerdict::Finished, "one", 7),
            answer("id.2", RunVerdict::WrongExit, "", 7),
            answer("id", RunVerdict::Finished, "three", 7),
        ];
        assert_eq!(of(&all), expected);

        for (end, rest) in [(RunVerdict::Lost, RunVerdict::Lost), (RunVerdict::Finished, RunVerdict::Killed)] {
            let mut early = heard(4);
            early.blocks(&said(1, Channel::Turn, &ended(RunVerdict::Finished))).expect("blocks");
            let last = [said(2, Channel::Stdout, b"half"), said(3, Channel::End, &ended(end))].concat();
            early.blocks(&last).expect("blocks");
            let expected = [
                answer("id.1", RunVerdict::Finished, "", 7),
                answer("id.2", end, "half", 7),
                answer("id", rest, "", 0),
                answer("id", rest, "", 0),
            ];
            assert_eq!(of(&early), expected);
        }
    }
}
