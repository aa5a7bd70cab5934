//! What is acknowledged and must be there tomorrow: the append log, the ordered key-value store, and the words
//! by which replicated state meets replication.
//!
//! Promises: what was acknowledged survives kill -9 and a power cut; a torn tail is cut off, a corrupt middle
//! is an error that names file and offset. Knows nothing of what it stores.

pub mod kv;
pub mod log;
pub mod replicated;
