//! What another process of the same user may change about a process without touching its memory: its limits, how it is
//! scheduled, and where.

use super::mount::last_errno;
use rustix::io::Errno;

/// As many limits as a process has on every kind of processor.
const LIMITS: u32 = 16;
/// What the kernel knows of how a process is scheduled, with room for more (`struct sched_attr`).
const SCHEDULING_BYTES: usize = 128;
/// Processors a machine may have.
const PROCESSORS_BYTES: usize = 1024;

/// Two that are equal are of a process that nobody has changed in between.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    limits: Vec<(u64, u64)>,
    scheduling: Vec<u8>,
    processors: Vec<u8>,
    disks: i64,
}

/// This process's.
pub(crate) fn standing() -> Result<Standing, Errno> {
    let limits = (0..LIMITS).map(limit).collect::<Result<_, _>>()?;
    let mut scheduling = vec![0; SCHEDULING_BYTES];
    let room = u32::try_from(SCHEDULING_BYTES).map_err(|_too_large| Errno::INVAL)?;
    // SAFETY: the kernel writes at most `room` bytes, which are there.
    told(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, scheduling.as_mut_ptr(), room, 0) })?;
    let mut processors = vec![0; PROCESSORS_BYTES];
    // SAFETY: the kernel writes at most as many bytes as it is told there are.
    told(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, PROCESSORS_BYTES, processors.as_mut_ptr()) })?;
    const THIS_PROCESS: libc::c_int = 1;
    // SAFETY: takes no pointers.
    let disks = told(unsafe { libc::syscall(libc::SYS_ioprio_get, THIS_PROCESS, 0) })?;
    Ok(Standing { limits, scheduling, processors, disks })
}

fn limit(number: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let nothing = std::ptr::null::<libc::rlimit64>();
    // SAFETY: the kernel writes one `rlimit64`, which is there, and reads none.
    told(unsafe { libc::syscall(libc::SYS_prlimit64, 0, number, nothing, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

fn told(result: libc::c_long) -> Result<i64, Errno> {
    if result == -1 { Err(last_errno()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::standing;
    use rustix::process::{Resource, getrlimit, setrlimit};

    #[test]
    fn a_change_is_seen() {
        // The limit of this test's own process, and put back: tests each have their own.
        let before = standing().unwrap();
        assert_eq!(before, standing().unwrap());
        let limit = getrlimit(Resource::Core);
        let other = rustix::process::Rlimit { current: Some(0), maximum: limit.maximum };
        let lower = rustix::process::Rlimit { current: Some(4096), maximum: limit.maximum };
        setrlimit(Resource::Core, if limit == other { lower } else { other }).unwrap();
        assert_ne!(before, standing().unwrap());
        setrlimit(Resource::Core, limit).unwrap();
        assert_eq!(before, standing().unwrap());
    }
}
