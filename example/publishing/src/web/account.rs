//! Signing up, logging in and out, the desk.

use super::visitor::{Fields, Visitor, Writer, log_in, now_ms};
use super::{Blog, PageQuery};
use crate::failure::Failure;
use crate::store::account::{self, Limit};
use crate::store::{picture, post};
use crate::view::{self, AccountForm};
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::sync::Arc;

const NAME_LENGTH: std::ops::RangeInclusive<usize> = 3..=30;
const PASSWORD_LENGTH_MIN: usize = 10;
/// Longer ones only make the hash work more.
const PASSWORD_BYTES_MAX: usize = 400;
const QUARTER_HOUR_MS: i64 = 900_000;

#[derive(Deserialize)]
pub(crate) struct Credentials {
    csrf: String,
    name: String,
    password: String,
}

#[derive(Deserialize)]
pub(crate) struct Token {
    csrf: String,
}

pub(crate) async fn sign_up_form(State(blog): State<Arc<Blog>>, visitor: Visitor) -> Response {
    form(&blog, &visitor, AccountForm::SignUp, "", None)
}

pub(crate) async fn login_form(State(blog): State<Arc<Blog>>, visitor: Visitor) -> Response {
    form(&blog, &visitor, AccountForm::Login, "", None)
}

fn form(blog: &Blog, visitor: &Visitor, which: AccountForm, name: &str, wrong: Option<&str>) -> Response {
    if visitor.session.is_some() {
        return Redirect::to("/desk").into_response();
    }
    let (seed, cookie) = visitor.seed(blog);
    let page = view::account_form(&visitor.frame(blog), which, &seed, name, wrong);
    let status = if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let mut response = (status, Html(page.into_string())).into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

pub(crate) async fn sign_up(
    State(blog): State<Arc<Blog>>,
    visitor: Visitor,
    Fields(given): Fields<Credentials>,
) -> Result<Response, Failure> {
    visitor.check_seed(&given.csrf)?;
    let name = given.name.trim().to_lowercase();
    if let Some(wrong) = unfit(&name, &given.password) {
        return Ok(form(&blog, &visitor, AccountForm::SignUp, &name, Some(wrong)));
    }
    // Each one costs a password hash and a row for ever.
    let what = format!("sign-up from {}", visitor.client);
    try_it(&blog, vec![Limit { what, count_max: 10, window_ms: QUARTER_HOUR_MS }]).await?;
    let password = blog.passwords.hash(given.password).await?;
    let (wanted, now) = (name.clone(), now_ms());
    let created = blog.database.write(move |tx| account::create(tx, &wanted, &password, now)).await?;
    match created {
        Some(user_id) => enter(&blog, user_id).await,
        None => Ok(form(&blog, &visitor, AccountForm::SignUp, &name, Some("This name is taken."))),
    }
}

/// What is wrong with a new name or password.
fn unfit(name: &str, password: &str) -> Option<&'static str> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !NAME_LENGTH.contains(&name.len()) || !plain || name.starts_with('-') {
        return Some("A name has 3 to 30 small letters, digits or dashes, and begins with no dash.");
    }
    if password.chars().count() < PASSWORD_LENGTH_MIN || password.len() > PASSWORD_BYTES_MAX {
        return Some("A password has at least 10 characters, and at most 400 bytes.");
    }
    (password.to_lowercase().contains(name)).then_some("The password must not contain the name.")
}

pub(crate) async fn login(
    State(blog): State<Arc<Blog>>,
    visitor: Visitor,
    Fields(given): Fields<Credentials>,
) -> Result<Response, Failure> {
    visitor.check_seed(&given.csrf)?;
    let name = given.name.trim().to_lowercase();
    if name.len() > *NAME_LENGTH.end() || given.password.len() > PASSWORD_BYTES_MAX {
        return Ok(wrong(&blog, &visitor, &name));
    }
    let mine = format!("login as {name} from {}", visitor.client);
    let limit = |what: &str, count_max| Limit { what: what.to_owned(), count_max, window_ms: QUARTER_HOUR_MS };
    try_it(
        &blog,
        vec![
            limit(&mine, 6),
            limit(&format!("login from {}", visitor.client), 60),
            // Many clients against one account; generous, so that nobody is locked out by a neighbour's spite alone.
            limit(&format!("login as {name}"), 200),
        ],
    )
    .await?;
    let wanted = name.clone();
    let user = blog.database.read(move |tx| account::find(tx, &wanted)).await?;
    let (user_id, kept) = user.map(|user| (user.id, user.password)).unzip();
    let matches = blog.passwords.matches(given.password, kept).await?;
    match user_id.filter(|_| matches) {
        Some(user_id) => {
            blog.database.write(move |tx| account::forgive(tx, &mine)).await?;
            enter(&blog, user_id).await
        }
        None => Ok(wrong(&blog, &visitor, &name)),
    }
}

/// The same for an unknown name and a wrong password.
fn wrong(blog: &Blog, visitor: &Visitor, name: &str) -> Response {
    form(blog, visitor, AccountForm::Login, name, Some("Name and password do not match."))
}

async fn try_it(blog: &Blog, limits: Vec<Limit>) -> Result<(), Failure> {
    let now = now_ms();
    let allowed = blog.database.write(move |tx| account::attempt(tx, &limits, now)).await?;
    if allowed { Ok(()) } else { Err(Failure::TooMany) }
}

async fn enter(blog: &Blog, user_id: i64) -> Result<Response, Failure> {
    let cookie = log_in(blog, user_id).await?;
    Ok(redirect_with(cookie, "/desk"))
}

fn redirect_with(cookie: HeaderValue, to: &str) -> Response {
    let mut response = Redirect::to(to).into_response();
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}

pub(crate) async fn logout(
    State(blog): State<Arc<Blog>>,
    visitor: Visitor,
    writer: Writer,
    Fields(given): Fields<Token>,
) -> Result<Response, Failure> {
    writer.check(&given.csrf)?;
    let cookie = visitor.log_out(&blog).await?;
    Ok(redirect_with(cookie, "/"))
}

pub(crate) async fn desk(
    State(blog): State<Arc<Blog>>,
    writer: Writer,
    Query(query): Query<PageQuery>,
) -> Result<Html<String>, Failure> {
    let (user_id, number) = (writer.session.user_id, query.number());
    let (posts, pictures) = blog
        .database
        .read(move |tx| Ok((post::of_author(tx, user_id, true, number)?, picture::of_owner(tx, user_id)?)))
        .await?;
    Ok(Html(view::desk(&writer.frame(&blog), &writer.session, &posts, &pictures).into_string()))
}

#[cfg(test)]
mod tests {
    use super::unfit;

    #[test]
    fn names_and_passwords_have_their_form() {
        let check = |name, password, fits: bool| assert_eq!(unfit(name, password).is_none(), fits, "{name} {password}");
        check("ada", "correct horse", true);
        check("ad", "correct horse", false);
        check("ada lovelace", "correct horse", false);
        check("-ada", "correct horse", false);
        check("ädä", "correct horse", false);
        check("ada", "short", false);
        check("ada", "i am Ada herself", false);
        check("ada", &"x".repeat(401), false);
    }
}
