//! Input on its way to a program: in order, each block once, bounded.
//!
//! A pure machine, the counterpart of [`Outgoing`](crate::outgoing::Outgoing): whoever sends input numbers it, is told
//! what the program has taken, and sends the rest again after a break.

use std::collections::VecDeque;
use wire::run::INPUT_WINDOW_BYTES;

/// Why input is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error("input block {got} came where {expected} was to come")]
    Gap { expected: u64, got: u64 },
    #[error("more than {INPUT_WINDOW_BYTES} bytes of input were sent that the program has not read")]
    TooMuch,
    #[error("input after its end")]
    AfterEnd,
}

#[derive(Debug, Default)]
pub struct Incoming {
    /// Not written to the program yet: number and what is left of the block.
    waiting: VecDeque<(u64, Vec<u8>)>,
    waiting_bytes: usize,
    arrived: u64,
    taken: u64,
    ends: bool,
}

impl Incoming {
    /// Takes a block; one that was there before is no news.
    pub fn accept(&mut self, sequence: u64, payload: &[u8]) -> Result<(), InputError> {
        if sequence <= self.arrived {
            return Ok(());
        }
        if sequence != self.arrived + 1 {
            return Err(InputError::Gap { expected: self.arrived + 1, got: sequence });
        }
        if self.ends {
            return Err(InputError::AfterEnd);
        }
        if self.waiting_bytes + payload.len() > INPUT_WINDOW_BYTES {
            return Err(InputError::TooMuch);
        }
        self.arrived = sequence;
        self.ends = payload.is_empty();
        self.waiting_bytes += payload.len();
        if !payload.is_empty() {
            self.waiting.push_back((sequence, payload.to_vec()));
        }
        Ok(())
    }

    /// Takes all of an input at once, and its end.
    pub fn whole(text: Vec<u8>) -> Incoming {
        let waiting_bytes = text.len();
        let waiting = if text.is_empty() { VecDeque::new() } else { VecDeque::from([(1, text)]) };
        Incoming { waiting, waiting_bytes, arrived: 2, taken: 0, ends: true }
    }

    /// What is to be written to the program next.
    pub fn next(&self) -> Option<&[u8]> {
        self.waiting.front().map(|(_, bytes)| bytes.as_slice())
    }

    /// So much of it was written.
    pub fn wrote(&mut self, count: usize) {
        let Some((sequence, bytes)) = self.waiting.front_mut() else { return };
        let count = count.min(bytes.len());
        bytes.drain(..count);
        self.waiting_bytes -= count;
        if bytes.is_empty() {
            self.taken = *sequence;
            self.waiting.pop_front();
        }
    }

    /// The program reads no more: what is there and what comes is taken for read.
    pub fn discard(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.taken = self.arrived;
    }

    /// Up to which block the program has it.
    pub fn taken(&self) -> u64 {
        // The end is taken with what came before it.
        if self.waiting.is_empty() { self.arrived } else { self.taken }
    }

    /// The number that the next block has to have: whoever watches next does not know what others have sent.
    pub fn expected(&self) -> u64 {
        self.arrived + 1
    }

    /// Everything was written, and nothing follows.
    pub fn is_over(&self) -> bool {
        self.ends && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_taken_in_order_and_once() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.accept(1, b"one"), Ok(()));
        assert_eq!(incoming.accept(1, b"one"), Ok(()));
        assert_eq!(incoming.accept(3, b"three"), Err(InputError::Gap { expected: 2, got: 3 }));
        assert_eq!(incoming.next(), Some(&b"one"[..]));
        incoming.wrote(2);
        assert_eq!((incoming.next(), incoming.taken()), (Some(&b"e"[..]), 0));
        incoming.wrote(1);
        assert_eq!((incoming.next(), incoming.taken()), (None, 1));
        assert_eq!(incoming.accept(2, b""), Ok(()));
        assert_eq!((incoming.taken(), incoming.is_over()), (2, true));
        assert_eq!(incoming.accept(3, b"x"), Err(InputError::AfterEnd));
    }

    #[test]
    fn who_does_not_wait_is_told() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.accept(1, &[0; INPUT_WINDOW_BYTES]), Ok(()));
        assert_eq!(incoming.accept(2, b"x"), Err(InputError::TooMuch));
        incoming.discard();
        assert_eq!((incoming.accept(2, b"x"), incoming.taken()), (Ok(()), 1));
    }

    #[test]
    fn all_of_an_input_ends() {
        let mut incoming = Incoming::whole(b"all".to_vec());
        assert!(!incoming.is_over());
        incoming.wrote(3);
        assert!(incoming.is_over() && Incoming::whole(Vec::new()).is_over());
    }
}
