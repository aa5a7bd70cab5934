//! TLS handshakes that take up an earlier session, by `openssl s_time`: each connection carries one request.
//!
//! wrk shakes hands anew each time. This client does one connection after the other, so several run at once.

use super::wrk::Counted;
use lab::cores::Cores;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// Enough to keep one core busy.
const CLIENTS: usize = 8;
/// What it prints for a connection that took up the session, and for one that did not.
const RESUMED: u8 = b'r';
const NEW: u8 = b'*';

pub(super) fn run(to: SocketAddr, path: &str, seconds: u32, cores: &Cores) -> Counted {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut command = Command::new("openssl");
            command
                .args(["s_time", "-reuse", "-connect", &to.to_string(), "-www", path, "-time", &seconds.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            cores.start(&mut command).expect("openssl starts (apt-get install openssl)")
        })
        .collect();
    let outputs = clients.into_iter().map(|client| client.wait_with_output().expect("our own child can be waited for"));
    let requests = outputs.map(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        read(&text).unwrap_or_else(|| panic!("openssl s_time says what it counted: {output:?}"))
    });
    let requests = requests.sum();
    // It tells whole seconds, and nothing of how long each took.
    Counted { requests, bytes: f64::NAN, seconds: f64::from(seconds), p50_ms: f64::NAN, p99_ms: f64::NAN }
}

/// What it counted, when its sessions were taken up.
fn read(text: &str) -> Option<f64> {
    let (_, timed) = text.split_once("starting\n")?;
    let (marks, told) = timed.split_once('\n')?;
    let count = |mark| marks.bytes().filter(|byte| *byte == mark).count();
    let (resumed, new) = (count(RESUMED), count(NEW));
    // The very first of all makes the session.
    (resumed > 0 && new <= 1).then_some(())?;
    told.split_once(" connections in ")?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn only_resumed_sessions_count() {
        let check = |marks: &str, expected| {
            let text = format!(
                "Collecting connection statistics for 2 seconds\nstarting\n{marks}\n\n\
                 5 connections in 0.01s; 500.00 connections/user sec, bytes read 1480\n\
                 5 connections in 3 real seconds, 296 bytes read per connection\n"
            );
            assert_eq!(read(&text), expected, "{marks}");
        };
        check("rrrrr", Some(5.0));
        check("*****", None);
        check("r****", None);
        check("", None);
        assert_eq!(read("connect: Connection refused\n"), None);
    }
}
