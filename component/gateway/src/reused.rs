//! Futures whose memory is used again.
//!
//! Owns the memory: what answering a request takes is some kilobytes, more than allocators are quick with, and is the
//! same every time. Each thread keeps some, for the next request of whichever connection.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread::LocalKey;
use tokio_util::sync::ReusableBoxFuture;

/// What each thread keeps, of each kind.
const KEPT_MAX: usize = 128;

/// What each thread keeps of futures with one kind of outcome.
pub(crate) type Kept<T> = RefCell<Vec<ReusableBoxFuture<'static, T>>>;

/// The outcome of futures whose memory is kept.
pub(crate) trait Outcome: Sized + 'static {
    fn kept() -> &'static LocalKey<Kept<Self>>;
}

/// A future in memory that was another's before. Not to be polled again once it is through.
pub(crate) struct Reused<T: Outcome>(Option<ReusableBoxFuture<'static, T>>);

impl<T: Outcome> Reused<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Reused<T> {
        Reused(Some(match T::kept().with_borrow_mut(Vec::pop) {
            Some(mut kept) => {
                kept.set(future);
                kept
            }
            None => ReusableBoxFuture::new(future),
        }))
    }
}

impl<T: Outcome> Future for Reused<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let outcome = ready!(future.poll(cx));
        // Nothing is left in one that is through.
        if let Some(through) = self.0.take() {
            T::kept().with_borrow_mut(|kept| {
                if kept.len() < KEPT_MAX {
                    kept.push(through);
                }
            });
        }
        Poll::Ready(outcome)
    }
}
