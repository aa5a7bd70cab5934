//! Which of several endpoints gets the next connection.
