//! Memory for what clients send and are answered, over all of them.
//!
//! Promises that what is large waits until there is room for it, and holds that room for as long as it is in memory: an answer
//! until its client has taken it, within [`TAKE_WITHIN`]. What is small never waits, so that nobody's bulk holds up a renewal.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// Requests as they come and as they are read: thirty of the largest. Apart from answers: a request is held until it has one.
const REQUESTS_KIB_MAX: u32 = 128 << 10;
/// Answers: three of the largest, thirty of what transactions may read.
const ANSWERS_KIB_MAX: u32 = 160 << 10;
/// All streams of a connection come to 64 MiB.
pub(crate) const SMALL_BYTES: usize = 64 << 10;
/// The largest comes in this time over 6 Mbit/s. Who takes longer has stopped.
const TAKE_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Rooms {
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

/// Given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Room(Option<OwnedSemaphorePermit>);

impl Rooms {
    pub(crate) fn new() -> Rooms {
        Rooms {
            requests: Arc::new(Semaphore::new(REQUESTS_KIB_MAX as usize)),
            answers: Arc::new(Semaphore::new(ANSWERS_KIB_MAX as usize)),
        }
    }

    /// For a request of at most so many bytes: as it came, and as it was read.
    pub(crate) async fn request(&self, bytes: usize) -> Room {
        room(&self.requests, 2 * bytes, REQUESTS_KIB_MAX).await
    }

    /// For an answer that holds at most so many bytes of keys and values, which JSON has as base64. May wait: whoever asks has a
    /// deadline.
    pub(crate) async fn answer(&self, bytes: usize) -> Room {
        if bytes <= SMALL_BYTES {
            return Room::default();
        }
        room(&self.answers, bytes / 3 * 4, ANSWERS_KIB_MAX).await
    }
}

async fn room(of: &Arc<Semaphore>, bytes: usize, kib_max: u32) -> Room {
    let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).min(kib_max);
    Room(Some(Arc::clone(of).acquire_many_owned(kib).await.expect("it is never closed")))
}

impl Room {
    pub(crate) fn is_taken(&self) -> bool {
        self.0.is_some()
    }

    /// An answer that holds as much of its room as it needs until nobody has it any more, and rings `late` when that takes too
    /// long.
    pub(crate) fn hold(self, answer: Vec<u8>, late: &Arc<Notify>) -> Bytes {
        let Some(mut permit) = self.0 else { return Bytes::from(answer) };
        if answer.len() <= SMALL_BYTES {
            return Bytes::from(answer);
        }
        let spare = permit.num_permits().saturating_sub(answer.len().div_ceil(1 << 10));
        drop(permit.split(spare));
        let (taken, is_taken) = oneshot::channel();
        let late = Arc::clone(late);
        // It ends with the answer, or when that is late.
        let watching = async move {
            if tokio::time::timeout(TAKE_WITHIN, is_taken).await.is_err() {
                late.notify_one();
            }
        };
        world::task::spawn("etcd answer", watching).detach();
        Bytes::from_owner(Held { answer, _permit: permit, _taken: taken })
    }
}

struct Held {
    answer: Vec<u8>,
    _permit: OwnedSemaphorePermit,
    /// Its end says so to who watches.
    _taken: oneshot::Sender<()>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::READ_BYTES_MAX;
    use std::pin::pin;

    #[tokio::test]
    async fn an_answer_has_room_until_the_last_of_it_is_gone() {
        let (rooms, late) = (Rooms::new(), Arc::new(Notify::new()));
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(rooms.answer(READ_BYTES_MAX).await.hold(vec![0; READ_BYTES_MAX / 3 * 4], &late));
        }
        let mut next = pin!(rooms.answer(READ_BYTES_MAX));
        assert!(futures::poll!(next.as_mut()).is_pending(), "there is room for three");
        assert!(!rooms.answer(SMALL_BYTES).await.is_taken(), "what is small takes none");
        let piece = held.pop().expect("there are three").slice(..10);
        assert!(futures::poll!(next.as_mut()).is_pending(), "a piece of it holds all of it");
        drop(piece);
        let next = next.await;
        let answer = next.hold(vec![0; 1 << 20], &late);
        let free = ANSWERS_KIB_MAX as usize - 2 * (READ_BYTES_MAX / 3 * 4).div_ceil(1 << 10) - (1 << 10);
        assert_eq!(rooms.answers.available_permits(), free, "it holds what it needs and no more");
        drop((answer, held));
        assert_eq!(rooms.answers.available_permits(), ANSWERS_KIB_MAX as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_late() {
        let (rooms, late) = (Rooms::new(), Arc::new(Notify::new()));
        let answer = || async { rooms.answer(1 << 20).await.hold(vec![0; 1 << 20], &late) };
        drop(answer().await);
        let in_time = tokio::time::timeout(2 * TAKE_WITHIN, late.notified()).await;
        assert!(in_time.is_err(), "one that was taken is not");
        let _answer = answer().await;
        tokio::time::timeout(2 * TAKE_WITHIN, late.notified()).await.expect("it is told");
    }
}
