//! Memory that is free and still held: what the allocator keeps of what was given back to it.
//!
//! Owns the calls to glibc's allocator, which says how much is allocated and can be asked to let go of the rest. With
//! another allocator there is nothing to know and nothing to do.

/// What this process holds that is in no file, in bytes. `None` where the kernel does not say.
pub fn held_bytes() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
}

/// What of that is allocated now, in bytes. Walks through all that is free.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the allocator has no other door")]
pub fn allocated_bytes() -> Option<u64> {
    // SAFETY: takes nothing, returns plain numbers, and locks what it reads.
    let told = unsafe { libc::mallinfo2() };
    u64::try_from(told.uordblks.saturating_add(told.hblkhd)).ok()
}

/// Gives the kernel what is free. Takes milliseconds where there is much: not for a thread that serves.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the allocator has no other door")]
pub fn give_back() {
    // SAFETY: takes a number, touches free memory alone, and locks each arena while it does.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub fn allocated_bytes() -> Option<u64> {
    None
}

#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::{allocated_bytes, give_back, held_bytes};

    #[test]
    fn what_was_freed_is_given_back() {
        const EACH_BYTES: usize = 1 << 10;
        const COUNT: u64 = 64 << 10;
        let all_bytes = COUNT * u64::try_from(EACH_BYTES).expect("small");
        let (Some(held), Some(allocated)) = (held_bytes(), allocated_bytes()) else { return };
        let pieces: Vec<Vec<u8>> = (0..COUNT).map(|_| vec![1; EACH_BYTES]).collect();
        assert!(allocated_bytes().expect("as before") >= allocated + all_bytes);
        assert!(held_bytes().expect("as before") >= held + all_bytes / 2);
        // The last keeps the top of the heap, as one connection of many would.
        let last = pieces.into_iter().next_back();
        give_back();
        assert!(allocated_bytes().expect("as before") < allocated + all_bytes / 2);
        assert!(held_bytes().expect("as before") < held + all_bytes / 2);
        drop(last);
    }
}
