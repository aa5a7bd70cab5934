//! A floating address: one that belongs to the cluster, and to that machine which holds it now.
//!
//! Owns the address on an interface of this machine, the word to the neighbours that it is here, and the ear for others who
//! say the same. Promises that this machine never holds it for longer than it was told to: this program takes it away when
//! the time is over, and where the program cannot, frozen or killed, the kernel does, since the address has a lifetime there.
//! Never knows who decides which machine holds it, nor how a lease is agreed on.
//!
//! ```ignore
//! let holder = Holder::start("192.0.2.80".parse()?, None, &meter, |event| …)?;   // what is missing is told here, nothing is held yet
//! holder.hold_until(lease_end, Take::AtOnce);   // take it, or go on with it; called with every renewal of the lease
//! holder.release()?;                            // gone when this returns; also when the holder is dropped
//! ```
//!
//! # What whoever leases it has to know
//! The kernel counts whole seconds, so that it is told as many as surely end with the lease, at least one: a lease of less than
//! a second takes nothing. It may be late by [`KERNEL_LATE_MS`]: another machine may take the address [`successor_from_ms`]
//! after the last lease was asked for (by the holder's count, which begins earlier than anybody else's). A lease of 2.1 s,
//! renewed twice a second, has the kernel hold it for 2 s at a time, and is surely over 2.4 s after it was last asked for. A
//! renewal that comes late, with less than a second left, changes nothing until the next.
//!
//! Who takes over from one that may still be there takes it with [`Take::WhenQuiet`]: it asks the link whether anybody
//! answers for the address (RFC 5227), and takes it when nobody does, or when the lease before is surely over. Machines without power answer nothing, frozen programs
//! leave a kernel that does: that tells the two apart within [`QUIET_MS`]. Two things it cannot tell. One that was leased the
//! address and has not taken it yet answers nothing and may go on: so nobody takes it early but from one that said
//! [`Event::Taken`] in its lease. And one whose cable is out answers nothing on this side of the cut: there are two then, each on
//! its own side, until that lease is over. A machine that hears that another was named calls [`Holder::release`] at once.
//!
//! It needs `CAP_NET_ADMIN` (addresses) and `CAP_NET_RAW` (announcements); [`Error::hint`] says how to give them.

mod error;
mod floating;
mod frame;
mod holder;
mod kernel;
mod link;
mod netlink;
mod newcomers;
mod sys;
mod tenure;

pub use error::Error;
pub use floating::Floating;
pub use frame::Mac;
pub use holder::Holder;
pub use newcomers::Shut;
pub use tenure::{Event, KERNEL_LATE_MS, QUIET_MS, Take, kernel_seconds, successor_from_ms};
