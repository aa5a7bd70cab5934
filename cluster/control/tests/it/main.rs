//! The space as its users meet it.

mod space;
