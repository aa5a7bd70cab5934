//! The edge cache: answers of chosen routes, kept and given again.
//!
//! Owns what happens around `httpcache`'s decisions: where answers are kept (a [`stash::Stash`]), who asks the service when
//! many want the same, and who asks it once more in the background. The walk of a request: rules → look → wait or ask →
//! keep. Promises:
//! - a route without the rule costs one look at its rules, and nothing of it is ever kept;
//! - an answer is found only for the same service, host, address and choice of headers, byte by byte;
//! - one request asks for what many want, the others wait, bounded in number and time; an answer that may not be kept lets
//!   them all go at once, each its own way, and for a while nobody waits for it again;
//! - what was purged, or changed by a request through here, is not given again.
//!
//! Never knows how a service is reached: `exchange` asks it.

mod answer;
mod body;
mod catalogue;
mod fill;
mod flight;
mod inquiry;
mod meters;
mod passing;
mod purge;
mod rule;
mod serve;

pub(crate) use body::KeptBody;
pub use catalogue::Listed;
pub(crate) use inquiry::Inquiry;
pub use purge::Purge;
pub(crate) use rule::Rule;
pub(crate) use serve::serve;

use crate::settings::CacheSettings;
use answer::Stored;
use catalogue::Catalogue;
use fill::Budget;
use flight::Flights;
use meter::Meter;
use passing::Passing;
use stash::{Stash, Trace, Usage};
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

/// Answers asked for anew in the background at once: each holds a connection to an instance.
const REFRESHES_MAX: usize = 64;

/// Where there is a cache as soon as a route wants one: memory and disk cost nothing before.
pub(crate) struct Room {
    wanted: Option<(CacheSettings, Meter)>,
    cache: OnceLock<Arc<Cache>>,
}

impl Room {
    pub(crate) fn new(settings: Option<CacheSettings>, meter: &Meter) -> Room {
        Room { wanted: settings.map(|settings| (settings, meter.clone())), cache: OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&Arc<Cache>> {
        self.cache.get()
    }

    /// Makes the cache, if there may be one. Must be called within a Tokio runtime.
    pub(crate) fn open(&self) {
        if let Some((settings, meter)) = &self.wanted {
            self.cache.get_or_init(|| Arc::new(Cache::new(settings, meter)));
        }
    }
}

/// What all routes with a cache share.
pub(crate) struct Cache {
    pub(crate) stash: Stash<Stored>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) passing: Passing,
    pub(crate) catalogue: Catalogue,
    /// For bodies on their way into the stash.
    pub(crate) budget: Arc<Budget>,
    pub(crate) refreshes: Arc<Semaphore>,
}

impl Cache {
    pub(crate) fn new(settings: &CacheSettings, meter: &Meter) -> Cache {
        let wanted = stash::Settings {
            memory_bytes_max: settings.memory_bytes_max,
            disk: settings.disk.clone(),
            value_bytes_max: settings.answer_bytes_max + answer::HEAD_BYTES_MAX,
        };
        Cache {
            stash: Stash::open(wanted, meter),
            flights: Arc::new(Flights::default()),
            passing: Passing::default(),
            catalogue: Catalogue::default(),
            budget: Arc::new(Budget::new(settings.memory_bytes_max)),
            refreshes: Arc::new(Semaphore::new(REFRESHES_MAX)),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.stash.usage()
    }

    pub(crate) fn list(&self) -> Vec<Listed> {
        let is_there = |key: &str, trace: &Trace| self.stash.may_have(key) && !self.stash.is_forgotten(trace);
        self.catalogue.list(world::clock::unix_ms(), is_there)
    }
}
