//! Seccomp: which system calls a box may make, by its level of trust. One filter, compiled once per process (the
//! spawner, before it forks).
//!
//! Service and host programs get all calls but those of kernel administration, as container engines do. Strangers'
//! code gets a list of what programs need and nothing else, and sockets of three families only. `clone3` is answered
//! with ENOSYS, since its flags are behind a pointer that a filter cannot follow; libraries fall back to `clone`.

mod calls;
mod program;

use crate::failure::{Failure, Step};
use crate::spec::Trust;
use calls::{ALLOWED_TO_STRANGERS, NEWEST, REFUSED};
use program::{Check, Rule};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Socket families open to every box: those a service needs. Strangers' code has no netlink.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
const FAMILIES_FOR_STRANGERS: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
const REFUSED_RULE: Rule = Rule::Refuse(libc::EPERM);
/// TIOCSTI and TIOCLINUX, which type into the terminal of whoever started the program; their types in libc differ
/// from one C library to the next.
const TERMINAL_INJECTIONS: [u32; 2] = [0x5412, 0x541c];

/// The filter of a level of trust.
pub(crate) fn filter(trust: Trust) -> Result<&'static [libc::sock_filter], Failure> {
    static WIDE: OnceLock<Option<Vec<libc::sock_filter>>> = OnceLock::new();
    static STRICT: OnceLock<Option<Vec<libc::sock_filter>>> = OnceLock::new();
    let compiled = match trust {
        Trust::Host | Trust::Service => WIDE.get_or_init(|| compile(wide())),
        Trust::Untrusted => STRICT.get_or_init(|| compile(strict())),
    };
    compiled.as_deref().ok_or_else(|| Failure::plain(Step::Confine, "seccomp filter on this kind of processor"))
}

/// Calls with numbers beyond [`NEWEST`] do not exist: newer ones (a second `open_tree` came in 6.15), and on x86-64 the
/// same calls once more for 32-bit pointers, with a bit set that no list of numbers has.
fn compile(rules: BTreeMap<u32, Rule>) -> Option<Vec<libc::sock_filter>> {
    let rules: Vec<Rule> = (0..=NEWEST).map(|number| rules.get(&number).cloned().unwrap_or(REFUSED_RULE)).collect();
    program::assemble(&rules, libc::ENOSYS)
}

fn wide() -> BTreeMap<u32, Rule> {
    let mut rules: BTreeMap<u32, Rule> = (0..=NEWEST).map(|number| (number, Rule::Allow)).collect();
    rules.extend(REFUSED.iter().flat_map(|calls| numbers(calls)).map(|number| (number, REFUSED_RULE)));
    rules.extend(checked(&FAMILIES));
    rules
}

fn strict() -> BTreeMap<u32, Rule> {
    let allowed = ALLOWED_TO_STRANGERS.iter().flat_map(|calls| numbers(calls));
    let mut rules: BTreeMap<u32, Rule> = allowed.map(|number| (number, Rule::Allow)).collect();
    rules.extend(checked(&FAMILIES_FOR_STRANGERS));
    // Process 1 is of the same user: who may change it could keep it from seeing what is used.
    let spares_process_1 =
        Rule::Check(Check { argument: 0, mask: u32::MAX, values: vec![1], allowed_when_equal: false });
    let of_others =
        [libc::SYS_prlimit64, libc::SYS_sched_setscheduler, libc::SYS_sched_setparam, libc::SYS_sched_setattr];
    rules.extend(numbers(&of_others).map(|number| (number, spares_process_1.clone())));
    let pipes_only = |argument| {
        Rule::Check(Check { argument, mask: libc::S_IFMT, values: vec![libc::S_IFIFO], allowed_when_equal: true })
    };
    rules.extend(numbers(&[libc::SYS_mknodat]).map(|number| (number, pipes_only(2))));
    #[cfg(target_arch = "x86_64")]
    rules.extend(numbers(&[libc::SYS_mknod]).map(|number| (number, pipes_only(1))));
    rules
}

/// What depends on an argument, whoever asks.
fn checked(families: &[libc::c_int]) -> Vec<(u32, Rule)> {
    let families: Vec<u32> = families.iter().map(|family| family.unsigned_abs()).collect();
    let new_user_namespace = libc::CLONE_NEWUSER.unsigned_abs();
    let socket = Check { argument: 0, mask: u32::MAX, values: families, allowed_when_equal: true };
    let clone =
        Check { argument: 0, mask: new_user_namespace, values: vec![new_user_namespace], allowed_when_equal: false };
    let ioctl = Check { argument: 1, mask: u32::MAX, values: TERMINAL_INJECTIONS.to_vec(), allowed_when_equal: false };
    let rules = [
        (libc::SYS_socket, Rule::Check(socket.clone())),
        (libc::SYS_socketpair, Rule::Check(socket)),
        (libc::SYS_clone, Rule::Check(clone)),
        (libc::SYS_ioctl, Rule::Check(ioctl)),
        (libc::SYS_clone3, Rule::Refuse(libc::ENOSYS)),
    ];
    rules.into_iter().filter_map(|(call, rule)| Some((u32::try_from(call).ok()?, rule))).collect()
}

fn numbers(calls: &[libc::c_long]) -> impl Iterator<Item = u32> {
    calls.iter().filter_map(|call| u32::try_from(*call).ok())
}

#[cfg(test)]
mod tests {
    use super::filter;
    use crate::spec::Trust;

    #[test]
    fn filters_stay_short() {
        // The kernel runs each once per number of a call when it is installed, and copies it.
        const LONGEST: usize = 160;
        for trust in [Trust::Host, Trust::Service, Trust::Untrusted] {
            assert!(filter(trust).unwrap().len() <= LONGEST, "{trust:?}: {}", filter(trust).unwrap().len());
        }
    }
}
