//! Seccomp filters per level of trust, compiled once per process (the spawner, before it forks).
//!
//! Service and host programs get a list of what is refused, as container engines do by leaving it out. Strangers'
//! code gets that list and more, and sockets of three families only. `clone3` is answered with ENOSYS, since its
//! flags are behind a pointer that a filter cannot follow; libraries fall back to `clone`.

use crate::failure::{Failure, Step};
use crate::spec::Trust;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Kernel administration and its escape hatches: refused to every box.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
];

/// Besides, to strangers: memory no limit counts (memfd, System V), looking into other processes, channels between
/// boxes, and what lets a program undo its placement.
const REFUSED_TO_STRANGERS: &[libc::c_long] = &[
    libc::SYS_chroot,
    libc::SYS_fanotify_mark,
    libc::SYS_get_mempolicy,
    libc::SYS_kcmp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_mbind,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_migrate_pages,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_move_pages,
    libc::SYS_mq_open,
    libc::SYS_msgget,
    libc::SYS_name_to_handle_at,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_sched_setaffinity,
    libc::SYS_semget,
    libc::SYS_set_mempolicy,
    libc::SYS_shmget,
    libc::SYS_vmsplice,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    libc::SYS_mknodat,
];

const NEW_USER_NAMESPACE: u64 = libc::CLONE_NEWUSER as u64;
/// Socket families open to every box: those a service needs. Strangers' code has no netlink.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
const FAMILIES_FOR_STRANGERS: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// TIOCSTI and TIOCLINUX; their types in libc differ from one C library to the next.
const TERMINAL_INJECTIONS: [u64; 2] = [0x5412, 0x541c];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filters of a level of trust, in the order to install them.
pub(crate) fn filters(trust: Trust) -> Result<&'static [BpfProgram], Failure> {
    static WIDE: OnceLock<Option<Vec<BpfProgram>>> = OnceLock::new();
    static STRICT: OnceLock<Option<Vec<BpfProgram>>> = OnceLock::new();
    let compiled = match trust {
        Trust::Host | Trust::Service => WIDE.get_or_init(|| compile(false)),
        Trust::Untrusted => STRICT.get_or_init(|| compile(true)),
    };
    compiled.as_deref().ok_or_else(|| Failure::plain(Step::Confine, "seccomp filter on this kind of processor"))
}

fn compile(strict: bool) -> Option<Vec<BpfProgram>> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let program = |rules: Rules, answer: i32| -> Option<BpfProgram> {
        let answer = SeccompAction::Errno(u32::try_from(answer).ok()?);
        SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).ok()?.try_into().ok()
    };
    let numbers = number_guard(u32::try_from(libc::ENOSYS).ok()?);
    // The filter installed last is asked first, but all are asked, and the strictest answer counts: order is free.
    let unknown = Rules::from([(libc::SYS_clone3, Vec::new())]);
    Some(vec![numbers, program(unknown, libc::ENOSYS)?, program(refused(strict)?, libc::EPERM)?])
}

/// Calls with numbers beyond those this list was written with do not exist: newer ones (a second `open_tree` came in
/// 6.15), and on x86-64 the same calls once more for 32-bit pointers, with a bit set that no list of numbers has.
fn number_guard(answer: u32) -> BpfProgram {
    /// `mseal`, Linux 6.10. Numbers are the same on all processors from 424 on.
    const NEWEST: u32 = 462;
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const NUMBER_OFFSET: u32 = 0;
    let instruction = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    vec![
        instruction(LOAD_WORD, 0, NUMBER_OFFSET),
        instruction(JUMP_IF_GREATER, 1, NEWEST),
        instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        instruction(RETURN, 0, libc::SECCOMP_RET_ERRNO | answer),
    ]
}

fn refused(strict: bool) -> Option<Rules> {
    let mut rules: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    if strict {
        rules.extend(REFUSED_TO_STRANGERS.iter().map(|call| (*call, Vec::new())));
    }
    let user_namespace = condition(0, SeccompCmpOp::MaskedEq(NEW_USER_NAMESPACE), NEW_USER_NAMESPACE)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![user_namespace]).ok()?]);
    let families: &[libc::c_int] = if strict { &FAMILIES_FOR_STRANGERS } else { &FAMILIES };
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        let others = families.iter().map(|family| condition(0, SeccompCmpOp::Ne, u64::try_from(*family).ok()?));
        rules.insert(call, vec![SeccompRule::new(others.collect::<Option<Vec<_>>>()?).ok()?]);
    }
    // Typing into the terminal of whoever started the program.
    let ioctls = TERMINAL_INJECTIONS
        .into_iter()
        .map(|request| SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, request)?]).ok());
    rules.insert(libc::SYS_ioctl, ioctls.collect::<Option<Vec<_>>>()?);
    Some(rules)
}

fn condition(argument: u8, operation: SeccompCmpOp, value: u64) -> Option<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value).ok()
}
