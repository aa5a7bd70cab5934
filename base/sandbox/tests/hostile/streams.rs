//! Programs 27 to 29: output without end, bytes of every kind, input nobody reads.

use crate::world::{null, program, usual, with_world};
use sandbox::{RunLimits, Verdict};
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;

/// What `bytes` in `programs/streams.c` writes.
fn every_byte() -> Vec<u8> {
    let mut bytes = b"nul\0 bad\xff\xfe\x80 split \xe2\x82".to_vec();
    bytes.extend(b"\xac \x1b]0;title\x07\x1b[2J\x1b[31m\r\n\x00 end");
    bytes.extend(0..=u8::MAX);
    bytes
}

#[test]
fn p27_output_flood() {
    with_world(async |world| {
        for outputs in ["1", "2", "12"] {
            let limits = RunLimits { output_bytes: Some(1 << 20), ..usual() };
            // Killed, or faster to notice that its output is closed: the verdict is the same.
            let ended = world.run_within(&["flood", outputs], limits).await;
            assert_eq!(ended.outcome.verdict, Verdict::Output, "{:?}", ended.outcome);
            assert_eq!(ended.output.len(), 1 << 20, "of {outputs}");
        }
    });
}

/// A client that reads slowly, or not at all, holds the program up; nothing in between grows.
#[test]
fn p27_output_flood_nobody_reads() {
    with_world(async |world| {
        let parked = world.park(&world.spec()).await;
        let (mut reading, inside) = std::io::pipe().unwrap();
        let stdio = [null(), OwnedFd::from(inside), null()];
        let limits = RunLimits { wall_ms: Some(300), output_bytes: Some(64 << 20), ..usual() };
        let outcome = parked.run(program(&["flood", "1"]), stdio, limits).await.unwrap();
        assert_eq!(outcome.verdict, Verdict::Wall);
        let mut output = Vec::new();
        reading.read_to_end(&mut output).unwrap();
        // One pipe's worth: what the program wrote besides stayed in the box.
        assert!(output.len() <= 64 << 10, "{}", output.len());
    });
}

#[test]
fn p28_bytes_of_every_kind() {
    with_world(async |world| {
        assert_eq!(world.run(&["bytes"]).await.exits_with(0).output, every_byte());
        let limits = RunLimits { output_bytes: None, ..usual() };
        assert_eq!(world.run_within(&["bytes"], limits).await.exits_with(0).output, every_byte());
    });
}

/// Files given as streams stay as they were given: read-only input is not written, appended output not cut.
#[test]
fn p28_streams_opened_again() {
    with_world(async |world| {
        let (input, output) = (world.folder.path().join("input"), world.folder.path().join("output"));
        std::fs::write(&input, "as it was").unwrap();
        std::fs::write(&output, "as it was; ").unwrap();
        let parked = world.park(&world.spec()).await;
        let append = || std::fs::OpenOptions::new().append(true).open(&output).unwrap();
        let stdio = [OwnedFd::from(std::fs::File::open(&input).unwrap()), append().into(), append().into()];
        let limits = RunLimits { output_bytes: None, ..usual() };
        let outcome = parked.run(program(&["streams-reopened"]), stdio, limits).await.unwrap();
        let said = std::fs::read_to_string(&output).unwrap();
        assert_eq!((outcome.code, said.as_str()), (Some(0), "as it was; "));
        assert_eq!(std::fs::read_to_string(&input).unwrap(), "as it was");
        std::fs::remove_file(&input).unwrap();
        std::fs::remove_file(&output).unwrap();
    });
}

/// The pipe is full after its 64 KiB: the sender is told, and a client that vanishes takes the box with it.
#[test]
fn p29_input_nobody_reads() {
    with_world(async |world| {
        let parked = world.park(&world.spec()).await;
        let (stdin, sending) = std::io::pipe().unwrap();
        let (mut reading, inside) = std::io::pipe().unwrap();
        let stdio = [OwnedFd::from(stdin), OwnedFd::from(inside.try_clone().unwrap()), OwnedFd::from(inside)];
        let run = parked.run(program(&["sleeps"]), stdio, RunLimits { output_bytes: None, ..usual() });
        let client = async {
            rustix::io::ioctl_fionbio(&sending, true).unwrap();
            rustix::io::ioctl_fionbio(&reading, true).unwrap();
            let mut said = [0; 7];
            while reading.read(&mut said).is_err() {
                tokio::task::yield_now().await;
            }
            assert_eq!(&said, b"asleep\n");
            let block = vec![b'x'; 64 << 10];
            let mut sent = 0;
            loop {
                match rustix::io::write(&sending, &block) {
                    Ok(count) => sent += count,
                    Err(errno) => return (sent, std::io::Error::from(errno).kind()),
                }
            }
        };
        tokio::select! {
            outcome = run => panic!("it ended: {outcome:?}"),
            (sent, told) = client => {
                assert_eq!(told, ErrorKind::WouldBlock);
                assert!(sent <= 64 << 10, "{sent}");
            }
        }
        // The run is dropped: as when a browser's connection closes. The output's end says that the box is gone.
        rustix::io::ioctl_fionbio(&reading, false).unwrap();
        let mut rest = Vec::new();
        reading.read_to_end(&mut rest).unwrap();
    });
}
