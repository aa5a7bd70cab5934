//! One request and its answer, over a connection that speaks HTTP/1.
//!
//! Owns the order: the answer is written as it comes, while the client is watched for having left. Does not
//! know how a request is answered: `exchange` does.

use crate::asking::ClientBody;
use crate::body::AnswerBody;
use crate::exchange::{self, Admitted};
use crate::http1::{Broken, Framed, LineError, Manner, Received, SharedWire, Wire};
use crate::reused::{Kept, Outcome, Reused};
use crate::session::Session;
use bytes::Bytes;
use http::header::TRAILER;
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread::LocalKey;
use std::time::Duration;

/// A client that is still sending when it is refused is read from for so long, so that it can read why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 << 10;

/// What becomes of the connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Another request may come.
    Next,
    /// None may; the client may still be sending.
    Close,
    /// The client has left, or was not told all.
    Gone,
    /// It leaves HTTP: the session has both ends.
    Switch,
    /// It began as HTTP/2 does.
    Preface,
}

/// A request under way.
pub(crate) type Talk = Reused<After>;

impl Outcome for After {
    fn kept() -> &'static LocalKey<Kept<After>> {
        thread_local! {
            static KEPT: Kept<After> = const { RefCell::new(Vec::new()) };
        }
        &KEPT
    }
}

/// Begins to answer what was received.
pub(crate) fn begin(session: Arc<Session>, wire: SharedWire, received: Result<Received, Broken>) -> Talk {
    let (begun, manner, unread) = match received {
        Ok(Received { parts, body, manner }) => {
            let request = Request::from_parts(parts, ClientBody::Upload(body));
            (exchange::begin(&session, request, None), manner, false)
        }
        Err(Broken::Gone) => return Reused::new(std::future::ready(After::Gone)),
        Err(Broken::Bad(bad)) => (Err(exchange::refuse(&session, bad)), Manner::default(), true),
    };
    Reused::new(talk(session, wire, begun, manner, unread))
}

/// Answers a request. `unread` when it could not be made out: nobody knows where the next would begin.
#[expect(clippy::manual_async_fn, reason = "an async fn holds what it is given twice")]
fn talk(
    session: Arc<Session>,
    wire: SharedWire,
    mut begun: Result<Admitted, Response<AnswerBody>>,
    manner: Manner,
    unread: bool,
) -> impl Future<Output = After> + Send {
    async move {
        let mut answered = None;
        if let Ok(admitted) = &mut begun {
            let mut answering = pin!(admitted.run(&session));
            let came = poll_fn(|cx| match answering.as_mut().poll(cx) {
                Poll::Ready(came) => Poll::Ready(Some(came)),
                // Dropped, it ends what it began.
                Poll::Pending => wire.lock().poll_gone(cx).map(|()| None),
            });
            answered = came.await;
        }
        let mut response = match (begun, answered) {
            (Ok(admitted), Some(answered)) => admitted.finish(&session, answered),
            (Ok(_), None) => return After::Gone,
            (Err(response), _) => response,
        };
        session.offer_other_way(response.headers_mut());
        let mut telling = Telling::new(&wire, response, manner, unread || session.is_ending());
        let told = poll_fn(|cx| telling.poll(cx, &wire)).await;
        let Telling { switches, goes_on, body, .. } = telling;
        drop(body);
        match told {
            Ok(()) if switches => After::Switch,
            Ok(()) if goes_on && poll_fn(|cx| Poll::Ready(wire.lock().is_through(cx))).await => After::Next,
            Ok(()) => After::Close,
            Err(_) if unread => After::Close,
            Err(error) => {
                tracing::debug!(client = %session.client, %error, "client connection ended");
                After::Gone
            }
        }
    }
}

/// Why an answer could not be told to its end.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error(transparent)]
    Client(#[from] std::io::Error),
    #[error(transparent)]
    Instance(#[from] LineError),
    #[error("the client has left")]
    Gone,
}

/// An answer on its way to the client, written as it comes.
struct Telling {
    body: AnswerBody,
    framed: Framed,
    /// The head says that there will be trailers.
    announced: bool,
    ended: bool,
    /// The connection leaves HTTP.
    switches: bool,
    /// Another request may follow.
    goes_on: bool,
}

impl Telling {
    /// Begins with the head. `last` when no other request is wanted.
    fn new(wire: &SharedWire, mut response: Response<AnswerBody>, manner: Manner, last: bool) -> Telling {
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let announced = response.headers().contains_key(TRAILER);
        let exact = response.body().size_hint().exact();
        let (framed, goes_on) = wire.lock().put_head(&mut response, exact, manner, last);
        let (ended, framed) = (framed.is_none(), framed.unwrap_or(Framed::Plain));
        Telling { body: response.into_body(), framed, announced, ended, switches, goes_on }
    }

    fn poll(&mut self, cx: &mut Context<'_>, wire: &SharedWire) -> Poll<Result<(), Untold>> {
        loop {
            let mut waits = false;
            if !self.ended && wire.lock().has_room() {
                match Pin::new(&mut self.body).poll_frame(cx)? {
                    Poll::Ready(Some(frame)) => self.put(frame, &mut wire.lock()),
                    Poll::Ready(None) => {
                        self.ended = true;
                        wire.lock().put_end(self.framed);
                    }
                    Poll::Pending => waits = true,
                }
            }
            let mut wire = wire.lock();
            ready!(wire.poll_write(cx))?;
            if waits {
                return wire.poll_gone(cx).map(|()| Err(Untold::Gone));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn put(&mut self, frame: Frame<Bytes>, wire: &mut Wire) {
        match frame.into_data() {
            Ok(data) => {
                wire.put_data(data, self.framed);
                if self.body.is_end_stream() {
                    self.ended = true;
                    wire.put_end(self.framed);
                    // Others may have the connection while the client takes its time.
                    self.body.complete();
                }
            }
            Err(frame) => {
                self.ended = true;
                let trailers = frame.into_trailers().ok().filter(|_| self.announced && self.framed == Framed::Chunks);
                match trailers {
                    Some(trailers) => wire.put_trailers(&trailers),
                    None => wire.put_end(self.framed),
                }
            }
        }
    }
}

/// Closes the connection so that the client can read what it was told.
pub(crate) async fn close(wire: &SharedWire) {
    if wire.lock().closes_cleanly() {
        return;
    }
    let closing = async {
        if poll_fn(|cx| wire.lock().poll_close(cx)).await.is_ok() {
            let mut left = LINGER_BYTES_MAX;
            poll_fn(|cx| wire.lock().poll_linger(cx, &mut left)).await;
        }
    };
    // Longer than a client needs that means well.
    drop(tokio::time::timeout(LINGER, closing).await);
}
