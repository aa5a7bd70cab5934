//! Building a box. The *outside* half ([`begin`]) runs in the parent, which may write id maps and translate mounts;
//! the *inside* half ([`root`], [`network`], [`confine`]) runs in the box's first process, before it serves anybody.

mod begin;
pub(crate) mod confine;
pub(crate) mod network;
pub(crate) mod privileges;
mod redirect;
pub(crate) mod root;
pub(crate) mod sources;

pub(crate) use begin::{Accounts, Begun, Go, Net, begin};
