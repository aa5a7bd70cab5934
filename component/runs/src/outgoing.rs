//! What a run writes, until whoever watches it has it: cut into numbered blocks, bounded, kept until acknowledged.
//!
//! A pure machine. It promises that blocks are numbered without a gap, that those not acknowledged can be had again from any
//! place on, and that what is kept is never more than the window and one read. Knows neither pipes nor sockets.

use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use wire::run::{BLOCK_BYTES_MAX, BLOCK_HEAD_BYTES, Block, Channel};

/// What is before a block between our own processes: four bytes of its length, the least significant first, and [`BLOCK`].
pub const FRAME_HEAD_BYTES: usize = 5;
/// The kind of frame that holds a block.
pub const BLOCK: u8 = 1;

/// Blocks of one read, as they travel between our own processes.
#[derive(Debug)]
struct Batch {
    first: u64,
    last: u64,
    frames: Bytes,
}

#[derive(Debug)]
pub struct Outgoing {
    batches: VecDeque<Batch>,
    /// Of the last block there is.
    last: u64,
    acknowledged: u64,
    held_bytes: usize,
    /// Of those held, what has arrived.
    arrived_bytes: usize,
    window_bytes: usize,
    /// How much of what has arrived is kept for whoever begins to watch.
    kept_bytes: usize,
    /// How much the program may still write.
    left_bytes: u64,
    written_bytes: u64,
}

impl Outgoing {
    pub fn new(window_bytes: usize, kept_bytes: usize, output_bytes_max: u64) -> Outgoing {
        Outgoing {
            batches: VecDeque::new(),
            last: 0,
            acknowledged: 0,
            held_bytes: 0,
            arrived_bytes: 0,
            window_bytes,
            kept_bytes,
            left_bytes: output_bytes_max,
            written_bytes: 0,
        }
    }

    /// Whether more may be read from the program. Without, it has to wait, and so does the program in the end.
    pub fn has_room(&self) -> bool {
        self.held_bytes - self.arrived_bytes < self.window_bytes
    }

    /// Of the last block there is.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What the program wrote and was let through.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// From here on a program may write so much, whatever was written before.
    pub fn allow(&mut self, output_bytes_max: u64) {
        (self.left_bytes, self.written_bytes) = (output_bytes_max, 0);
    }

    /// How much is kept, with its heads.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes what the program wrote. False when that is more than it may: the first of it is taken all the same.
    pub fn write(&mut self, channel: Channel, bytes: &[u8]) -> bool {
        let let_through = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(bytes.len());
        self.left_bytes -= let_through as u64;
        self.written_bytes += let_through as u64;
        self.push(channel, &bytes[..let_through]);
        let_through == bytes.len()
    }

    /// Takes what is not the program's: the compiler's words, the end.
    pub fn push(&mut self, channel: Channel, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let blocks = bytes.len().div_ceil(BLOCK_BYTES_MAX - 3);
        let mut frames = BytesMut::with_capacity(bytes.len() + blocks * (FRAME_HEAD_BYTES + BLOCK_HEAD_BYTES));
        let first = self.last + 1;
        let mut rest = bytes;
        while !rest.is_empty() {
            // An end is one piece, whatever its size: it is words, not a stream.
            let length = if matches!(channel, Channel::End | Channel::Turn) { rest.len() } else { cut(rest) };
            let (payload, after) = rest.split_at(length);
            self.last += 1;
            frames.put_u32_le(u32::try_from(1 + BLOCK_HEAD_BYTES + length).unwrap_or(u32::MAX));
            frames.put_u8(BLOCK);
            frames.put_slice(&Block::head(self.last, channel));
            frames.put_slice(payload);
            rest = after;
        }
        self.held_bytes += frames.len();
        self.batches.push_back(Batch { first, last: self.last, frames: frames.freeze() });
    }

    /// Forgets what has arrived. What was not said yet cannot have.
    pub fn acknowledge(&mut self, sequence: u64) {
        let before = self.acknowledged;
        self.acknowledged = before.max(sequence.min(self.last));
        // A batch has arrived when its last block has.
        let first = self.batches.partition_point(|batch| batch.last <= before);
        let arrived = self.batches.range(first..).take_while(|batch| batch.last <= self.acknowledged);
        self.arrived_bytes += arrived.map(|batch| batch.frames.len()).sum::<usize>();
        while self.arrived_bytes > self.kept_bytes
            && let Some(batch) = self.batches.pop_front()
        {
            self.held_bytes -= batch.frames.len();
            self.arrived_bytes -= batch.frames.len();
        }
    }

    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.last
    }

    /// Frames of blocks after `sequence`, as many as are in one batch, and the number of the last of them.
    pub fn after(&self, sequence: u64) -> Option<(u64, Bytes)> {
        let index = self.batches.partition_point(|batch| batch.last <= sequence);
        let batch = self.batches.get(index)?;
        let mut frames = batch.frames.clone();
        for _known in batch.first..=sequence {
            let head = frames.first_chunk::<4>()?;
            let length = usize::try_from(u32::from_le_bytes(*head)).ok()?;
            frames = frames.slice(4 + length..);
        }
        Some((batch.last, frames))
    }
}

/// Where the next block ends: not in the middle of a character that is there as a whole.
fn cut(bytes: &[u8]) -> usize {
    if bytes.len() <= BLOCK_BYTES_MAX {
        return bytes.len();
    }
    let goes_on = |at: usize| bytes[at] & 0b1100_0000 == 0b1000_0000;
    let back = (0..=3).find(|back| !goes_on(BLOCK_BYTES_MAX - back));
    // Four in a row are no UTF-8: any place is as good.
    BLOCK_BYTES_MAX - back.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(mut frames: &[u8]) -> Vec<(u64, Channel, Vec<u8>)> {
        let mut found = Vec::new();
        while let Some((head, rest)) = frames.split_first_chunk::<4>() {
            let (frame, rest) = rest.split_at(u32::from_le_bytes(*head) as usize);
            assert_eq!(frame[0], BLOCK);
            let block = Block::parse(&frame[1..]).expect("a block");
            found.push((block.sequence, block.channel, block.payload.to_vec()));
            frames = rest;
        }
        found
    }

    fn all_after(outgoing: &Outgoing, mut sequence: u64) -> Vec<(u64, Channel, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some((last, frames)) = outgoing.after(sequence) {
            all.extend(blocks(&frames));
            sequence = last;
        }
        all
    }

    #[test]
    fn what_is_written_is_cut_between_characters() {
        let check = |text: &[u8], lengths: &[usize]| {
            let mut outgoing = Outgoing::new(1 << 20, 0, u64::MAX);
            assert!(outgoing.write(Channel::Stdout, text));
            let found = all_after(&outgoing, 0);
            assert_eq!(found.iter().map(|(_, _, payload)| payload.len()).collect::<Vec<_>>(), lengths);
            assert_eq!(found.concat_payloads(), text);
        };
        check(b"hello", &[5]);
        check(&[b'x'; 3_001], &[1_500, 1_500, 1]);
        check("€".repeat(501).as_bytes(), &[1_500, 3]);
        check(format!("x{}", "€".repeat(500)).as_bytes(), &[1_498, 3]);
        check(format!("xy{}", "😀".repeat(400)).as_bytes(), &[1_498, 104]);
        // No character is that long.
        check(&[0x80; 1_600], &[1_500, 100]);
    }

    #[test]
    fn some_of_what_has_arrived_is_kept_for_who_comes_later() {
        let mut outgoing = Outgoing::new(5_000, 3_500, u64::MAX);
        for _ in 0..3 {
            outgoing.write(Channel::Stdout, &[0; 1_500]);
        }
        outgoing.acknowledge(3);
        let kept: Vec<u64> = all_after(&outgoing, 0).into_iter().map(|(sequence, ..)| sequence).collect();
        assert_eq!(kept, [2, 3]);
        outgoing.write(Channel::Stdout, &[0; 4_500]);
        assert!(outgoing.has_room(), "what has arrived takes no room from what has not");
        outgoing.write(Channel::Stdout, &[0; 1_500]);
        assert!(!outgoing.has_room());
    }

    trait Payloads {
        fn concat_payloads(&self) -> Vec<u8>;
    }

    impl Payloads for Vec<(u64, Channel, Vec<u8>)> {
        fn concat_payloads(&self) -> Vec<u8> {
            self.iter().flat_map(|(_, _, payload)| payload.clone()).collect()
        }
    }

    #[test]
    fn more_than_a_run_may_write_is_cut_off_and_told() {
        let mut outgoing = Outgoing::new(1 << 20, 0, 10);
        assert!(outgoing.write(Channel::Stdout, b"1234567"));
        assert!(!outgoing.write(Channel::Stderr, b"890x"));
        assert!(!outgoing.write(Channel::Stdout, b"y"));
        assert_eq!((outgoing.written_bytes(), all_after(&outgoing, 0).concat_payloads()), (10, b"1234567890".to_vec()));
    }

    #[test]
    fn a_full_window_has_room_again_once_it_is_acknowledged() {
        let mut outgoing = Outgoing::new(4_000, 0, u64::MAX);
        outgoing.write(Channel::Stdout, &[0; 6_000]);
        assert!(!outgoing.has_room());
        outgoing.acknowledge(3);
        assert!(!outgoing.has_room(), "a read is forgotten as a whole");
        // Nobody can have what was never said.
        outgoing.acknowledge(900);
        assert!(outgoing.has_room() && outgoing.is_acknowledged());
        outgoing.write(Channel::Stdout, b"next");
        assert_eq!(all_after(&outgoing, 4), [(5, Channel::Stdout, b"next".to_vec())]);
    }

    proptest! {
        /// Whoever reads, acknowledges, forgets where it was and asks again has every byte once.
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(kept in 0..30_000_usize, steps in prop::collection::vec((0..4_u8, 1..4_000_usize), 1..60)) {
            let mut outgoing = Outgoing::new(20_000, kept, u64::MAX);
            let (mut written, mut arrived) = (Vec::new(), Vec::new());
            let (mut cursor, mut has) = (0, 0);
            let mut value = 0_u8;
            for (step, size) in steps {
                match step {
                    0 if outgoing.has_room() => {
                        let bytes: Vec<u8> = (0..size).map(|_| { value = value.wrapping_add(7); value }).collect();
                        outgoing.write(Channel::Stdout, &bytes);
                        written.extend(bytes);
                    }
                    0 | 1 => if let Some((last, frames)) = outgoing.after(cursor) {
                        for (sequence, _, payload) in blocks(&frames) {
                            prop_assert_eq!(sequence, has + 1);
                            has = sequence;
                            arrived.extend(payload);
                        }
                        cursor = last;
                    },
                    2 => outgoing.acknowledge(has - has.min(size as u64 % 3)),
                    // The connection broke: what follows begins after what has arrived.
                    _again => cursor = has,
                }
            }
            while let Some((last, frames)) = outgoing.after(cursor) {
                arrived.extend(blocks(&frames).concat_payloads());
                cursor = last;
            }
            prop_assert_eq!(arrived, written);
        }
    }
}
