//! Membership as its callers use it.

mod alive;
