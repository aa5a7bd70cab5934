//! An OCI registry in this process: it serves the images it was given over plain HTTP and knows nothing else.
//!
//! Promises the answers of the distribution protocol that a pull needs, one connection at a time per thread. Ends
//! with its owner.

use crate::image::Image;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Media type and bytes, by path.
type Content = BTreeMap<String, (&'static str, Vec<u8>)>;

pub struct Registry {
    pub address: SocketAddr,
    content: Arc<Mutex<Content>>,
    server: Option<JoinHandle<()>>,
}

impl Registry {
    pub fn start() -> Registry {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let address = listener.local_addr().expect("a listener has an address");
        let content = Arc::new(Mutex::new(Content::new()));
        let served = Arc::clone(&content);
        let server = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = Arc::clone(&served);
                match asked(&stream) {
                    Some(request) if request == "STOP /" => return,
                    // A client that is gone is no business of a registry's.
                    Some(request) => drop(std::thread::spawn(move || answer(stream, &request, &content))),
                    None => {}
                }
            }
        });
        Registry { address, content, server: Some(server) }
    }

    /// Makes an image known and gives the reference it is pulled by.
    pub fn add(&self, name: &str, tag: &str, image: &Image) -> String {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in [&image.config, &image.layer] {
            let path = format!("/v2/{name}/blobs/{}", blob.digest);
            content.insert(path, ("application/octet-stream", blob.bytes.clone()));
        }
        for named in [tag, &image.manifest.digest] {
            content.insert(format!("/v2/{name}/manifests/{named}"), (MANIFEST, image.manifest.bytes.clone()));
        }
        format!("{}/{name}:{tag}", self.address)
    }

    /// Serves other bytes where the image's layer is: what a broken or lying registry does.
    pub fn spoil(&self, name: &str, image: &Image) {
        let path = format!("/v2/{name}/blobs/{}", image.layer.digest);
        let spoilt = vec![0; image.layer.bytes.len()];
        self.content.lock().unwrap_or_else(PoisonError::into_inner).insert(path, ("application/octet-stream", spoilt));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(self.address) {
            let _ = stream.write_all(b"STOP / HTTP/1.1\r\n\r\n");
        }
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// Method and path, once the headers have been read.
fn asked(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    for line in lines {
        if line.ok()?.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    Some(format!("{method} {}", target.split('?').next()?))
}

fn answer(mut stream: TcpStream, request: &str, content: &Mutex<Content>) {
    let (method, path) = request.split_once(' ').unwrap_or((request, "/"));
    let found = content.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    let (status, kind, body) = match found {
        Some((kind, bytes)) => ("200 OK", kind, bytes),
        None if path == "/v2/" => ("200 OK", "application/json", b"{}".to_vec()),
        None => {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            ("404 Not Found", "application/json", body.to_vec())
        }
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes());
    if method != "HEAD" {
        let _ = stream.write_all(&body);
    }
}
