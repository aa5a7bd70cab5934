//! What is sent on one stream, as hyper asks for it.
//!
//! Owns the task behind a stream that a server answers with: reset, the stream takes it along; said to the end, it is
//! let go, since it may still read.

use crate::failure::Failure;
use crate::head::write_end;
use crate::inflow::framed;
use crate::pipe::PipeReader;
use crate::streams::Place;
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use world::task::Task;

#[derive(Debug)]
pub(crate) enum Outflow {
    /// All of it, at once.
    Whole(Bytes),
    /// Messages in a row.
    Messages { from: mpsc::Receiver<Item>, rest: Option<Bytes>, has_ended: bool, task: Option<Task<()>> },
    /// Bytes, after what opens the tunnel.
    Piped { opening: Bytes, pipe: PipeReader, task: Option<Task<()>> },
}

/// Of a watch.
#[derive(Debug)]
pub(crate) enum Item {
    Message(Bytes),
    End(Result<(), Failure>),
}

impl Outflow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self {
            Outflow::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Outflow::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Outflow::Messages { rest: Some(rest), .. } if !rest.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(rest)))))
            }
            Outflow::Messages { has_ended: true, .. } => Poll::Ready(None),
            Outflow::Messages { from, rest, has_ended, task } => match ready!(from.poll_recv(cx)) {
                Some(Item::Message(message)) => {
                    let (first, second) = framed(message);
                    *rest = second;
                    Poll::Ready(Some(Ok(Frame::data(first))))
                }
                Some(Item::End(ended)) => {
                    *has_ended = true;
                    task.take().into_iter().for_each(Task::detach);
                    let mut trailers = HeaderMap::new();
                    write_end(&mut trailers, ended.as_ref().copied());
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
                None => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
            },
            Outflow::Piped { opening, .. } if !opening.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(opening)))))
            }
            Outflow::Piped { pipe, task, .. } => {
                let frame = ready!(pipe.poll_frame(cx));
                if pipe.has_ended() {
                    task.take().into_iter().for_each(Task::detach);
                }
                Poll::Ready(frame)
            }
        }
    }
}

impl Body for Outflow {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outflow::Whole(bytes) => bytes.is_empty(),
            Outflow::Messages { .. } | Outflow::Piped { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outflow::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Outflow::Messages { .. } | Outflow::Piped { .. } => SizeHint::default(),
        }
    }
}

/// An answer, counted as under way until it is through.
#[derive(Debug)]
pub(crate) struct Placed {
    body: Outflow,
    _place: Place,
}

impl Placed {
    pub(crate) fn new(body: Outflow, place: Place) -> Placed {
        Placed { body, _place: place }
    }
}

impl Body for Placed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.body.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
