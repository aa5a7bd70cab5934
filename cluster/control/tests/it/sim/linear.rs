//! Whether a history is linearizable: whether all that was answered could have come from one map that does one thing at a time.
//! Pure.
//!
//! The search is Wing and Gong's (1993) with Lowe's memory of where it has been (2017): the earliest calls are tried first, and
//! a set of calls that led to the same map before is not tried again. Keys that no transaction touches together are histories of
//! their own (a family here), which is what makes it fast: linearizability is local.

use std::collections::HashSet;

/// Keys of one family; transactions stay within it.
pub(crate) const KEYS: usize = 3;

pub(crate) type Value = u64;
pub(crate) type Map = [Option<Value>; KEYS];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    Put(usize, Value),
    Delete(usize),
    Get(usize),
}

/// All compares hold: `success` happens, else `failure`. A plain get or put is one without compares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) compares: Vec<(usize, Option<Value>)>,
    pub(crate) success: Vec<Act>,
    pub(crate) failure: Vec<Act>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    pub(crate) read: Vec<Option<Value>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    /// Its place among all calls and answers.
    pub(crate) called: u64,
    /// `None`: nobody knows whether it happened, nor when it did or will.
    pub(crate) answered: Option<(u64, Outcome)>,
}

impl Operation {
    /// What it does to `map` and answers.
    pub(crate) fn run(&self, map: &mut Map) -> Outcome {
        let succeeded = self.compares.iter().all(|(key, wanted)| map[*key] == *wanted);
        let mut read = Vec::new();
        for act in if succeeded { &self.success } else { &self.failure } {
            match act {
                Act::Put(key, value) => map[*key] = Some(*value),
                Act::Delete(key) => map[*key] = None,
                Act::Get(key) => read.push(map[*key]),
            }
        }
        Outcome { succeeded, read }
    }

    pub(crate) fn puts(&self) -> impl Iterator<Item = Value> {
        self.success.iter().chain(&self.failure).filter_map(|act| match act {
            Act::Put(_, value) => Some(*value),
            Act::Delete(_) | Act::Get(_) => None,
        })
    }
}

/// Calls and answers in the order they happened, as a list from which pairs can be lifted and put back.
struct Timeline {
    /// Per node: the call's number and whether it is its answer. Node 0 is before everything.
    nodes: Vec<(usize, bool)>,
    answer: Vec<usize>,
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Timeline {
    fn of(calls: &[Call]) -> Self {
        let mut events = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            events.push((call.called, false, number));
            events.push((call.answered.as_ref().map_or(u64::MAX, |(at, _)| *at), true, number));
        }
        events.sort_unstable();
        let mut nodes = vec![(usize::MAX, false)];
        let mut answer = vec![0; calls.len()];
        for (_, is_answer, number) in events {
            if is_answer {
                answer[number] = nodes.len();
            }
            nodes.push((number, is_answer));
        }
        let count = nodes.len();
        let next = (1..=count).collect();
        let previous = (0..count).map(|node| node.saturating_sub(1)).collect();
        Self { nodes, answer, next, previous }
    }

    fn unlink(&mut self, node: usize) {
        let (before, after) = (self.previous[node], self.next[node]);
        self.next[before] = after;
        if after < self.nodes.len() {
            self.previous[after] = before;
        }
    }

    fn relink(&mut self, node: usize) {
        let (before, after) = (self.previous[node], self.next[node]);
        self.next[before] = node;
        if after < self.nodes.len() {
            self.previous[after] = node;
        }
    }

    fn lift(&mut self, call: usize) {
        self.unlink(call);
        self.unlink(self.answer[self.nodes[call].0]);
    }

    fn put_back(&mut self, call: usize) {
        self.relink(self.answer[self.nodes[call].0]);
        self.relink(call);
    }
}

/// Checks the calls of one family, which begins empty.
///
/// # Errors
/// The number of the call whose answer nothing explains.
pub(crate) fn check(calls: &[Call]) -> Result<(), usize> {
    let mut timeline = Timeline::of(calls);
    let mut left = calls.iter().filter(|call| call.answered.is_some()).count();
    let mut done = vec![0u64; calls.len().div_ceil(64)];
    let mut been = HashSet::new();
    let mut path: Vec<(usize, Map)> = Vec::new();
    let mut map = Map::default();
    let mut node = timeline.next[0];
    let (mut least_left, mut unexplained) = (usize::MAX, 0);
    while left > 0 {
        let (number, is_answer) = timeline.nodes[node];
        let answered = calls[number].answered.as_ref();
        if is_answer {
            // Whatever is chosen next comes after this answer, whose call has not happened: one step back.
            if left < least_left {
                (least_left, unexplained) = (left, number);
            }
            let Some((call, before)) = path.pop() else { return Err(unexplained) };
            let number = timeline.nodes[call].0;
            map = before;
            done[number / 64] &= !(1 << (number % 64));
            left += usize::from(calls[number].answered.is_some());
            timeline.put_back(call);
            node = timeline.next[call];
            continue;
        }
        let mut after = map;
        let outcome = calls[number].operation.run(&mut after);
        if answered.is_none_or(|(_, seen)| *seen == outcome) {
            done[number / 64] |= 1 << (number % 64);
            if been.insert((done.clone(), after)) {
                path.push((node, map));
                map = after;
                left -= usize::from(answered.is_some());
                timeline.lift(node);
                node = timeline.next[0];
                continue;
            }
            done[number / 64] &= !(1 << (number % 64));
        }
        node = timeline.next[node];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use world::random::Dice;

    fn get(key: usize) -> Operation {
        Operation { success: vec![Act::Get(key)], ..Operation::default() }
    }

    fn put(key: usize, value: Value) -> Operation {
        Operation { success: vec![Act::Put(key, value)], ..Operation::default() }
    }

    fn swap(key: usize, from: Value, to: Value) -> Operation {
        Operation { compares: vec![(key, Some(from))], success: vec![Act::Put(key, to)], ..Operation::default() }
    }

    fn call(operation: Operation, called: u64, answered: u64, succeeded: bool, read: &[Option<Value>]) -> Call {
        Call { operation, called, answered: Some((answered, Outcome { succeeded, read: read.to_vec() })) }
    }

    fn unknown(operation: Operation, called: u64) -> Call {
        Call { operation, called, answered: None }
    }

    #[test]
    fn what_one_map_could_have_answered_passes() {
        let together = [
            call(put(0, 1), 0, 9, true, &[]),
            call(get(0), 1, 2, true, &[None]),
            call(get(0), 3, 4, true, &[Some(1)]),
            call(swap(0, 1, 2), 5, 12, true, &[]),
            call(get(0), 10, 11, true, &[Some(2)]),
        ];
        assert_eq!(check(&together), Ok(()));
    }

    #[test]
    fn a_stale_read_is_found() {
        let history =
            [call(put(0, 1), 0, 1, true, &[]), call(put(0, 2), 2, 3, true, &[]), call(get(0), 4, 5, true, &[Some(1)])];
        assert_eq!(check(&history), Err(2));
        // Two reads of one write under way: the second must not see less than the first.
        let back =
            [call(put(0, 1), 0, 9, true, &[]), call(get(0), 1, 2, true, &[Some(1)]), call(get(0), 3, 4, true, &[None])];
        assert!(check(&back).is_err());
    }

    #[test]
    fn a_lost_write_is_found() {
        let history = [call(put(1, 7), 0, 1, true, &[]), call(get(1), 2, 3, true, &[None])];
        assert!(check(&history).is_err());
    }

    #[test]
    fn a_swap_that_happened_twice_is_found() {
        let twice = [
            call(put(0, 1), 0, 1, true, &[]),
            call(swap(0, 1, 2), 2, 3, true, &[]),
            call(put(0, 1), 4, 5, true, &[]),
            call(get(0), 6, 7, true, &[Some(2)]),
        ];
        assert!(check(&twice).is_err());
        let both = [
            call(put(0, 1), 0, 1, true, &[]),
            call(swap(0, 1, 2), 2, 5, true, &[]),
            call(swap(0, 1, 3), 3, 4, true, &[]),
        ];
        assert!(check(&both).is_err());
    }

    #[test]
    fn half_a_transaction_is_found() {
        let two = Operation { success: vec![Act::Put(0, 1), Act::Put(1, 1)], ..Operation::default() };
        let both = Operation { success: vec![Act::Get(0), Act::Get(1)], ..Operation::default() };
        let history = |read: &[Option<Value>]| check(&[unknown(two.clone(), 0), call(both.clone(), 1, 2, true, read)]);
        assert_eq!(history(&[Some(1), Some(1)]), Ok(()));
        assert_eq!(history(&[None, None]), Ok(()));
        assert!(history(&[Some(1), None]).is_err());
    }

    #[test]
    fn what_nobody_knows_happened_once_late_or_never() {
        let late = [
            unknown(put(0, 1), 0),
            call(get(0), 1, 2, true, &[None]),
            call(put(0, 2), 3, 4, true, &[]),
            call(get(0), 5, 6, true, &[Some(1)]),
        ];
        assert_eq!(check(&late), Ok(()));
        let again = [&late[..], &[call(put(0, 3), 7, 8, true, &[]), call(get(0), 9, 10, true, &[Some(1)])]].concat();
        assert!(check(&again).is_err());
        let early = [call(get(0), 0, 1, true, &[Some(1)]), unknown(put(0, 1), 2)];
        assert!(check(&early).is_err());
    }

    /// Every order there is, tried plainly.
    fn plainly(calls: &[Call], left: &mut Vec<usize>, map: Map) -> bool {
        if left.iter().all(|number| calls[*number].answered.is_none()) {
            return true;
        }
        let answered = |number: usize| calls[number].answered.as_ref().map_or(u64::MAX, |(at, _)| *at);
        for position in 0..left.len() {
            let number = left[position];
            if left.iter().any(|other| answered(*other) < calls[number].called) {
                continue;
            }
            let mut after = map;
            let outcome = calls[number].operation.run(&mut after);
            if calls[number].answered.as_ref().is_some_and(|(_, seen)| *seen != outcome) {
                continue;
            }
            left.remove(position);
            let found = plainly(calls, left, after);
            left.insert(position, number);
            if found {
                return true;
            }
        }
        false
    }

    #[test]
    fn it_says_what_trying_every_order_says() {
        let dice = Dice::seeded(4);
        let mut verdicts = [0, 0];
        for _ in 0..4_000 {
            let calls = (0..6u64)
                .map(|number| {
                    let value = dice.roll() % 3;
                    let operation = match dice.roll() % 4 {
                        0 => put(0, value),
                        1 => swap(0, value, dice.roll() % 3),
                        2 => Operation { success: vec![Act::Delete(0)], ..Operation::default() },
                        _ => get(0),
                    };
                    let (called, took) = (number * 4 + dice.roll() % 8, 1 + dice.roll() % 16);
                    let read =
                        if operation == get(0) { vec![Some(dice.roll() % 3).filter(|read| *read > 0)] } else { vec![] };
                    let succeeded = operation.compares.is_empty() || dice.roll().is_multiple_of(2);
                    let outcome = Outcome { succeeded, read };
                    Call {
                        operation,
                        called,
                        answered: (!dice.roll().is_multiple_of(5)).then_some((called + took, outcome)),
                    }
                })
                .collect::<Vec<_>>();
            let expected = plainly(&calls, &mut (0..calls.len()).collect(), Map::default());
            assert_eq!(check(&calls).is_ok(), expected, "{calls:?}");
            verdicts[usize::from(expected)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 300), "{verdicts:?}");
    }
}
