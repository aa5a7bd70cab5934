//! The network between simulated machines: late, out of order, lost, cut in one direction or both.
//!
//! What rides on it are calls, as in the real one: a question arrives once at most, and whoever asked learns whether it may have
//! arrived. So what is lost is a call's deadline; and what is said twice is only what members may say twice.

use replication::{Group, Network, SendError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use storage::replicated::Waiting;
use world::random::Dice;
use world::simulated::Host;

/// As long as the real one waits for an answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// The kinds of a message (`replication::message`) that are openraft's own.
const OF_RAFT: std::ops::RangeInclusive<u8> = 1..=3;
/// And those that may come twice without harm: entries, votes, questions where to read.
const REPEATABLE: [u8; 3] = [1, 2, 6];

/// How well it does at the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) delay_max_us: u64,
    pub(crate) lost_percent: u64,
    pub(crate) repeated_percent: u64,
}

pub(crate) const FAIR: Weather = Weather { delay_max_us: 3_000, lost_percent: 0, repeated_percent: 1 };

/// Clones are the same network.
#[derive(Clone)]
pub(crate) struct Net {
    dice: Arc<Dice>,
    state: Arc<Mutex<State>>,
}

struct State {
    members: BTreeMap<u64, (Host, Group)>,
    /// From whom nothing reaches whom.
    cut: BTreeSet<(u64, u64)>,
    weather: Weather,
    messages: u64,
}

impl Net {
    pub(crate) fn new(dice: Dice) -> Self {
        let state = State { members: BTreeMap::new(), cut: BTreeSet::new(), weather: FAIR, messages: 0 };
        Self { dice: Arc::new(dice), state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn line(&self, from: u64) -> Arc<dyn Network> {
        Arc::new(Line { net: self.clone(), from })
    }

    pub(crate) fn connect(&self, member: u64, host: Host, group: Group) {
        self.state().members.insert(member, (host, group));
    }

    pub(crate) fn disconnect(&self, member: u64) {
        self.state().members.remove(&member);
    }

    pub(crate) fn cut(&self, lines: impl IntoIterator<Item = (u64, u64)>) {
        self.state().cut.extend(lines);
    }

    pub(crate) fn mend(&self, lines: &[(u64, u64)]) {
        self.state().cut.retain(|line| !lines.contains(line));
    }

    pub(crate) fn mend_all(&self) {
        self.state().cut.clear();
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    pub(crate) fn messages(&self) -> u64 {
        self.state().messages
    }

    /// One way's time.
    pub(crate) fn delay(&self) -> Duration {
        let most_us = self.state().weather.delay_max_us;
        Duration::from_micros(self.dice.roll() % most_us.max(1))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("changing the network never panics")
    }

    fn chance(&self, percent: u64) -> bool {
        percent > 0 && self.dice.roll() % 100 < percent
    }

    fn passes(&self, from: u64, to: u64) -> bool {
        let (cut, lost_percent) = {
            let state = self.state();
            (state.cut.contains(&(from, to)), state.weather.lost_percent)
        };
        !cut && !self.chance(lost_percent)
    }

    async fn carry(&self, from: u64, to: u64, message: Vec<u8>) -> Result<Vec<u8>, SendError> {
        let kind = message.get(1).copied().unwrap_or(0);
        self.state().messages += 1;
        tokio::time::sleep(self.delay()).await;
        let member = self.state().members.get(&to).cloned();
        let Some((host, group)) = member.filter(|_| self.passes(from, to)) else {
            // A machine that is not there does not say so: whoever connects waits a while.
            tokio::time::sleep(Duration::from_millis(200 + self.dice.roll() % 800)).await;
            // openraft would pause, and while it does it throws dice that nobody can load (tokio's `select!`).
            return Err(match OF_RAFT.contains(&kind) {
                true => SendError::Unanswered { member: to },
                false => SendError::Unreachable { member: to },
            });
        };
        if REPEATABLE.contains(&kind) && self.chance(self.state().weather.repeated_percent) {
            let (net, again, group) = (self.clone(), message.clone(), group.clone());
            drop(host.spawn(async move {
                tokio::time::sleep(net.delay()).await;
                group.handle(&again).await;
            }));
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        drop(host.spawn(async move { drop(answer.send(group.handle(&message).await)) }));
        let unanswered = SendError::Unanswered { member: to };
        // Gone while it worked on it: the connection breaks.
        let bytes = answered.await.map_err(|_| unanswered.clone())?;
        tokio::time::sleep(self.delay()).await;
        if self.passes(to, from) {
            return Ok(bytes);
        }
        std::future::pending::<()>().await;
        Err(unanswered)
    }
}

struct Line {
    net: Net,
    from: u64,
}

impl Network for Line {
    fn send(&self, to: u64, message: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, SendError>> {
        Box::pin(async move {
            let carried = tokio::time::timeout(ANSWERED_WITHIN, self.net.carry(self.from, to, message)).await;
            carried.unwrap_or(Err(SendError::Unanswered { member: to }))
        })
    }
}
