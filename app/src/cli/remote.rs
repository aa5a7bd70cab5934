//! The API from the outside: one request, its answer or its problem.

use super::failure::Failure;
use crate::config::Client;
use reqwest::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{Method, Response, StatusCode, Upgraded};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use wire::api::Problem;
use wire::diagnostic::chain;

/// The API answers at once or says why; what takes longer is streamed or asked for again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A line longer than this is no line of ours.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Messages both ways.
pub(crate) type Stream = WebSocketStream<Upgraded>;

/// A name as one segment of a path. What would lead to another path, and so to another stack, is no name.
pub(crate) fn segment(name: &str) -> Result<String, Failure> {
    if matches!(name, "" | "." | "..") {
        return Err(
            Failure::local(format!("{name:?} is not a name")).hint("names have letters, digits, `-`, `_` and `.`")
        );
    }
    Ok(encoded(name))
}

/// A text for a path or a query (RFC 3986): everything but unreserved characters by its number.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub(crate) struct Remote {
    client: reqwest::Client,
    config: Client,
    pub(crate) json: bool,
}

impl Remote {
    pub(crate) fn new(config: Client, json: bool) -> Remote {
        let client = reqwest::Client::builder().connect_timeout(CONNECT_DEADLINE).no_proxy().build();
        Remote { client: client.expect("a client without files or certificates of its own can be made"), config, json }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.answer(Method::GET, path, None::<&()>).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.answer(Method::POST, path, Some(body)).await
    }

    /// Like [`Remote::post`], when the answer has no body.
    pub(crate) async fn post_only(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        self.send(Method::POST, path, Some(body), Some(ANSWER_DEADLINE)).await.map(drop)
    }

    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.answer(Method::PUT, path, Some(body)).await
    }

    /// Like [`Remote::put`], when the answer has no body.
    pub(crate) async fn put_only(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        self.send(Method::PUT, path, Some(body), Some(ANSWER_DEADLINE)).await.map(drop)
    }

    /// A request whose answer has no body worth reading.
    pub(crate) async fn tell(&self, method: Method, path: &str) -> Result<(), Failure> {
        self.send(method, path, None::<&()>, Some(ANSWER_DEADLINE)).await.map(drop)
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.answer(Method::DELETE, path, None::<&()>).await
    }

    /// Like [`Remote::post`], for what may take as long as it takes.
    pub(crate) async fn post_patiently<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let response = self.send(Method::POST, path, Some(body), None).await?;
        Remote::read(response, path).await
    }

    /// Like [`Remote::tell`], for what may take as long as it takes.
    pub(crate) async fn patiently(&self, method: Method, path: &str) -> Result<(), Failure> {
        self.send(method, path, None::<&()>, None).await.map(drop)
    }

    /// A WebSocket.
    pub(crate) async fn stream(&self, path: &str) -> Result<Stream, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::local(format!("open {path} at {}: {}", self.config.api, chain(error)))
                .hint("is `bramble up` running? BRAMBLE_API or --server says where")
        };
        // The key only shows that the other side speaks WebSocket, which its answer shows too.
        let mut request = self.client.get(format!("{}{path}", self.config.api)).headers(HeaderMap::from_iter([
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            (SEC_WEBSOCKET_KEY, HeaderValue::from_static("YnJhbWJsZS1jbGllbnQuLg==")),
        ]));
        if let Some(token) = &self.config.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| failed(&error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refusal(response, path).await);
        }
        let upgraded = response.upgrade().await.map_err(|error| failed(&error))?;
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let response = self.send(method, path, body, Some(ANSWER_DEADLINE)).await?;
        Remote::read(response, path).await
    }

    async fn read<T: DeserializeOwned>(response: Response, path: &str) -> Result<T, Failure> {
        response.json().await.map_err(|error| {
            Failure::local(format!("read the answer of {path}: {}", chain(&error)))
                .hint("is the server of another version?")
        })
    }

    /// Lines of JSON as they come; `each` says whether to go on.
    pub(crate) async fn lines<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        mut each: impl FnMut(T) -> bool,
    ) -> Result<(), Failure> {
        let mut response = self.send(method, path, body, None).await?;
        let mut buffer: Vec<u8> = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|error| Failure::local(format!("read {path}: {}", chain(&error))))?;
            let Some(chunk) = chunk else { return Ok(()) };
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if line.len() == 1 {
                    continue;
                }
                let parsed = serde_json::from_slice(&line);
                let parsed = parsed.map_err(|error| Failure::local(format!("read a line of {path}: {error}")))?;
                if !each(parsed) {
                    return Ok(());
                }
            }
            if buffer.len() > LINE_BYTES_MAX {
                return Err(Failure::local(format!("a line of {path} has no end")));
            }
        }
    }

    /// A body piece by piece, as large as it is. An end before its end is an error.
    pub(crate) async fn bytes(
        &self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let mut response = self.send(Method::GET, path, None::<&()>, None).await?;
        loop {
            let piece = tokio::time::timeout(ANSWER_DEADLINE, response.chunk()).await;
            let piece = piece.map_err(|_| Failure::local(format!("read {path}: nothing came for 30 s")))?;
            let piece = piece.map_err(|error| Failure::local(format!("read {path}: {}", chain(&error))))?;
            let Some(piece) = piece else { return Ok(()) };
            each(&piece).map_err(|error| {
                Failure::local(format!("write what came: {error}")).hint("is there room on the disk?")
            })?;
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        deadline: Option<Duration>,
    ) -> Result<Response, Failure> {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.config.api));
        if let Some(deadline) = deadline {
            request = request.timeout(deadline);
        }
        if let Some(token) = &self.config.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let again = (method == Method::GET).then(|| request.try_clone()).flatten();
        let mut answered = request.send().await;
        // What only reads is asked once more of a node that was being replaced and hung up before it answered.
        if let Some(again) = again
            && answered.as_ref().is_err_and(|error| error.is_request() && !error.is_connect() && !error.is_timeout())
        {
            answered = again.send().await;
        }
        let response = answered.map_err(|error| {
            Failure::local(format!("reach the API at {}: {}", self.config.api, chain(&error)))
                .hint("is `bramble up` running? BRAMBLE_API or --server says where")
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response, path).await)
    }

    /// What an answer that is no success says.
    async fn refusal(&self, response: Response, path: &str) -> Failure {
        let status = response.status();
        let problem = response.json::<Problem>().await;
        problem.map_or_else(
            |_| {
                let api = &self.config.api;
                Failure::local(format!("{api}{path} answered {status}"))
                    .hint("is that the API? BRAMBLE_API or --server says where it is")
            },
            Failure::from,
        )
    }
}
