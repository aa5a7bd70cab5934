//! `POST /v1/runs`: a run, or the same code with many inputs, answered when all have ended.

use super::{asker, refused};
use crate::api::App;
use crate::api::problem::{Body, Refusal};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures::{StreamExt, TryStreamExt, stream};
use runs::front::Asker;
use runs::link::{Frame, payloads};
use runs::order::Said;
use runs::session::{RefusedRun, Session};
use std::collections::BTreeMap;
use std::io;
use tokio::sync::{mpsc, oneshot};
use wire::run::{Asked, Block, Channel, Ended, RunAnswer, RunAnswers, RunWanted, Told};

/// What a run writes goes in one answer: unless it says otherwise this much, and never more than the other.
const OUTPUT_BYTES: u64 = 4 << 20;
const OUTPUT_BYTES_MAX: u64 = 64 << 20;
const INPUTS_MAX: usize = 1_000;
/// Of all inputs together, in one answer.
const OUTPUT_OF_ALL_BYTES_MAX: u64 = 256 << 20;
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

/// The first compiles; the others find it compiled, each core's next one on its way while it runs one.
async fn many(app: &App, wanted: &RunWanted, inputs: Vec<String>, asker: &Asker) -> Result<Vec<RunAnswer>, Refusal> {
    let at_once = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let mut inputs = inputs.into_iter().map(|input| RunWanted { stdin: Some(input), ..wanted.clone() });
    let mut answers = Vec::new();
    if let Some(first) = inputs.next() {
        answers.push(one(app, first, asker).await?);
    }
    let others = stream::iter(inputs.map(|wanted| one(app, wanted, asker))).buffered(at_once);
    answers.extend(others.try_collect::<Vec<_>>().await?);
    Ok(answers)
}

async fn one(app: &App, wanted: RunWanted, asker: &Asker) -> Result<RunAnswer, Refusal> {
    let (told, _unheard) = mpsc::channel(TOLD_MAX);
    let session = app.runs.begin(wanted, asker.clone(), &told).await.map_err(refused)?;
    let (left, leaves) = oneshot::channel::<()>();
    let (answer, answered) = oneshot::channel();
    let watch = async move {
        // Whoever waits for the answer is there as long as this is: dropped, it says so.
        let _ = answer.send(watch(session, leaves).await);
    };
    // Ends with the run, which it has killed when nobody waits any more.
    world::task::spawn("a run over HTTP", watch).detach();
    let answer = answered.await;
    drop(left);
    let lost = |error: io::Error| Refusal::new(502, "B0905", format!("the run's worker is gone: {error}"));
    answer.map_err(|_| lost(io::ErrorKind::UnexpectedEof.into()))?.map_err(lost)
}

/// Reads a run to its end.
async fn watch(session: Session, mut leaves: oneshot::Receiver<()>) -> io::Result<RunAnswer> {
    let Session { mut accepted, mut reader, mut writer } = session;
    let mut written: BTreeMap<Channel, Vec<u8>> = BTreeMap::new();
    loop {
        let frame = tokio::select! {
            frame = reader.next() => frame?,
            _ = &mut leaves => {
                writer.word(&Said::Left).await?;
                return Err(io::ErrorKind::Interrupted.into());
            }
        };
        match frame {
            Some(Frame::Blocks(frames)) => {
                let mut last = 0;
                for block in payloads(&frames).filter_map(Block::parse) {
                    last = block.sequence;
                    if block.channel == Channel::End {
                        let ended: Ended = Frame::word(block.payload)?;
                        // Its worker forgets it; if that is gone, it has.
                        let _ = writer.word(&Said::Asked(Asked::Ack(last))).await;
                        return Ok(answer(accepted, ended, written));
                    }
                    written.entry(block.channel).or_default().extend_from_slice(block.payload);
                }
                writer.word(&Said::Asked(Asked::Ack(last))).await?;
            }
            Some(Frame::Word(word)) => {
                match Frame::word(&word)? {
                    Told::Problem(problem) => return Err(io::Error::other(problem.message)),
                    // What was written on the machine that is gone is not what this one writes.
                    Told::Again(_) => written.clear(),
                    Told::Accepted(anew) => accepted = anew,
                    Told::Queued(_)
                    | Told::Preparing(_)
                    | Told::Phase(_)
                    | Told::Taken(_)
                    | Told::Ended(_)
                    | Told::Superseded => {}
                }
            }
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn answer(accepted: wire::run::Accepted, ended: Ended, mut written: BTreeMap<Channel, Vec<u8>>) -> RunAnswer {
    let mut text = |channel: Channel| match String::from_utf8(written.remove(&channel).unwrap_or_default()) {
        Ok(text) => (text, None),
        Err(error) => {
            let coded = base64::engine::general_purpose::STANDARD.encode(error.as_bytes());
            (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(coded))
        }
    };
    let ((stdout, stdout_base64), (stderr, stderr_base64)) = (text(Channel::Stdout), text(Channel::Stderr));
    let (compiler, _) = text(Channel::Compiler);
    RunAnswer {
        id: accepted.id,
        node: accepted.node,
        language: accepted.language,
        ended,
        stdout,
        stderr,
        compiler,
        stdout_base64,
        stderr_base64,
    }
}
