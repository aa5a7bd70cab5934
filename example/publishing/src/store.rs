//! What is kept, and the questions asked of it: accounts, posts, pictures. Only these files know the tables.

pub(crate) mod account;
pub(crate) mod picture;
pub(crate) mod post;
