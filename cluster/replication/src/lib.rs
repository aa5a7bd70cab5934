//! Replicated groups.
