//! Where runs may be: those this machine assigned, and those its buddy told it of.
//!
//! Pure but for its lock. Bounded: the oldest go first, and whoever asks for one of those asks every machine.

use crate::talk::Held;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Runs in each half.
const RUNS_MAX: usize = 20_000;
/// Told at once to a buddy that knows of none: a message has a bound, and the rest is found by asking every machine.
const TOLD_MAX: usize = 5_000;
/// Ended runs the buddy was not told of: it forgets them by itself when it has as many.
const OVER_MAX: usize = 1_000;

#[derive(Default)]
pub struct Book(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    own: Page,
    buddys: Page,
    /// Who was told of all own runs.
    told: Option<String>,
    over: Vec<String>,
}

#[derive(Default)]
struct Page {
    machines: BTreeMap<String, Vec<String>>,
    order: VecDeque<String>,
}

impl Page {
    fn insert(&mut self, id: &str, machines: Vec<String>) {
        if self.machines.insert(id.to_owned(), machines).is_none() {
            self.order.push_back(id.to_owned());
        }
        // What is over stays in the order until it is its turn.
        while self.order.len() > RUNS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.machines.remove(&oldest);
            }
        }
    }
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run is about to be tried at these machines, and there is no buddy.
    pub fn plan(&self, held: Held) {
        let mut pages = self.pages();
        pages.told = None;
        pages.own.insert(&held.id, held.machines);
    }

    /// The same, with what is to be said to this buddy: this run, and all others if it was told of none.
    pub fn to_tell(&self, buddy: &str, held: Held) -> (Vec<Held>, Vec<String>) {
        let mut pages = self.pages();
        pages.own.insert(&held.id, held.machines.clone());
        let over = std::mem::take(&mut pages.over);
        if pages.told.as_deref() == Some(buddy) {
            return (vec![held], over);
        }
        pages.told = Some(buddy.to_owned());
        let all = pages.own.machines.iter().take(TOLD_MAX);
        (all.map(|(id, machines)| Held { id: id.clone(), machines: machines.clone() }).collect(), Vec::new())
    }

    /// It did not answer: it is told of everything when it does.
    pub fn forget_buddy(&self) {
        self.pages().told = None;
    }

    /// A run is at one machine for sure.
    pub fn began(&self, id: &str, machine: &str) {
        self.pages().own.insert(id, vec![machine.to_owned()]);
    }

    /// A run is carried here no more.
    pub fn over(&self, id: &str) {
        let mut pages = self.pages();
        pages.own.machines.remove(id);
        if pages.over.len() < OVER_MAX {
            pages.over.push(id.to_owned());
        }
    }

    /// What the buddy says.
    pub fn hold(&self, runs: Vec<Held>, over: &[String]) {
        let mut pages = self.pages();
        for held in runs {
            pages.buddys.insert(&held.id, held.machines);
        }
        for id in over {
            pages.buddys.machines.remove(id);
        }
    }

    /// Where a run may be, as far as this machine was told.
    pub fn machines(&self, id: &str) -> Option<Vec<String>> {
        let pages = self.pages();
        pages.own.machines.get(id).or_else(|| pages.buddys.machines.get(id)).cloned()
    }

    /// How many are carried here.
    pub fn carried(&self) -> usize {
        self.pages().own.machines.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(id: &str, machines: &[&str]) -> Held {
        Held { id: id.to_owned(), machines: machines.iter().map(|machine| (*machine).to_owned()).collect() }
    }

    #[test]
    fn a_new_buddy_is_told_of_everything_and_an_old_one_of_what_is_new() {
        let book = Book::default();
        book.plan(held("a", &["m1", "m2"]));
        book.began("a", "m2");
        let (runs, _) = book.to_tell("b", held("b", &["m1"]));
        assert_eq!(runs, [held("a", &["m2"]), held("b", &["m1"])]);
        book.over("a");
        assert_eq!(book.to_tell("b", held("c", &["m3"])), (vec![held("c", &["m3"])], vec!["a".to_owned()]));
        book.forget_buddy();
        assert_eq!(book.to_tell("b", held("d", &["m3"])).0.len(), 3);
        assert_eq!(book.carried(), 3);
    }

    #[test]
    fn what_the_buddy_said_is_known_until_it_is_over_and_bounded() {
        let book = Book::default();
        book.hold(vec![held("a", &["m1"]), held("b", &["m2"])], &[]);
        assert_eq!(book.machines("a"), Some(vec!["m1".to_owned()]));
        book.hold(Vec::new(), &["a".to_owned()]);
        assert_eq!(book.machines("a"), None);
        for number in 0..RUNS_MAX {
            book.hold(vec![held(&number.to_string(), &["m1"])], &[]);
        }
        assert_eq!(book.machines("b"), None, "the oldest go");
        assert!(book.machines("17").is_some());
    }
}
