//! The pages: what is shown, as HTML. Every value is escaped by the template; nothing here asks or changes anything.

mod account;
mod post;

pub(crate) use account::{AccountForm, account_form, desk};
pub(crate) use post::{PostForm, post, post_form, posts, profile, search};

use crate::store::account::Session;
use maud::{DOCTYPE, Markup, html};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

pub(crate) const STYLE: &str = include_str!("style.css");

/// The style sheet's address changes with its content, so that browsers may keep it for ever.
pub(crate) static STYLE_PATH: LazyLock<String> = LazyLock::new(|| {
    let hash = Sha256::digest(STYLE);
    let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("/style-{short}.css")
});

/// What stands around every page.
pub(crate) struct Frame<'a> {
    pub(crate) blog_name: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) session: Option<&'a Session>,
}

fn page(frame: &Frame<'_>, title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&if title.is_empty() { frame.blog_name.to_owned() } else { format!("{title} · {}", frame.blog_name) }))
            body {
                a.skip href="#content" { "Skip to the text" }
                header {
                    a.brand href="/" { (frame.blog_name) }
                    form.search action="/search" role="search" {
                        input type="search" name="q" placeholder="Search" aria-label="Search" maxlength="200";
                    }
                    nav aria-label="You" { (menu(frame)) }
                }
                main #content { (content) }
                footer {
                    "An example for Bramble."
                    @if !frame.instance.is_empty() { " Served by instance " b { (frame.instance) } "." }
                }
            }
        }
    }
}

fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) }
            link rel="stylesheet" href=(*STYLE_PATH);
            // No request for a picture that is not there.
            link rel="icon" href="data:,";
        }
    }
}

fn menu(frame: &Frame<'_>) -> Markup {
    html! {
        @if let Some(session) = frame.session {
            a href="/desk" { "Desk" }
            a href=(author_path(&session.name)) { (session.name) }
            form action="/logout" method="post" {
                (csrf(&session.csrf))
                button.quiet { "Log out" }
            }
        } @else {
            a href="/login" { "Log in" }
            a.button href="/signup" { "Sign up" }
        }
    }
}

/// A page that stands alone: what failed may be what the frame is made of.
pub(crate) fn failure(status: u16, message: &str, hint: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(message))
            body {
                main #content {
                    p.status { (status) }
                    h1.sentence { (message) }
                    p { (hint) }
                    p { a href="/" { "To the front page" } }
                }
            }
        }
    }
}

fn csrf(token: &str) -> Markup {
    html! { input type="hidden" name="csrf" value=(token); }
}

/// What is wrong with what was sent, above the form that shows it again.
fn problem(text: Option<&str>) -> Markup {
    html! { @if let Some(text) = text { p.problem role="alert" { (text) } } }
}

/// Names have only letters, digits and dashes, so a path needs no escaping.
fn author_path(name: &str) -> String {
    format!("/by/{name}")
}
