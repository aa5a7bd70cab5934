//! Programs that mean harm, through the stream.
