//! What `ps` shows for a forked process of ours: without this, the agent's own command line, and `pkill -f` aimed at
//! the agent would take every container with it.

use std::sync::OnceLock;

/// Names this process, in its command line as far as the room of the original one goes, and as its short name.
/// Only in a process of one thread.
pub(crate) fn set_title(title: &str) {
    let short: Vec<u8> = title.bytes().filter(|byte| *byte != 0).collect();
    if let Ok(short) = std::ffi::CString::new(short) {
        // Only a name.
        let _ = rustix::thread::set_name(&short);
    }
    let Some((start, end)) = argument_area() else { return };
    let Some(room) = end.checked_sub(start).and_then(|size| size.checked_sub(1)) else { return };
    let text = title.as_bytes();
    let length = text.len().min(room);
    let area = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel put this process's arguments there, on its stack, writable, and tells where they begin and
    // end. Nobody holds a reference to them: the runtime copies arguments when they are asked for, and no other thread runs.
    unsafe {
        std::ptr::write_bytes(area, 0, room);
        std::ptr::copy_nonoverlapping(text.as_ptr(), area, length);
    }
}

/// First byte and the one after the last, from `/proc/self/stat`. The same for all processes forked from this one.
fn argument_area() -> Option<(usize, usize)> {
    static AREA: OnceLock<Option<(usize, usize)>> = OnceLock::new();
    *AREA.get_or_init(read_argument_area)
}

fn read_argument_area() -> Option<(usize, usize)> {
    const ARGUMENTS_START: usize = 48;
    const ARGUMENTS_END: usize = 49;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold anything; the last parenthesis ends it, and field 3 follows.
    let (_, fields) = stat.rsplit_once(") ")?;
    let field = |number: usize| fields.split(' ').nth(number - 3)?.parse::<usize>().ok().filter(|address| *address > 0);
    Some((field(ARGUMENTS_START)?, field(ARGUMENTS_END)?))
}
