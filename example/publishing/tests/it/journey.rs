//! What writers and readers do all day.

use crate::browser::{Browser, PASSWORD, blog};
use crate::post_fields;

/// A picture of one pixel, as far as anybody looks.
const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n and the rest";

#[test]
fn from_signing_up_to_logging_out() {
    let (instance, _folder) = blog();
    let mut ada = Browser::signed_up(&instance, "ada");
    let mut reader = Browser::new(&instance);
    reader.get("/").shows(&["Nothing published yet"]);

    let written = ada.send_form("/posts/new", "/posts", &post_fields("On engines", "The *engine* weaves.", "draft"));
    let path = written.to().to_owned();
    ada.get(&path).shows(&["On engines", "<em>engine</em>", "draft"]);
    assert_eq!(reader.get(&path).status, 404);
    reader.get("/by/ada").shows(&["0 posts"]);

    ada.send_form(&path, &format!("{path}/publish"), &[]).to();
    reader.get(&path).shows(&["On engines", "by <a href=\"/by/ada\">ada</a>"]);
    reader.get("/").shows(&["On engines", "The engine weaves."]);
    reader.get("/by/ada").shows(&["1 post<"]);

    let edit = format!("{path}/edit");
    ada.get(&edit).shows(&["The *engine* weaves."]);
    ada.send_form(&edit, &path, &post_fields("On looms", "The loom weaves too.", "publish")).to();
    reader.get(&path).shows(&["On looms", "The loom weaves too."]);

    ada.send_form(&path, &format!("{path}/unpublish"), &[]).to();
    assert_eq!(reader.get(&path).status, 404);
    ada.get("/desk").shows(&["On looms", "draft"]);

    assert_eq!(ada.send_form(&path, &format!("{path}/delete"), &[]).to(), "/desk");
    assert_eq!(ada.get(&path).status, 404);

    assert_eq!(ada.send_form("/desk", "/logout", &[]).to(), "/");
    assert_eq!(ada.get("/desk").to(), "/login");
    let login = [("name", "Ada"), ("password", PASSWORD)];
    assert_eq!(ada.send_form("/login", "/login", &login).to(), "/desk");
    assert_eq!(ada.get("/desk").status, 200);
}

#[test]
fn readers_find_what_is_published() {
    let (instance, _folder) = blog();
    let mut ada = Browser::signed_up(&instance, "ada");
    let mut write = |title: &str, body: &str, then: &str| {
        ada.send_form("/posts/new", "/posts", &post_fields(title, body, then)).to().to_owned()
    };
    write("Blackberries", "They ripen in August, on <thorny> canes.", "publish");
    write("Secrets", "Blackberries nobody may find yet.", "draft");
    let path = write("Crème brûlée", "Sugar, burnt.", "publish");

    let mut reader = Browser::new(&instance);
    let found = reader.get("/search?q=ripen+aug");
    found.shows(&["Blackberries", "<mark>ripen</mark>", "<mark>August</mark>", "&lt;thorny&gt;"]);
    reader.get("/search?q=blackberries").hides(&["Secrets"]);
    reader.get("/search?q=creme").shows(&["Crème brûlée"]);
    for operators in ["%22", "a%22b", "NEAR(", "*", "title:x", "a+AND", "%00", "(((", "-"] {
        assert_eq!(reader.get(&format!("/search?q={operators}")).status, 200, "{operators}");
    }
    ada.send_form(&path, &format!("{path}/delete"), &[]).to();
    reader.get("/search?q=creme").shows(&["Nothing found"]);
}

#[test]
fn lists_come_in_pages() {
    let (instance, _folder) = blog();
    let mut ada = Browser::signed_up(&instance, "ada");
    for number in 1..=11 {
        let title = format!("Number {number}.");
        ada.send_form("/posts/new", "/posts", &post_fields(&title, "Text.", "publish")).to();
    }
    let mut reader = Browser::new(&instance);
    let first = reader.get("/");
    first.shows(&["Number 11.", "Number 2.", "/?page=2"]);
    first.hides(&["Number 1."]);
    let second = reader.get("/?page=2");
    second.shows(&["Number 1.", "/?page=1"]);
    second.hides(&["Number 2.", "page=3"]);
    reader.get("/by/ada?page=2").shows(&["Number 1.", "11 posts"]);
    reader.get("/search?q=text&page=2").shows(&["/search?q=text&amp;page=1"]);
    for odd in ["0", "-1", "x", "99999999999", ""] {
        assert_eq!(reader.get(&format!("/?page={odd}")).status, 200, "{odd}");
    }
}

#[test]
fn pictures_are_uploaded_shown_and_deleted() {
    let (instance, folder) = blog();
    let mut ada = Browser::signed_up(&instance, "ada");
    let token = ada.token("/desk");
    assert_eq!(ada.upload(&token, PICTURE).to(), "/desk");
    let desk = ada.get("/desk");
    let path =
        desk.text().split("img src=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a picture").to_owned();
    let mut reader = Browser::new(&instance);
    let shown = reader.get(&path);
    assert_eq!((shown.status, shown.header("content-type"), shown.body.as_slice()), (200, Some("image/png"), PICTURE));

    let body = format!("![one pixel]({path})");
    let post = ada.send_form("/posts/new", "/posts", &post_fields("Picture", &body, "publish")).to().to_owned();
    reader.get(&post).shows(&[&format!("<img src=\"{path}\" alt=\"one pixel\"")]);

    let mut eve = Browser::signed_up(&instance, "eve");
    assert_eq!(eve.send_form("/desk", &format!("{path}/delete"), &[]).status, 404);
    assert_eq!(ada.send_form("/desk", &format!("{path}/delete"), &[]).to(), "/desk");
    assert_eq!(reader.get(&path).status, 404);
    let left = std::fs::read_dir(folder.path().join("pictures")).expect("a folder").count();
    assert_eq!(left, 0);
}

#[test]
fn the_style_sheet_is_kept_by_browsers_and_the_health_check_answers() {
    let (instance, _folder) = blog();
    let mut reader = Browser::new(&instance);
    let front = reader.get("/");
    let path =
        front.text().split("stylesheet\" href=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a style");
    let style = reader.get(path);
    assert_eq!((style.status, style.header("content-type")), (200, Some("text/css; charset=utf-8")));
    assert!(style.header("cache-control").is_some_and(|value| value.contains("immutable")));
    assert_eq!(reader.get("/healthz").text(), "ok\n");
}
