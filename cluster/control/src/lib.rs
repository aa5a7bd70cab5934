//! The state of record.
