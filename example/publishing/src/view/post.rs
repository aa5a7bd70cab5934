//! Pages of posts: lists, one to read, one to write.

use super::{Frame, author_path, csrf, page, problem};
use crate::prose;
use crate::store::account::Session;
use crate::store::post::{FOUND, Page, Post, Summary};
use maud::{Markup, html};

/// What the form shows: a new post, one being changed, or one sent back.
#[derive(Debug, Default)]
pub(crate) struct PostForm<'a> {
    /// `None` for a new one.
    pub(crate) id: Option<i64>,
    pub(crate) title: &'a str,
    pub(crate) body: &'a str,
    pub(crate) is_published: bool,
    pub(crate) wrong: Option<&'a str>,
}

pub(crate) fn posts(frame: &Frame<'_>, shown: &Page) -> Markup {
    let content = html! {
        h1.hidden { "Latest posts" }
        @if shown.posts.is_empty() {
            p.empty { "Nothing published yet. " a href="/posts/new" { "Write the first post" } "." }
        }
        (list(shown))
        (turn(shown, "/?"))
    };
    page(frame, "", &content)
}

pub(crate) fn profile(frame: &Frame<'_>, name: &str, count: i64, shown: &Page) -> Markup {
    let content = html! {
        h1 { (name) }
        p.day { (count) @if count == 1 { " post" } @else { " posts" } }
        (list(shown))
        (turn(shown, &format!("{}?", author_path(name))))
    };
    page(frame, name, &content)
}

pub(crate) fn search(frame: &Frame<'_>, text: &str, shown: &Page) -> Markup {
    let content = html! {
        h1 { "Search" }
        form.stack action="/search" role="search" {
            label { "Words" input type="search" name="q" value=(text) maxlength="200"; }
        }
        @if !text.trim().is_empty() && shown.posts.is_empty() {
            p.empty { "Nothing found. Fewer words find more; beginnings of words are enough." }
        }
        (list(shown))
        (turn(shown, &format!("/search?q={}&", query_escaped(text))))
    };
    page(frame, "Search", &content)
}

pub(crate) fn post(frame: &Frame<'_>, shown: &Post) -> Markup {
    let own = frame.session.filter(|session| session.user_id == shown.author_id);
    let content = html! {
        article {
            h1 { (shown.title) }
            p.day {
                "by " a href=(author_path(&shown.author)) { (shown.author) }
                @match &shown.published {
                    Some(day) => { ", " time datetime=(day) { (day) } }
                    None => { " " span.tag { "draft" } }
                }
                @if let Some(day) = &shown.changed { ", changed " time datetime=(day) { (day) } }
            }
            @if let Some(session) = own { (tools(session, shown)) }
            (prose::render(&shown.body))
        }
    };
    page(frame, &shown.title, &content)
}

fn tools(session: &Session, shown: &Post) -> Markup {
    let (verb, label) = if shown.published.is_some() { ("unpublish", "Unpublish") } else { ("publish", "Publish") };
    html! {
        div.tools {
            a.quiet href={ "/posts/" (shown.id) "/edit" } { "Edit" }
            form action={ "/posts/" (shown.id) "/" (verb) } method="post" {
                (csrf(&session.csrf))
                button.quiet { (label) }
            }
            details {
                summary.quiet { "Delete" }
                form action={ "/posts/" (shown.id) "/delete" } method="post" {
                    (csrf(&session.csrf))
                    button.danger { "Delete for good" }
                }
            }
        }
    }
}

pub(crate) fn post_form(frame: &Frame<'_>, session: &Session, form: &PostForm<'_>) -> Markup {
    let title = if form.id.is_some() { "Edit" } else { "Write" };
    let action = form.id.map_or("/posts".to_owned(), |id| format!("/posts/{id}"));
    let content = html! {
        h1 { (title) }
        (problem(form.wrong))
        form.stack action=(action) method="post" {
            (csrf(&session.csrf))
            label { "Title" input name="title" value=(form.title) required maxlength="200"; }
            // A line end right after the tag is dropped by browsers, so that the text's own first one stays.
            label { "Text" textarea name="body" rows="14" required { "\n" (form.body) } }
            p.hint { "## heading, - list, > quote, **strong**, *emphasis*, `code`, [link](https://…). Pictures: upload them at your desk." }
            div.tools {
                @if form.is_published {
                    button name="then" value="publish" { "Save" }
                    button.quiet name="then" value="draft" { "Save as draft" }
                } @else {
                    button name="then" value="publish" { "Publish" }
                    button.quiet name="then" value="draft" { "Save as draft" }
                }
            }
        }
    };
    page(frame, title, &content)
}

fn list(shown: &Page) -> Markup {
    html! { @for summary in &shown.posts { (entry(summary)) } }
}

fn entry(summary: &Summary) -> Markup {
    html! {
        article.entry {
            h2 { a href={ "/posts/" (summary.id) } { (summary.title) } }
            p.day {
                a href=(author_path(&summary.author)) { (summary.author) }
                @if let Some(day) = &summary.published { ", " time datetime=(day) { (day) } }
            }
            p { (marked(&prose::excerpt(&summary.excerpt))) }
        }
    }
}

/// The text with what a search found made visible.
fn marked(text: &str) -> Markup {
    let mut parts = text.split(FOUND[0]);
    let first = parts.next().unwrap_or_default();
    html! {
        (first)
        @for part in parts {
            @let (found, rest) = part.split_once(FOUND[1]).unwrap_or((part, ""));
            mark { (found) }
            (rest)
        }
    }
}

/// Links to the pages before and after; `to` ends where `page=` goes on.
pub(super) fn turn(shown: &Page, to: &str) -> Markup {
    html! {
        @if shown.number > 1 || shown.has_more {
            nav.turn aria-label="Pages" {
                @if shown.number > 1 { a href={ (to) "page=" (shown.number - 1) } rel="prev" { "← Newer" } }
                span.day { "page " (shown.number) }
                @if shown.has_more { a href={ (to) "page=" (shown.number + 1) } rel="next" { "Older →" } }
            }
        }
    }
}

fn query_escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{marked, query_escaped};

    #[test]
    fn what_was_found_is_marked_and_escaped() {
        assert_eq!(marked("a \u{2}<b>\u{3} c").into_string(), "a <mark>&lt;b&gt;</mark> c");
        assert_eq!(marked("\u{2}open").into_string(), "<mark>open</mark>");
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(query_escaped("a b&ü"), "a%20b%26%C3%BC");
    }
}
