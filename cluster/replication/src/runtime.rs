//! What openraft runs on: tokio, with tasks and dice by their doors, so that a simulated machine holds them too.

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use std::future::Future;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, Sleep, Timeout, error::Elapsed};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runtime;

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Dice;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = oneshot::Receiver<T>;
    type OneshotReceiverError = oneshot::error::RecvError;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        world::task::start(future)
    }

    fn sleep(duration: Duration) -> Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        tokio::time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Instant, future: F) -> Timeout<F> {
        tokio::time::timeout_at(deadline, future)
    }

    fn is_panic(error: &JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Dice {
        Dice
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, oneshot::Receiver<T>) {
        TokioRuntime::oneshot()
    }
}

/// The door to randomness in the words openraft knows: it draws election times.
pub(crate) struct Dice;

impl rand_core::RngCore for Dice {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        world::random::number()
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        world::random::fill(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        world::random::fill(out);
        Ok(())
    }
}
