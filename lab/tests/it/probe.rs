//! A service that looks around from inside its box: it answers GET with who it is, and runs what it is sent.

use crate::deploying::address;
use lab::http;
use serde_json::Value;

/// Answers GET with its slot; POST runs the body, which tells what it found by `say(…)`.
const PROGRAM: &str = r#"
import http.server, os, threading
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def reply(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.reply("slot " + os.environ.get("SLOT", "?"))
    def do_POST(self):
        code, said = self.rfile.read(int(self.headers["Content-Length"])), []
        try:
            exec(code, {"say": lambda *words: said.append(" ".join(map(str, words))), "request": self})
        except BaseException as error:
            said.append(type(error).__name__ + ": " + str(error))
        self.reply("\n".join(said))
    def log_message(self, *a): pass
class S(http.server.ThreadingHTTPServer):
    request_queue_size = 128
S(("0.0.0.0", 8000), H).serve_forever()
"#;

/// Python found on the host, as a `command:`.
pub(crate) fn python(program: &str) -> String {
    // JSON's strings are YAML's too; a dollar sign would be a variable.
    format!("[python3, -c, {}]", Value::from(program.replace('$', "$$")))
}

/// The keys of a probing service that is published at `port`; `more` are further lines of the service.
pub(crate) fn service(port: u16, more: &str) -> String {
    service_after("", port, more)
}

/// [`service`] that runs other Python first.
pub(crate) fn service_after(first: &str, port: u16, more: &str) -> String {
    let command = python(&format!("{first}{PROGRAM}"));
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!("    image: host\n    command: {command}\n    ports: [\"127.0.0.1:{port}:8000\"]\n{more}")
}

/// Runs Python inside the probe and gives what it said.
pub(crate) fn run(port: u16, code: &str) -> String {
    let answer = http::request(address(port), "POST", "/", &[], code.as_bytes()).expect("the probe answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}
