//! The holder: a thread that does what [`Tenure`] decides, at its times.
//!
//! A thread of its own, since what it promises is about time: it waits for nothing but its times, its owner's word and the
//! link. It ends with its [`Holder`]; the address is gone by then.

use crate::frame::Mac;
use crate::kernel::Kernel;
use crate::link::Socket;
use crate::tenure::{Effect, Event, Take, Tenure};
use crate::{Error, Floating};
use meter::{Counter, Gauge, Meter};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Taking an address away is one question to the kernel; a machine that is busy beyond measure may take this long to ask it.
const RELEASE_MAX: Duration = Duration::from_secs(2);

/// One effect leads to others at most so often: set, then told and announced.
const EFFECTS_MAX: usize = 32;

/// Holds a floating address on this machine while it is told to.
pub struct Holder {
    address: Floating,
    interface: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    asked: Mutex<Asked>,
    answered: Condvar,
    wake: OwnedFd,
}

/// What the owner wants, the last word only.
#[derive(Default)]
struct Asked {
    number: u64,
    want: Want,
    /// Up to which number it was done.
    done: u64,
    failed: Option<Error>,
    held: bool,
}

#[derive(Clone, Copy, Default)]
enum Want {
    #[default]
    Nothing,
    Hold {
        until: Instant,
        take: Take<Instant>,
    },
    End {
        leave: bool,
    },
}

/// What is told to whoever owns the holder.
type Tell = Box<dyn Fn(Event) + Send>;

impl Holder {
    /// Finds out whether and where the address could be held, without taking it: `interface`, or the one that is on the
    /// address's network. `tell` is called on the holder's thread and must not wait.
    pub fn start(
        address: Floating,
        interface: Option<&str>,
        meter: &Meter,
        tell: impl Fn(Event) + Send + 'static,
    ) -> Result<Holder, Error> {
        let mut kernel = Kernel::open()?;
        if !kernel.may_change(address)? {
            return Err(Error::MayNotChange { address });
        }
        if !Socket::may_open() {
            return Err(Error::MayNotAnnounce { address });
        }
        let place = Place::find(&mut kernel, address, interface)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|source| Error::Kernel { what: "make what wakes the holder", source })?;
        let shared = Arc::new(Shared { asked: Mutex::default(), answered: Condvar::new(), wake });
        let keeper = Keeper {
            address,
            interface: interface.map(str::to_owned),
            kernel,
            link: None,
            placed: None,
            tenure: Tenure::default(),
            shared: Arc::clone(&shared),
            meters: Meters::new(meter, address),
            tell: Box::new(tell),
        };
        let thread =
            std::thread::Builder::new().name("address".to_owned()).spawn(move || keeper.run()).map_err(|error| {
                Error::Kernel {
                    what: "start the holder's thread",
                    source: Errno::from_io_error(&error).unwrap_or(Errno::AGAIN),
                }
            })?;
        Ok(Holder { address, interface: place.name, shared, thread: Some(thread) })
    }

    pub fn address(&self) -> Floating {
        self.address
    }

    /// Where the address is or will be.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Whether the address is here.
    pub fn is_held(&self) -> bool {
        self.shared.lock().held
    }

    /// Takes the address, or goes on with it, until `until` and not longer, unless it is told so again. Returns at once.
    pub fn hold_until(&self, until: Instant, take: Take<Instant>) {
        self.shared.ask(Want::Hold { until, take });
    }

    /// Lets go of the address. When this returns well it is not here, and another machine may take it at once.
    pub fn release(&self) -> Result<(), Error> {
        let number = self.shared.ask(Want::Nothing);
        self.shared.wait(number, self.address)
    }

    /// Ends without taking the address away: another process of this machine goes on with it. If none does, it is gone when
    /// the lifetime is over that the kernel was told last.
    pub fn leave(mut self) {
        self.end(true);
    }

    fn end(&mut self, leave: bool) {
        if let Some(thread) = self.thread.take() {
            self.shared.ask(Want::End { leave });
            if thread.join().is_err() {
                tracing::error!(address = %self.address, "the holder of the address had panicked");
            }
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        // What is in it is whole at every moment.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, want: Want) -> u64 {
        let number = {
            let mut asked = self.lock();
            asked.number += 1;
            asked.want = want;
            asked.number
        };
        // It can only be too full, and then the holder is awake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        number
    }

    fn wait(&self, number: u64, address: Floating) -> Result<(), Error> {
        let asked = self.lock();
        let waited = self.answered.wait_timeout_while(asked, RELEASE_MAX, |asked| asked.done < number);
        let (mut asked, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if asked.done < number {
            return Err(Error::Late { address });
        }
        asked.failed.take().map_or(Ok(()), Err)
    }
}

/// An interface of this machine.
struct Place {
    index: u32,
    name: String,
    mac: Mac,
}

impl Place {
    /// The interface of that name, or the one whose network the address is most closely of.
    fn find(kernel: &mut Kernel, address: Floating, interface: Option<&str>) -> Result<Place, Error> {
        let (links, addresses) = (kernel.links()?, kernel.addresses()?);
        let name_of = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        if let Some(own) = addresses.iter().find(|one| one.ip == address.ip() && one.permanent) {
            return Err(Error::Own { address, name: name_of(own.index).unwrap_or_default() });
        }
        let present = || {
            let ethernets = links.iter().filter(|link| link.mac.is_some());
            let names: Vec<&str> = ethernets.map(|link| link.name.as_str()).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let link = match interface {
            Some(name) => links
                .iter()
                .find(|link| link.name == name)
                .ok_or_else(|| Error::Unknown { name: name.to_owned(), present: present() })?,
            None => {
                let beside = addresses
                    .iter()
                    .filter(|one| one.ip != address.ip() && address.is_beside(one.ip, one.prefix))
                    .filter_map(|one| Some((one.prefix, links.iter().find(|link| link.index == one.index)?)))
                    .filter(|(_, link)| link.mac.is_some());
                let closest = beside.max_by_key(|(prefix, link)| (*prefix, std::cmp::Reverse(link.index)));
                closest.map(|(_, link)| link).ok_or_else(|| Error::NoInterface { address, present: present() })?
            }
        };
        let name = link.name.clone();
        let mac = link.mac.ok_or_else(|| Error::NoEthernet { address, name: name.clone() })?;
        Ok(Place { index: link.index, name, mac })
    }
}

/// The thread's own.
struct Keeper {
    address: Floating,
    interface: Option<String>,
    kernel: Kernel,
    /// While the address is wanted.
    link: Option<(u32, Socket)>,
    /// The interface that it was put on.
    placed: Option<u32>,
    tenure: Tenure,
    shared: Arc<Shared>,
    meters: Meters,
    tell: Tell,
}

impl Keeper {
    fn run(mut self) {
        let mut seen = 0;
        loop {
            let (number, want) = {
                let asked = self.shared.lock();
                (asked.number, asked.want)
            };
            let mut failed = None;
            if number != seen {
                seen = number;
                match want {
                    Want::Hold { until, take } => self.hold(until, take),
                    Want::Nothing | Want::End { leave: false } => {
                        let effects = self.tenure.release();
                        failed = self.apply(effects).err();
                    }
                    Want::End { leave: true } => {}
                }
            }
            if let Want::End { .. } = want {
                return self.meters.held.set(0.0);
            }
            self.hear();
            let due = self.tenure.wake(now_ms());
            if let Err(error) = self.apply(due) {
                failed.get_or_insert(error);
            }
            self.answer(seen, failed);
            self.wait();
        }
    }

    fn hold(&mut self, until: Instant, take: Take<Instant>) {
        // This program may be frozen between two looks at clocks: what is held ends too early then, what is waited for too late.
        let before_ms = now_ms();
        let now = world::clock::monotonic();
        let after_ms = now_ms();
        let left_ms = |at: Instant| u64::try_from(at.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX);
        let take = match take {
            Take::AtOnce => Take::AtOnce,
            Take::WhenQuiet { gone_at } => {
                Take::WhenQuiet { gone_at: after_ms.saturating_add(left_ms(gone_at)).saturating_add(1) }
            }
        };
        let effects = self.tenure.hold(after_ms, before_ms.saturating_add(left_ms(until)), take);
        self.log(effects);
    }

    fn hear(&mut self) {
        let Some((_, socket)) = &self.link else { return };
        match socket.heard() {
            Ok(others) => {
                for mac in others {
                    let effects = self.tenure.heard(now_ms(), mac);
                    self.log(effects);
                }
            }
            // The link went down or away; it is found again with the next renewal.
            Err(Errno::NETDOWN) => {}
            Err(error) => {
                tracing::warn!(address = %self.address, %error, "cannot listen on the link");
                self.link = None;
            }
        }
    }

    fn log(&mut self, effects: Vec<Effect>) {
        if let Err(error) = self.apply(effects) {
            tracing::warn!(address = %self.address, error = %Chain(&error), "the address is not where it should be");
        }
    }

    /// Does what was decided, and what follows from how that went. The first failure is told.
    fn apply(&mut self, effects: Vec<Effect>) -> Result<(), Error> {
        let mut result = Ok(());
        let mut left: std::collections::VecDeque<Effect> = effects.into();
        for _ in 0..EFFECTS_MAX {
            let Some(effect) = left.pop_front() else { break };
            let done = match effect {
                Effect::Set { seconds } => {
                    let done = self.set(seconds);
                    let more = self.tenure.was_set(now_ms(), done.is_ok());
                    left.extend(more);
                    done
                }
                Effect::Remove => self.remove(),
                Effect::Announce => self.send(Socket::announce, "announce the address"),
                Effect::Probe => self.send(Socket::probe, "ask who has the address"),
                Effect::Tell(event) => {
                    self.meters.count(event);
                    tracing::info!(address = %self.address, ?event, "floating address");
                    (self.tell)(event);
                    Ok(())
                }
            };
            if let Err(error) = done {
                result = result.and(Err(error));
            }
        }
        result
    }

    fn set(&mut self, seconds: u32) -> Result<(), Error> {
        let index = self.link()?.0;
        let done = self.kernel.set(index, self.address, seconds);
        match done {
            Ok(()) => self.placed = Some(index),
            Err(_) => self.link = None,
        }
        done
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.link = None;
        match self.placed.take() {
            Some(index) => self.kernel.remove(index, self.address),
            None => Ok(()),
        }
    }

    fn send(&mut self, send: impl Fn(&Socket) -> Result<(), Errno>, what: &'static str) -> Result<(), Error> {
        let (_, socket) = self.link()?;
        send(socket).map_err(|source| Error::Kernel { what, source })
    }

    /// The link, found again after anything went wrong with it.
    fn link(&mut self) -> Result<&(u32, Socket), Error> {
        if self.link.is_none() {
            let place = Place::find(&mut self.kernel, self.address, self.interface.as_deref())?;
            let socket = Socket::open(place.index, place.mac, self.address.ip())?;
            self.link = Some((place.index, socket));
        }
        self.link.as_ref().ok_or(Error::Answer { what: "find the interface" })
    }

    fn answer(&mut self, number: u64, failed: Option<Error>) {
        let held = self.tenure.is_held();
        self.meters.held.set(if held { 1.0 } else { 0.0 });
        let mut asked = self.shared.lock();
        asked.held = held;
        asked.done = number;
        if failed.is_some() {
            asked.failed = failed;
        }
        drop(asked);
        self.shared.answered.notify_all();
    }

    /// Until it is time, somebody wants something, or something was said on the link.
    fn wait(&self) {
        let left_ms = self.tenure.wake_at_ms().map(|at_ms| at_ms.saturating_sub(now_ms()));
        let timeout = left_ms.map(|ms| Timespec {
            tv_sec: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ms % 1_000 * 1_000_000).unwrap_or(0),
        });
        let mut waited = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        if let Some((_, socket)) = &self.link {
            waited.push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
        }
        // Interrupted or refused, it looks around once more than it had to.
        let _ = poll(&mut waited, timeout.as_ref());
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
    }
}

/// Milliseconds on a clock that goes on while the machine sleeps.
fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

struct Meters {
    held: Gauge,
    taken: Counter,
    expired: Counter,
    released: Counter,
    contested: Counter,
    occupied: Counter,
    failed: Counter,
}

impl Meters {
    fn new(meter: &Meter, address: Floating) -> Meters {
        let address = address.to_string();
        let count = |event: &str| {
            let labels = [("address", address.as_str()), ("event", event)];
            meter.counter("bramble_address_events_total", "What happened to a floating address here.", &labels)
        };
        Meters {
            held: meter.gauge(
                "bramble_address_held",
                "Whether a floating address is on this machine.",
                &[("address", &address)],
            ),
            taken: count("taken"),
            expired: count("expired"),
            released: count("released"),
            contested: count("contested"),
            occupied: count("occupied"),
            failed: count("failed"),
        }
    }

    fn count(&self, event: Event) {
        match event {
            Event::Taken { .. } => self.taken.add(1),
            Event::Occupied { .. } => self.occupied.add(1),
            Event::Contested { .. } => self.contested.add(1),
            Event::Expired => self.expired.add(1),
            Event::Released => self.released.add(1),
            Event::Failed => self.failed.add(1),
        }
    }
}

/// An error with what it comes from.
struct Chain<'a>(&'a Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
