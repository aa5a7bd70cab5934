//! What is refused, and to whom.

use crate::browser::{Browser, Instance, PASSWORD, blog};
use crate::post_fields;

#[test]
fn what_writers_type_is_text_everywhere() {
    let (instance, _folder) = blog();
    let mut ada = Browser::signed_up(&instance, "ada");
    let attack = "\"><script>alert(1)</script>";
    let path = ada.send_form("/posts/new", "/posts", &post_fields(attack, attack, "publish")).to().to_owned();
    for page in
        ["/", &path, &format!("{path}/edit"), "/desk", "/by/ada", "/search?q=script", "/search?q=%22%3E%3Cscript%3E"]
    {
        let shown = ada.get(page);
        assert_eq!(shown.status, 200, "{page}");
        shown.hides(&["<script"]);
    }
    let name = ada.send_form("/posts/new", "/posts", &post_fields("", attack, "publish"));
    assert_eq!(name.status, 422);
    name.hides(&["<script"]);
}

#[test]
fn forms_from_elsewhere_are_refused() {
    let (instance, _folder) = blog();
    let mut ada = Browser::signed_up(&instance, "ada");
    let mut eve = Browser::signed_up(&instance, "eve");
    let foreign = eve.token("/desk");
    for token in ["", "0", foreign.as_str()] {
        let mut fields = post_fields("Forged", "Forged.", "publish").to_vec();
        fields.push(("csrf", token));
        assert_eq!(ada.post("/posts", &fields).status, 403, "{token}");
        assert_eq!(ada.post("/logout", &[("csrf", token)]).status, 403, "{token}");
        assert_eq!(ada.upload(token, b"GIF89a").status, 403, "{token}");
    }
    assert_eq!(ada.post("/posts", &post_fields("Forged", "Forged.", "publish")).status, 422);
    let credentials = [("name", "ada"), ("password", PASSWORD), ("csrf", "")];
    assert_eq!(Browser::new(&instance).post("/login", &credentials).status, 403);

    let token = ada.token("/desk");
    let body = format!("csrf={token}");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    for header in [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
        assert_eq!(ada.request("POST", "/logout", &[form, header], body.as_bytes()).status, 403, "{header:?}");
    }
    ada.get("/desk").hides(&["Forged"]);
    let origin = format!("http://{}", instance.address);
    assert_eq!(ada.request("POST", "/logout", &[form, ("Origin", &origin)], body.as_bytes()).to(), "/");
}

#[test]
fn a_post_is_its_authors_alone() {
    let (instance, _folder) = blog();
    let mut ada = Browser::signed_up(&instance, "ada");
    let mut eve = Browser::signed_up(&instance, "eve");
    let mut write = |then| ada.send_form("/posts/new", "/posts", &post_fields("Mine", "Mine.", then)).to().to_owned();
    let (published, draft) = (write("publish"), write("draft"));
    for (path, status) in [(&published, 403), (&draft, 404)] {
        assert_eq!(eve.get(&format!("{path}/edit")).status, status);
        assert_eq!(eve.send_form("/desk", path, &post_fields("Theirs", "Theirs.", "publish")).status, status);
        for verb in ["publish", "unpublish", "delete"] {
            assert_eq!(eve.send_form("/desk", &format!("{path}/{verb}"), &[]).status, status, "{verb}");
        }
    }
    ada.get(&published).shows(&["Mine."]);
    ada.get(&draft).shows(&["Mine.", "draft"]);
    for page in ["/posts/new", "/desk", &format!("{published}/edit")] {
        assert_eq!(Browser::new(&instance).get(page).to(), "/login");
    }
}

#[test]
fn guessing_passwords_ends_soon() {
    let (instance, _folder) = blog();
    drop(Browser::signed_up(&instance, "ada"));
    let mut eve = Browser::new(&instance);
    let mut guess =
        |name: &str, password: &str| eve.send_form("/login", "/login", &[("name", name), ("password", password)]);
    guess("nobody-here", "wrong horse").shows(&["Name and password do not match."]);
    for _ in 0..6 {
        let refused = guess("ada", "wrong horse");
        assert_eq!(refused.status, 422);
        refused.shows(&["Name and password do not match."]);
    }
    let stopped = guess("ada", PASSWORD);
    assert_eq!((stopped.status, stopped.header("retry-after")), (429, Some("900")));
}

#[test]
fn behind_a_proxy_clients_are_told_apart_by_the_last_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let instance = Instance::start_with(folder.path(), |config| config.trust_forwarded = true);
    drop(Browser::signed_up(&instance, "ada"));
    let login = |password: &str, forwarded: &str| {
        let mut browser = Browser::new(&instance);
        let token = browser.token("/login");
        let body = format!("csrf={token}&name=ada&password={}", password.replace(' ', "%20"));
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        browser.request("POST", "/login", &[form, ("X-Forwarded-For", forwarded)], body.as_bytes()).status
    };
    for number in 0..6 {
        // What the client itself wrote in front changes nothing.
        assert_eq!(login("wrong horse", &format!("10.0.0.{number}, 192.0.2.1")), 422);
    }
    assert_eq!(login(PASSWORD, "192.0.2.1"), 429);
    assert_eq!(login(PASSWORD, "192.0.2.2"), 303);
}

#[test]
fn names_are_taken_once_and_have_their_form() {
    let (instance, _folder) = blog();
    drop(Browser::signed_up(&instance, "ada"));
    let mut other = Browser::new(&instance);
    let mut sign_up =
        |name: &str, password: &str| other.send_form("/signup", "/signup", &[("name", name), ("password", password)]);
    sign_up("ADA", PASSWORD).shows(&["This name is taken."]);
    sign_up("a b", PASSWORD).shows(&["A name has 3 to 30"]);
    sign_up("bob", "short").shows(&["A password has at least 10"]);
}

#[test]
fn what_is_too_much_is_not_read() {
    let (instance, _folder) = blog();
    let mut ada = Browser::signed_up(&instance, "ada");
    let book = "x".repeat(200_001);
    let refused = ada.send_form("/posts/new", "/posts", &post_fields("Book", &book, "publish"));
    assert_eq!(refused.status, 422);
    refused.shows(&["A text has 1 to 200,000 characters."]);
    let library = "x".repeat(2 << 20);
    assert_eq!(ada.send_form("/posts/new", "/posts", &post_fields("Library", &library, "publish")).status, 413);

    let mut stranger = Browser::new(&instance);
    let long = [("name", "ada"), ("password", &*"x".repeat(20_000))];
    assert_eq!(stranger.send_form("/login", "/login", &long).status, 413);

    let token = ada.token("/desk");
    let mut large = b"\x89PNG\r\n\x1a\n".to_vec();
    large.resize((5 << 20) + 1, 0);
    assert_eq!(ada.upload(&token, &large).status, 413);
    large.resize(6 << 20, 0);
    assert_eq!(ada.upload(&token, &large).status, 413);
    for other in [&b""[..], b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"MZ"] {
        assert_eq!(ada.upload(&token, other).status, 422);
    }
    ada.get("/desk").shows(&["No pictures yet."]);
}

#[test]
fn malformed_requests_are_refused_and_break_nothing() {
    let (instance, _folder) = blog();
    let mut ada = Browser::signed_up(&instance, "ada");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let parts = [("Content-Type", "multipart/form-data; boundary=edge")];
    let cut = b"--edge\r\nContent-Disposition: form-data; name=\"csrf\"\r\n\r\nabc";
    for (path, headers, body) in [
        ("/posts", &form[..], &b"\xff\xfe=\x00"[..]),
        ("/posts", &form, b"csrf=%ff&title=%zz&body=%&then=publish"),
        ("/posts", &form, b"then=burn"),
        ("/posts", &form, b""),
        ("/posts", &[], b"csrf=a"),
        ("/posts", &parts, cut),
        ("/login", &form, b"name=a&name=b&password=&csrf="),
        ("/pictures", &parts, cut),
        ("/pictures", &parts, b""),
        ("/pictures", &form, b"csrf=a"),
        ("/pictures", &[("Content-Type", "multipart/form-data")], cut),
    ] {
        let status = ada.request("POST", path, headers, body).status;
        assert!((400..500).contains(&status), "{path} {} {status}", String::from_utf8_lossy(body));
    }
    for cookie in ["session", "session=", "=;=;=", "session=a; session=b", "session=00000000000000000000000000000000"] {
        let answer = Browser::new(&instance).request("GET", "/desk", &[("Cookie", cookie)], b"");
        assert_eq!(answer.to(), "/login", "{cookie}");
    }
    assert_eq!(ada.request("DELETE", "/posts/1", &[], b"").status, 405);
    assert_eq!(ada.get("/desk").status, 200);
}

#[test]
fn odd_addresses_name_nothing() {
    let (instance, folder) = blog();
    std::fs::write(folder.path().join("secret.png"), "secret").expect("a file");
    let mut eve = Browser::new(&instance);
    for path in [
        "/pictures/../secret.png",
        "/pictures/..%2Fsecret.png",
        "/pictures/%2e%2e%2fblog.sqlite",
        "/pictures/0123456789abcdef.png",
        "/posts/0",
        "/posts/x",
        "/posts/99999999999999999999",
        "/by/nobody",
        "/by/%27%20OR%201",
        "/.env",
        "/style.css",
    ] {
        let answer = eve.get(path);
        assert_eq!(answer.status, 404, "{path}");
        answer.shows(&["there is no such page"]);
    }
}

#[test]
fn every_answer_locks_the_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let instance = Instance::start_with(folder.path(), |config| config.base_url = "https://blog.example".to_owned());
    let mut reader = Browser::new(&instance);
    for path in ["/", "/nowhere", "/healthz", "/login"] {
        let answer = reader.get(path);
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
        assert!(answer.header("strict-transport-security").is_some());
        assert!(answer.header("x-request-id").is_some());
    }
    let cookie = Browser::new(&instance).get("/login").header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.starts_with("__Host-seed=") && cookie.ends_with("; Secure"), "{cookie}");
}
