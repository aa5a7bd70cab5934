//! Waiting for what hardly ever happens, beside what happens all the time.
//!
//! A task that waits for several things asks each of them whenever any of them wakes it, and asking takes a lock.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// The same as `future`, which is asked once, so that it wakes the task, and from then on only when it is `due`. That must
/// be true before it wakes, and the task must stay the same.
pub(crate) fn rarely<F: Future>(mut future: Pin<&mut F>, due: impl Fn() -> bool) -> impl Future<Output = F::Output> {
    let mut asked = false;
    poll_fn(move |cx| {
        if asked && !due() {
            return Poll::Pending;
        }
        asked = true;
        future.as_mut().poll(cx)
    })
}
