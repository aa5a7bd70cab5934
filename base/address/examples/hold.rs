//! Holds a floating address as a machine with a lease would: `hold ADDRESS LEASE_MS [quiet]`.
//!
//! Says each event on a line of its own. `release` on its input lets go, `hold` takes the address again; at the input's end it
//! lets go and ends.

use address::{Error, Event, Floating, Holder, Take};
use std::io::BufRead;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

const RENEW_EVERY: Duration = Duration::from_millis(500);
const LINES_MAX: usize = 16;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.downcast_ref::<Error>().and_then(Error::hint) {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: Floating = arguments.next().ok_or("the first argument is an address")?.parse()?;
    let lease_ms: u64 = arguments.next().ok_or("the second argument is the lease in milliseconds")?.parse()?;
    let quiet = arguments.next().is_some();
    let say = |event: Event| println!("{event:?}");
    let holder = Holder::start(address, None, &meter::Meter::new(), say)?;
    println!("on {}", holder.interface());
    let (lines, heard) = sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        std::io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    let began = world::clock::monotonic();
    let lease = Duration::from_millis(lease_ms);
    // It gives the one before it a lease more: that is surely over then.
    let take = if quiet { Take::WhenQuiet { gone_at: began + 2 * lease } } else { Take::AtOnce };
    let (mut held, mut until) = (true, began + lease);
    loop {
        // A lease that has run out is nobody's to renew.
        held &= world::clock::monotonic() < until;
        if held {
            until = world::clock::monotonic() + lease;
            holder.hold_until(until, take);
        }
        match heard.recv_timeout(RENEW_EVERY) {
            Ok(line) => {
                held = line == "hold";
                if held {
                    until = world::clock::monotonic() + lease;
                } else {
                    holder.release()?;
                    println!("gone");
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
