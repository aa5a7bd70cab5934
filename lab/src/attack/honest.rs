//! Clients that mean no harm: what they notice of an attack.
//!
//! Half of them keep their connection, as browsers do, and open another when it was closed between two requests; the
//! others come with a new one each time. Each request has a time at which it is due and its wait counts from then, so
//! that a server that stalls cannot hide the requests it kept from being sent. They run on a thread of their own.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

const CLIENTS: usize = 8;
/// Of each client: few enough to weigh nothing beside an attack.
const EVERY: Duration = Duration::from_millis(40);
/// Attackers have come by then.
const AT_FIRST: Duration = Duration::from_secs(3);
/// Nobody waits longer for a page.
const PATIENCE: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: drill.test\r\n\r\n";
const ANSWER_END: &[u8] = b"\r\n\r\nhello";

/// What they met.
#[derive(Debug, Default)]
pub struct Met {
    /// In milliseconds, in order.
    pub took: Vec<f64>,
    /// The same of those due in the first seconds: while attackers come.
    pub took_at_first: Vec<f64>,
    /// What was no 200, with how it failed.
    pub failures: Vec<String>,
    /// A connection kept was closed between two requests.
    pub reconnected: usize,
}

impl Met {
    /// The time within which so many of a thousand were answered.
    pub fn within_ms(&self, permille: usize) -> f64 {
        within_ms(&self.took, permille)
    }

    pub fn within_ms_at_first(&self, permille: usize) -> f64 {
        within_ms(&self.took_at_first, permille)
    }
}

fn within_ms(took: &[f64], permille: usize) -> f64 {
    let at = (took.len() * permille / 1_000).min(took.len().saturating_sub(1));
    took.get(at).copied().unwrap_or(f64::INFINITY)
}

/// Sends requests for so long.
pub fn visit(to: SocketAddr, seconds: u64) -> Met {
    let clients: Vec<JoinHandle<Met>> = (0..CLIENTS)
        .map(|number| {
            std::thread::spawn(move || {
                Client { to, keeps: number % 2 == 0, kept: None, met: Met::default() }.run(number, seconds)
            })
        })
        .collect();
    let mut all = Met::default();
    for client in clients {
        let met = client.join().expect("a client does not panic");
        all.took.extend(met.took);
        all.took_at_first.extend(met.took_at_first);
        all.failures.extend(met.failures);
        all.reconnected += met.reconnected;
    }
    all.took.sort_by(f64::total_cmp);
    all.took_at_first.sort_by(f64::total_cmp);
    all
}

struct Client {
    to: SocketAddr,
    keeps: bool,
    kept: Option<TcpStream>,
    met: Met,
}

impl Client {
    fn run(mut self, number: usize, seconds: u64) -> Met {
        // Not all at once.
        let began = world::clock::monotonic()
            + EVERY / u32::try_from(CLIENTS).unwrap_or(1) * u32::try_from(number).unwrap_or(0);
        let count = Duration::from_secs(seconds).as_millis() / EVERY.as_millis();
        for turn in 0..u32::try_from(count).unwrap_or(u32::MAX) {
            let due = began + EVERY * turn;
            if world::clock::monotonic() > began + Duration::from_secs(seconds) + PATIENCE {
                self.met.failures.push(format!("not asked: requests from number {turn} on, so late were those before"));
                break;
            }
            std::thread::sleep(due.saturating_duration_since(world::clock::monotonic()));
            match self.ask() {
                Ok(()) => {
                    let took = world::clock::monotonic().saturating_duration_since(due);
                    let took_ms = took.as_secs_f64() * 1_000.0;
                    self.met.took.push(took_ms);
                    if due < began + AT_FIRST {
                        self.met.took_at_first.push(took_ms);
                    }
                }
                Err(error) => self.met.failures.push(error.to_string()),
            }
        }
        self.met
    }

    fn ask(&mut self) -> Result<()> {
        if let Some(mut stream) = self.kept.take() {
            match exchange(&mut stream) {
                Ok(()) => {
                    self.kept = Some(stream);
                    return Ok(());
                }
                // Closed while it was unused: every client asks again over another.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                    ) =>
                {
                    self.met.reconnected += 1;
                }
                Err(error) => return Err(error),
            }
        }
        let mut stream = TcpStream::connect_timeout(&self.to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        exchange(&mut stream)?;
        if self.keeps {
            self.kept = Some(stream);
        }
        Ok(())
    }
}

fn exchange(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    let mut bytes = [0; 1_024];
    while !answer.ends_with(ANSWER_END) {
        let read = stream.read(&mut bytes)?;
        if read == 0 && answer.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(bytes.get(..read).unwrap_or_default());
        if read == 0 || answer.len() > bytes.len() {
            return Err(Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(&answer).into_owned()));
        }
    }
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(&answer).into_owned()))
}
