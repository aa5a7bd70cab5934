//! Served ports and host names.
