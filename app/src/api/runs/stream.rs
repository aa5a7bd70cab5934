//! `GET /v1/runs/stream`: a run over a WebSocket. Words are text, blocks are binary; see docs/runs.md.

use super::asker;
use crate::api::App;
use crate::api::problem::Refusal;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use runs::front::Asker;
use runs::link::{self, Frame, Reader, Writer, payloads};
use runs::order::Said;
use runs::session::{RefusedRun, Session};
use std::time::Duration;
use tokio::sync::mpsc;
use wire::api::Problem;
use wire::run::{Accepted, Asked, Attach, Block, Channel, Ended, INPUT_WINDOW_BYTES, RunWanted, Told};

/// The protocol that is spoken, for browsers, which want one of those they offered.
const PROTOCOL: &str = "bramble.runs.v1";
/// A run with all its files, in JSON and base 64.
const MESSAGE_BYTES_MAX: usize = 24 << 20;
/// What people type is little, and each stream has one: the usual 128 KiB are a fifth of a run's memory.
const READ_BUFFER_BYTES: usize = 8 << 10;
const FIRST_DEADLINE: Duration = Duration::from_secs(30);
/// A client that is still there answers a ping; one that does not answer two is gone without a word.
const PING_EVERY: Duration = Duration::from_secs(15);
/// What a client said before its connection broke is here already, or on its way.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(1);
const TOLD_MAX: usize = 16;
/// Of a message that is kept, besides its bytes.
const MESSAGE_COST_BYTES: usize = 64;

type Sink = SplitSink<WebSocket, Message>;
type Source = SplitStream<WebSocket>;

pub(crate) async fn stream(
    State(app): State<App>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let asker = asker(&headers);
    let upgrade = upgrade.map_err(|rejection| {
        Refusal::new(400, "B0202", rejection.body_text())
            .hint("this is a WebSocket, see docs/runs.md; POST /v1/runs takes a run and answers when it has ended")
    })?;
    let upgrade = upgrade.protocols([PROTOCOL]).read_buffer_size(READ_BUFFER_BYTES);
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let closed = app.closed();
        tokio::select! {
            () = serve(&app, asker, socket) => {}
            // The client finds whoever serves next, and comes back to its run there.
            () = closed => {}
        }
    }))
}

async fn serve(app: &App, asker: Asker, socket: WebSocket) {
    let (mut sink, mut source) = socket.split();
    let first = tokio::time::timeout(FIRST_DEADLINE, first(&mut source)).await;
    let begun = match first {
        Ok(Some(Ok(Asked::Run(wanted)))) if !wanted.inputs.is_empty() => {
            Err(wrong("`inputs` are for POST /v1/runs; a stream has one input, which it sends"))
        }
        Ok(Some(Ok(Asked::Run(wanted)))) => begin(app, (*wanted, asker), &mut sink, &mut source).await,
        Ok(Some(Ok(Asked::Attach(attach)))) => attach_to(app, attach).await,
        Ok(Some(Ok(Asked::Ack(_) | Asked::Signal(_) | Asked::Resize(_)))) | Err(_) => {
            Err(wrong("the first message says what to run, or which run to attach to"))
        }
        Ok(Some(Err(problem))) => Err(problem),
        Ok(None) => return,
    };
    match begun {
        Ok(Some((session, early))) => relay(session, early, sink, source).await,
        Ok(None) => {}
        Err(problem) => {
            // A client that is gone is not told.
            let _ = sink.send(word(&Told::Problem(problem))).await;
            let _ = sink.send(close(close_code::POLICY, "")).await;
        }
    }
}

fn wrong(message: &str) -> Problem {
    RefusedRun::Wrong(message.to_owned()).problem().1
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

fn word(told: &Told) -> Message {
    // Plain data: it has a form in JSON.
    Message::Text(serde_json::to_string(told).unwrap_or_default().into())
}

/// The first words. `None` for a client that left.
async fn first(source: &mut Source) -> Option<Result<Asked, Problem>> {
    loop {
        match source.next().await?.ok()? {
            Message::Text(text) => return Some(asked(&text)),
            Message::Binary(_) => return Some(Err(wrong("the first message is text"))),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return None,
        }
    }
}

fn asked(text: &str) -> Result<Asked, Problem> {
    serde_json::from_str(text).map_err(|error| wrong(&format!("a message that is not understood: {error}")))
}

type Begun = Result<Option<(Session, Vec<Message>)>, Problem>;

/// Waits for a worker, and listens to the client meanwhile: one that leaves waits no more.
async fn begin(app: &App, (wanted, asker): (RunWanted, Asker), sink: &mut Sink, source: &mut Source) -> Begun {
    let (told, mut tells) = mpsc::channel(TOLD_MAX);
    let mut beginning = std::pin::pin!(app.runs.begin(wanted, asker, &told));
    let (mut early, mut early_bytes) = (Vec::new(), 0);
    loop {
        tokio::select! {
            begun = &mut beginning => return begun.map(|session| Some((session, early))).map_err(|error| error.problem().1),
            Some(told) = tells.recv() => if sink.send(word(&told)).await.is_err() { return Ok(None) },
            message = source.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
                Some(Ok(message)) => {
                    early_bytes += MESSAGE_COST_BYTES + match &message {
                        Message::Binary(bytes) => bytes.len(),
                        Message::Text(text) => text.len(),
                        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
                    };
                    if early_bytes > INPUT_WINDOW_BYTES {
                        return Err(wrong("more input than is waited for"));
                    }
                    early.push(message);
                }
            }
        }
    }
}

async fn attach_to(app: &App, attach: Attach) -> Begun {
    let session = app.runs.attach(attach).await.map_err(|error| error.problem().1)?;
    Ok(Some((session, Vec::new())))
}

/// How the client's side ended.
enum Gone {
    Left,
    Broken,
    /// It said something that is not understood.
    Wrong(Problem),
}

async fn relay(session: Session, early: Vec<Message>, mut sink: Sink, mut source: Source) {
    let Session { accepted, mut reader, mut writer } = session;
    let gone = {
        let mut up = std::pin::pin!(listen(early, &mut source, &mut writer));
        tokio::select! {
            gone = &mut up => Some(gone),
            told = tell(accepted, &mut reader, &mut sink) => match told {
                // It ended with the run, or another connection watches that now.
                Over::Said => None,
                // Whether on purpose is in what they said last.
                Over::Unheard => tokio::time::timeout(LAST_WORD_PATIENCE, up).await.ok(),
            },
        }
    };
    match gone {
        // If the worker is gone, so is the run.
        Some(Gone::Left) => drop(writer.word(&Said::Left).await),
        Some(Gone::Broken) => {}
        Some(Gone::Wrong(problem)) => {
            let _ = writer.word(&Said::Left).await;
            let _ = sink.send(word(&Told::Problem(problem))).await;
            let _ = sink.send(close(close_code::POLICY, "")).await;
        }
        None => drop(sink.send(close(close_code::NORMAL, "")).await),
    }
}

/// Hands on what the client says, until it says no more.
async fn listen(early: Vec<Message>, source: &mut Source, writer: &mut Writer) -> Gone {
    for message in early {
        if let Some(gone) = hear(message, writer).await {
            return gone;
        }
    }
    loop {
        // Pongs count: who is there answers.
        match tokio::time::timeout(2 * PING_EVERY + PING_EVERY / 2, source.next()).await {
            Ok(Some(Ok(message))) => {
                if let Some(gone) = hear(message, writer).await {
                    return gone;
                }
            }
            Ok(None) => return Gone::Left,
            Ok(Some(Err(_))) | Err(_) => return Gone::Broken,
        }
    }
}

/// Hands on what the client said.
async fn hear(message: Message, writer: &mut Writer) -> Option<Gone> {
    let said = match message {
        Message::Text(text) => match asked(&text) {
            Ok(Asked::Run(_) | Asked::Attach(_)) => return Some(Gone::Wrong(wrong("this stream has its run"))),
            Ok(asked) => writer.word(&Said::Asked(asked)).await,
            Err(problem) => return Some(Gone::Wrong(problem)),
        },
        Message::Binary(bytes) => match Block::parse(&bytes) {
            Some(block) if block.channel == Channel::Stdin => writer.frames(&link::block(&bytes)).await,
            Some(_) | None => return Some(Gone::Wrong(wrong("a binary message that is no block of input"))),
        },
        Message::Ping(_) | Message::Pong(_) => Ok(()),
        Message::Close(_) => return Some(Gone::Left),
    };
    // A worker that is gone is found out by whoever reads from it.
    drop(said);
    None
}

/// Why nothing more is told.
enum Over {
    /// The worker says no more, or is gone.
    Said,
    /// The client cannot be told any more.
    Unheard,
}

/// Tells whose run it is, and hands on what the worker says, until it says no more or nobody hears it.
async fn tell(accepted: Accepted, reader: &mut Reader, sink: &mut Sink) -> Over {
    if sink.send(word(&Told::Accepted(accepted))).await.is_err() {
        return Over::Unheard;
    }
    let mut pings = tokio::time::interval(PING_EVERY);
    loop {
        let handed = tokio::select! {
            frame = reader.next() => match frame {
                Ok(Some(frame)) => hand_on(&frame, sink).await,
                Ok(None) | Err(_) => return Over::Said,
            },
            _ = pings.tick() => sink.send(Message::Ping(Bytes::new())).await.map_err(|_| Over::Unheard),
        };
        if let Err(over) = handed {
            return over;
        }
    }
}

/// Hands on one thing that the worker said. One that says what is not understood says no more.
async fn hand_on(frame: &Frame, sink: &mut Sink) -> Result<(), Over> {
    match frame {
        Frame::Word(json) => {
            let text = String::from_utf8(json.to_vec()).map_err(|_| Over::Said)?;
            sink.send(Message::Text(text.into())).await.map_err(|_| Over::Unheard)
        }
        Frame::Blocks(frames) => {
            for bytes in payloads(frames) {
                let message = match Block::parse(bytes).ok_or(Over::Said)? {
                    Block { channel: Channel::End, payload, .. } => {
                        let ended = Frame::word::<Ended>(payload).map_err(|_| Over::Said)?;
                        word(&Told::Ended(Box::new(ended)))
                    }
                    _ => Message::Binary(frames.slice_ref(bytes)),
                };
                sink.feed(message).await.map_err(|_| Over::Unheard)?;
            }
            sink.flush().await.map_err(|_| Over::Unheard)
        }
    }
}
