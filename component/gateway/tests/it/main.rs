//! The gateway from outside: real sockets on both sides, instances that behave as a test wants.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod aside;
#[cfg(test)]
mod asking;
#[cfg(test)]
mod balancing;
#[cfg(test)]
mod bed;
#[cfg(test)]
mod cache;
#[cfg(test)]
mod change;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod hostile;
#[cfg(test)]
#[cfg(feature = "http3")]
mod http3;
#[cfg(test)]
mod leave;
#[cfg(test)]
mod many;
#[cfg(test)]
mod named;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod published;
#[cfg(test)]
mod reshape;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod seen;
#[cfg(test)]
mod udp;
