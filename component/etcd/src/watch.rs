//! Watches: several on one stream, each a task of its own that reads the space's history at its client's pace.
//!
//! A stream's loop owns its watches and ends them with it. Nothing is queued beyond [`QUEUE`] answers: a client that does
//! not read is waited for, and one that falls behind the history is told that its watch is over.

use crate::codec::One;
use crate::desk::{Desk, closed};
use crate::keys;
use crate::kv::{key_value, signed};
use crate::status::{self, Status};
use crate::transport::Inflow;
use crate::words::{
    Event, EventType, Filter, KeyValue, WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use control::{Entry, Range, WatchError};
use meter::Held;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use world::task::Task;

/// Answers of one stream that wait for the client to read.
pub(crate) const QUEUE: usize = 16;
/// On all streams together: each is a task that wakes with every change.
const WATCHES_MAX: usize = 10_000;
/// What one answer holds, roughly; a transaction's changes are never parted.
const BATCH_BYTES: usize = 1024 * 1024;
/// etcd's.
const PROGRESS_EVERY: Duration = Duration::from_secs(10 * 60);

type Out = mpsc::Sender<Result<WatchResponse, Status>>;

/// One stream.
struct Stream {
    desk: Arc<Desk>,
    out: Out,
    watches: BTreeMap<i64, Watching>,
    next_id: i64,
    /// Asks every watch to say when it has come as far as this revision.
    ring: watch::Sender<u64>,
    /// What watches have to say.
    news: (mpsc::Sender<News>, mpsc::Receiver<News>),
    /// Watches there were so far.
    count: u64,
    /// The newest revision the client wants to know is sent by all watches; what it asked before is part of it.
    awaited: Option<u64>,
}

struct Watching {
    /// Tells it from an earlier one of the same id, of which there may still be news.
    number: u64,
    /// It has sent everything up to this revision, as far as it has said.
    arrived: u64,
    task: Task,
    _held: Counted,
}

/// Of one watch.
struct News {
    id: i64,
    number: u64,
    what: What,
}

enum What {
    /// It has sent everything up to this revision.
    Arrived(u64),
    /// It sends nothing more.
    Over(WatchError),
}

/// A watch among all there are.
struct Counted {
    desk: Arc<Desk>,
    _held: Held,
}

impl Counted {
    fn new(desk: &Arc<Desk>) -> Option<Counted> {
        let before = desk.watches.fetch_add(1, Ordering::Relaxed);
        let counted = Counted { desk: Arc::clone(desk), _held: Held::new(&desk.meters.watches) };
        (before < WATCHES_MAX).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.desk.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a stream until its client leaves or the server closes. May be cancelled anywhere.
pub(crate) async fn serve(desk: Arc<Desk>, mut inflow: Inflow, out: Out) {
    let _held = Held::new(&desk.meters.streams);
    let mut closing = desk.closing.clone();
    let mut stream = Stream::new(desk, out.clone());
    let mut is_open = true;
    loop {
        let done = tokio::select! {
            asked = inflow.next::<WatchRequest>(), if is_open => match asked {
                Ok(Some(asked)) => stream.request(asked).await,
                // Nothing more is asked; what is watched goes on.
                Ok(None) => { is_open = false; Ok(()) }
                Err(status) => Err(Some(status)),
            },
            Some(news) = stream.news.1.recv() => stream.hear(news).await,
            () = out.closed() => Err(None),
            () = closed(&mut closing) => Err(Some(status::stopped())),
        };
        match done {
            Ok(()) => {}
            Err(None) => return,
            Err(Some(status)) => {
                // A client that does not read is not waited for at the end.
                let _ = out.try_send(Err(status));
                return;
            }
        }
    }
}

impl Stream {
    fn new(desk: Arc<Desk>, out: Out) -> Stream {
        Stream {
            desk,
            out,
            watches: BTreeMap::new(),
            next_id: 0,
            ring: watch::Sender::new(0),
            news: mpsc::channel(QUEUE),
            count: 0,
            awaited: None,
        }
    }

    async fn request(&mut self, asked: WatchRequest) -> Result<(), Option<Status>> {
        match asked {
            WatchRequest { create_request: Some(asked), .. } => self.create(asked).await,
            WatchRequest { cancel_request: Some(asked), .. } => self.cancel(&asked).await,
            WatchRequest { progress_request: Some(_), .. } => self.progress().await,
            WatchRequest { create_request: None, cancel_request: None, progress_request: None } => Ok(()),
        }
    }

    async fn send(&self, answer: WatchResponse) -> Result<(), Option<Status>> {
        self.out.send(Ok(answer)).await.map_err(|_| None)
    }

    fn response(&self, watch_id: i64) -> WatchResponse {
        WatchResponse { header: Some(self.desk.header(self.desk.space.revision())), watch_id, ..Default::default() }
    }

    async fn create(&mut self, asked: WatchCreateRequest) -> Result<(), Option<Status>> {
        let refused = |reason: &str| WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..self.response(-1)
        };
        if asked.watch_id != 0 && self.watches.contains_key(&asked.watch_id) {
            return self.send(refused("mvcc: duplicate watch ID provided on the WatchStream")).await;
        }
        let Some(held) = Counted::new(&self.desk) else {
            return self.send(refused("bramble: there are too many watches")).await;
        };
        let id = match asked.watch_id {
            0 => {
                while self.watches.contains_key(&self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                self.next_id - 1
            }
            id => id,
        };
        let created = WatchResponse { created: true, ..self.response(id) };
        let now = created.header.as_ref().map_or(0, |header| header.revision);
        let from = u64::try_from(asked.start_revision).ok().filter(|revision| *revision > 0);
        let from = from.unwrap_or(now.cast_unsigned() + 1);
        // From the beginning: nothing is gone yet where nothing has happened before what is kept.
        let from = if from == 1 && self.desk.space.compacted() == 1 { 2 } else { from };
        // What nobody names is everything: etcd has it so for watches only.
        let key: &[u8] = if asked.key.is_empty() { &[0] } else { &asked.key };
        let range = keys::range(key, &asked.range_end);
        let watch = self.desk.space.watch(range.prefix(), from);
        let oldest = self.desk.compacted();
        self.send(created).await?;
        if from < oldest {
            return self.send(compacted(self.response(id), oldest)).await;
        }
        self.count += 1;
        let number = self.count;
        let one = Follower {
            desk: Arc::clone(&self.desk),
            id,
            number,
            range,
            asked,
            watch,
            out: self.out.clone(),
            ring: self.ring.subscribe(),
            news: self.news.0.clone(),
        };
        let task = world::task::spawn("etcd watch", one.follow());
        self.watches.insert(id, Watching { number, arrived: 0, task, _held: held });
        Ok(())
    }

    async fn cancel(&mut self, asked: &WatchCancelRequest) -> Result<(), Option<Status>> {
        let Some(watching) = self.watches.remove(&asked.watch_id) else { return Ok(()) };
        // After this nothing more is sent of it.
        watching.task.cancel().await;
        self.send(WatchResponse { canceled: true, ..self.response(asked.watch_id) }).await?;
        self.tell_progress().await
    }

    /// Once every watch has sent what happened up to now, the client is told how far that is.
    async fn progress(&mut self) -> Result<(), Option<Status>> {
        let revision = self.desk.space.revision();
        self.awaited = Some(revision);
        self.ring.send_replace(revision);
        self.tell_progress().await
    }

    /// Tells it as soon as it is so: with the last watch to arrive, and when one that had not is gone.
    async fn tell_progress(&mut self) -> Result<(), Option<Status>> {
        let has_come = |revision: &u64| self.watches.values().all(|watching| watching.arrived >= *revision);
        let Some(revision) = self.awaited.take_if(|revision| has_come(revision)) else { return Ok(()) };
        let header = Some(self.desk.header(revision));
        self.send(WatchResponse { header, watch_id: -1, ..Default::default() }).await
    }

    async fn hear(&mut self, News { id, number, what }: News) -> Result<(), Option<Status>> {
        let Some(watching) = self.watches.get_mut(&id).filter(|watching| watching.number == number) else {
            return Ok(());
        };
        match what {
            What::Arrived(revision) => watching.arrived = revision,
            What::Over(error) => {
                // Before its client is told: it may ask for the same again at once.
                self.watches.remove(&id);
                let oldest = match error {
                    WatchError::Compacted { at } => at,
                    WatchError::Lagged => self.desk.space.compacted() + 1,
                    WatchError::Closed => return Err(Some(status::stopped())),
                };
                self.send(compacted(self.response(id), oldest)).await?;
            }
        }
        self.tell_progress().await
    }
}

fn compacted(answer: WatchResponse, oldest: u64) -> WatchResponse {
    WatchResponse { canceled: true, compact_revision: signed(oldest), ..answer }
}

/// One watch.
struct Follower {
    desk: Arc<Desk>,
    id: i64,
    number: u64,
    range: Range,
    asked: WatchCreateRequest,
    watch: control::Watch,
    out: Out,
    ring: watch::Receiver<u64>,
    news: mpsc::Sender<News>,
}

impl Follower {
    /// Sends what happens until nobody takes it. May be cancelled anywhere.
    async fn follow(mut self) {
        let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
        let mut said = 0;
        loop {
            let went_on = tokio::select! {
                // First: what there is to send is sent before anything is said of it.
                biased;
                events = changes(&mut self.watch, self.asked.prev_kv) => match events {
                    Ok(events) => self.tell(events).await,
                    Err(error) => {
                        self.say(What::Over(error)).await;
                        return;
                    }
                },
                // Never a change alone: one that came before the first look counts too.
                Some(revision) = rung(&mut self.ring, said) => {
                    // The space may be further than its watches were told; then there is something to send first.
                    if self.watch.position() <= revision {
                        continue;
                    }
                    said = revision;
                    self.say(What::Arrived(revision)).await
                }
                _ = progress.tick(), if self.asked.progress_notify => {
                    let answer = self.response(self.watch.position().saturating_sub(1));
                    self.out.send(Ok(answer)).await.is_ok()
                }
            };
            if !went_on {
                return;
            }
        }
    }

    fn response(&self, revision: u64) -> WatchResponse {
        WatchResponse { header: Some(self.desk.header(revision)), watch_id: self.id, ..Default::default() }
    }

    /// False when the stream is gone.
    async fn say(&self, what: What) -> bool {
        self.news.send(News { id: self.id, number: self.number, what }).await.is_ok()
    }

    async fn tell(&self, events: Vec<(control::Event, Option<Entry>)>) -> bool {
        let mut batch = Vec::new();
        let (mut bytes, mut last) = (0, 0);
        for (event, before) in events.into_iter().filter(|(event, _)| self.wants(event)) {
            if bytes > BATCH_BYTES && event.revision != last && !self.send(std::mem::take(&mut batch)).await {
                return false;
            }
            bytes = if batch.is_empty() { 0 } else { bytes };
            last = event.revision;
            let event = told(event, before.map(key_value));
            let size = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
            bytes += size(&event.kv) + size(&event.prev_kv);
            batch.push(event);
        }
        batch.is_empty() || self.send(batch).await
    }

    fn wants(&self, event: &control::Event) -> bool {
        let unwanted = if event.value.is_some() { Filter::NoPut } else { Filter::NoDelete };
        self.range.contains(&event.key) && !self.asked.filters.0.contains(&unwanted)
    }

    async fn send(&self, events: Vec<Event>) -> bool {
        let newest = events.last().and_then(|event| event.kv.as_ref()).map_or(0, |kv| kv.mod_revision);
        let mut answer = self.response(newest.cast_unsigned().max(self.watch.position().saturating_sub(1)));
        answer.events = events;
        self.out.send(Ok(answer)).await.is_ok()
    }
}

/// Waits until a revision after `said` is asked for; `None` when nobody can ask any more.
async fn rung(ring: &mut watch::Receiver<u64>, said: u64) -> Option<u64> {
    ring.wait_for(|asked| *asked > said).await.ok().map(|asked| *asked)
}

/// The next changes, and what was before each where that is wanted.
async fn changes(
    watch: &mut control::Watch,
    prev_kv: bool,
) -> Result<Vec<(control::Event, Option<Entry>)>, WatchError> {
    if prev_kv {
        return watch.next_with_before().await;
    }
    Ok(watch.next().await?.into_iter().map(|event| (event, None)).collect())
}

fn told(event: control::Event, prev_kv: Option<KeyValue>) -> Event {
    match event.value {
        Some(value) => {
            let entry = Entry {
                key: event.key,
                value,
                create_revision: event.create_revision,
                mod_revision: event.revision,
                version: event.version,
                lease: event.lease,
            };
            Event { kind: One(EventType::Put), kv: Some(key_value(entry)), prev_kv }
        }
        None => {
            let (key, mod_revision) = (keys::given(&event.key), signed(event.revision));
            let kv = KeyValue { key, mod_revision, ..KeyValue::default() };
            Event { kind: One(EventType::Delete), kv: Some(kv), prev_kv }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::tests::Alone;
    use crate::meters::Meters;
    use control::{Space, Txn};
    use meter::Meter;

    type Answers = mpsc::Receiver<Result<WatchResponse, Status>>;

    fn stream(space: &Space) -> (Stream, Answers) {
        let (_, closing) = watch::channel(false);
        let desk = Desk::new(space.clone(), Meters::new(&Meter::new()), closing, Box::new(Alone));
        let (out, answers) = mpsc::channel(QUEUE);
        (Stream::new(Arc::new(desk), out), answers)
    }

    async fn create(stream: &mut Stream, watch_id: i64, start_revision: i64) {
        let asked = WatchCreateRequest { key: Arc::from(*b"k"), watch_id, start_revision, ..Default::default() };
        stream.create(asked).await.expect("it is taken");
    }

    /// Changes more than the history keeps.
    async fn forget(space: &Space) {
        for number in 0..100 {
            let txn = (0..128).fold(Txn::new(), |txn, key| txn.put(format!("etcd/{key}"), vec![number]));
            space.commit(txn).await.expect("it is written");
        }
    }

    #[tokio::test]
    async fn a_watch_that_ends_by_itself_leaves_its_place() {
        let space = Space::ephemeral();
        forget(&space).await;
        let (mut stream, mut answers) = stream(&space);
        for _ in 0..3 {
            create(&mut stream, 7, 2).await;
            let created = answers.recv().await.expect("an answer").expect("no failure");
            assert!(created.created && !created.canceled, "{created:?}");
            let news = stream.news.1.recv().await.expect("it ends");
            stream.hear(news).await.expect("its client is told");
            let ended = answers.recv().await.expect("an answer").expect("no failure");
            assert!(ended.canceled && ended.compact_revision > 2 && ended.watch_id == 7, "{ended:?}");
        }
        assert_eq!(stream.desk.watches.load(Ordering::Relaxed), 0);
    }

    async fn write(space: &Space) -> u64 {
        space.commit(Txn::new().put("etcd/other", *b"1")).await.expect("it is written").revision
    }

    /// Has the stream hear that watch `id` has come to `revision`.
    async fn arrives(stream: &mut Stream, id: i64, revision: u64) {
        let number = stream.watches[&id].number;
        stream.hear(News { id, number, what: What::Arrived(revision) }).await.expect("it is taken");
    }

    /// What progress was told since.
    fn progress(answers: &mut Answers) -> Vec<i64> {
        let all = std::iter::from_fn(|| answers.try_recv().ok()).map(|answer| answer.expect("no failure"));
        all.filter(|answer| answer.watch_id == -1).filter_map(|answer| Some(answer.header?.revision)).collect()
    }

    #[tokio::test]
    async fn progress_is_told_when_every_watch_has_come_there() {
        let space = Space::ephemeral();
        let (mut stream, mut answers) = stream(&space);
        create(&mut stream, 1, 0).await;
        create(&mut stream, 2, 0).await;
        let first = write(&space).await;
        stream.progress().await.expect("it is taken");
        arrives(&mut stream, 1, first).await;
        let second = write(&space).await;
        stream.progress().await.expect("it is taken");
        arrives(&mut stream, 1, second).await;
        assert!(progress(&mut answers).is_empty(), "the second watch has sent nothing");
        arrives(&mut stream, 2, first).await;
        assert!(progress(&mut answers).is_empty(), "nor what came after");
        arrives(&mut stream, 2, second).await;
        assert_eq!(progress(&mut answers), [signed(second)], "both have, and it is told once");
    }

    #[tokio::test]
    async fn a_watch_that_is_gone_is_not_waited_for() {
        let space = Space::ephemeral();
        let (mut stream, mut answers) = stream(&space);
        create(&mut stream, 1, 0).await;
        create(&mut stream, 2, 0).await;
        let revision = write(&space).await;
        stream.progress().await.expect("it is taken");
        arrives(&mut stream, 1, revision).await;
        let stale = stream.watches[&2].number;
        stream.cancel(&WatchCancelRequest { watch_id: 2 }).await.expect("it is taken");
        assert_eq!(progress(&mut answers), [signed(revision)]);
        create(&mut stream, 2, 0).await;
        stream.progress().await.expect("it is taken");
        stream.hear(News { id: 2, number: stale, what: What::Arrived(revision) }).await.expect("it is taken");
        assert!(progress(&mut answers).is_empty(), "what the first of this id said is not the second's");
        stream
            .hear(News { id: 2, number: stale + 1, what: What::Over(WatchError::Lagged) })
            .await
            .expect("it is taken");
        assert_eq!(progress(&mut answers), [signed(revision)], "nor is one waited for that has ended");
    }

    #[tokio::test]
    async fn a_watch_hears_what_was_asked_before_it_ran() {
        let space = Space::ephemeral();
        let (mut stream, mut answers) = stream(&space);
        let revision = write(&space).await;
        create(&mut stream, 1, 0).await;
        stream.progress().await.expect("it is taken");
        let news = stream.news.1.recv().await.expect("it says how far it has come");
        stream.hear(news).await.expect("it is taken");
        assert_eq!(progress(&mut answers), [signed(revision)]);
    }
}
