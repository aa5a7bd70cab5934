//! What is computed on which core next, and what the answers say about it.

use crate::Test;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How often a core that answered wrong is asked the same again: it may be wrong only now and then.
const ASKED_AGAIN: u32 = 20;
/// How often a core that was wrong has to be right, at each kind of work, before it counts as right again.
const RIGHT_AGAIN: u32 = 20;

/// An answer that is not the known one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub expected: String,
    pub got: String,
}

/// Work for a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    pub core: usize,
    pub test: Test,
    /// A core is in doubt: at once, however busy the machine is.
    pub urgent: bool,
}

/// A core that is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub core: usize,
    pub test: Test,
    pub wrong: Wrong,
    /// Another core answers the same wrong: then it is the memory, or what all cores share.
    pub elsewhere: bool,
}

/// What an answer led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Fine,
    /// Wrong; it is looked into.
    Doubtful(Wrong),
    /// Wrong once, and right whenever it was asked again. The next time it is a fault.
    Passed,
    Faulty(Fault),
    /// A core that was wrong is right again.
    Recovered {
        core: usize,
    },
}

#[derive(Debug)]
struct Doubt {
    core: usize,
    test: Test,
    wrong: Wrong,
    asked: u32,
    again: u32,
}

/// The machine: asks one thing at a time, core by core, kind by kind.
#[derive(Debug, Default)]
pub struct Judge {
    cores: Vec<usize>,
    at: usize,
    doubt: Option<Doubt>,
    /// Times each core answered wrong without doing so again.
    slips: BTreeMap<usize, u32>,
    faulty: BTreeSet<usize>,
    /// What cores that were wrong still have to get right.
    owed: VecDeque<Task>,
    asked: Option<Task>,
}

impl Judge {
    /// `faulty` were wrong when this machine was last looked at.
    pub fn new(faulty: impl IntoIterator<Item = usize>) -> Judge {
        Judge { faulty: faulty.into_iter().collect(), ..Judge::default() }
    }

    /// The next work. `cores` are those there are now. `None` without any.
    pub fn next(&mut self, cores: &[usize]) -> Option<Task> {
        self.cores = cores.to_vec();
        self.owed.retain(|task| cores.contains(&task.core));
        if self.doubt.as_ref().is_some_and(|doubt| !cores.contains(&doubt.core)) {
            self.doubt = None;
        }
        self.asked = self.pressing().or_else(|| self.owed.front().copied()).or_else(|| self.regular());
        self.asked
    }

    fn pressing(&self) -> Option<Task> {
        let doubt = self.doubt.as_ref()?;
        let (core, test) = (doubt.core, doubt.test);
        let core = if doubt.asked < ASKED_AGAIN { core } else { self.other(core)? };
        Some(Task { core, test, urgent: true })
    }

    /// A core to compare with, that has not been found to be wrong itself.
    fn other(&self, core: usize) -> Option<usize> {
        let others = || self.cores.iter().copied().filter(|other| *other != core);
        others().find(|other| !self.faulty.contains(other)).or_else(|| others().next())
    }

    /// Each core in turn, and after all of them the next kind of work. Nothing new is found out about those that are wrong.
    fn regular(&mut self) -> Option<Task> {
        for _ in 0..self.cores.len() * Test::ALL.len() {
            let core = self.cores.get(self.at % self.cores.len()).copied()?;
            let test = Test::ALL[self.at / self.cores.len() % Test::ALL.len()];
            self.at = self.at.wrapping_add(1);
            if !self.faulty.contains(&core) {
                return Some(Task { core, test, urgent: false });
            }
        }
        None
    }

    /// Whether something is to be found out at once.
    pub fn is_pressed(&self) -> bool {
        self.doubt.is_some() || !self.owed.is_empty()
    }

    /// Has cores looked at again that were wrong: somebody says that they are right.
    pub fn reexamine(&mut self, wrong: impl IntoIterator<Item = usize>) {
        self.faulty.extend(wrong);
        self.owed.clear();
        for core in &self.faulty {
            for test in Test::ALL {
                let task = Task { core: *core, test, urgent: true };
                self.owed.extend(std::iter::repeat_n(task, RIGHT_AGAIN as usize));
            }
        }
    }

    /// What a core answered to the last [`Judge::next`].
    pub fn answered(&mut self, answer: Result<(), Wrong>) -> Outcome {
        let Some(task) = self.asked.take() else { return Outcome::Fine };
        if self.doubt.is_some() {
            return self.look_into(task, answer);
        }
        let was_owed = self.owed.front() == Some(&task);
        match answer {
            Ok(()) if was_owed => {
                self.owed.pop_front();
                if self.owed.iter().any(|left| left.core == task.core) {
                    return Outcome::Fine;
                }
                self.faulty.remove(&task.core);
                self.slips.remove(&task.core);
                Outcome::Recovered { core: task.core }
            }
            Ok(()) => Outcome::Fine,
            Err(wrong) => {
                self.owed.retain(|left| left.core != task.core);
                self.doubt = Some(Doubt { core: task.core, test: task.test, wrong: wrong.clone(), asked: 0, again: 0 });
                Outcome::Doubtful(wrong)
            }
        }
    }

    fn look_into(&mut self, task: Task, answer: Result<(), Wrong>) -> Outcome {
        let Some(doubt) = &mut self.doubt else { return Outcome::Fine };
        if doubt.asked < ASKED_AGAIN && task.core == doubt.core {
            doubt.asked += 1;
            doubt.again += u32::from(answer.is_err());
            let (asked, core) = (doubt.asked, doubt.core);
            // On a machine with one core there is nobody to compare with.
            if asked < ASKED_AGAIN || self.other(core).is_some() {
                return Outcome::Fine;
            }
            return self.conclude(false);
        }
        self.conclude(answer.is_err())
    }

    fn conclude(&mut self, elsewhere: bool) -> Outcome {
        let Some(Doubt { core, test, wrong, again, .. }) = self.doubt.take() else { return Outcome::Fine };
        let slips = self.slips.entry(core).or_default();
        *slips += 1;
        if again == 0 && !elsewhere && *slips == 1 && !self.faulty.contains(&core) {
            return Outcome::Passed;
        }
        self.faulty.insert(core);
        Outcome::Faulty(Fault { core, test, wrong, elsewhere })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong() -> Wrong {
        Wrong { expected: "1".to_owned(), got: "2".to_owned() }
    }

    /// Drives a judge with cores that answer as `is_wrong` says (core, test, how often it was asked), up to `steps`.
    fn drive(
        judge: &mut Judge,
        cores: &[usize],
        steps: usize,
        mut is_wrong: impl FnMut(Task, usize) -> bool,
    ) -> Vec<Outcome> {
        let mut told = Vec::new();
        for step in 0..steps {
            let Some(task) = judge.next(cores) else { break };
            let outcome = judge.answered(if is_wrong(task, step) { Err(wrong()) } else { Ok(()) });
            if outcome != Outcome::Fine {
                told.push(outcome);
            }
        }
        told
    }

    fn fault(core: usize, test: Test, elsewhere: bool) -> Outcome {
        Outcome::Faulty(Fault { core, test, wrong: wrong(), elsewhere })
    }

    #[test]
    fn every_core_does_every_kind_of_work() {
        let mut judge = Judge::default();
        let mut seen = BTreeSet::new();
        let told = drive(&mut judge, &[0, 1, 5], 3 * Test::ALL.len(), |task, _| {
            assert!(!task.urgent);
            seen.insert((task.core, task.test));
            false
        });
        assert_eq!((told, seen.len()), (Vec::new(), 3 * Test::ALL.len()));
        assert_eq!(judge.next(&[]), None);
    }

    #[test]
    fn a_core_that_is_wrong_is_told_from_memory_that_is() {
        let told = drive(&mut Judge::default(), &[0, 1, 2], 100, |task, _| task.core == 1 && task.test == Test::Float);
        assert_eq!(told, [Outcome::Doubtful(wrong()), fault(1, Test::Float, false)]);
        // The other core is found out next, with the same memory.
        let told = drive(&mut Judge::default(), &[0, 1], 40, |task, _| task.test == Test::Memory);
        assert_eq!(told[..2], [Outcome::Doubtful(wrong()), fault(0, Test::Memory, true)]);
        let told = drive(&mut Judge::default(), &[0], 40, |task, _| task.test == Test::Sha256);
        assert_eq!(told, [Outcome::Doubtful(wrong()), fault(0, Test::Sha256, false)]);
    }

    #[test]
    fn one_slip_is_forgiven_and_a_second_is_not() {
        let mut judge = Judge::default();
        let once = |task: Task, step: usize| task.core == 1 && step == 1;
        assert_eq!(drive(&mut judge, &[0, 1], 60, once), [Outcome::Doubtful(wrong()), Outcome::Passed]);
        let told = drive(&mut judge, &[0, 1], 60, |task, step| task.core == 1 && !task.urgent && step < 2);
        assert!(matches!(&told[..], [Outcome::Doubtful(_), Outcome::Faulty(Fault { core: 1, .. })]), "{told:?}");
        // One that is wrong now and then, at whatever it is asked.
        let told = drive(&mut Judge::default(), &[0, 1], 60, |task, step| task.core == 0 && step % 4 == 2);
        assert!(matches!(&told[..], [Outcome::Doubtful(_), Outcome::Faulty(Fault { core: 0, .. })]), "{told:?}");
    }

    #[test]
    fn a_core_that_was_wrong_is_left_alone_until_somebody_says_that_it_is_right() {
        let mut judge = Judge::new([1]);
        assert_eq!(drive(&mut judge, &[0, 1], 100, |task, _| task.core == 1), []);
        // It is not.
        judge.reexamine([1]);
        let told = drive(&mut judge, &[0, 1], 60, |task, _| task.core == 1 && task.test == Test::Integer);
        assert_eq!(told, []);
        let told = drive(&mut judge, &[0, 1], 200, |task, _| task.core == 1 && task.test == Test::Integer);
        assert_eq!(told, [Outcome::Doubtful(wrong()), fault(1, Test::Integer, false)]);
        // Now it is.
        judge.reexamine([1]);
        let told = drive(&mut judge, &[0, 1], 200, |_, _| false);
        assert_eq!(told, [Outcome::Recovered { core: 1 }]);
        let told = drive(&mut judge, &[0, 1], 100, |task, _| task.core == 1);
        assert!(matches!(&told[..], [Outcome::Doubtful(_), Outcome::Faulty(_)]), "{told:?}");
    }

    #[test]
    fn cores_come_and_go() {
        let mut judge = Judge::default();
        let _ = drive(&mut judge, &[0, 1], 2, |task, _| task.core == 1);
        // The one in doubt is gone: others are looked at.
        for _ in 0..50 {
            let task = judge.next(&[0, 3]).expect("there are cores");
            assert!(task.core != 1 && !task.urgent);
            assert_eq!(judge.answered(Ok(())), Outcome::Fine);
        }
        assert_eq!(drive(&mut Judge::new([0]), &[0], 10, |_, _| true), []);
    }
}
