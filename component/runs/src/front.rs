//! Where clients ask: a run is led to who assigns it, and its line is kept whole whatever machine between goes away.
//!
//! Also this machine's side of what other machines ask it. Promises that a client hears of a run's bytes once each and of one
//! end, that a machine on its own is no special case to anybody who asks, and that a run whose client left is killed wherever it is.

mod keeper;

use crate::desk::{Carried, Desk, buddy_of};
use crate::house::House;
use crate::link::{self, Frame, Reader, Writer};
use crate::order::Said;
use crate::session::{NO_WORKER, RefusedRun, Session, opened};
use crate::talk::{ATTEMPTS, Cast, Elsewhere, Led, Question, Talk, Watching, Wish, ask, talk};
use keeper::Keeper;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use wire::run::{Attach, LanguageDetail, RunRecord, RunWanted, Running, Told};

/// A monitor that does not answer so soon is left out: this machine knows nearly as much.
const MONITOR_DEADLINE: Duration = Duration::from_millis(300);
/// What a monitor said is the truth for so long.
const NEXT_AGE_MAX: Duration = Duration::from_secs(1);
/// Others asked for a run, a list, their languages.
const OTHERS_DEADLINE: Duration = Duration::from_secs(3);
/// A wish with all its files, over a slow network.
const FIRST_DEADLINE: Duration = Duration::from_secs(120);
/// As long as no assigner can be reached, before that is told.
const ASSIGNERS_PATIENCE: Duration = Duration::from_secs(10);
const ASSIGNERS_PAUSE: Duration = Duration::from_millis(100);
const TOLD_MAX: usize = 16;

/// What is known of runs at this machine, for its API and for other machines.
pub struct Front {
    pub house: Arc<House>,
    desk: Arc<Desk>,
    elsewhere: Mutex<Option<Arc<dyn Elsewhere>>>,
    /// As a monitor: runs led to assigners since these last told how many they carry.
    led: Mutex<BTreeMap<String, (Running, u32)>>,
    /// Who is to assign the next run, and when that was said.
    next: Mutex<Option<(Led, Instant)>>,
}

/// Whose run it is, and which trace it belongs to.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    pub who: String,
    pub trace: String,
}

impl Front {
    pub fn new(house: House) -> Arc<Front> {
        let house = Arc::new(house);
        let desk = Arc::new(Desk::new(Arc::clone(&house)));
        Arc::new(Front { house, desk, elsewhere: Mutex::default(), led: Mutex::default(), next: Mutex::default() })
    }

    /// There are other machines, or are none any more.
    pub fn look_elsewhere(&self, elsewhere: Option<Arc<dyn Elsewhere>>) {
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = elsewhere;
    }

    fn elsewhere(&self) -> Option<Arc<dyn Elsewhere>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn led(&self) -> MutexGuard<'_, BTreeMap<String, (Running, u32)>> {
        self.led.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run. What happens until a worker has it is told meanwhile. Dropped while it waits, nothing is begun, or
    /// what was begun is killed.
    pub async fn begin(
        self: &Arc<Self>,
        wanted: RunWanted,
        Asker { who, trace }: Asker,
        told: &mpsc::Sender<Told>,
    ) -> Result<Session, RefusedRun> {
        self.house.check(&wanted)?;
        let wish = Wish {
            id: world::random::word(20),
            who,
            wanted,
            asked_ms: world::clock::unix_ms(),
            queue_usec: 0,
            place_usec: 0,
            trace,
            attempt: 0,
        };
        let (session, led) = self.begin_somewhere(wish.clone(), told).await?;
        Ok(Keeper::keep(Arc::clone(self), wish, session, led, 0))
    }

    /// A line to a run that goes on, or whose end nobody has got, for a client that comes back to it.
    pub async fn attach(self: &Arc<Self>, attach: Attach) -> Result<Session, RefusedRun> {
        let unknown = || RefusedRun::Told(Box::new(crate::worker::no_run(&attach.id)));
        let watching = Watching { id: attach.id.clone(), after: attach.after, ..Watching::default() };
        let at_home = self.house.watch(&watching).await;
        let (session, led) = match at_home {
            Ok(session) => (session, self.at_home()),
            Err(_) => {
                let machine = self.machine_of(&attach.id).await.ok_or_else(unknown)?;
                self.resume_somewhere(&machine, &watching, &BTreeSet::new()).await?
            }
        };
        let wish = Wish {
            id: attach.id,
            who: String::new(),
            wanted: RunWanted::default(),
            asked_ms: world::clock::unix_ms(),
            queue_usec: 0,
            place_usec: 0,
            trace: String::new(),
            attempt: 0,
        };
        Ok(Keeper::keep(Arc::clone(self), wish, session, led, attach.after))
    }

    /// Whether every machine takes a run with several inputs; one of a version before does not.
    pub fn takes_turns(&self) -> bool {
        let Some(elsewhere) = self.elsewhere() else { return true };
        let me = self.house.node();
        let cast = elsewhere.cast();
        let mut all = cast.workers.iter().chain(&cast.assigners).filter(|place| !cast.gone.contains(&place.machine));
        all.all(|place| place.has.turns || place.machine == me)
    }

    fn at_home(&self) -> Led {
        Led { assigner: self.house.node().to_owned(), buddy: None }
    }

    /// Which machine has a run, as far as anybody knows.
    async fn machine_of(&self, id: &str) -> Option<String> {
        let record = self.find(id).await?;
        (record.node != self.house.node()).then_some(record.node)
    }

    /// Asks one assigner after the other, until one has a worker for it or says why there is none.
    async fn begin_somewhere(
        self: &Arc<Self>,
        mut wish: Wish,
        told: &mpsc::Sender<Told>,
    ) -> Result<(Session, Led), RefusedRun> {
        let Some(elsewhere) = self.elsewhere() else {
            return self.desk.begin(wish, None, told).await.map(|session| (session, self.at_home()));
        };
        let mut left = Left { front: Arc::clone(self), id: Some(wish.id.clone()) };
        let until = world::clock::monotonic() + ASSIGNERS_PATIENCE;
        let mut tried = BTreeSet::new();
        loop {
            let led = self.assigner(&elsewhere, &tried).await;
            let begun = if led.assigner == self.house.node() {
                self.desk.begin(wish.clone(), Some(&*elsewhere), told).await
            } else {
                self.begin_at(&led.assigner, &wish, &*elsewhere, told).await
            };
            match begun {
                Ok(session) => {
                    left.id = None;
                    return Ok((session, led));
                }
                Err(RefusedRun::Unreachable { machine, source }) if world::clock::monotonic() < until => {
                    tracing::info!(machine, error = %source, run = wish.id, "an assigner went away; another is asked");
                    // Whatever becomes of it there, nobody begins it a second time.
                    wish.attempt += ATTEMPTS;
                    if !tried.insert(led.assigner) {
                        tried.clear();
                        tokio::time::sleep(ASSIGNERS_PAUSE).await;
                    }
                }
                Err(refused) => {
                    if !matches!(refused, RefusedRun::Unreachable { .. }) {
                        left.id = None;
                    }
                    return Err(refused);
                }
            }
        }
    }

    async fn begin_at(
        &self,
        assigner: &str,
        wish: &Wish,
        elsewhere: &dyn Elsewhere,
        told: &mpsc::Sender<Told>,
    ) -> Result<Session, RefusedRun> {
        let unreachable = |source| RefusedRun::Unreachable { machine: assigner.to_owned(), source };
        let asked = async {
            let begin = Talk::Begin(Box::new(wish.clone()));
            let (reader, writer) = talk(elsewhere, assigner, &begin).await.map_err(unreachable)?;
            opened(reader, writer, Some(told)).await
        };
        let answered = tokio::select! {
            answered = asked => answered,
            () = elsewhere.lost(assigner) => Err(unreachable(io::ErrorKind::ConnectionAborted.into())),
        };
        match answered {
            Err(RefusedRun::NoWorker(source)) => Err(unreachable(source)),
            // It could reach nobody; another may.
            Err(RefusedRun::Told(problem)) if problem.code == NO_WORKER => {
                Err(unreachable(io::Error::other(problem.message)))
            }
            answered => answered,
        }
    }

    /// A line to a run at that machine, by way of an assigner.
    async fn resume_somewhere(
        self: &Arc<Self>,
        machine: &str,
        watching: &Watching,
        tried: &BTreeSet<String>,
    ) -> Result<(Session, Led), RefusedRun> {
        let Some(elsewhere) = self.elsewhere() else {
            return self.desk.resume(machine, watching, None).await.map(|session| (session, self.at_home()));
        };
        let led = self.assigner(&elsewhere, tried).await;
        if led.assigner == self.house.node() {
            return self.desk.resume(machine, watching, Some(&*elsewhere)).await.map(|session| (session, led));
        }
        let unreachable = |source| RefusedRun::Unreachable { machine: led.assigner.clone(), source };
        let asked = async {
            let resume = Talk::Resume { machine: machine.to_owned(), watching: watching.clone() };
            let (reader, writer) = talk(&*elsewhere, &led.assigner, &resume).await.map_err(unreachable)?;
            opened(reader, writer, None).await
        };
        let answered = tokio::select! {
            answered = asked => answered,
            () = elsewhere.lost(&led.assigner) => Err(unreachable(io::ErrorKind::ConnectionAborted.into())),
        };
        match answered {
            Ok(session) => Ok((session, led)),
            Err(RefusedRun::NoWorker(source)) => Err(unreachable(source)),
            Err(refused) => Err(refused),
        }
    }

    /// Who is to assign. A monitor was asked when the run before this one began, if that was a moment ago: its answer is as good as
    /// a new one, and nobody waits for it.
    async fn assigner(self: &Arc<Self>, elsewhere: &Arc<dyn Elsewhere>, but: &BTreeSet<String>) -> Led {
        let known = self.next().take().filter(|(led, at)| {
            let fresh = world::clock::monotonic().saturating_duration_since(*at) < NEXT_AGE_MAX;
            fresh && !but.contains(&led.assigner) && !elsewhere.cast().gone.contains(&led.assigner)
        });
        let led = match known {
            Some((led, _)) => led,
            None => self.ask_monitors(&**elsewhere, but).await,
        };
        let (front, elsewhere) = (Arc::clone(self), Arc::clone(elsewhere));
        // Ends with the answer.
        world::task::spawn("who assigns next", async move {
            let led = front.ask_monitors(&*elsewhere, &BTreeSet::new()).await;
            *front.next() = Some((led, world::clock::monotonic()));
        })
        .detach();
        led
    }

    fn next(&self) -> MutexGuard<'_, Option<(Led, Instant)>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As a monitor says, or as far as this machine knows where none answers.
    async fn ask_monitors(&self, elsewhere: &dyn Elsewhere, but: &BTreeSet<String>) -> Led {
        let cast = elsewhere.cast();
        let is_monitor = cast.monitors.contains(&cast.me);
        let monitors = cast.monitors.iter().filter(|monitor| !cast.gone.contains(*monitor));
        for monitor in monitors.filter(|_| !is_monitor) {
            let question = Question::Assigner { but: but.clone() };
            let asked = tokio::time::timeout(MONITOR_DEADLINE, ask::<Led>(elsewhere, monitor, &question));
            if let Ok(Ok(led)) = asked.await {
                return led;
            }
        }
        self.least_loaded(&cast, but)
    }

    /// The assigner with the fewest runs. Without any, this machine assigns.
    fn least_loaded(&self, cast: &Cast, but: &BTreeSet<String>) -> Led {
        let mut led = self.led();
        let able =
            cast.pairs.iter().flatten().filter(|machine| !cast.gone.contains(*machine) && !but.contains(*machine));
        let best = able.min_by_key(|machine| {
            let has = cast.assigners.iter().find(|place| place.machine == **machine).map(|place| &place.has);
            let known = led.entry((*machine).clone()).or_default();
            if let Some(has) = has.filter(|has| **has != known.0) {
                *known = (has.clone(), 0);
            }
            (known.0.carried + known.0.waiting + known.1, **machine != cast.me, (*machine).clone())
        });
        let Some(best) = best.cloned() else { return self.at_home() };
        led.entry(best.clone()).or_default().1 += 1;
        Led { buddy: buddy_of(cast, &best), assigner: best }
    }

    /// Ends a run, whoever watches it, wherever it is.
    pub async fn kill(&self, id: &str) {
        self.house.end(id).await;
        let _: Vec<()> = self.everybody(&Question::Kill(id.to_owned())).await;
    }

    /// What is known of a run here or elsewhere.
    pub async fn find(&self, id: &str) -> Option<RunRecord> {
        if let Some(record) = self.house.ledger().find(id) {
            return Some(record);
        }
        let found: Vec<Option<RunRecord>> = self.everybody(&Question::Find(id.to_owned())).await;
        found.into_iter().flatten().next()
    }

    /// The last runs of all machines, those that run first; only those of a trace, if one is meant.
    pub async fn list(&self, most: usize, trace: Option<&str>) -> Vec<RunRecord> {
        let mut all = self.house.ledger().list(most, trace);
        let question = match trace {
            Some(trace) => Question::Trace { trace: trace.to_owned(), most },
            None => Question::List(most),
        };
        let others: Vec<Vec<RunRecord>> = self.everybody(&question).await;
        all.extend(others.into_iter().flatten());
        all.sort_by_key(|record| (record.verdict.is_some(), std::cmp::Reverse(record.began_ms)));
        all.truncate(most);
        all
    }

    /// All languages, with the machines that can run each.
    pub async fn languages(&self) -> Vec<LanguageDetail> {
        let (own, others) = tokio::join!(self.house.languages(), self.everybody(&Question::Languages));
        let others: Vec<Vec<LanguageDetail>> = others;
        let mut all = own;
        for detail in others.into_iter().flatten() {
            match all.iter_mut().find(|known| known.name == detail.name) {
                Some(known) => known.machines.extend(detail.machines),
                None => all.push(detail),
            }
        }
        all
    }

    /// Asks all others at once. Who does not answer is left out.
    async fn everybody<T: serde::de::DeserializeOwned>(&self, question: &Question) -> Vec<T> {
        let Some(elsewhere) = self.elsewhere() else { return Vec::new() };
        let cast = elsewhere.cast();
        let there = cast.others.iter().filter(|machine| !cast.gone.contains(*machine));
        let asked = there.map(|machine| {
            let elsewhere = &*elsewhere;
            async move {
                let asked = tokio::time::timeout(OTHERS_DEADLINE, ask::<T>(elsewhere, machine, question)).await;
                asked.ok()?.ok()
            }
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Ends when how this machine stands has changed, but for its workers.
    pub async fn stirred(&self) {
        self.desk.stirred.notified().await;
    }

    /// How many runs this machine assigned or carries on.
    pub fn carried(&self) -> usize {
        self.desk.book.carried()
    }

    /// How this machine stands, for others.
    pub fn running(&self) -> Running {
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (carried, waiting) = (small(self.desk.book.carried()), small(self.desk.waits()));
        Running { carried, waiting, ..self.house.running() }
    }

    /// Another machine's question, answered as JSON.
    pub async fn reply(&self, question: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let answer = match serde_json::from_slice::<Question>(question)? {
            Question::Assigner { but } => {
                let elsewhere = self.elsewhere().ok_or("this machine is on its own")?;
                serde_json::to_vec(&self.least_loaded(&elsewhere.cast(), &but))?
            }
            Question::Hold { runs, over } => {
                self.desk.book.hold(runs, &over);
                serde_json::to_vec(&())?
            }
            Question::Void { id, attempt } => serde_json::to_vec(&self.house.void(&id, attempt))?,
            Question::Find(id) => serde_json::to_vec(&self.house.ledger().find(&id))?,
            Question::Kill(id) => {
                self.house.end(&id).await;
                serde_json::to_vec(&())?
            }
            Question::List(most) => serde_json::to_vec(&self.house.ledger().list(most, None))?,
            Question::Trace { trace, most } => serde_json::to_vec(&self.house.ledger().list(most, Some(&trace)))?,
            Question::Languages => serde_json::to_vec(&self.house.languages().await)?,
            Question::Prepare(language) => {
                let (told, _nobody) = mpsc::channel(TOLD_MAX);
                self.house.prepare_for(&language, &told).await?;
                serde_json::to_vec(&())?
            }
        };
        Ok(answer)
    }

    /// Another machine's connection, carried to its end.
    pub async fn answer(self: &Arc<Self>, reader: Reader, mut writer: Writer) -> io::Result<()> {
        let said = match self.begun(reader, &mut writer).await {
            Ok(Some((reader, session, carried))) => {
                link::join((reader, writer), (session.reader, session.writer)).await;
                drop(carried);
                return Ok(());
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        // What was said last arrives.
        writer.end().await;
        said
    }

    /// What was asked on another machine's connection, if something came of it that is to be carried.
    async fn begun(
        self: &Arc<Self>,
        mut reader: Reader,
        writer: &mut Writer,
    ) -> io::Result<Option<(Reader, Session, Option<Carried>)>> {
        let first = tokio::time::timeout(FIRST_DEADLINE, reader.next()).await;
        let Some(Frame::Word(word)) = first.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let talk = Frame::word::<Talk>(&word)?;
        let (told, mut tells) = mpsc::channel(TOLD_MAX);
        let elsewhere = self.elsewhere();
        let (begun, carries) = {
            let (carries, beginning): (bool, std::pin::Pin<Box<dyn Future<Output = _> + Send>>) = match &talk {
                Talk::Begin(wish) => (true, Box::pin(self.desk.begin(*wish.clone(), elsewhere.as_deref(), &told))),
                Talk::Resume { machine, watching } => {
                    (true, Box::pin(self.desk.resume(machine, watching, elsewhere.as_deref())))
                }
                Talk::Work(wish) => (false, Box::pin(self.house.take(wish, &told))),
                Talk::Watch(watching) => (false, Box::pin(self.house.watch(watching))),
            };
            let mut beginning = beginning;
            loop {
                tokio::select! {
                    begun = &mut beginning => break (begun, carries),
                    Some(told) = tells.recv() => writer.word(&told).await?,
                    // Nothing is said before it is accepted: they have left.
                    _ = reader.next() => return Ok(None),
                }
            }
        };
        match begun {
            Ok(mut session) => {
                let carried: Option<Carried> = carries.then(|| self.desk.carry(&session.accepted));
                if writer.word(&Told::Accepted(session.accepted.clone())).await.is_err() {
                    // Nobody has heard of it: nobody comes back to it.
                    session.writer.word(&Said::Left).await?;
                    session.writer.end().await;
                    session.reader.hear_out().await;
                    return Ok(None);
                }
                Ok(Some((reader, session, carried)))
            }
            Err(RefusedRun::Superseded) => writer.word(&Told::Superseded).await.map(|()| None),
            // As if this machine were not there: it cannot help.
            Err(RefusedRun::Unreachable { machine, source }) if carries => {
                tracing::debug!(machine, %source, "a machine that a run is at cannot be reached");
                let problem = RefusedRun::Unreachable { machine, source }.problem().1;
                writer.word(&Told::Problem(problem)).await.map(|()| None)
            }
            Err(refused) => writer.word(&Told::Problem(refused.problem().1)).await.map(|()| None),
        }
    }
}

/// A client that waits; when it leaves, what may have begun meanwhile is killed.
struct Left {
    front: Arc<Front>,
    id: Option<String>,
}

impl Drop for Left {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let front = Arc::clone(&self.front);
        // Ends when all were asked.
        world::task::spawn("killing a run whose client left", async move { front.kill(&id).await }).detach();
    }
}
