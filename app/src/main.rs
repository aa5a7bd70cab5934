//! The binary `bramble`.

fn main() {}
