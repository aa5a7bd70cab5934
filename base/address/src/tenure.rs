//! When to take the address, for how long, when to say so, and when to let it go. Pure.
//!
//! Times are milliseconds of one clock that goes on while the machine sleeps: a laptop that wakes up knows at once that its
//! time is over.

use crate::frame::Mac;

/// How much later than it was told the kernel may take an address away: measured were up to 0.26 s after whole seconds.
pub const KERNEL_LATE_MS: u64 = 300;

/// Between two questions whether somebody has the address: longer than a slow link takes for an answer.
const PROBE_EVERY_MS: u64 = 50;

/// So many in a row must have been met with silence: one or two may be lost.
const PROBES: u32 = 4;

/// How long it takes to find out that nobody answers for the address.
pub const QUIET_MS: u64 = PROBE_EVERY_MS * PROBES as u64;

/// When to say that the address is here, after it was taken. Once is enough where nothing is lost; more often costs nothing.
const ANNOUNCED_AFTER_MS: [u64; 6] = [0, 30, 150, 500, 1_500, 5_000];

/// From then on. Switches forget where an address was after five minutes, and a cable may be plugged in at any time.
const ANNOUNCE_EVERY_MS: u64 = 10_000;

/// Two who both insist do not fill the link with it.
const DEFEND_EVERY_MS: u64 = 1_000;

/// The kernel is asked again only for so much more: whoever renews does it by larger steps.
const RENEW_LEAST_MS: u64 = 100;

/// Asking the kernel may take so long before it is asked for less: what is left of [`KERNEL_LATE_MS`].
const SET_LATE_MS: u64 = 40;

/// After the kernel refused.
const RETRY_MS: u64 = 200;

/// For how many seconds the kernel may keep an address that is held until `until_ms`: as many as surely end before.
pub fn kernel_seconds(now_ms: u64, until_ms: u64) -> Option<u32> {
    // The kernel takes the largest number for "for good".
    let seconds = u32::try_from(until_ms.saturating_sub(now_ms) / 1_000).unwrap_or(u32::MAX).min(u32::MAX - 1);
    (seconds > 0).then_some(seconds)
}

/// When another machine may say that the address is there, if the one before was told to hold it until `until_ms`.
pub fn successor_from_ms(until_ms: u64) -> u64 {
    until_ms.saturating_add(KERNEL_LATE_MS)
}

/// How an address is taken that was not held before. `T` is a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take<T> {
    /// Whoever had it has surely let it go.
    AtOnce,
    /// Whoever had it may still be there: as soon as nobody on the link answers for it, at the latest when it is surely gone.
    WhenQuiet { gone_at: T },
}

/// What others may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The address is here, so long after it was asked for.
    Taken { after_ms: u64 },
    /// Somebody else answers for it, and it is not taken yet.
    Occupied { by: Mac },
    /// Somebody else says that it is theirs while it is held here. It was said again that it is here.
    Contested { by: Mac },
    /// It was let go because it was not told to be held any longer.
    Expired,
    /// It was let go as asked.
    Released,
    /// The kernel refused; it is tried again.
    Failed,
}

/// What to do now, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Have the kernel keep the address for so long from now on, and tell [`Tenure::was_set`] how that went.
    Set {
        seconds: u32,
    },
    Remove,
    Announce,
    Probe,
    Tell(Event),
}

/// One machine's hold on one address.
#[derive(Debug, Default)]
pub(crate) struct Tenure {
    wanted: Option<Wanted>,
    state: State,
    effects: Vec<Effect>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// When it was asked for first.
    since_ms: u64,
    until_ms: u64,
    take: Take<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Absent,
    Asking {
        next_ms: u64,
        /// Questions in a row that nobody answered.
        silent: u32,
        heard: bool,
    },
    /// The kernel refused to take it.
    Refused {
        retry_ms: u64,
    },
    Held(Held),
}

#[derive(Debug, Clone, Copy)]
struct Held {
    /// The kernel was told to keep it so long, and has not said yes.
    setting: Option<u32>,
    /// It keeps it until then at least.
    kernel_until_ms: u64,
    /// How many times it was announced, and when it is next.
    announced: usize,
    announce_ms: u64,
    contested_ms: Option<u64>,
    /// It is known to be here.
    told: bool,
}

impl Tenure {
    /// The address is to be here until then, and no longer.
    pub(crate) fn hold(&mut self, now_ms: u64, until_ms: u64, take: Take<u64>) -> Vec<Effect> {
        let since_ms = self.wanted.map_or(now_ms, |wanted| wanted.since_ms);
        self.wanted = Some(Wanted { since_ms, until_ms, take });
        self.wake(now_ms)
    }

    /// It is to be here no longer.
    pub(crate) fn release(&mut self) -> Vec<Effect> {
        if self.wanted.take().is_some() {
            self.let_go(Event::Released);
        }
        std::mem::take(&mut self.effects)
    }

    /// Somebody else says that it is theirs.
    pub(crate) fn heard(&mut self, now_ms: u64, by: Mac) -> Vec<Effect> {
        match &mut self.state {
            State::Absent | State::Refused { .. } => {}
            State::Asking { silent, heard, .. } => {
                *silent = 0;
                if !std::mem::replace(heard, true) {
                    self.effects.push(Effect::Tell(Event::Occupied { by }));
                }
            }
            State::Held(held) => {
                let rested_ms = held.contested_ms.map_or(0, |last_ms| last_ms + DEFEND_EVERY_MS);
                if now_ms < rested_ms {
                    // The last word is ours, only not at once.
                    held.announce_ms = held.announce_ms.min(rested_ms);
                } else if held.setting.is_none() && self.wanted.is_some_and(|wanted| now_ms < wanted.until_ms) {
                    held.contested_ms = Some(now_ms);
                    self.effects.extend([Effect::Announce, Effect::Tell(Event::Contested { by })]);
                }
            }
        }
        self.wake(now_ms)
    }

    /// How [`Effect::Set`] went, and what time it was after it.
    pub(crate) fn was_set(&mut self, now_ms: u64, done: bool) -> Vec<Effect> {
        let (State::Held(held), Some(wanted)) = (&mut self.state, self.wanted) else { return self.wake(now_ms) };
        let Some(seconds) = held.setting.take() else { return self.wake(now_ms) };
        if !done {
            self.effects.push(Effect::Tell(Event::Failed));
            self.state = State::Refused { retry_ms: now_ms + RETRY_MS };
        } else if now_ms + u64::from(seconds) * 1_000 > wanted.until_ms + SET_LATE_MS {
            // Frozen between reckoning the seconds and their beginning: the kernel would keep what is another's by then.
            let held = *held;
            self.set(now_ms, wanted.until_ms, Some(held));
        } else if !std::mem::replace(&mut held.told, true) {
            self.effects.push(Effect::Tell(Event::Taken { after_ms: now_ms.saturating_sub(wanted.since_ms) }));
        }
        self.wake(now_ms)
    }

    /// Does what is due.
    pub(crate) fn wake(&mut self, now_ms: u64) -> Vec<Effect> {
        if self.wanted.is_some_and(|wanted| now_ms >= wanted.until_ms) {
            self.let_go(Event::Expired);
        }
        if let Some(wanted) = self.wanted {
            match self.state {
                State::Absent => match wanted.take {
                    Take::WhenQuiet { gone_at } if now_ms < gone_at => self.ask(now_ms, 0, false),
                    Take::WhenQuiet { .. } | Take::AtOnce => self.set(now_ms, wanted.until_ms, None),
                },
                State::Asking { next_ms, silent, heard } => self.go_on_asking(now_ms, wanted, (next_ms, silent, heard)),
                State::Refused { retry_ms } if now_ms >= retry_ms => self.set(now_ms, wanted.until_ms, None),
                State::Refused { .. } => {}
                State::Held(held) => self.keep(now_ms, wanted.until_ms, held),
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// When [`Tenure::wake`] has something to do although nothing happens.
    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        let wanted = self.wanted?;
        let next_ms = match self.state {
            State::Absent => wanted.until_ms,
            State::Asking { next_ms, .. } => next_ms,
            State::Refused { retry_ms } => retry_ms,
            State::Held(held) => held.announce_ms,
        };
        Some(next_ms.min(wanted.until_ms))
    }

    /// Whether the address is here, as far as the kernel has said.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.state, State::Held(held) if held.told)
    }

    fn ask(&mut self, now_ms: u64, silent: u32, heard: bool) {
        self.effects.push(Effect::Probe);
        self.state = State::Asking { next_ms: now_ms + PROBE_EVERY_MS, silent: silent + 1, heard };
    }

    fn go_on_asking(&mut self, now_ms: u64, wanted: Wanted, (next_ms, silent, heard): (u64, u32, bool)) {
        let gone = match wanted.take {
            Take::AtOnce => true,
            Take::WhenQuiet { gone_at } => now_ms >= gone_at,
        };
        if gone || (silent >= PROBES && now_ms >= next_ms) {
            self.set(now_ms, wanted.until_ms, None);
        } else if now_ms >= next_ms {
            self.ask(now_ms, silent, heard);
        }
    }

    /// Goes on with it: longer, shorter, or only saying so.
    fn keep(&mut self, now_ms: u64, until_ms: u64, held: Held) {
        if held.setting.is_some() {
            return;
        }
        if now_ms >= held.kernel_until_ms {
            // The kernel may have taken it away already, and a neighbour found that nobody is there.
            return self.set(now_ms, until_ms, Some(Held { announced: 0, announce_ms: now_ms, ..held }));
        }
        let next_until_ms = kernel_seconds(now_ms, until_ms).map(|seconds| now_ms + u64::from(seconds) * 1_000);
        if next_until_ms.is_some_and(|next| next >= held.kernel_until_ms + RENEW_LEAST_MS)
            || held.kernel_until_ms > until_ms
        {
            return self.set(now_ms, until_ms, Some(held));
        }
        if now_ms >= held.announce_ms {
            self.effects.push(Effect::Announce);
            let announced = held.announced + 1;
            let gap_ms = match ANNOUNCED_AFTER_MS.get(announced) {
                Some(after_ms) => after_ms - ANNOUNCED_AFTER_MS[announced - 1],
                None => ANNOUNCE_EVERY_MS,
            };
            self.state = State::Held(Held { announced, announce_ms: now_ms + gap_ms, ..held });
        }
    }

    /// Has the kernel keep it until then. With less than a second left nothing is taken, and what is held is held on to by
    /// this program alone.
    fn set(&mut self, now_ms: u64, until_ms: u64, held: Option<Held>) {
        let fresh = Held {
            setting: None,
            kernel_until_ms: now_ms,
            announced: 0,
            announce_ms: now_ms,
            contested_ms: None,
            told: false,
        };
        let Some(seconds) = kernel_seconds(now_ms, until_ms) else {
            if held.is_some() {
                self.effects.push(Effect::Remove);
            }
            self.state = State::Absent;
            return;
        };
        let kernel_until_ms = now_ms + u64::from(seconds) * 1_000;
        self.effects.push(Effect::Set { seconds });
        self.state = State::Held(Held { setting: Some(seconds), kernel_until_ms, ..held.unwrap_or(fresh) });
    }

    fn let_go(&mut self, event: Event) {
        self.wanted = None;
        match std::mem::take(&mut self.state) {
            State::Absent | State::Asking { .. } => {}
            // What was refused may have been there from before.
            State::Held(_) | State::Refused { .. } => self.effects.push(Effect::Remove),
        }
        self.effects.push(Effect::Tell(event));
    }
}

#[cfg(test)]
mod tests;
