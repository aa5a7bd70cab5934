//! A blog running in this process, and browsers to use it with: cookies, forms, and the tokens in them.

use publishing::config::Config;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Cheap, so that tests check pages and not the processor.
const PASSWORD_MEMORY_KIB: u32 = 64;
pub(crate) const PASSWORD: &str = "correct horse battery";

/// One instance.
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    ended: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Instance {
    pub(crate) fn start(data_dir: &Path) -> Instance {
        Instance::start_with(data_dir, |_| {})
    }

    pub(crate) fn start_with(data_dir: &Path, change: impl FnOnce(&mut Config)) -> Instance {
        let mut config = Config::read(|_| None).expect("defaults are fine");
        config.data_dir = data_dir.to_owned();
        config.password_memory_kib = PASSWORD_MEMORY_KIB;
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("a socket can wait elsewhere");
        let (ended, end) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                publishing::serve(config, listener, async move { drop(end.await) }).await.expect("it serves");
            });
        });
        Instance { address, ended: Some(ended), thread: Some(thread) }
    }

    /// Sends the signal to end, as SIGTERM does.
    pub(crate) fn end(&mut self) {
        drop(self.ended.take());
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ends without a panic");
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.end();
        if !std::thread::panicking() {
            self.wait();
        }
    }
}

/// A blog of one instance with its own folder.
pub(crate) fn blog() -> (Instance, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (Instance::start(folder.path()), folder)
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a page is UTF-8")
    }

    /// Where a redirect leads.
    pub(crate) fn to(&self) -> &str {
        assert_eq!(self.status, 303, "{}", self.text());
        self.header("location").expect("a redirect says where to")
    }

    /// Asserts that the page has each of `parts`.
    #[track_caller]
    pub(crate) fn shows(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.text().contains(part), "{part:?} is missing from {}: {}", self.status, self.text());
        }
    }

    #[track_caller]
    pub(crate) fn hides(&self, parts: &[&str]) {
        for part in parts {
            assert!(!self.text().contains(part), "{part:?} is in {}", self.text());
        }
    }
}

/// Keeps cookies. Loads nothing but what it is told to.
pub(crate) struct Browser {
    pub(crate) address: SocketAddr,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    pub(crate) fn new(instance: &Instance) -> Browser {
        Browser { address: instance.address, cookies: BTreeMap::new() }
    }

    /// Somebody who has just signed up.
    pub(crate) fn signed_up(instance: &Instance, name: &str) -> Browser {
        let mut browser = Browser::new(instance);
        let answer = browser.send_form("/signup", "/signup", &[("name", name), ("password", PASSWORD)]);
        assert_eq!(answer.to(), "/desk");
        browser
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    /// Opens `page`, takes the token from its form and sends `fields` to `action`.
    pub(crate) fn send_form(&mut self, page: &str, action: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.token(page);
        let mut fields = fields.to_vec();
        fields.push(("csrf", &token));
        self.post(action, &fields)
    }

    /// The token in the last form of a page: the first may be the one to log out.
    pub(crate) fn token(&mut self, page: &str) -> String {
        let answer = self.get(page);
        let mark = "name=\"csrf\" value=\"";
        let at = answer.text().rfind(mark).unwrap_or_else(|| panic!("{page} has no form: {}", answer.text()));
        answer.text()[at + mark.len()..].split('"').next().unwrap_or_default().to_owned()
    }

    pub(crate) fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let kind = [("Content-Type", "application/x-www-form-urlencoded")];
        self.request("POST", path, &kind, pairs.join("&").as_bytes())
    }

    pub(crate) fn upload(&mut self, token: &str, picture: &[u8]) -> Answer {
        let mut body = Vec::new();
        let part = format!("--edge\r\nContent-Disposition: form-data; name=\"csrf\"\r\n\r\n{token}\r\n");
        body.extend_from_slice(part.as_bytes());
        body.extend_from_slice(b"--edge\r\nContent-Disposition: form-data; name=\"picture\"; filename=\"a.png\"\r\n");
        body.extend_from_slice(b"Content-Type: image/png\r\n\r\n");
        body.extend_from_slice(picture);
        body.extend_from_slice(b"\r\n--edge--\r\n");
        self.request("POST", "/pictures", &[("Content-Type", "multipart/form-data; boundary=edge")], &body)
    }

    pub(crate) fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.cookies.is_empty() {
            let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            head.push_str(&format!("Cookie: {}\r\n", pairs.join("; ")));
        }
        head.push_str("\r\n");
        let mut stream = TcpStream::connect(self.address).expect("the blog accepts");
        stream.write_all(head.as_bytes()).expect("the head is taken");
        // A server that has refused by the head alone need not take the rest.
        let _ = stream.write_all(body);
        let mut raw = Vec::new();
        // Closing with unread input may reset the connection after the answer has come.
        let _ = stream.read_to_end(&mut raw);
        let answer = parse(&raw);
        for (_, cookie) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            self.keep(cookie);
        }
        answer
    }

    fn keep(&mut self, cookie: &str) {
        let (pair, rest) = cookie.split_once(';').expect("cookies have attributes");
        let (name, value) = pair.split_once('=').expect("a cookie is a pair");
        assert!(rest.contains("HttpOnly") && rest.contains("SameSite=Lax"), "{cookie}");
        if rest.contains("Max-Age=0") {
            self.cookies.remove(name);
        } else {
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }
}

fn parse(raw: &[u8]) -> Answer {
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let head = std::str::from_utf8(&raw[..end]).expect("a head is text");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned()));
    Answer { status: status.expect("a status"), headers: headers.collect(), body: raw[end + 4..].to_vec() }
}

fn escaped(value: &str) -> String {
    value
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
