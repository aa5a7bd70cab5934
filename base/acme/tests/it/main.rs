//! Authorities from outside: what is made of what they say.

#[cfg(test)]
mod conversation;
