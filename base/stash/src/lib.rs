//! What may be lost but never changed: values kept in memory and on disk, within bounds.
//!
//! Owns the memory, the folder on disk and the list of what was forgotten. Promises:
//! - what is found is what was put, to the bit: all on disk has a checksum, and what fails it is not found;
//! - what was forgotten by one of its labels is not found again, after a restart neither;
//! - a folder that is damaged, of another format or of another size is emptied, and a disk that fails means that there is
//!   memory only: nobody waits for it, and nothing fails because of it;
//! - memory and disk hold no more than they are told to.
//!
//! Never knows what the values are.

mod disk;
mod forgotten;
mod kept;
mod stash;

pub use kept::Kept;
pub use stash::{Lasting, Settings, Stash, Trace, Usage};
