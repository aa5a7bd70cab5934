//! Processes: fork, clone3 into namespaces, exec, signals, seccomp.

use super::mount::last_errno;
use rustix::io::Errno;
use rustix::process::Pid;
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;

/// What a child of ours exits with when it panicked.
const EXIT_PANICKED: i32 = 101;

/// Runs `child` in a forked process and returns its id. Call it from a process with one thread: the child has only
/// the calling one, and a lock another thread held would stay locked.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    // SAFETY: `fork` has no memory effects in the caller; the child runs a copy of this thread and ends in `_exit`.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => run_to_exit(child),
        pid => Ok(Pid::from_raw(pid).expect("fork returns a positive id to the parent")),
    }
}

/// As [`fork`], with the child in new namespaces (`CLONE_NEW…`) and a descriptor of it for the parent.
pub(crate) fn fork_into(namespaces: i32, child: impl FnOnce() -> i32) -> Result<(Pid, OwnedFd), Errno> {
    let mut pidfd: RawFd = -1;
    let mut arguments = libc::clone_args {
        flags: u64::try_from(namespaces | libc::CLONE_PIDFD).expect("flags are not negative"),
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::try_from(libc::SIGCHLD).expect("signals are not negative"),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: without CLONE_VM and with no stack given the child goes on on a copy of this stack, as after fork. The
    // kernel writes only `pidfd`, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match i32::try_from(result).expect("process ids fit") {
        -1 => Err(last_errno()),
        0 => run_to_exit(child),
        pid => {
            let pid = Pid::from_raw(pid).expect("clone3 returns a positive id to the parent");
            // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
            Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

fn run_to_exit(child: impl FnOnce() -> i32) -> ! {
    let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(EXIT_PANICKED);
    // SAFETY: ends the process without running the parent's exit handlers.
    unsafe { libc::_exit(code) }
}

/// Room for what a child does between [`borrow_to_child`] and exec: a dozen calls deep, with paths on the stack.
const CHILD_STACK_BYTES: usize = 256 << 10;

/// Runs `child` in a new process that borrows this one's memory until it execs or ends, while this one stands still
/// (`vfork`): a copy of the page tables would cost more than all the rest of starting a program. What `child` leaves
/// in its captures is there afterwards; what it allocates and does not free before exec stays allocated here. Call it
/// from a process with one thread.
pub(crate) fn borrow_to_child(mut child: impl FnMut()) -> Result<Pid, Errno> {
    extern "C" fn enter<F: FnMut()>(child: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `child` is the closure below, alive and untouched for as long as the parent stands still.
        let child = unsafe { &mut *child.cast::<F>() };
        // A panic must not unwind into the caller of this function, which has none.
        let _ = catch_unwind(AssertUnwindSafe(child));
        EXIT_PANICKED
    }
    fn call<F: FnMut()>(_child: &F) -> extern "C" fn(*mut libc::c_void) -> libc::c_int {
        enter::<F>
    }
    let entry = call(&child);
    let mut stack: Vec<u128> = Vec::with_capacity(CHILD_STACK_BYTES / size_of::<u128>());
    // SAFETY: the end of an allocation may be pointed to.
    let top = unsafe { stack.as_mut_ptr().add(stack.capacity()) };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child runs `entry` on a stack of its own, aligned to 16 bytes, and the kernel holds this thread, the
    // only one, until the child no longer uses this memory; stack and closure live longer than that.
    let result = unsafe { libc::clone(entry, top.cast(), flags, (&raw mut child).cast()) };
    match result {
        -1 => Err(last_errno()),
        pid => Ok(Pid::from_raw(pid).expect("clone returns a positive id to the parent")),
    }
}

/// Strings as exec takes them, made ahead.
pub(crate) struct Strings {
    pointers: Vec<*const c_char>,
    /// What the pointers point into.
    _owned: Vec<CString>,
}

impl Strings {
    pub(crate) fn new(owned: Vec<CString>) -> Strings {
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Strings { pointers, _owned: owned }
    }
}

/// Replaces this process's program; returns only when that failed. Allocates nothing.
pub(crate) fn exec(program: &CStr, argv: &Strings, env: &Strings) -> Errno {
    // SAFETY: all strings end in NUL and live through the call, both lists end in a null pointer.
    unsafe { libc::execve(program.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    last_errno()
}

/// Gives all signals their default action, which programs expect to start with, and inherit; but SIGPIPE, which no
/// process of ours wants.
pub(crate) fn reset_signals() {
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| *signal != libc::SIGPIPE) {
        default_action(signal);
    }
}

/// The signal [`reset_signals`] leaves out, for a process about to start programs.
pub(crate) fn reset_broken_pipe() {
    default_action(libc::SIGPIPE);
}

fn default_action(signal: libc::c_int) {
    // SAFETY: SIG_DFL is a valid action for every signal; a call that may not change one (KILL, STOP) only answers an
    // error.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Blocks no signal.
pub(crate) fn unblock_signals() {
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Blocks SIGCHLD and returns a descriptor that is readable when a child changed, non-blocking.
pub(crate) fn signal_fd_of_children() -> Result<OwnedFd, Errno> {
    // SAFETY: the set is initialised before use; the returned descriptor is ours alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(last_errno());
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(last_errno()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Closes every descriptor but standard input, output and error (which become `/dev/null`) and `kept`, which come back
/// under new numbers. Only for a process of ours that starts to live on its own and uses no value from before.
pub(crate) fn keep_only<const N: usize>(kept: [BorrowedFd<'_>; N]) -> Result<[OwnedFd; N], Errno> {
    const FIRST: i32 = 3;
    let count = i32::try_from(N).map_err(|_too_many| Errno::INVAL)?;
    // The copies must not be hit while the low numbers are filled.
    let aside_from = FIRST + count;
    let check = |result: i32| if result == -1 { Err(last_errno()) } else { Ok(result) };
    // SAFETY: descriptors are plain numbers here. Values from before that own one of them are never used again, which
    // the caller promises; the new numbers are owned by the returned values alone.
    unsafe {
        let mut aside = [0; N];
        for (place, fd) in aside.iter_mut().zip(kept) {
            *place = check(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, aside_from))?;
        }
        for (number, fd) in (FIRST..).zip(aside) {
            check(libc::dup3(fd, number, libc::O_CLOEXEC))?;
        }
        let first = u32::try_from(FIRST + count).map_err(|_too_many| Errno::INVAL)?;
        let null = check(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC))?;
        for standard in 0..FIRST {
            check(libc::dup2(null, standard))?;
        }
        if libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) != 0 {
            return Err(last_errno());
        }
        let mut number = FIRST;
        Ok(std::array::from_fn(|_index| {
            number += 1;
            OwnedFd::from_raw_fd(number - 1)
        }))
    }
}

/// Installs a seccomp filter for good, for this process and all it starts.
pub(crate) fn install_filter(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_too_long| Errno::INVAL)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which lives through the call, and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// What ended processes used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) cpu_usec: u64,
    /// The largest one's.
    pub(crate) peak_bytes: u64,
}

impl Used {
    pub(crate) fn add(&mut self, other: Used) {
        self.cpu_usec += other.cpu_usec;
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
    }
}

/// A child that ended.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) pid: Pid,
    pub(crate) status: ExitStatus,
    /// With all that it waited for itself.
    pub(crate) used: Used,
}

/// Takes the end of any child; `None` when all there are live on, which only happens when it shall not wait.
pub(crate) fn take_any_end(waits: bool) -> Result<Option<Dead>, Errno> {
    let mut status = 0;
    let options = if waits { 0 } else { libc::WNOHANG };
    // SAFETY: all zeroes is a valid rusage; the kernel fills in the one given, and the status.
    let (pid, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(-1, &raw mut status, options, &raw mut usage), usage)
    };
    if pid == -1 {
        return Err(last_errno());
    }
    let usec = |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
    let used = Used {
        cpu_usec: usec(usage.ru_utime) + usec(usage.ru_stime),
        peak_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    };
    Ok(Pid::from_raw(pid).map(|pid| Dead { pid, status: ExitStatus::from_raw(status), used }))
}

/// Marks every descriptor from `first` on to be closed by exec.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: closes nothing and takes no pointers.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Empties a descriptor of [`signal_fd_of_children`].
pub(crate) fn drain_signals(signals: &OwnedFd) {
    let mut records = [0; 8 * size_of::<libc::signalfd_siginfo>()];
    while rustix::io::read(signals, &mut records).is_ok_and(|count| count == records.len()) {}
}

/// SIGKILL for every process this one may signal, but itself. Refuses outside a process namespace of our own, where
/// that would be everybody on the machine.
pub(crate) fn kill_everybody() -> Result<(), Errno> {
    if rustix::process::getpid() != Pid::INIT {
        return Err(Errno::PERM);
    }
    // SAFETY: takes no pointers.
    match unsafe { libc::kill(-1, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Gives way to everybody who wants a processor or a disk.
pub(crate) fn step_back() -> Result<(), Errno> {
    const THIS_PROCESS: libc::c_int = 1;
    /// `IOPRIO_CLASS_IDLE`, in its place.
    const IDLE_DISK: libc::c_int = 3 << 13;
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one `sched_param`, which is there.
    let processor = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
    // SAFETY: takes no pointers.
    let disk = unsafe { libc::syscall(libc::SYS_ioprio_set, THIS_PROCESS, 0, IDLE_DISK) };
    if processor == 0 && disk == 0 { Ok(()) } else { Err(last_errno()) }
}

/// What a process of this namespace has used of a processor, with all its threads. `None` for one that is gone.
pub(crate) fn processor_time_nanoseconds(pid: u32) -> Option<u64> {
    // As glibc's `clock_getcpuclockid`: the process by its number, the scheduler's own count.
    const SCHEDULED: libc::clockid_t = 2;
    let clock = (!libc::clockid_t::try_from(pid).ok()? << 3) | SCHEDULED;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, which is there.
    let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    (done == 0).then_some(seconds * 1_000_000_000 + nanoseconds)
}

/// Moves this process into new namespaces. Only in a process with one thread.
pub(crate) fn unshare(namespaces: i32) -> Result<(), Errno> {
    // SAFETY: takes no pointers; the calling process shares nothing with other threads, which the caller promises.
    match unsafe { libc::unshare(namespaces) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// The kernel's landlock version; 0 without.
pub(crate) fn landlock_abi() -> u32 {
    const CREATE_RULESET_VERSION: u32 = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel reads no memory and returns its version.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, CREATE_RULESET_VERSION) };
    u32::try_from(version).unwrap_or(0)
}
