//! A client of the stream of runs: what a browser is, without the page.

use crate::node::Node;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};
use wire::run::{Block, Channel, Ended};

/// Nothing a test waits for takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Of each stream, of which there may be a thousand in this process.
const READ_BUFFER_BYTES: usize = 16 << 10;

/// What one message was.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Words, by their key.
    Told(String, Value),
    Wrote(Channel, Vec<u8>),
    Closed,
}

pub struct Stream {
    socket: WebSocket<TcpStream>,
    pub id: String,
    /// That has it.
    pub machine: String,
    /// The last block that arrived.
    pub arrived: u64,
    /// Whether what arrives is acknowledged at once.
    pub acknowledges: bool,
    pub written: BTreeMap<Channel, Vec<u8>>,
    pub ended: Option<Ended>,
    pub taken: u64,
    /// Times it was begun anew.
    pub again: u32,
    pub next_input: u64,
    attached: bool,
}

impl Stream {
    /// A stream with nothing said yet.
    pub fn open(node: &Node) -> Stream {
        Stream::at(node.api, &node.token()).expect("the API listens")
    }

    /// The same where nobody may listen.
    pub fn at(api: SocketAddr, token: &str) -> std::io::Result<Stream> {
        Stream::at_host(&api.to_string(), api, token)
    }

    /// The same through who serves several hosts.
    pub fn at_host(host: &str, api: SocketAddr, token: &str) -> std::io::Result<Stream> {
        let url = format!("ws://{host}/v1/runs/stream");
        let mut request = url.into_client_request().expect("a request");
        // As a browser gives it.
        let protocols = format!("bramble.runs.v1, bramble.token.{token}");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocols.parse().expect("a header"));
        let connection = TcpStream::connect_timeout(&api, DEADLINE)?;
        connection.set_read_timeout(Some(DEADLINE))?;
        connection.set_nodelay(true)?;
        let config =
            WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).max_message_size(None).max_frame_size(None);
        let opened = client::client_with_config(request, connection, Some(config));
        let (socket, answer) = opened.map_err(|error| std::io::Error::other(error.to_string()))?;
        assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "bramble.runs.v1");
        Ok(Stream {
            socket,
            id: String::new(),
            machine: String::new(),
            arrived: 0,
            acknowledges: true,
            written: BTreeMap::new(),
            ended: None,
            taken: 0,
            again: 0,
            next_input: 1,
            attached: false,
        })
    }

    /// A run that a worker has.
    pub fn run(node: &Node, wanted: &Value) -> Stream {
        let mut stream = Stream::open(node);
        stream.say(&json!({ "run": wanted }));
        stream.accepted();
        stream
    }

    /// A run that goes on.
    pub fn attach(node: &Node, id: &str, after: u64) -> Stream {
        let mut stream = Stream::open(node);
        (stream.arrived, stream.attached) = (after, true);
        stream.say(&json!({ "attach": { "id": id, "after": after } }));
        stream.accepted();
        stream
    }

    /// Asks for a run that may not be found yet. False when it is not.
    pub fn come_back(&mut self, id: &str, after: u64) -> bool {
        (self.arrived, self.attached) = (after, true);
        let words = json!({ "attach": { "id": id, "after": after } }).to_string();
        self.try_send(Message::Text(words.into())) && self.is_accepted()
    }

    /// Asks for a run. False when nobody takes it.
    pub fn ask(&mut self, wanted: &Value) -> bool {
        let words = json!({ "run": wanted }).to_string();
        self.try_send(Message::Text(words.into())) && self.is_accepted()
    }

    fn is_accepted(&mut self) -> bool {
        while self.id.is_empty() {
            match self.hear() {
                Event::Told(key, _) if key == "problem" => return false,
                Event::Told(..) => {}
                Event::Wrote(..) | Event::Closed => return false,
            }
        }
        true
    }

    /// # Panics
    /// When it is refused.
    pub fn accepted(&mut self) {
        while self.id.is_empty() {
            match self.hear() {
                Event::Told(key, value) => assert_ne!(key, "problem", "{value}"),
                other @ (Event::Wrote(..) | Event::Closed) => panic!("{other:?} before it was accepted"),
            }
        }
    }

    pub fn say(&mut self, words: &Value) {
        self.socket.send(Message::Text(words.to_string().into())).expect("it is taken");
    }

    /// Words or bytes as they are, for who tries what happens. False when nobody takes them.
    pub fn try_send(&mut self, message: Message) -> bool {
        self.socket.send(message).is_ok()
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        assert!(self.try_feed(bytes), "it is taken");
    }

    /// The same where the line may have broken.
    pub fn try_feed(&mut self, bytes: &[u8]) -> bool {
        let block = [&Block::head(self.next_input, Channel::Stdin)[..], bytes].concat();
        self.next_input += 1;
        self.socket.send(Message::Binary(block.into())).is_ok()
    }

    pub fn end_input(&mut self) {
        self.feed(b"");
    }

    pub fn signal(&mut self, name: &str) {
        self.say(&json!({ "signal": name }));
    }

    /// The next message that says something.
    pub fn hear(&mut self) -> Event {
        loop {
            let message = match self.socket.read() {
                Ok(message) => message,
                Err(_) => return Event::Closed,
            };
            match message {
                Message::Text(text) => return self.told(&text),
                Message::Binary(bytes) => {
                    let block = Block::parse(&bytes).expect("a block");
                    // Whoever begins with nothing gets what is kept.
                    let begins = self.arrived == 0 && self.attached;
                    assert!(begins || block.sequence == self.arrived + 1, "blocks come in order, each once");
                    assert!(block.payload.len() <= wire::run::BLOCK_BYTES_MAX, "{} bytes", block.payload.len());
                    self.arrived = block.sequence;
                    self.written.entry(block.channel).or_default().extend_from_slice(block.payload);
                    if self.acknowledges {
                        self.acknowledge();
                    }
                    return Event::Wrote(block.channel, block.payload.to_vec());
                }
                Message::Close(_) => return Event::Closed,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn told(&mut self, text: &str) -> Event {
        let value: Value = serde_json::from_str(text).expect("words are JSON");
        let (key, value) = value.as_object().and_then(|one| one.iter().next()).expect("one key");
        match key.as_str() {
            "accepted" => {
                value["id"].as_str().expect("an id").clone_into(&mut self.id);
                value["node"].as_str().expect("a machine").clone_into(&mut self.machine);
                if self.attached {
                    self.next_input = value["next_input"].as_u64().expect("a number");
                }
            }
            "taken" => self.taken = value.as_u64().expect("a number"),
            "ended" => {
                let ended: Ended = serde_json::from_value(value.clone()).expect("an end");
                assert!(self.ended.is_none(), "a run ends once: {text}");
                assert_eq!(ended.sequence, self.arrived + 1, "the end is the last block");
                self.arrived = ended.sequence;
                self.ended = Some(ended);
                if self.acknowledges {
                    self.acknowledge();
                }
            }
            "again" => {
                self.arrived = 0;
                self.again += 1;
                self.written.clear();
            }
            _other => {}
        }
        Event::Told(key.clone(), value.clone())
    }

    pub fn acknowledge(&mut self) {
        let words = json!({ "ack": self.arrived }).to_string();
        // A run that is over needs it no more.
        let _ = self.socket.send(Message::Text(words.into()));
    }

    /// Reads until the program has written this on a channel.
    pub fn until(&mut self, channel: Channel, text: &str) {
        while !self.text(channel).contains(text) {
            let event = self.hear();
            let over = matches!(event, Event::Closed) || self.ended.is_some();
            assert!(!over || self.text(channel).contains(text), "{text:?} did not come: {event:?} {:?}", self.written);
        }
    }

    /// Reads to the end of the run.
    pub fn to_the_end(&mut self) -> Ended {
        loop {
            if let Some(ended) = &self.ended {
                return ended.clone();
            }
            let event = self.hear();
            assert_ne!(event, Event::Closed, "closed before its end: {:?}", self.written);
        }
    }

    pub fn text(&self, channel: Channel) -> String {
        String::from_utf8_lossy(self.written.get(&channel).map_or(&[], Vec::as_slice)).into_owned()
    }

    /// Leaves as a browser does that closes its page.
    pub fn leave(mut self) {
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
        while self.socket.read().is_ok() {}
    }

    /// Leaves with output unread: the kernel resets the connection behind the last word.
    pub fn leave_at_once(mut self) {
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
    }

    /// Breaks off without a word: the other side finds a connection that is reset.
    pub fn break_off(self) {
        let socket = self.socket.get_ref();
        let reset = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        reset.expect("a socket can be reset");
    }
}

/// A run of one file.
pub fn code(language: &str, content: &str) -> Value {
    json!({ "language": language, "files": [{ "name": "", "content": content }] })
}

/// The same with other things set.
pub fn with(mut wanted: Value, more: Value) -> Value {
    let more = more.as_object().cloned().unwrap_or_default();
    wanted.as_object_mut().expect("an object").extend(more);
    wanted
}
