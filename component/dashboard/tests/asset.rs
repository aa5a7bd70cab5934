//! What the app may rely on, with the page built or not.

use dashboard::{Asset, CONTENT_SECURITY_POLICY, INDEX, asset};

fn index() -> Asset {
    asset("/").expect("there is always a page")
}

fn text(asset: &Asset) -> String {
    String::from_utf8(asset.bytes.to_vec()).expect("the page is text")
}

#[test]
fn the_page_is_found_by_every_spelling_of_its_path() {
    for path in ["", "/", INDEX, "/index.html"] {
        assert_eq!(asset(path), Some(index()), "{path:?}");
    }
    assert_eq!(index().content_type, "text/html; charset=utf-8");
}

#[test]
fn the_page_is_asked_for_anew_each_time() {
    assert!(!index().immutable);
}

#[test]
fn tags_are_quoted() {
    let tag = index().etag;
    assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
}

#[test]
fn nothing_outside_the_page_is_served() {
    for path in ["//", "/nope", "/../Cargo.toml", "..", "assets", "/assets/", "/index.html/", "\0", "/INDEX.HTML"] {
        assert_eq!(asset(path), None, "{path:?}");
    }
}

#[test]
fn what_the_page_loads_is_there_and_kept_for_ever() {
    let page = text(&index());
    for part in page.split('"').filter(|part| part.starts_with('/')) {
        let found = asset(part).unwrap_or_else(|| panic!("the page loads {part}"));
        assert_eq!(found.immutable, part.starts_with("/assets/"), "{part}");
        assert!(!found.bytes.is_empty(), "{part}");
    }
}

#[test]
fn the_page_has_nothing_inline_that_its_policy_forbids() {
    assert!(!CONTENT_SECURITY_POLICY.contains("unsafe"), "{CONTENT_SECURITY_POLICY}");
    assert!(!CONTENT_SECURITY_POLICY.contains('\n'), "it is one header line");
    let page = text(&index());
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onload="), "{page}");
    for script in page.split("<script").skip(1) {
        assert!(script.split('>').next().is_some_and(|tag| tag.contains("src=")), "inline script in {page}");
    }
}
