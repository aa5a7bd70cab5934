//! One node: the real binary with a folder and ports of its own.

use crate::network::Place;
use crate::{http, process, wait};
use rustix::process::Signal;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// How a node differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The data folder; a fresh temporary one if not given.
    pub data: Option<PathBuf>,
    /// Run as this user instead of our own.
    pub user: Option<u32>,
    /// It may have so many files open; as many as we may if not given.
    pub files_max: Option<u32>,
    /// More arguments for `up`.
    pub arguments: Vec<String>,
    /// Becomes a member with this token when it starts for the first time.
    pub token: Option<String>,
    /// In a network of its own; on loopback if not given.
    pub place: Option<Place>,
    /// Listens at every address that it has there, and not only at the one it has now.
    pub anywhere: bool,
}

/// A running node. Dropped, it stops with all it started.
pub struct Node {
    settings: Settings,
    data: PathBuf,
    _folder: Option<tempfile::TempDir>,
    child: Option<Child>,
    /// The process that has taken over from the one that was started.
    successor: Option<u32>,
    pub api: SocketAddr,
    pub http: SocketAddr,
    /// Where other machines reach it: at an address of its own, so that it is one.
    pub peers: SocketAddr,
}

/// Where cargo put the binaries of this build.
pub fn binary(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("a running test has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: `cargo build -p {name}` makes it", path.display());
    path
}

/// A port nobody listens on just now, at any address. Below those that the kernel gives to whoever connects: otherwise a
/// client of another test could have it by the time it is used.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u64 = 20_000;
    const TRIES: usize = 1_000;
    let any = || FIRST + u16::try_from(world::random::number() % COUNT).expect("less than what a port may be");
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    std::iter::repeat_with(any).take(TRIES).find(is_free).expect("there are free ports")
}

/// API, gateway, peers: an address for other machines of its own, so that it is one.
fn on_loopback() -> (SocketAddr, SocketAddr, SocketAddr) {
    let port = |number| SocketAddr::from((Ipv4Addr::LOCALHOST, number));
    let own = world::random::number().to_le_bytes();
    let peers = SocketAddr::from((Ipv4Addr::new(127, own[0] | 1, own[1], own[2] | 1), free_port()));
    (port(free_port()), port(free_port()), peers)
}

/// The same on every machine that has a network of its own.
fn in_place(place: &Place) -> (SocketAddr, SocketAddr, SocketAddr) {
    let port = |number| SocketAddr::from((place.ip, number));
    (port(7700), port(8080), port(7701))
}

impl Node {
    pub fn start() -> Node {
        Node::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Node {
        let mut node = Node::prepared(settings);
        node.launch();
        node
    }

    /// One that is not started, with a copy of a data folder, whatever state that is in.
    pub fn copy_of(data: &Path, place: Option<Place>) -> Node {
        let node = Node::prepared(Settings { place, ..Settings::default() });
        let from = data.join(".");
        let mut copying = Command::new("cp");
        copying.args(["--archive", "--one-file-system"]).arg(from).arg(&node.data).stderr(Stdio::null());
        // What is removed meanwhile cannot be copied, and is no part of the copy.
        copying.status().expect("cp runs");
        assert!(node.data.join("node-id").exists(), "{} is a data folder", data.display());
        node
    }

    fn prepared(settings: Settings) -> Node {
        let (folder, data) = match &settings.data {
            Some(data) => (None, data.clone()),
            None => {
                let folder = tempfile::Builder::new().prefix("bramble-lab-").tempdir().expect("a temporary folder");
                let data = folder.path().join("data");
                std::fs::create_dir(&data).expect("a fresh folder takes another");
                if let Some(user) = settings.user {
                    std::os::unix::fs::chown(folder.path(), Some(user), Some(user)).expect("root gives folders away");
                    std::os::unix::fs::chown(&data, Some(user), Some(user)).expect("root gives folders away");
                }
                (Some(folder), data)
            }
        };
        let (api, http, peers) = settings.place.as_ref().map_or_else(on_loopback, in_place);
        Node { settings, data, _folder: folder, child: None, successor: None, api, http, peers }
    }

    /// As the cluster has it.
    pub fn id(&self) -> String {
        let id = std::fs::read_to_string(self.data.join("node-id")).expect("a node that runs has an id");
        id.trim().to_owned()
    }

    /// Where it is, if it has a network of its own.
    pub fn place(&self) -> Option<&Place> {
        self.settings.place.as_ref()
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts the binary and waits until its API answers. One that ends instead is no use to wait for.
    pub fn launch(&mut self) {
        self.launch_unready();
        wait::until("the API answers, or the process has ended", 30, || {
            (self.answers() || self.ended().is_some()).then_some(())
        });
        assert!(self.answers(), "the API does not answer; the end of the log:\n{}", self.end_of_log());
    }

    fn end_of_log(&self) -> String {
        const LINES: usize = 30;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// It has another address, and ports as before.
    pub fn move_to(&mut self, place: Place) {
        (self.api, self.http, self.peers) = in_place(&place);
        self.settings.place = Some(place);
    }

    /// It is started with these too.
    pub fn start_with(&mut self, arguments: &[&str]) {
        self.settings.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// Whether its API does.
    pub fn answers(&self) -> bool {
        http::get(self.api, "/healthz").is_ok_and(|answer| answer.status == 200)
    }

    /// Whether the process that was started has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        child.try_wait().expect("our own child can be waited for")
    }

    /// Starts the binary without waiting.
    pub fn launch_unready(&mut self) {
        let errors = self.data.with_extension("log");
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(errors).expect("a log can be written");
        let mut command = match self.settings.files_max {
            // It becomes the binary: the process is the node's.
            Some(files) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={files}:{files}")).arg(binary("bramble"));
                command
            }
            None => Command::new(binary("bramble")),
        };
        let token = self.settings.token.as_ref().filter(|_| !self.data.join("cluster/certificate.pem").exists());
        match token {
            Some(token) => command.args(["join", token]),
            None => command.arg("up"),
        };
        // Where it has a network of its own, every address that comes to it is served.
        let http = match &self.settings.place {
            Some(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.http.port())),
            None => self.http,
        };
        let anywhere = |at: SocketAddr| {
            if self.settings.anywhere { SocketAddr::from((Ipv4Addr::UNSPECIFIED, at.port())) } else { at }
        };
        command
            .arg("--data")
            .arg(&self.data)
            .args(["--api", &anywhere(self.api).to_string(), "--http", &http.to_string()])
            .args(["--peers", &anywhere(self.peers).to_string()])
            .args(&self.settings.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .env("HOME", &self.data);
        if let Some(user) = self.settings.user {
            command.uid(user).gid(user);
        }
        let mut start = || command.spawn().expect("the binary starts");
        self.child = Some(match &self.settings.place {
            Some(place) => place.inside(start),
            None => start(),
        });
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        self.successor.unwrap_or_else(|| self.child.as_ref().expect("it was started").id())
    }

    /// Has another process of `binary`, or of the node's own, take over: what the command line said.
    pub fn upgrade(&mut self, binary: Option<&Path>, more: &[&str]) -> Result<Value, String> {
        let asked = self.upgrade_asked(binary, more).output().expect("the binary runs");
        self.upgraded(&asked)
    }

    /// This process serves now.
    pub fn adopt(&mut self, pid: u32) {
        self.successor = Some(pid);
    }

    /// The command that asks for an upgrade.
    pub fn upgrade_asked(&self, program: Option<&Path>, more: &[&str]) -> Command {
        let mut command = Command::new(binary("bramble"));
        command.arg("upgrade").arg("--data").arg(&self.data).args(more).arg("--json").stdin(Stdio::null());
        if let Some(program) = program {
            command.arg("--binary").arg(program);
        }
        command
    }

    /// Takes in what an upgrade said: which process serves now.
    pub fn upgraded(&mut self, said: &Output) -> Result<Value, String> {
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let failed = || format!("{text} {}", String::from_utf8_lossy(&said.stderr));
        if !said.status.success() {
            return Err(failed());
        }
        let answer: Value = serde_json::from_str(&text).map_err(|_| failed())?;
        let pid = answer["Serves"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        self.successor = Some(pid.ok_or_else(failed)?);
        Ok(answer["Serves"].clone())
    }

    /// What the node said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    /// `kill -9`: no goodbye. What it started goes on.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// The machine is gone, all at once: the node and everything it started.
    pub fn cut_power(&mut self) {
        self.lose_power();
        self.gone();
    }

    /// [`Node::cut_power`] without waiting for its end to be seen.
    pub fn lose_power(&mut self) {
        for pid in self.processes() {
            process::signal(pid, Signal::KILL);
        }
        self.kill();
    }

    /// What lets another machine join.
    pub fn join_token(&self, more: &[&str]) -> String {
        let token = self.json(&[&["cluster", "token"], more].concat());
        token["token"].as_str().expect("a token is a text").to_owned()
    }

    /// Another machine of this one's cluster.
    pub fn join(&self) -> Node {
        Node::with(Settings { token: Some(self.join_token(&[])), ..Settings::default() })
    }

    /// Sends a signal to the process that serves and to those that finish what they had, and waits for their ends.
    fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = self.successor.take() {
            process::signal(pid, signal);
            wait::until("the process that serves has ended", 60, || (!process::runs(pid)).then_some(()));
        }
        process::signal(child.id(), signal);
        child.wait().expect("our own child can be waited for");
        // Those in between.
        for pid in process::of_data(&self.data).into_iter().filter(|pid| process::command_line(*pid).contains(" up ")) {
            process::signal(pid, signal);
            wait::until("a process before it has ended", 60, || (!process::runs(pid)).then_some(()));
        }
    }

    /// SIGTERM: it ends in order, its instances go on.
    pub fn terminate(&mut self) {
        self.end(Signal::TERM);
    }

    /// Ctrl-C: it stops its instances and ends.
    pub fn interrupt(&mut self) {
        self.end(Signal::INT);
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(self.data.join("token")).expect("a node that runs has a token").trim().to_owned()
    }

    /// Runs the command line against this node.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    /// The same, for who does more with it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("bramble"));
        command.args(arguments).env("BRAMBLE_API", format!("http://{}", self.api)).env("BRAMBLE_TOKEN", self.token());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed, and gives what it printed as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.cli(&[arguments, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{arguments:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} printed {text:?}: {error}"))
    }

    /// Runs a command that must fail as commands do, with exit code 1, and gives what it said.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        text
    }

    /// Writes a file beside the data.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let folder = self.data.with_extension("stacks");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let path = folder.join(name);
        std::fs::write(&path, content).expect("a file can be written");
        path
    }

    /// Texts of a service's log, the platform's own notes among them.
    pub fn said(&self, stack: &str, service: &str) -> Vec<String> {
        let answer = self.call("GET", &format!("/v1/services/{stack}/{service}/logs"), "");
        let lines = answer.text();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter_map(|line| line["line"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until a service's log has a line with this text, and gives the line.
    pub fn says(&self, stack: &str, service: &str, text: &str) -> String {
        wait::until(&format!("{stack}/{service} says {text:?}"), 20, || {
            self.said(stack, service).into_iter().find(|line| line.contains(text))
        })
    }

    /// Writes a stack file beside the data and deploys it; waits until it serves.
    pub fn deploy(&self, name: &str, file: &str) -> Output {
        let path = self.file(&format!("{name}.yml"), file);
        self.cli(&["deploy", "-f", &path.to_string_lossy(), name, "--timeout", "60"])
    }

    /// [`Node::deploy`] that must succeed.
    pub fn deployed(&self, name: &str, file: &str) {
        let output = self.deploy(name, file);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "deploy {name}: {text}\n{}", self.log());
    }

    /// A call of the API.
    pub fn call(&self, method: &str, path: &str, body: &str) -> http::Answer {
        let bearer = format!("Bearer {}", self.token());
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        http::request(self.api, method, path, &headers, body.as_bytes()).expect("the API answers")
    }

    /// Every instance as the API tells of it.
    pub fn instances(&self) -> Vec<Value> {
        let answer = self.call("GET", "/v1/instances", "");
        serde_json::from_slice(&answer.body).expect("a list of instances")
    }

    /// Waits until nothing of a stopped node runs any more.
    ///
    /// # Panics
    /// When something is left.
    pub fn gone(&self) {
        wait::until("nothing of the node is left", 10, || self.processes().is_empty().then_some(()));
    }

    /// Processes of this node and everything under them.
    pub fn processes(&self) -> Vec<u32> {
        process::with_children(&process::of_data(&self.data))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if let Some(successor) = self.successor {
                process::signal(successor, Signal::INT);
            }
            process::signal(child.id(), Signal::INT);
            let deadline = world::clock::monotonic() + Duration::from_secs(20);
            while world::clock::monotonic() < deadline
                && (matches!(child.try_wait(), Ok(None)) || self.successor.is_some_and(process::runs))
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.processes() {
            process::signal(pid, Signal::KILL);
        }
    }
}
