//! Membership as its callers use it.

mod alive;
mod fencing;
