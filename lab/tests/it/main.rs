//! One node from outside: the real binary, used as a person would and broken as the world would.

mod deploying;
mod killed;
mod surviving;
