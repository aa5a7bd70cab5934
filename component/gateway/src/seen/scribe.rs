//! Which requests are told of, and the way to whoever writes them down.
//!
//! Owns the decision and the queue. The request's own task pays for a look at numbers it has, and for a place in the
//! queue; words are made, and the disk is waited for, in a task of the scribe's own. What does not fit is counted and
//! dropped: a full disk never slows a request.

use super::{Account, Record};
use crate::trace::Identity;
use meter::{Counter, Meter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use wire::api::{End, RequestRecord, Why};
use wire::spec::AccessLog;
use world::task::Task;

/// Requests that wait to be written down: a quarter of a second of a busy gateway that tells of all, some 2 MB.
const WAITING_MAX: usize = 4_096;
/// Written down at once: a few milliseconds' worth, and one write to the disk.
const BATCH_MAX: usize = 512;
/// After the first of a batch, for others: nobody notices, and a busy gateway wakes its writer fifty times a second instead
/// of hundreds.
const GATHERING: Duration = Duration::from_millis(20);
/// Failed, slow and sampled ones told of within a second: a service that fails fails thousands of times, and some disks
/// are SD cards. Where all are asked for, all are told of.
const PER_SECOND_MAX: u32 = 200;
/// Those that ask for it themselves, within a second: whoever may write headers must not fill the log with them.
const ASKED_PER_SECOND_MAX: u32 = 50;
/// From here on a request was slow: people notice, and most services answer in a tenth.
const SLOW_AFTER: Duration = Duration::from_secs(1);
const MILLION: u64 = 1_000_000;

/// Takes in what requests were. Called on a thread that may block; one batch after the other.
pub trait AccessSink: Send + Sync {
    fn write(&self, records: &[RequestRecord]);
}

/// A gateway's access log. Without a sink it is off altogether.
pub(crate) struct Scribe {
    queue: Option<mpsc::Sender<Message>>,
    usual: AccessLog,
    told: Window,
    asked: Window,
    dropped_full: Counter,
    dropped_rate: Counter,
}

enum Message {
    Told(Box<Account>),
    /// Everything before it is written down when this is answered.
    Flush(oneshot::Sender<()>),
}

impl Scribe {
    /// A scribe that writes to `sink`, with its task. `usual` is for routes that do not say.
    pub(crate) fn start(sink: Option<Arc<dyn AccessSink>>, usual: AccessLog, meter: &Meter) -> (Scribe, Option<Task>) {
        let dropped = |reason| {
            let help = "Requests not told of in the access log although they should have been.";
            meter.counter("bramble_gateway_log_dropped_total", help, &[("reason", reason)])
        };
        let (queue, task) = match sink {
            Some(sink) => {
                let (queue, waiting) = mpsc::channel(WAITING_MAX);
                // It ends with the gateway, which waits for it when it closes.
                (Some(queue), Some(world::task::spawn("gateway access log", write(waiting, sink))))
            }
            None => (None, None),
        };
        let scribe = Scribe {
            queue,
            usual,
            told: Window::default(),
            asked: Window::default(),
            dropped_full: dropped("full"),
            dropped_rate: dropped("rate"),
        };
        (scribe, task)
    }

    pub(crate) fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether a request that may be told of is one of the sample.
    pub(super) fn samples(&self, log: Option<AccessLog>, random: u64) -> bool {
        match log.unwrap_or(self.usual) {
            AccessLog::Off | AccessLog::Errors => false,
            AccessLog::Sampled(share) => (u128::from(random) * u128::from(MILLION)) >> u64::BITS < u128::from(share),
            AccessLog::All => true,
        }
    }

    /// Whether one more may be told of because it asks for it.
    pub(super) fn may_ask(&self) -> bool {
        self.asked.take(ASKED_PER_SECOND_MAX)
    }

    /// Whether a request that is over is told of, and why.
    pub(super) fn why(
        &self,
        log: Option<AccessLog>,
        record: &Record,
        identity: &Identity,
        ended: Instant,
    ) -> Option<Why> {
        let log = log.unwrap_or(self.usual);
        let failed = record.status == 0 || record.status >= 500 || record.end == End::Cut || is_ours(record.code);
        let why = match log {
            AccessLog::Off => return None,
            AccessLog::All => return Some(Why::All),
            AccessLog::Errors | AccessLog::Sampled(_) if failed => Why::Error,
            AccessLog::Errors | AccessLog::Sampled(_) if record.waited(ended) >= SLOW_AFTER => Why::Slow,
            // Its share was measured before.
            AccessLog::Errors | AccessLog::Sampled(_) if identity.asked => return Some(Why::Asked),
            AccessLog::Sampled(_) if identity.sampled => Why::Sampled,
            AccessLog::Errors | AccessLog::Sampled(_) => return None,
        };
        if self.told.take(PER_SECOND_MAX) {
            Some(why)
        } else {
            self.dropped_rate.inc();
            None
        }
    }

    pub(super) fn tell(&self, account: Account) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Message::Told(Box::new(account))).is_err() {
            self.dropped_full.inc();
        }
    }

    /// Waits until everything told so far is written down. May be dropped.
    pub(crate) async fn flush(&self) {
        let Some(queue) = &self.queue else { return };
        let (done, written) = oneshot::channel();
        if queue.send(Message::Flush(done)).await.is_ok() {
            // An error says that nobody writes any more.
            drop(written.await);
        }
    }
}

/// Whether a code is of a request that came to nothing in the gateway, not one that a route's rules keep out.
fn is_ours(code: &str) -> bool {
    code.starts_with("B060")
}

async fn write(mut waiting: mpsc::Receiver<Message>, sink: Arc<dyn AccessSink>) {
    let mut messages = Vec::with_capacity(BATCH_MAX);
    while waiting.recv_many(&mut messages, BATCH_MAX).await > 0 {
        if messages.len() < BATCH_MAX && !messages.iter().any(|message| matches!(message, Message::Flush(_))) {
            tokio::time::sleep(GATHERING).await;
            let more = std::iter::from_fn(|| waiting.try_recv().ok());
            messages.extend(more.take(BATCH_MAX - messages.len()));
        }
        let (mut records, mut flushes) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages.drain(..) {
            match message {
                Message::Told(account) => records.push(account.record()),
                Message::Flush(done) => flushes.push(done),
            }
        }
        if !records.is_empty() {
            let sink = Arc::clone(&sink);
            let written = tokio::task::spawn_blocking(move || sink.write(&records)).await;
            if let Err(error) = written {
                tracing::warn!(%error, "the access log was not written");
            }
        }
        for done in flushes {
            // Whoever asked may have left.
            let _ = done.send(());
        }
    }
}

/// How many there were within the current second.
#[derive(Debug, Default)]
struct Window {
    /// The second in the upper half, the count in the lower.
    state: AtomicU64,
}

impl Window {
    fn take(&self, most: u32) -> bool {
        self.take_at(world::clock::coarse_unix_s(), most)
    }

    fn take_at(&self, second: u64, most: u32) -> bool {
        let second = second & u64::from(u32::MAX);
        let taken = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
            let count = if state >> 32 == second { state & u64::from(u32::MAX) } else { 0 };
            (count < u64::from(most)).then_some(second << 32 | (count + 1))
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_a_bound_for_each_second() {
        let window = Window::default();
        let taken = |second: u64| (0..10).filter(|_| window.take_at(second, 3)).count();
        assert_eq!([taken(1), taken(1), taken(2), taken(2), taken(9)], [3, 0, 3, 0, 3]);
    }

    #[test]
    fn a_sample_has_its_share() {
        let (scribe, _task) = Scribe::start(None, AccessLog::Errors, &Meter::new());
        let share = |log: Option<AccessLog>| {
            (0..1_000_u64).filter(|step| scribe.samples(log, (2 * step + 1) * (u64::MAX / 2_000))).count()
        };
        assert_eq!(share(None), 0);
        assert_eq!(share(Some(AccessLog::Off)), 0);
        assert_eq!(share(Some(AccessLog::DEFAULT)), 10);
        assert_eq!(share(Some(AccessLog::Sampled(1_000_000))), 1_000);
        assert_eq!(share(Some(AccessLog::Sampled(0))), 0);
        assert_eq!(share(Some(AccessLog::All)), 1_000);
    }
}
