//! Answers that reach the client other than the instance sent them: coded, or with a page in their place.

use crate::bed::{Answer, Bed, Instance, SERVICE, text, until};
use crate::rules::{ask, bed, map, routed, ruled};
use http::{Response, StatusCode};
use std::io::Read;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use wire::spec::{Compress, Rules};

fn compressing() -> Rules {
    Rules { compress: Some(Compress::default()), ..Rules::default() }
}

fn page() -> String {
    (0..300).map(|number| format!("<p>line {number} of a page</p>\n")).collect()
}

async fn html() -> Instance {
    Instance::http(|_| async {
        let response = Response::builder().header("content-type", "text/html").header("etag", "\"v1\"");
        response.header("accept-ranges", "bytes").body(text(page())).unwrap()
    })
    .await
}

fn decoded(answer: &Answer) -> String {
    let bytes = answer.body.as_slice();
    let mut text = String::new();
    let read = match answer.headers.get("content-encoding").map(String::as_str) {
        Some("gzip") => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text),
        Some("br") => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text),
        Some("zstd") => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_string(&mut text),
        other => panic!("{other:?}"),
    };
    read.unwrap();
    text
}

#[tokio::test]
async fn answers_are_coded_as_the_client_likes() {
    let instance = html().await;
    let bed = bed(vec![ruled(compressing())], &instance).await;
    for (accept, coding) in
        [("gzip", "gzip"), ("br;q=0.9, gzip;q=0.5", "br"), ("gzip, br, zstd", "zstd"), ("*", "zstd")]
    {
        let answer = ask(&bed, "GET /", &format!("accept-encoding: {accept}\r\n")).await;
        assert_eq!(answer.headers["content-encoding"], coding, "{accept}");
        assert_eq!(decoded(&answer), page(), "{accept}");
        assert!(answer.body.len() * 4 < page().len(), "{coding}: {}", answer.body.len());
        assert_eq!(answer.headers["etag"], "W/\"v1\"");
        assert_eq!(answer.headers["vary"], "accept-encoding");
        assert!(!answer.headers.contains_key("content-length") && !answer.headers.contains_key("accept-ranges"));
    }
    for headers in ["", "accept-encoding: deflate\r\n", "accept-encoding: gzip;q=0\r\n"] {
        let answer = ask(&bed, "GET /", headers).await;
        assert_eq!(answer.text(), page(), "{headers:?}");
        assert_eq!((answer.headers["etag"].as_str(), answer.headers["vary"].as_str()), ("\"v1\"", "accept-encoding"));
    }
    let mut client = bed.client().await;
    client.send("HEAD / HTTP/1.1\r\nhost: shop.test\r\naccept-encoding: gzip\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert!(!head.headers.contains_key("content-encoding"), "{head:?}");
    assert_eq!(client.get("/").await.text(), page(), "the connection goes on");
    until(|| bed.gateway.in_flight("i") == 0).await;
    // Each was whole.
    bed.counts("bramble_gateway_requests_total", "class=\"2xx\"", 9.0).await;
    assert!(bed.doors.dials("i") < 3, "connections to the instance are used again: {}", bed.doors.dials("i"));
}

/// Sends the head and a first piece, and the second when told.
async fn in_two(kind: &'static str, told: Arc<Notify>) -> Instance {
    Instance::raw(move |mut stream| {
        let told = Arc::clone(&told);
        async move {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
            loop {
                crate::proxy::read_head(&mut stream).await;
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(b"7\r\nfirst\n\n\r\n").await.unwrap();
                told.notified().await;
                stream.write_all(b"8\r\nsecond\n\n\r\n0\r\n\r\n").await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_stream_is_not_held_back() {
    let told = Arc::new(Notify::new());
    let instance = in_two("text/plain", Arc::clone(&told)).await;
    let bed = bed(vec![ruled(compressing())], &instance).await;
    for coding in ["gzip", "br", "zstd"] {
        let mut client = bed.client().await;
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: {coding}\r\n\r\n")).await;
        let mut answer = client.head().await.unwrap();
        assert_eq!(answer.headers["content-encoding"], coding);
        let mut seen = Vec::new();
        // The instance says no more until the client has seen what it said first.
        while !seen.ends_with(b"first\n\n") {
            answer.body.extend(client.chunk().await.unwrap().expect("no end yet"));
            seen.clear();
            let bytes = answer.body.as_slice();
            let mut reader: Box<dyn Read> = match coding {
                "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
                "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
                _ => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
            };
            let mut byte = [0];
            while reader.read(&mut byte).is_ok_and(|read| read > 0) {
                seen.extend(byte);
            }
        }
        told.notify_one();
        while let Some(chunk) = client.chunk().await.unwrap() {
            answer.body.extend(chunk);
        }
        assert_eq!(decoded(&answer), "first\n\nsecond\n\n");
    }
}

#[tokio::test]
async fn events_go_as_they_are() {
    let told = Arc::new(Notify::new());
    let instance = in_two("text/event-stream", Arc::clone(&told)).await;
    let bed = bed(vec![ruled(compressing())], &instance).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip, br\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert!(!head.headers.contains_key("content-encoding") && !head.headers.contains_key("vary"), "{head:?}");
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"first\n\n");
    told.notify_one();
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"second\n\n");
}

#[tokio::test]
async fn a_coded_answer_that_breaks_off_is_not_ended() {
    let instance = Instance::raw(|mut stream| async move {
        crate::proxy::read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5000\r\n\r\nonly this";
        stream.write_all(head.as_bytes()).await.unwrap();
    })
    .await;
    let bed = bed(vec![ruled(compressing())], &instance).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().headers["content-encoding"], "gzip");
    let rest = client.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", rest.escape_ascii());
    bed.counts("bramble_gateway_upstream_failures_total", "kind=\"cut\"", 1.0).await;
}

#[tokio::test]
async fn what_a_client_has_coded_is_never_opened() {
    // Ten megabytes of nothing in ten kilobytes: as it came, byte for byte, and within its own bound.
    let bomb = {
        use std::io::Write;
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(&vec![0; 10 << 20]).unwrap();
        writer.finish().unwrap()
    };
    assert!(bomb.len() < 16 << 10);
    let instance = Instance::mirror().await;
    let bed = bed(vec![ruled(Rules { body_bytes_max: Some(16 << 10), ..compressing() })], &instance).await;
    let head =
        format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
    let answer = bed.client().await.ask([head.as_bytes(), &bomb].concat()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with(&bomb), "the instance got it as it was sent");
    assert!(answer.text().contains("content-encoding: gzip\n"));
}

#[tokio::test]
async fn pages_take_the_place_of_failures() {
    let instance = Instance::http(|request: http::Request<hyper::body::Incoming>| async move {
        let mut response = Response::new(text("the program's own words"));
        *response.status_mut() = match request.uri().path() {
            "/" => StatusCode::OK,
            "/none" => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        response.headers_mut().insert("etag", "\"a\"".parse().unwrap());
        response
    })
    .await;
    let pages = Rules { error_pages: map(&[("404", "<h1>Not here</h1>"), ("5xx", "sorry")]), ..compressing() };
    let bed = bed(vec![ruled(pages.clone())], &instance).await;
    let mut client = bed.client().await;
    assert_eq!(client.get("/").await.text(), "the program's own words");
    let none = client.get("/none").await;
    assert_eq!((none.status, none.text().as_str()), (404, "<h1>Not here</h1>"));
    assert_eq!(none.headers["content-type"], "text/html; charset=utf-8");
    assert!(!none.headers.contains_key("etag"));
    assert_eq!((client.get("/x").await.text(), client.get("/").await.status), ("sorry".to_owned(), 200));
    client.send("HEAD /none HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().headers["content-length"], "17");
    assert_eq!(client.get("/").await.status, 200);
    until(|| bed.gateway.in_flight("i") == 0).await;
    assert_eq!(bed.doors.dials("i"), 1, "the one connection to the instance is used again");
    assert_eq!(bed.counted("bramble_gateway_requests_total", "class=\"gone\""), 0.0);
    // The gateway's own answers too.
    let down = Rules { maintenance: Some(String::new()), ..pages };
    bed.gateway.apply(routed(vec![ruled(down)], &["i"])).await;
    let answer = ask(&bed, "GET /", "").await;
    assert_eq!((answer.status, answer.text().as_str(), answer.headers["retry-after"].as_str()), (503, "sorry", "60"));
}

#[tokio::test]
async fn a_failure_that_goes_on_for_ever_is_replaced_at_once() {
    let instance = Instance::raw(|mut stream| async move {
        crate::proxy::read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await.unwrap();
        std::future::pending().await
    })
    .await;
    let bed: Bed =
        bed(vec![ruled(Rules { error_pages: map(&[("500", "sorry")]), ..Rules::default() })], &instance).await;
    assert_eq!(ask(&bed, "GET /", "").await.text(), "sorry");
    until(|| bed.gateway.in_flight("i") == 0).await;
    let failed = format!("class=\"5xx\",method=\"GET\",service=\"{SERVICE}\"");
    bed.counts("bramble_gateway_requests_total", &failed, 1.0).await;
}
