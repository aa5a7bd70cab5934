//! A little multi-user blog.

fn main() {}
