//! Processor cores: what is measured runs on some, what measures it on others.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::process::{Child, Command};

/// Some of the machine's cores, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores(Vec<usize>);

impl Cores {
    /// Those this thread may run on.
    pub fn here() -> Cores {
        let set = sched_getaffinity(None).expect("a thread may ask where it runs");
        Cores((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
    }

    /// The first `count` of them and the others; both have all of them when there are not more.
    pub fn split(&self, count: usize) -> (Cores, Cores) {
        if count >= self.0.len() {
            return (self.clone(), self.clone());
        }
        let (first, others) = self.0.split_at(count);
        (Cores(first.to_vec()), Cores(others.to_vec()))
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Does `work` on these cores. What it starts stays there.
    pub fn on<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let working = scope.spawn(|| {
                let mut set = CpuSet::new();
                self.0.iter().for_each(|core| set.set(*core));
                sched_setaffinity(None, &set).expect("a thread may run on some of its cores");
                work()
            });
            working.join().unwrap_or_else(|told| std::panic::resume_unwind(told))
        })
    }

    /// Starts a program that stays on these cores.
    pub fn start(&self, command: &mut Command) -> std::io::Result<Child> {
        self.on(|| command.spawn())
    }
}

#[cfg(test)]
mod tests {
    use super::Cores;

    #[test]
    fn cores_are_shared_where_there_are_too_few() {
        let check = |all: &[usize], count, first: &[usize], others: &[usize]| {
            let expected = (Cores(first.to_vec()), Cores(others.to_vec()));
            assert_eq!(Cores(all.to_vec()).split(count), expected);
        };
        check(&[0, 1], 1, &[0], &[1]);
        check(&[0, 1], 2, &[0, 1], &[0, 1]);
        check(&[2, 3, 5], 2, &[2, 3], &[5]);
        check(&[4], 1, &[4], &[4]);
    }

    #[test]
    fn work_is_done_where_it_is_told() {
        let (first, _) = Cores::here().split(1);
        assert_eq!(first.on(Cores::here), first);
    }
}
