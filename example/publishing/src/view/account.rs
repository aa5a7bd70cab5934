//! Pages about oneself: logging in, signing up, the desk.

use super::{Frame, csrf, page, problem};
use crate::store::account::Session;
use crate::store::post::Page;
use maud::{Markup, html};

/// The two forms of a name and a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccountForm {
    Login,
    SignUp,
}

pub(crate) fn account_form(
    frame: &Frame<'_>,
    form: AccountForm,
    token: &str,
    name: &str,
    wrong: Option<&str>,
) -> Markup {
    let (title, action, autocomplete) = match form {
        AccountForm::Login => ("Log in", "/login", "current-password"),
        AccountForm::SignUp => ("Sign up", "/signup", "new-password"),
    };
    let content = html! {
        h1 { (title) }
        (problem(wrong))
        form.stack action=(action) method="post" {
            (csrf(token))
            label { "Name" input name="name" value=(name) required autocomplete="username" autocapitalize="none" maxlength="30"; }
            label { "Password" input name="password" type="password" required autocomplete=(autocomplete) maxlength="200"; }
            @if form == AccountForm::SignUp {
                p.hint { "A name has 3 to 30 small letters, digits or dashes; a password at least 10 characters." }
            }
            button { (title) }
        }
        @match form {
            AccountForm::Login => p { "New here? " a href="/signup" { "Sign up" } },
            AccountForm::SignUp => p { "Here before? " a href="/login" { "Log in" } },
        }
    };
    page(frame, title, &content)
}

/// Everything of one author, drafts too, and the pictures.
pub(crate) fn desk(frame: &Frame<'_>, session: &Session, posts: &Page, pictures: &[String]) -> Markup {
    let content = html! {
        div.between { h1 { "Your desk" } a.button href="/posts/new" { "Write" } }
        @if posts.posts.is_empty() {
            p.empty { "Nothing written yet. " a href="/posts/new" { "Write your first post" } "." }
        }
        @for post in &posts.posts {
            div.row {
                div {
                    a href={ "/posts/" (post.id) } { (post.title) }
                    @match &post.published {
                        Some(day) => { " " span.day { "published " (day) } }
                        None => { " " span.tag { "draft" } }
                    }
                }
                a.quiet href={ "/posts/" (post.id) "/edit" } { "Edit" }
            }
        }
        (super::post::turn(posts, "/desk?"))
        h2 { "Pictures" }
        form.stack action="/pictures" method="post" enctype="multipart/form-data" {
            (csrf(&session.csrf))
            label { "PNG, JPEG, GIF or WebP, at most 5 MiB" input type="file" name="picture" accept="image/png,image/jpeg,image/gif,image/webp" required; }
            button { "Upload" }
        }
        @if pictures.is_empty() {
            p.empty { "No pictures yet." }
        } @else {
            div.pictures {
                @for name in pictures {
                    figure {
                        img src={ "/pictures/" (name) } alt="" loading="lazy";
                        figcaption {
                            code { "![](/pictures/" (name) ")" }
                            form action={ "/pictures/" (name) "/delete" } method="post" {
                                (csrf(&session.csrf))
                                button.quiet { "Delete" }
                            }
                        }
                    }
                }
            }
        }
    };
    page(frame, "Your desk", &content)
}
