//! The blog over HTTP, as browsers use it.

mod browser;
mod journey;
mod refusal;
mod sharing;
mod stack;

/// What a form of a logged-in writer sends to save a post.
fn post_fields<'a>(title: &'a str, body: &'a str, then: &'a str) -> [(&'a str, &'a str); 3] {
    [("title", title), ("body", body), ("then", then)]
}
