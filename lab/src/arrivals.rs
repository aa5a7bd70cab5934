//! Requests that come at a given rate, whether or not those before them have been answered.
//!
//! A client that waits for its answer before it asks again spares whoever is slow: the requests it would have sent
//! meanwhile are never measured (Tene's "coordinated omission"). Here each request has a time at which it is due, drawn
//! beforehand as of many independent clients (a Poisson process), and its latency counts from then, however late it
//! could be sent. Promises the same times for the same seed. Knows no answers but those with a length.

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use world::random::Dice;

/// After the last request is due: by then the answers have come or will not.
const PATIENCE: Duration = Duration::from_secs(10);
/// Per look at a socket; the answers meant here are smaller.
const READ_BYTES: usize = 16 << 10;
const EVENTS_MAX: usize = 256;
/// In an event: not a connection's number, but the timer.
const TIMER: u64 = u64::MAX;
/// The default, 50 µs, is more than many requests take.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;

/// When requests come, and over how many connections at most at once.
#[derive(Debug, Clone)]
pub struct Arrivals {
    pub per_second: f64,
    pub seconds: f64,
    pub connections: usize,
    pub seed: u64,
}

impl Arrivals {
    /// Sends them, and gives how long each took in milliseconds, in order of length.
    ///
    /// # Errors
    /// When a connection fails, an answer is no 200, or answers are still missing long after the end.
    pub fn send(&self, to: SocketAddr, path: &str) -> Result<Vec<f64>> {
        let mut sending = Sending::start(self, to, path)?;
        let mut took = sending.run()?;
        took.sort_by(f64::total_cmp);
        Ok(took)
    }

    /// When each is due, from the beginning.
    fn times(&self) -> Vec<Duration> {
        let (mut at, dice, mut times) = (0.0, Dice::seeded(self.seed), Vec::new());
        loop {
            at -= (1.0 - uniform(&dice)).ln() / self.per_second;
            // Also ends when a rate of nothing makes it infinite.
            if at.is_nan() || at >= self.seconds {
                return times;
            }
            times.push(Duration::from_secs_f64(at));
        }
    }
}

/// At least 0 and less than 1.
fn uniform(dice: &Dice) -> f64 {
    // As many bits as a fraction holds.
    (dice.roll() >> 11) as f64 / (1_u64 << 53) as f64
}

struct Connection {
    stream: TcpStream,
    /// When the request under way was due.
    due: Option<Instant>,
    answer: Vec<u8>,
}

struct Sending {
    request: Vec<u8>,
    connections: Vec<Connection>,
    free: Vec<usize>,
    poll: OwnedFd,
    timer: OwnedFd,
    /// Still to come, as times from the beginning.
    times: VecDeque<Duration>,
    began: Instant,
    end: Instant,
    took: Vec<f64>,
}

impl Sending {
    fn start(arrivals: &Arrivals, to: SocketAddr, path: &str) -> Result<Sending> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n\r\n").into_bytes();
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&poll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        rustix::thread::set_current_timer_slack(Some(TIMER_SLACK_NS))?;
        let mut connections = Vec::new();
        for number in 0..arrivals.connections {
            let connection = Connection::tried(to, &request)?;
            epoll::add(&poll, &connection.stream, EventData::new_u64(number as u64), EventFlags::IN)?;
            connections.push(connection);
        }
        let times = VecDeque::from(arrivals.times());
        let began = world::clock::monotonic();
        let end = began + Duration::from_secs_f64(arrivals.seconds) + PATIENCE;
        let (free, took) = ((0..connections.len()).collect(), Vec::with_capacity(times.len()));
        Ok(Sending { request, connections, free, poll, timer, times, began, end, took })
    }

    fn run(&mut self) -> Result<Vec<f64>> {
        let total = self.times.len();
        while self.took.len() < total {
            let now = world::clock::monotonic();
            if now > self.end {
                let missing = total - self.took.len();
                return Err(Error::new(ErrorKind::TimedOut, format!("{missing} of {total} answers are missing")));
            }
            self.send_due(now)?;
            self.receive()?;
        }
        Ok(std::mem::take(&mut self.took))
    }

    /// Sends what is due as far as connections are free, and sets the timer for what comes after.
    fn send_due(&mut self, now: Instant) -> Result<()> {
        while let (Some(number), Some(time)) = (self.free.last().copied(), self.times.front()) {
            let due = self.began + *time;
            if let Some(left) = due.checked_duration_since(now).filter(|left| !left.is_zero()) {
                return self.wake_in(left);
            }
            self.times.pop_front();
            self.free.pop();
            let connection = &mut self.connections[number];
            connection.due = Some(due);
            // A request fits into the socket of a connection that waits for nothing.
            connection.stream.write_all(&self.request)?;
        }
        // Nothing can be sent before an answer comes; at the latest there is an end to waiting for it.
        self.wake_in(self.end.saturating_duration_since(now).max(Duration::from_millis(1)))
    }

    fn wake_in(&self, left: Duration) -> Result<()> {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec::try_from(left).map_err(|_| Error::from(ErrorKind::InvalidInput))?;
        let time = Itimerspec { it_interval: none, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)?;
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let number = event.data.u64();
            // Setting the timer anew is what makes it silent.
            let Some(number) = usize::try_from(number).ok().filter(|number| *number < self.connections.len()) else {
                continue;
            };
            let connection = &mut self.connections[number];
            if !connection.read()? {
                continue;
            }
            let Some(due) = connection.due.take() else {
                return Err(Error::new(ErrorKind::InvalidData, "an answer nobody asked for"));
            };
            let took = world::clock::monotonic().saturating_duration_since(due);
            self.took.push(took.as_secs_f64() * 1000.0);
            self.free.push(number);
        }
        Ok(())
    }
}

impl Connection {
    /// One that has carried a request, so that what is done once is done.
    fn tried(to: SocketAddr, request: &[u8]) -> Result<Connection> {
        let deadline = world::clock::monotonic() + PATIENCE;
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        let mut connection = Connection { stream, due: None, answer: Vec::new() };
        while !connection.read()? {
            if world::clock::monotonic() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        connection.stream.set_nonblocking(true)?;
        Ok(connection)
    }

    /// Reads what is there; whether the answer is whole now.
    fn read(&mut self) -> Result<bool> {
        let mut bytes = [0; READ_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.answer.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let whole = is_whole(&self.answer)?;
        if whole {
            self.answer.clear();
        }
        Ok(whole)
    }
}

/// Whether an answer is there to its end.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let head = std::str::from_utf8(&answer[..end]).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    let wrong = || Error::new(ErrorKind::InvalidData, format!("no 200 with a length: {head:?}"));
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value).next();
    let length: usize = length.and_then(|value| value.trim().parse().ok()).ok_or_else(wrong)?;
    if !head.starts_with("HTTP/1.1 200") || answer.len() > end + 4 + length {
        return Err(wrong());
    }
    Ok(answer.len() == end + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::{Arrivals, is_whole};

    fn arrivals(per_second: f64, seconds: f64) -> Arrivals {
        Arrivals { per_second, seconds, connections: 1, seed: 7 }
    }

    #[test]
    fn they_come_at_their_rate_and_the_same_each_time() {
        let times = arrivals(10_000.0, 3.0).times();
        assert!((29_000..31_000).contains(&times.len()), "{}", times.len());
        assert!(times.is_sorted());
        assert_eq!(times, arrivals(10_000.0, 3.0).times());
        assert!(arrivals(0.0, 3.0).times().is_empty());
    }

    #[test]
    fn answers_end_where_they_say() {
        let check = |answer: &str, expected| assert_eq!(is_whole(answer.as_bytes()).ok(), expected, "{answer:?}");
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r", Some(false));
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", Some(false));
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Some(true));
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok!", None);
        check("HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno", None);
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", None);
    }
}
