//! Machines of a cluster over loopback: what they may say to each other, and what becomes of those who are none.

#[cfg(test)]
mod calls;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod joining;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod room;
#[cfg(test)]
mod streams;
