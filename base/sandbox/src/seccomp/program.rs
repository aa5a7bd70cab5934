//! A filter program from rules per call number: a search tree over ranges, so that a call passes a handful of
//! instructions. A list would cost twice, since the kernel also asks a new filter about each number there is.

/// What to do with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    Allow,
    /// Answer with this error number.
    Refuse(i32),
    Check(Check),
}

/// A look at the lower half of an argument; refused is EPERM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) argument: u32,
    pub(super) mask: u32,
    pub(super) values: Vec<u32>,
    pub(super) allowed_when_equal: bool,
}

const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Within `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
const ARGUMENTS_OFFSET: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

/// `AUDIT_ARCH_…`: calls of another kind of processor have other numbers, and end the process.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xc000_00f3)
} else {
    None
};

/// Rules for the numbers from zero on; `beyond` is the error of all higher ones. `None` on a processor this does not
/// know.
pub(super) fn assemble(rules: &[Rule], beyond: i32) -> Option<Vec<libc::sock_filter>> {
    let mut ranges: Vec<(u32, Rule)> = Vec::new();
    let numbered = (0_u32..).zip(rules.iter().cloned().chain([Rule::Refuse(beyond)]));
    for (number, rule) in numbered {
        if ranges.last().is_none_or(|(_, last)| *last != rule) {
            ranges.push((number, rule));
        }
    }
    let mut program = Backwards::default();
    let search = program.search(&ranges)?;
    program.step(LOAD_WORD, NUMBER_OFFSET);
    debug_assert_eq!(search + 1, program.steps.len() - 1, "the search follows the number");
    program.step(RETURN, libc::SECCOMP_RET_KILL_PROCESS);
    // Over the end of the process, or not.
    program.steps.push(libc::sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: ARCHITECTURE? });
    program.step(LOAD_WORD, ARCHITECTURE_OFFSET);
    program.steps.reverse();
    Some(program.steps)
}

/// A program from its end on, since jumps only lead forward: what one leads to is there before it. Each rule is there
/// once.
#[derive(Default)]
struct Backwards {
    steps: Vec<libc::sock_filter>,
    rules: Vec<(Rule, usize)>,
}

/// All of these return where their first step is, counted from the end.
impl Backwards {
    fn step(&mut self, code: u16, k: u32) -> usize {
        self.steps.push(libc::sock_filter { code, jt: 0, jf: 0, k });
        self.steps.len() - 1
    }

    /// Goes to the one place or the other; `None` where they are further away than a jump leads.
    fn branch(&mut self, code: u16, k: u32, then: usize, otherwise: usize) -> Option<usize> {
        let here = self.steps.len();
        let distance = |place: usize| u8::try_from(here - place - 1).ok();
        self.steps.push(libc::sock_filter { code, jt: distance(then)?, jf: distance(otherwise)?, k });
        Some(here)
    }

    /// Finds the range a number is in: `ranges` are sorted by where they begin.
    fn search(&mut self, ranges: &[(u32, Rule)]) -> Option<usize> {
        if let [(_, rule)] = ranges {
            return self.rule(rule);
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let (begin, _) = high.first()?;
        let (high, low) = (self.search(high)?, self.search(low)?);
        self.branch(JUMP_IF_AT_LEAST, *begin, high, low)
    }

    fn rule(&mut self, rule: &Rule) -> Option<usize> {
        if let Some((_, place)) = self.rules.iter().find(|(known, _)| known == rule) {
            return Some(*place);
        }
        let place = match rule {
            Rule::Allow => self.step(RETURN, libc::SECCOMP_RET_ALLOW),
            Rule::Refuse(error) => self.step(RETURN, libc::SECCOMP_RET_ERRNO | error.unsigned_abs()),
            Rule::Check(check) => {
                let (allow, refuse) = (self.rule(&Rule::Allow)?, self.rule(&Rule::Refuse(libc::EPERM))?);
                let (equal, other) = if check.allowed_when_equal { (allow, refuse) } else { (refuse, allow) };
                let mut next = other;
                for value in check.values.iter().rev() {
                    next = self.branch(JUMP_IF_EQUAL, *value, equal, next)?;
                }
                self.step(AND, check.mask);
                self.step(LOAD_WORD, ARGUMENTS_OFFSET + check.argument * ARGUMENT_BYTES)
            }
        };
        self.rules.push((rule.clone(), place));
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::{ARCHITECTURE, Check, Rule, assemble};

    /// What the kernel would do: the returned action of a call.
    fn run(program: &[libc::sock_filter], architecture: u32, number: u32, arguments: [u32; 3]) -> u32 {
        let mut accumulator = 0;
        let mut at = 0;
        // Jumps only lead forward, so that every program ends.
        while let Some(step) = program.get(at) {
            at += 1;
            let jumped = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            match step.code {
                super::LOAD_WORD => {
                    accumulator = match step.k {
                        0 => number,
                        4 => architecture,
                        offset => arguments[usize::try_from((offset - 16) / 8).unwrap()],
                    }
                }
                super::AND => accumulator &= step.k,
                super::JUMP_IF_EQUAL => at += jumped(accumulator == step.k),
                super::JUMP_IF_AT_LEAST => at += jumped(accumulator >= step.k),
                super::RETURN => return step.k,
                other => panic!("an instruction {other:#x}"),
            }
        }
        panic!("a program that does not end in an answer");
    }

    #[test]
    fn every_number_gets_its_rule() {
        let check = |allowed_when_equal| {
            Rule::Check(Check { argument: 1, mask: 0xff, values: vec![3, 5, 7], allowed_when_equal })
        };
        // As many ranges as a jump of a byte reaches over; more than any list of calls has.
        let kinds = [Rule::Allow, Rule::Refuse(1), Rule::Allow, check(true), Rule::Refuse(38), check(false)];
        let rules: Vec<Rule> = (0..200_usize).map(|number| kinds[(number / 2 + number % 7) % 6].clone()).collect();
        let program = assemble(&rules, 38).unwrap();
        let here = ARCHITECTURE.unwrap();
        for (number, rule) in (0..).zip(&rules) {
            for value in 0..9 {
                let equal = [3, 5, 7].contains(&value);
                let expected = match rule {
                    Rule::Allow => libc::SECCOMP_RET_ALLOW,
                    Rule::Refuse(error) => libc::SECCOMP_RET_ERRNO | error.unsigned_abs(),
                    Rule::Check(check) if check.allowed_when_equal == equal => libc::SECCOMP_RET_ALLOW,
                    Rule::Check(_) => libc::SECCOMP_RET_ERRNO | 1,
                };
                // Bits outside the mask count for nothing.
                assert_eq!(run(&program, here, number, [9, value | 0x1f00, 9]), expected, "call {number}");
            }
        }
        for number in [200, 201, 4000, 0x4000_0001, u32::MAX] {
            assert_eq!(run(&program, here, number, [0; 3]), libc::SECCOMP_RET_ERRNO | 38, "call {number}");
        }
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 3]), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
