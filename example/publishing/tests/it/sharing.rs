//! Several instances on one folder, and instances that come and go.

use crate::browser::{Browser, Instance, PASSWORD};
use crate::post_fields;
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn it_does_not_matter_which_instance_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (Instance::start(folder.path()), Instance::start(folder.path()));
    let mut ada = Browser::signed_up(&one, "ada");
    // Every request goes to the other one than the one before.
    let mut turn = 0;
    let mut next = |browser: &mut Browser| {
        turn += 1;
        browser.address = if turn % 2 == 0 { one.address } else { two.address };
    };
    let mut paths = Vec::new();
    for number in 0..6 {
        next(&mut ada);
        let token = ada.token("/posts/new");
        next(&mut ada);
        let title = format!("Post {number}");
        let mut fields = post_fields(&title, "Shared.", "publish").to_vec();
        fields.push(("csrf", &token));
        paths.push(ada.post("/posts", &fields).to().to_owned());
    }
    for path in &paths {
        next(&mut ada);
        ada.get(path).shows(&["Shared."]);
    }
    let token = ada.token("/desk");
    next(&mut ada);
    assert_eq!(ada.upload(&token, b"GIF89a...").to(), "/desk");
    next(&mut ada);
    let desk = ada.get("/desk");
    let picture = desk.text().split("img src=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a picture");
    next(&mut ada);
    assert_eq!(ada.get(picture).status, 200);
    // Logged out at one is logged out at the other.
    ada.send_form("/desk", "/logout", &[]).to();
    next(&mut ada);
    assert_eq!(ada.get("/desk").to(), "/login");
}

#[test]
fn limits_hold_over_all_instances() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (Instance::start(folder.path()), Instance::start(folder.path()));
    drop(Browser::signed_up(&one, "ada"));
    let mut eve = Browser::new(&one);
    for number in 0..6 {
        eve.address = if number % 2 == 0 { one.address } else { two.address };
        let wrong = [("name", "ada"), ("password", "wrong horse")];
        assert_eq!(eve.send_form("/login", "/login", &wrong).status, 422);
    }
    for instance in [&one, &two] {
        eve.address = instance.address;
        let right = [("name", "ada"), ("password", PASSWORD)];
        assert_eq!(eve.send_form("/login", "/login", &right).status, 429);
    }
}

#[test]
fn writers_at_several_instances_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let instances = [Instance::start(folder.path()), Instance::start(folder.path())];
    let names = ["ada", "bob", "cleo", "dora"];
    std::thread::scope(|scope| {
        for (number, name) in names.into_iter().enumerate() {
            let instance = &instances[number % 2];
            scope.spawn(move || {
                let mut browser = Browser::signed_up(instance, name);
                for post in 0..8 {
                    let title = format!("{name} {post}");
                    browser.send_form("/posts/new", "/posts", &post_fields(&title, "Text.", "publish")).to();
                }
            });
        }
    });
    let mut reader = Browser::new(&instances[0]);
    for name in names {
        reader.get(&format!("/by/{name}")).shows(&["8 posts"]);
    }
}

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ada = {
        let instance = Instance::start(folder.path());
        let mut ada = Browser::signed_up(&instance, "ada");
        ada.send_form("/posts/new", "/posts", &post_fields("Lasting", "Text.", "publish")).to();
        ada
    };
    let instance = Instance::start(folder.path());
    ada.address = instance.address;
    ada.get("/desk").shows(&["Lasting"]);
}

#[test]
fn a_request_under_way_is_answered_after_the_signal_to_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut instance = Instance::start(folder.path());
    let mut stream = TcpStream::connect(instance.address).expect("a connection");
    // Two requests: the answer to the first shows that the second one's connection is served.
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("a first request");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    stream.write_all(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").expect("a head");
    let mut seen = Vec::new();
    let mut byte = [0; 1];
    while !seen.ends_with(b"100 Continue\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the server asks for the body");
        seen.push(byte[0]);
    }
    instance.end();
    stream.write_all(b"a=b").expect("the body");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the answer, and then the end");
    assert!(rest.starts_with("HTTP/1.1 422"), "{rest}");
    instance.wait();
    assert!(TcpStream::connect(instance.address).is_err());
}
