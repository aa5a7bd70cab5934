//! Rules of the house, made executable.

fn main() {}
