//! What lies in the cache, for people: the answers that were put there or came back from disk since the start.
//!
//! Decides nothing: the stash is asked whether each is still there.

use super::answer::Answer;
use httpcache::Terms;
use stash::Trace;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The oldest are not listed any more: nobody reads so many.
const ANSWERS_MAX: usize = 10_000;

/// An answer that is kept, as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub address: String,
    pub service: String,
    pub status: u16,
    pub bytes: u64,
    pub age_ms: u64,
    /// Less than nothing when it is stale.
    pub ttl_ms: i64,
    pub hits: u64,
    /// The headers it varies by, with what they were.
    pub varies: String,
}

#[derive(Default)]
pub(crate) struct Catalogue {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    answers: HashMap<String, Entry>,
    order: VecDeque<String>,
}

struct Entry {
    /// Whether it is the same; it may be on disk only by now.
    answer: Weak<Answer>,
    listed: Listed,
    terms: Terms,
    hits: Arc<AtomicU64>,
    trace: Trace,
}

impl Catalogue {
    pub(crate) fn note(&self, key: &str, answer: &Arc<Answer>, trace: impl FnOnce() -> Trace) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |entry: &Entry| std::ptr::eq(entry.answer.as_ptr(), Arc::as_ptr(answer));
        if known.answers.get(key).is_some_and(same) {
            return;
        }
        let entry = Entry {
            answer: Arc::downgrade(answer),
            listed: listed(answer),
            terms: answer.terms,
            hits: Arc::clone(&answer.hits),
            trace: trace(),
        };
        if known.answers.insert(key.to_owned(), entry).is_none() {
            known.order.push_back(key.to_owned());
        }
        while known.order.len() > ANSWERS_MAX {
            if let Some(oldest) = known.order.pop_front() {
                known.answers.remove(&oldest);
            }
        }
    }

    /// The answers that `is_there` says are still kept, those given most often first.
    pub(crate) fn list(&self, now_ms: u64, is_there: impl Fn(&str, &Trace) -> bool) -> Vec<Listed> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { answers, order } = &mut *known;
        answers.retain(|key, entry| is_there(key, &entry.trace));
        order.retain(|key| answers.contains_key(key));
        let listed = answers.values().map(|entry| Listed {
            age_ms: entry.terms.age_ms(now_ms),
            ttl_ms: entry.terms.ttl_ms(now_ms),
            hits: entry.hits.load(Ordering::Relaxed),
            ..entry.listed.clone()
        });
        let mut listed: Vec<Listed> = listed.collect();
        listed.sort_by(|one, other| other.hits.cmp(&one.hits).then_with(|| one.address.cmp(&other.address)));
        listed
    }
}

fn listed(answer: &Answer) -> Listed {
    Listed {
        address: answer.address.clone(),
        service: answer.service.clone(),
        status: answer.status.as_u16(),
        bytes: u64::try_from(answer.body.len()).unwrap_or(u64::MAX),
        age_ms: 0,
        ttl_ms: 0,
        hits: 0,
        varies: answer.selection.trim_end().replace('\n', "; "),
    }
}
