//! A body on its way into the stash, read along by those who wait for it.
//!
//! Owns the part that came so far. It comes at the service's speed, whoever is slow: up to what may be kept, and what all
//! such bodies together may take. Beyond that, what is still to come is handed to the request that asked for it.

use super::flight::{Lead, Phase};
use crate::body::AnswerBody;
use crate::http1::LineError;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName};
use httpcache::Terms;
use hyper::body::Body;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What bodies on their way may take of memory together.
pub(crate) struct Budget {
    bytes_max: usize,
    bytes: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, bytes: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> bool {
        let took = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| {
            known.checked_add(bytes).filter(|sum| *sum <= self.bytes_max)
        });
        took.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The answer but for its body.
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) terms: Terms,
    pub(crate) names: Vec<HeaderName>,
    pub(crate) selection: String,
}

/// A body on its way.
pub(crate) struct Fill {
    pub(crate) head: Head,
    /// If it is known.
    pub(crate) length: Option<u64>,
    bytes_max: u64,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

struct State {
    /// What came, with where each begins.
    chunks: Vec<(usize, Bytes)>,
    bytes: usize,
    /// Taken of the budget.
    taken: usize,
    end: End,
    waiting: Vec<Option<Waker>>,
}

enum End {
    Coming,
    Complete,
    /// How, is for the one that asked; to all others it ends early.
    Broken(Option<LineError>),
    /// Too long: the rest, for the one that asked.
    Rest(Option<Box<AnswerBody>>),
}

impl Fill {
    /// `None` when there is no room for it.
    pub(crate) fn new(head: Head, length: Option<u64>, bytes_max: u64, budget: &Arc<Budget>) -> Option<Arc<Fill>> {
        let taken = usize::try_from(length.unwrap_or(0)).ok()?;
        if length.unwrap_or(0) > bytes_max || !budget.take(taken) {
            return None;
        }
        let state = State { chunks: Vec::new(), bytes: 0, taken, end: End::Coming, waiting: Vec::new() };
        Some(Arc::new(Fill { head, length, bytes_max, budget: Arc::clone(budget), state: Mutex::new(state) }))
    }

    /// For one more client; `asked` says that it is the one that caused the request.
    pub(crate) fn reader(self: &Arc<Self>, asked: bool) -> Reader {
        let mut state = self.lock();
        state.waiting.push(None);
        Reader { fill: Arc::clone(self), seat: state.waiting.len() - 1, read: 0, asked, rest: None }
    }

    /// Takes `body` in. When it is complete, `keep` is given all of it, and those that wait are told. Owner: itself. Ends
    /// with the body, or when that stalls for as long as `patience`.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut body: AnswerBody,
        lead: Option<Lead>,
        patience: Duration,
        keep: impl FnOnce(Bytes),
    ) {
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
            match tokio::time::timeout(patience, frame).await {
                Err(_) => return self.end(End::Broken(None)),
                Ok(None) => break,
                Ok(Some(Err(error))) => return self.end(End::Broken(Some(error))),
                // What is no data comes after it, and is not kept.
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data()
                        && !self.take(data)
                    {
                        self.end(End::Rest(Some(Box::new(body))));
                        if let Some(lead) = lead {
                            lead.land(Phase::Alone);
                        }
                        return;
                    }
                }
            }
        }
        let whole = self.complete();
        keep(whole);
        if let Some(lead) = lead {
            lead.land(Phase::Kept);
        }
    }

    /// Takes in what came. `false` when it was the last that fits: what follows is for the one that asked.
    fn take(&self, data: Bytes) -> bool {
        let mut state = self.lock();
        let bytes = state.bytes + data.len();
        let fits = u64::try_from(bytes).is_ok_and(|bytes| bytes <= self.bytes_max);
        let more = bytes.saturating_sub(state.taken);
        let fits = fits && (more == 0 || self.budget.take(more));
        if fits {
            state.taken += more;
        }
        let begins = state.bytes;
        state.bytes = bytes;
        state.chunks.push((begins, data));
        state.wake();
        fits
    }

    fn end(&self, end: End) {
        let mut state = self.lock();
        state.end = end;
        state.wake();
    }

    fn complete(&self) -> Bytes {
        let mut state = self.lock();
        // A copy even of a single one, which may lie in a much larger buffer.
        let mut whole = BytesMut::with_capacity(state.bytes);
        state.chunks.iter().for_each(|(_, chunk)| whole.extend_from_slice(chunk));
        let whole = whole.freeze();
        // From here on it is the stash's memory.
        state.chunks = vec![(0, whole.clone())];
        self.budget.give_back(std::mem::take(&mut state.taken));
        state.end = End::Complete;
        state.wake();
        whole
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        let taken = self.lock().taken;
        self.budget.give_back(taken);
    }
}

impl State {
    fn wake(&mut self) {
        self.waiting.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    /// What follows the first `read` bytes.
    fn after(&self, read: usize) -> Option<Bytes> {
        let at = self.chunks.partition_point(|(begins, chunk)| begins + chunk.len() <= read);
        let (begins, chunk) = self.chunks.get(at)?;
        Some(chunk.slice(read - begins..))
    }
}

/// One client's place in a body on its way.
pub(crate) struct Reader {
    fill: Arc<Fill>,
    seat: usize,
    read: usize,
    asked: bool,
    rest: Option<Box<AnswerBody>>,
}

impl Reader {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, LineError>>> {
        loop {
            if let Some(rest) = &mut self.rest {
                return match std::task::ready!(Pin::new(rest).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => Poll::Ready(Some(Ok(data))),
                        Err(_) => continue,
                    },
                    Some(Err(error)) => Poll::Ready(Some(Err(error))),
                    None => Poll::Ready(None),
                };
            }
            let mut state = self.fill.lock();
            if let Some(data) = state.after(self.read) {
                self.read += data.len();
                return Poll::Ready(Some(Ok(data)));
            }
            match &mut state.end {
                End::Coming => {
                    if let Some(seat) = state.waiting.get_mut(self.seat) {
                        *seat = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
                End::Complete => return Poll::Ready(None),
                End::Broken(error) => {
                    let error = error.take_if(|_| self.asked).unwrap_or(LineError::Early);
                    return Poll::Ready(Some(Err(error)));
                }
                End::Rest(rest) => match rest.take_if(|_| self.asked) {
                    Some(rest) => self.rest = Some(rest),
                    None => return Poll::Ready(Some(Err(LineError::Early))),
                },
            }
        }
    }

    /// Everything was given.
    pub(crate) fn is_through(&self) -> bool {
        match &self.rest {
            Some(rest) => rest.is_end_stream(),
            None => {
                let state = self.fill.lock();
                matches!(state.end, End::Complete) && self.read >= state.bytes
            }
        }
    }

    pub(crate) fn left_bytes(&self) -> Option<u64> {
        let length = self.fill.length?;
        Some(length.saturating_sub(u64::try_from(self.read).unwrap_or(u64::MAX)))
    }
}
