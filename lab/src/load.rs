//! Requests that never stop: several clients, each sending the next request as soon as the last is answered.

use crate::http;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two requests of one client: many requests, and a core left for what is tested.
const PAUSE: Duration = Duration::from_millis(4);

/// What became of the requests.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Answers by their text.
    pub answers: BTreeMap<String, u32>,
    /// Everything that was no 200, with how it failed.
    pub failures: Vec<String>,
}

impl Report {
    pub fn answered(&self) -> u32 {
        self.answers.values().sum()
    }
}

pub struct Load {
    report: Arc<Mutex<Report>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// `clients` clients asking for `/` with this host name.
    pub fn start(clients: usize, to: SocketAddr, host: &str) -> Load {
        Load::start_at("/", clients, to, host)
    }

    /// The same for another path.
    pub fn start_at(path: &'static str, clients: usize, to: SocketAddr, host: &str) -> Load {
        let (report, stop) = (Arc::new(Mutex::new(Report::default())), Arc::new(AtomicBool::new(false)));
        let start = |_| {
            let (report, stop, host) = (Arc::clone(&report), Arc::clone(&stop), host.to_owned());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = http::request(to, "GET", path, &[("Host", &host)], b"");
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    match answer {
                        Ok(answer) if answer.status == 200 => *report.answers.entry(answer.text()).or_default() += 1,
                        Ok(answer) => report.failures.push(format!("{} {}", answer.status, answer.text())),
                        Err(error) => report.failures.push(error.to_string()),
                    }
                    drop(report);
                    std::thread::sleep(PAUSE);
                }
            })
        };
        let clients = (0..clients).map(start).collect();
        Load { report, stop, clients }
    }

    /// What has become of the requests so far.
    pub fn so_far(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets every request under way end.
    pub fn stop(mut self) -> Report {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}
