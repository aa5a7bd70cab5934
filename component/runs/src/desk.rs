//! Who assigns: finds the machine for a run, tells the buddy before it acts, and keeps those waiting in order for whom nobody has
//! room.
//!
//! Promises that who waits is told how many are before, that no more wait than can be served in reasonable time, and that a wish
//! which somebody else may have begun already is begun only where it surely was not.

use crate::book::Book;
use crate::house::House;
use crate::session::{RefusedRun, Session, opened};
use crate::talk::{Cast, Elsewhere, Held, Question, Talk, Watching, Wish, ask, talk};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use wire::run::{Accepted, Queued, Running, Told};

/// Runs that wait for a worker. At two a second, whoever comes last waits some minutes.
const WAITING_MAX: usize = 500;
/// Whether a machine is busy is known from one moment to the next, and nobody tells when it no longer is.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The same where others have to be asked.
const LOOK_AGAIN_ELSEWHERE: Duration = Duration::from_millis(100);
/// A buddy that does not answer is not waited for: it is lost, or about to be.
const BUDDY_DEADLINE: Duration = Duration::from_millis(300);
/// Until a machine where a run may have begun has answered, or is found to be gone.
const DOUBT_DEADLINE: Duration = Duration::from_secs(10);
const DOUBT_PAUSE: Duration = Duration::from_millis(200);

pub struct Desk {
    house: Arc<House>,
    waiting: Mutex<VecDeque<u64>>,
    moved: Notify,
    /// How many wait or are carried is another number.
    pub(crate) stirred: Notify,
    next_ticket: AtomicU64,
    /// Given to machines since they last told how many they have: by machine, what it had told then.
    given: Mutex<BTreeMap<String, (Running, u32)>>,
    pub(crate) book: Book,
}

impl Desk {
    pub fn new(house: Arc<House>) -> Desk {
        Desk {
            house,
            waiting: Mutex::new(VecDeque::new()),
            moved: Notify::new(),
            stirred: Notify::new(),
            next_ticket: AtomicU64::new(0),
            given: Mutex::default(),
            book: Book::default(),
        }
    }

    pub fn waits(&self) -> usize {
        self.waiting().len()
    }

    /// Begins a run. What happens until a worker has it is told meanwhile. Dropped while it waits, nothing is begun, or what was
    /// begun is killed.
    pub async fn begin(
        &self,
        mut wish: Wish,
        elsewhere: Option<&dyn Elsewhere>,
        told: &mpsc::Sender<Told>,
    ) -> Result<Session, RefusedRun> {
        let asked = world::clock::monotonic();
        if wish.attempt > 0
            && let Some(elsewhere) = elsewhere
            && let Some(session) = self.find_begun(&wish, elsewhere).await?
        {
            return Ok(session);
        }
        self.prepare(&wish, elsewhere, told).await?;
        let ticket = self.queue()?;
        let mut planned = Planned { desk: self, id: Some(wish.id.clone()) };
        let (mut before, mut has_waited) = (usize::MAX, false);
        loop {
            let changed = self.house.workers().changed.notified();
            let moved = self.moved.notified();
            let place = ticket.place();
            if place == 0 {
                wish.queue_usec = micros(asked.elapsed());
                match self.give(&mut wish, elsewhere, told).await {
                    Ok(session) => {
                        planned.id = None;
                        return Ok(session);
                    }
                    Err(refused) if refused.is_for_now() => has_waited = true,
                    Err(refused) => return Err(refused),
                }
            }
            // Workers that are only being started are nothing to tell of.
            if place < before && (place > 0 || has_waited) {
                before = place;
                // Whoever does not listen is not told.
                let _ = told.try_send(Told::Queued(Queued { before: place as u64 }));
            }
            let pause = if elsewhere.is_some() { LOOK_AGAIN_ELSEWHERE } else { LOOK_AGAIN };
            tokio::select! {
                () = changed => {}
                () = moved => {}
                () = tokio::time::sleep(pause), if place == 0 => {}
            }
        }
    }

    /// Where a run of this language may go, the best first; that is this machine if it is as good as any.
    fn places(&self, wish: &Wish, elsewhere: Option<&dyn Elsewhere>) -> Vec<String> {
        let Some(elsewhere) = elsewhere else { return vec![self.house.node().to_owned()] };
        let cast = elsewhere.cast();
        let language = self.house.check(&wish.wanted).map(|language| language.name.clone()).unwrap_or_default();
        self.sorted(&cast, &language)
    }

    fn sorted(&self, cast: &Cast, language: &str) -> Vec<String> {
        let mut given = self.given();
        let mut able: Vec<((bool, u64, bool), &String)> = cast
            .workers
            .iter()
            .filter(|place| !cast.gone.contains(&place.machine))
            // One that has told nothing yet may have it.
            .filter(|place| place.has.cores == 0 || place.has.languages.contains_key(language))
            .map(|place| {
                let known = given.entry(place.machine.clone()).or_default();
                if known.0 != place.has {
                    *known = (place.has.clone(), 0);
                }
                let load = u64::from(place.has.running + known.1) * 1_000 / u64::from(place.has.cores.max(1));
                ((!place.has.refuses.is_empty(), load, place.machine != cast.me), &place.machine)
            })
            .collect();
        able.sort();
        let copied = |machine: &String| {
            cast.workers
                .iter()
                .any(|place| place.machine == *machine && place.has.languages.get(language) == Some(&true))
        };
        // Whoever would have to copy the language first comes last.
        let (mut ready, others): (Vec<&String>, Vec<&String>) =
            able.into_iter().map(|(_, machine)| machine).partition(|machine| copied(machine));
        ready.extend(others);
        ready.into_iter().cloned().collect()
    }

    /// Has the language copied at the machine that comes first, if none has it. Nobody waits in the queue for that.
    async fn prepare(
        &self,
        wish: &Wish,
        elsewhere: Option<&dyn Elsewhere>,
        told: &mpsc::Sender<Told>,
    ) -> Result<(), RefusedRun> {
        let language = self.house.check(&wish.wanted)?.name.clone();
        let Some(elsewhere) = elsewhere else { return self.house.prepare_for(&language, told).await };
        let cast = elsewhere.cast();
        let is_copied = |machine: &String| {
            let place = cast.workers.iter().find(|place| place.machine == *machine);
            place.is_some_and(|place| place.has.languages.get(&language) == Some(&true))
        };
        let places = self.sorted(&cast, &language);
        let Some(first) = places.first() else {
            // The reason why is this machine's own, as every other's.
            return self.house.prepare_for(&language, told).await;
        };
        if is_copied(first) {
            return Ok(());
        }
        if *first == cast.me {
            return self.house.prepare_for(&language, told).await;
        }
        // Whoever does not listen is not told.
        let _ = told.try_send(Told::Preparing(format!("copying {language} at {first}, once")));
        // Who could not do it says so again when it is to run it.
        let _ = ask::<()>(elsewhere, first, &Question::Prepare(language)).await;
        Ok(())
    }

    /// Gives the wish to the first machine that takes it.
    async fn give(
        &self,
        wish: &mut Wish,
        elsewhere: Option<&dyn Elsewhere>,
        told: &mpsc::Sender<Told>,
    ) -> Result<Session, RefusedRun> {
        let looking = world::clock::monotonic();
        let places = self.places(wish, elsewhere);
        let Some(elsewhere) = elsewhere else { return self.house.take(wish, told).await };
        self.tell_buddy(&wish.id, &places, elsewhere).await;
        let me = self.house.node();
        let mut refused = None;
        for machine in &places {
            wish.place_usec = micros(looking.elapsed());
            let tried = if machine == me {
                self.house.take(wish, told).await
            } else {
                self.work_at(machine, wish, elsewhere, told).await
            };
            match tried {
                Ok(session) => {
                    if let Some(known) = self.given().get_mut(machine) {
                        known.1 += 1;
                    }
                    self.book.began(&wish.id, machine);
                    return Ok(session);
                }
                // Whether it has begun there is not known: nobody else may begin it until that is.
                Err(RefusedRun::Unreachable { machine, source }) => {
                    tracing::info!(machine, error = %source, run = wish.id, "a machine went away while it was given a run");
                    wish.attempt += 1;
                    if let Some(session) = self.find_begun(wish, elsewhere).await? {
                        return Ok(session);
                    }
                }
                Err(other) if other.is_for_now() || refused.is_none() => refused = Some(other),
                Err(_) => {}
            }
        }
        Err(refused.unwrap_or_else(|| RefusedRun::NoWorker(io::ErrorKind::NotFound.into())))
    }

    async fn work_at(
        &self,
        machine: &str,
        wish: &Wish,
        elsewhere: &dyn Elsewhere,
        told: &mpsc::Sender<Told>,
    ) -> Result<Session, RefusedRun> {
        let unreachable = |source| RefusedRun::Unreachable { machine: machine.to_owned(), source };
        let work = Talk::Work(Box::new(wish.clone()));
        let (reader, writer) = talk(elsewhere, machine, &work).await.map_err(|error| {
            // One that nobody could connect to has begun nothing; any other may have heard.
            if error.kind() == io::ErrorKind::NotConnected { RefusedRun::NoWorker(error) } else { unreachable(error) }
        })?;
        let answered = tokio::select! {
            answered = opened(reader, writer, Some(told)) => answered,
            () = elsewhere.lost(machine) => Err(RefusedRun::NoWorker(io::ErrorKind::ConnectionAborted.into())),
        };
        match answered {
            Err(RefusedRun::NoWorker(source)) => Err(unreachable(source)),
            answered => answered,
        }
    }

    /// The buddy knows where a run may be before it is there.
    async fn tell_buddy(&self, id: &str, places: &[String], elsewhere: &dyn Elsewhere) {
        let cast = elsewhere.cast();
        let held = Held { id: id.to_owned(), machines: places.to_vec() };
        let Some(buddy) = buddy_of(&cast, &cast.me) else {
            self.book.plan(held);
            return;
        };
        let (runs, over) = self.book.to_tell(&buddy, held);
        let question = Question::Hold { runs, over };
        let told = tokio::time::timeout(BUDDY_DEADLINE, ask::<()>(elsewhere, &buddy, &question)).await;
        if !matches!(told, Ok(Ok(()))) {
            self.book.forget_buddy();
            self.house.meters().buddy_unheard();
            tracing::debug!(buddy, "the buddy does not answer");
        }
    }

    /// A run that somebody else may have begun: a line to it, or the certainty that it does not begin where it was meant to.
    async fn find_begun(&self, wish: &Wish, elsewhere: &dyn Elsewhere) -> Result<Option<Session>, RefusedRun> {
        let (id, before) = (wish.id.as_str(), wish.attempt.saturating_sub(1));
        let cast = elsewhere.cast();
        // The buddy may have been told of more than arrived here.
        let mut machines: BTreeSet<String> = self.book.machines(id).into_iter().flatten().collect();
        machines.extend(cast.workers.iter().map(|place| place.machine.clone()));
        let until = world::clock::monotonic() + DOUBT_DEADLINE;
        let mut doubtful: Vec<String> = machines.into_iter().collect();
        loop {
            let mut left = Vec::new();
            for machine in doubtful {
                let begun = if machine == cast.me {
                    Ok(self.house.void(id, before))
                } else {
                    let question = Question::Void { id: id.to_owned(), attempt: before };
                    ask::<bool>(elsewhere, &machine, &question).await
                };
                match begun {
                    Ok(false) => {}
                    Ok(true) => {
                        let watching = Watching { id: id.to_owned(), turns: true, ..Watching::default() };
                        match self.resume(&machine, &watching, Some(elsewhere)).await {
                            Ok(session) => {
                                self.book.began(id, &machine);
                                return Ok(Some(session));
                            }
                            Err(RefusedRun::Superseded) => return Err(RefusedRun::Superseded),
                            // On its way to a worker there, or cut off at this moment.
                            Err(_) => left.push(machine),
                        }
                    }
                    Err(_) => left.push(machine),
                }
            }
            let gone = elsewhere.cast().gone;
            left.retain(|machine| !gone.contains(machine));
            if left.is_empty() {
                return Ok(None);
            }
            if world::clock::monotonic() >= until {
                let source = io::ErrorKind::TimedOut.into();
                return Err(RefusedRun::Unreachable { machine: left.join(", "), source });
            }
            doubtful = left;
            tokio::time::sleep(DOUBT_PAUSE).await;
        }
    }

    /// A line to a run at that machine.
    pub async fn resume(
        &self,
        machine: &str,
        watching: &Watching,
        elsewhere: Option<&dyn Elsewhere>,
    ) -> Result<Session, RefusedRun> {
        if machine == self.house.node() {
            return self.house.watch(watching).await;
        }
        let unreachable = |source| RefusedRun::Unreachable { machine: machine.to_owned(), source };
        let elsewhere = elsewhere.ok_or_else(|| unreachable(io::ErrorKind::NotConnected.into()))?;
        let asked = async {
            let watch = Talk::Watch(watching.clone());
            let (reader, writer) = talk(elsewhere, machine, &watch).await.map_err(unreachable)?;
            match opened(reader, writer, None).await {
                Err(RefusedRun::NoWorker(source)) => Err(unreachable(source)),
                opened => opened,
            }
        };
        tokio::select! {
            session = asked => session,
            () = elsewhere.lost(machine) => Err(unreachable(io::ErrorKind::ConnectionAborted.into())),
        }
    }

    /// For who carries a run: it counts until this is dropped.
    pub fn carry(self: &Arc<Self>, accepted: &Accepted) -> Carried {
        self.book.began(&accepted.id, &accepted.node);
        self.stirred.notify_one();
        Carried { desk: Arc::clone(self), id: accepted.id.clone() }
    }

    fn queue(&self) -> Result<Ticket<'_>, RefusedRun> {
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING_MAX {
            self.house.meters().refused();
            return Err(RefusedRun::TooMany(waiting.len()));
        }
        let number = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        waiting.push_back(number);
        self.house.meters().waiting(waiting.len());
        self.stirred.notify_one();
        Ok(Ticket { desk: self, number })
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given(&self) -> MutexGuard<'_, BTreeMap<String, (Running, u32)>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The other assigner of a machine's pair, if it is there.
pub fn buddy_of(cast: &Cast, machine: &str) -> Option<String> {
    let pair = cast.pairs.iter().find(|pair| pair.iter().any(|member| member == machine))?;
    pair.iter().find(|member| *member != machine && !cast.gone.contains(*member)).cloned()
}

/// A run that is carried here.
pub struct Carried {
    desk: Arc<Desk>,
    id: String,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.desk.book.over(&self.id);
        self.desk.stirred.notify_one();
    }
}

/// A run that nobody carries yet.
struct Planned<'a> {
    desk: &'a Desk,
    id: Option<String>,
}

impl Drop for Planned<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.desk.book.over(&id);
        }
    }
}

/// A place among those who wait.
struct Ticket<'a> {
    desk: &'a Desk,
    number: u64,
}

impl Ticket<'_> {
    fn place(&self) -> usize {
        self.desk.waiting().iter().position(|number| *number == self.number).unwrap_or(0)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiting = self.desk.waiting();
        waiting.retain(|number| *number != self.number);
        self.desk.house.meters().waiting(waiting.len());
        drop(waiting);
        self.desk.moved.notify_waiters();
    }
}
