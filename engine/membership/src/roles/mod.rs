//! Which machine has which role.
