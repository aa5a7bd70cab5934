//! What instances answer, well and badly.

use crate::bed::{Bed, Instance};
use crate::proxy::read_head;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An instance that answers each request with the same bytes; `closes` after the first.
async fn says(answer: impl Into<Vec<u8>>, closes: bool) -> Instance {
    let answer = answer.into();
    Instance::raw(move |mut stream| {
        let answer = answer.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                if stream.write_all(&answer).await.is_err() || closes {
                    return;
                }
            }
        }
    })
    .await
}

/// The statuses and hints a client is told, and how many answers are there.
async fn told(bed: &Bed, request: &str) -> (Vec<u16>, Vec<String>, usize) {
    let mut client = bed.client().await;
    client.send(request).await;
    let said = String::from_utf8(client.rest().await).unwrap();
    let lines = || said.split("\r\n");
    let statuses = lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok());
    let hints = lines().filter(|line| line.starts_with("link: ") || line.starts_with("keep-alive: "));
    (statuses.collect(), hints.map(str::to_owned).collect(), lines().filter(|line| *line == "ok").count())
}

#[tokio::test]
async fn answers_before_the_answer_are_passed_on_to_who_knows_them() {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\nkeep-alive: 5\r\n\r\n\
                 HTTP/1.1 102 Processing\r\n\r\n";
    let instance = says(format!("{early}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok\r\n"), false).await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let hint = || vec!["link: </x>".to_owned()];
    let check = async |request: &str, statuses: &[u16], hints: Vec<String>| {
        let request = request.replace('|', "\r\n");
        let answers = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(told(&bed, &request).await, (statuses.to_vec(), hints, answers), "{request}");
    };
    check("GET / HTTP/1.1|host: a|connection: close||", &[103, 102, 200], hint()).await;
    // It is told to go on once, whether the instance or the gateway was first.
    let expects = "POST / HTTP/1.1|host: a|connection: close|expect: 100-continue|content-length: 2||";
    check(&format!("{expects}hi"), &[103, 102, 200], hint()).await;
    check("GET / HTTP/1.0|host: a||", &[200], vec![]).await;
    check("POST / HTTP/1.0|host: a|expect: 100-continue|content-length: 2||hi", &[200], vec![]).await;
    let pipelined = "GET / HTTP/1.1|host: a||GET / HTTP/1.1|host: a|connection: close||";
    check(pipelined, &[103, 102, 200, 103, 102, 200], [hint(), hint()].concat()).await;
    let mut client = bed.client().await;
    client.send(expects.replace('|', "\r\n")).await;
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send("hi").await;
    for status in [103, 102, 200] {
        assert_eq!(client.head().await.unwrap().status, status);
    }
}

#[tokio::test]
async fn nothing_but_answers_before_the_answer_is_a_502() {
    let endless = says("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1_000), false).await;
    let bed = Bed::new(&[("a", &endless)]).await;
    let request = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let (statuses, ..) = told(&bed, request).await;
    assert_eq!(statuses, [[103; 16].as_slice(), &[502]].concat());
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_whole() {
    let instance = says("HTTP/1.0 200 OK\r\n\r\nto the end", true).await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    for _ in 0..2 {
        let answer = client.get("/").await;
        assert_eq!((answer.text(), &*answer.headers["transfer-encoding"]), ("to the end".into(), "chunked"));
    }
}

#[tokio::test]
async fn what_cannot_be_read_as_an_answer_is_a_502() {
    for answer in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: y\n\r\n",
        "HTTP/1.1 200 OK\r\nx: y\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nb\u{e4}d: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nhalf",
        "",
    ] {
        let instance = says(answer, true).await;
        let bed = Bed::new(&[("a", &instance)]).await;
        let got = bed.client().await.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(got.status, 502, "{answer:?}: {}", got.text());
        assert!(got.text().starts_with("B0605"), "{}", got.text());
    }
}

#[tokio::test]
async fn bodies_that_lie_are_cut_off_and_their_connections_are_not_used_again() {
    for (answer, connections) in [
        // More than was said: what is left is no answer to the next request.
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more", 3),
        // Both framings: the coding counts, and the connection is not trusted with more.
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 3),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", 3),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 1),
    ] {
        let instance = says(answer, false).await;
        let bed = Bed::new(&[("a", &instance)]).await;
        let mut client = bed.client().await;
        for _ in 0..3 {
            assert_eq!(client.get("/").await.text(), "ok", "{answer:?}");
        }
        assert_eq!(bed.doors.dials("a"), connections, "{answer:?}");
    }
    let lies = says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", false).await;
    let bed = Bed::new(&[("a", &lies)]).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let rest = client.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "an answer that was not whole does not look whole: {}", rest.escape_ascii());
}

#[tokio::test]
async fn trailers_that_are_announced_come_through() {
    let answer =
        "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let instance = says(answer, false).await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let rest = client.rest().await;
    assert!(rest.ends_with(b"2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{}", rest.escape_ascii());
}

#[tokio::test]
async fn a_refusal_may_come_while_the_body_still_does() {
    // It answers and closes at the first bytes of a long body: the client is told, not cut off.
    let instance = Instance::raw(|mut stream| async move {
        read_head(&mut stream).await;
        let mut some = [0; 1024];
        drop(stream.read(&mut some).await);
        drop(stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await);
    })
    .await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").await;
    client.send("x".repeat(2_000)).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (413, "big".into()));
}

#[tokio::test]
async fn who_asks_for_the_head_gets_no_body_whoever_answers() {
    let instance = says("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", false).await;
    let bed = Bed::new(&[("a", &instance)]).await;
    let mut client = bed.client().await;
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert_eq!((head.status, &*head.headers["content-length"]), (200, "5"));
    }
    // The gateway's own words, too.
    let routed = crate::bed::listener(gateway::ListenerKind::Routed, gateway::Speaks::Detect);
    let bed =
        Bed::start(gateway::Limits::default(), gateway::Table { listeners: vec![routed], ..Default::default() }).await;
    let mut client = bed.client().await;
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nhost: nobody.test\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert_eq!(head.status, 404);
        assert_ne!(head.headers["content-length"], "0");
    }
}
