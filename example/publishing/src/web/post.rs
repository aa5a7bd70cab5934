//! Reading and writing posts.

use super::visitor::{Fields, Visitor, Writer, now_ms};
use super::{Blog, PageQuery};
use crate::failure::Failure;
use crate::store::account;
use crate::store::post::{self, Change};
use crate::view::{self, PostForm};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::sync::Arc;

const TITLE_LENGTH_MAX: usize = 200;
/// A short book.
const BODY_LENGTH_MAX: usize = 200_000;
/// Longer searches are cut: nobody types them.
const SEARCH_LENGTH_MAX: usize = 200;

#[derive(Deserialize)]
pub(crate) struct Search {
    #[serde(default)]
    q: String,
    page: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Written {
    csrf: String,
    title: String,
    body: String,
    then: Then,
}

/// What happens to a post once it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Then {
    Publish,
    Draft,
}

#[derive(Deserialize)]
pub(crate) struct Token {
    csrf: String,
}

pub(crate) async fn front(
    State(blog): State<Arc<Blog>>,
    visitor: Visitor,
    Query(query): Query<PageQuery>,
) -> Result<Html<String>, Failure> {
    let number = query.number();
    let page = blog.database.read(move |tx| post::latest(tx, number)).await?;
    Ok(Html(view::posts(&visitor.frame(&blog), &page).into_string()))
}

pub(crate) async fn search(
    State(blog): State<Arc<Blog>>,
    visitor: Visitor,
    Query(query): Query<Search>,
) -> Result<Html<String>, Failure> {
    let text: String = query.q.chars().take(SEARCH_LENGTH_MAX).collect();
    let number = PageQuery { page: query.page }.number();
    let words = text.clone();
    let page = blog.database.read(move |tx| post::search(tx, &words, number)).await?;
    Ok(Html(view::search(&visitor.frame(&blog), &text, &page).into_string()))
}

pub(crate) async fn profile(
    State(blog): State<Arc<Blog>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Html<String>, Failure> {
    let (wanted, number) = (name.clone(), query.number());
    let found = blog
        .database
        .read(move |tx| {
            let Some(user) = account::find(tx, &wanted)? else { return Ok(None) };
            Ok(Some((post::count_published(tx, user.id)?, post::of_author(tx, user.id, false, number)?)))
        })
        .await?;
    let (count, page) = found.ok_or(Failure::NotFound)?;
    Ok(Html(view::profile(&visitor.frame(&blog), &name, count, &page).into_string()))
}

pub(crate) async fn read(
    State(blog): State<Arc<Blog>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Html<String>, Failure> {
    let found = find(&blog, &id).await?;
    let is_own = visitor.session.as_ref().is_some_and(|session| session.user_id == found.author_id);
    if found.published.is_none() && !is_own {
        return Err(Failure::NotFound);
    }
    Ok(Html(view::post(&visitor.frame(&blog), &found).into_string()))
}

async fn find(blog: &Blog, id: &str) -> Result<post::Post, Failure> {
    let id = number(id)?;
    blog.database.read(move |tx| post::find(tx, id)).await?.ok_or(Failure::NotFound)
}

/// What is no number names no post.
fn number(id: &str) -> Result<i64, Failure> {
    id.parse().map_err(|_| Failure::NotFound)
}

pub(crate) async fn new(State(blog): State<Arc<Blog>>, writer: Writer) -> Html<String> {
    Html(view::post_form(&writer.frame(&blog), &writer.session, &PostForm::default()).into_string())
}

pub(crate) async fn edit(
    State(blog): State<Arc<Blog>>,
    writer: Writer,
    Path(id): Path<String>,
) -> Result<Html<String>, Failure> {
    let found = find(&blog, &id).await?;
    if found.author_id != writer.session.user_id {
        return Err(if found.published.is_some() { Failure::Forbidden } else { Failure::NotFound });
    }
    let form = PostForm {
        id: Some(found.id),
        title: &found.title,
        body: &found.body,
        is_published: found.published.is_some(),
        wrong: None,
    };
    Ok(Html(view::post_form(&writer.frame(&blog), &writer.session, &form).into_string()))
}

pub(crate) async fn create(
    State(blog): State<Arc<Blog>>,
    writer: Writer,
    Fields(given): Fields<Written>,
) -> Result<Response, Failure> {
    writer.check(&given.csrf)?;
    let (title, body) = (line(&given.title), text(&given.body));
    if let Some(wrong) = unfit(&title, &body) {
        return Ok(sent_back(&blog, &writer, None, (&title, &body), wrong));
    }
    let (author_id, now) = (writer.session.user_id, now_ms());
    let published = (given.then == Then::Publish).then_some(now);
    let id = blog.database.write(move |tx| post::insert(tx, author_id, &title, &body, now, published)).await?;
    Ok(Redirect::to(&format!("/posts/{id}")).into_response())
}

pub(crate) async fn update(
    State(blog): State<Arc<Blog>>,
    writer: Writer,
    Path(id): Path<String>,
    Fields(given): Fields<Written>,
) -> Result<Response, Failure> {
    writer.check(&given.csrf)?;
    let id = number(&id)?;
    let (title, body) = (line(&given.title), text(&given.body));
    if let Some(wrong) = unfit(&title, &body) {
        return Ok(sent_back(&blog, &writer, Some(id), (&title, &body), wrong));
    }
    let (author_id, now) = (writer.session.user_id, now_ms());
    let published = (given.then == Then::Publish).then_some(now);
    let change = blog.database.write(move |tx| match post::update(tx, id, author_id, &title, &body, now)? {
        Change::Done => post::publish(tx, id, author_id, published),
        refused @ (Change::Missing | Change::SomebodyElses) => Ok(refused),
    });
    done(change.await?, &format!("/posts/{id}"))
}

fn sent_back(blog: &Blog, writer: &Writer, id: Option<i64>, (title, body): (&str, &str), wrong: &str) -> Response {
    let form = PostForm { id, title, body, is_published: false, wrong: Some(wrong) };
    let page = view::post_form(&writer.frame(blog), &writer.session, &form);
    (StatusCode::UNPROCESSABLE_ENTITY, Html(page.into_string())).into_response()
}

pub(crate) async fn publish(
    State(blog): State<Arc<Blog>>,
    writer: Writer,
    Path(id): Path<String>,
    Fields(given): Fields<Token>,
) -> Result<Response, Failure> {
    writer.check(&given.csrf)?;
    let (id, author_id, now) = (number(&id)?, writer.session.user_id, now_ms());
    let change = blog.database.write(move |tx| post::publish(tx, id, author_id, Some(now))).await?;
    done(change, &format!("/posts/{id}"))
}

pub(crate) async fn unpublish(
    State(blog): State<Arc<Blog>>,
    writer: Writer,
    Path(id): Path<String>,
    Fields(given): Fields<Token>,
) -> Result<Response, Failure> {
    writer.check(&given.csrf)?;
    let (id, author_id) = (number(&id)?, writer.session.user_id);
    let change = blog.database.write(move |tx| post::publish(tx, id, author_id, None)).await?;
    done(change, &format!("/posts/{id}"))
}

pub(crate) async fn delete(
    State(blog): State<Arc<Blog>>,
    writer: Writer,
    Path(id): Path<String>,
    Fields(given): Fields<Token>,
) -> Result<Response, Failure> {
    writer.check(&given.csrf)?;
    let (id, author_id) = (number(&id)?, writer.session.user_id);
    let change = blog.database.write(move |tx| post::delete(tx, id, author_id)).await?;
    done(change, "/desk")
}

fn done(change: Change, to: &str) -> Result<Response, Failure> {
    match change {
        Change::Done => Ok(Redirect::to(to).into_response()),
        Change::Missing => Err(Failure::NotFound),
        Change::SomebodyElses => Err(Failure::Forbidden),
    }
}

fn unfit(title: &str, body: &str) -> Option<&'static str> {
    if title.is_empty() || title.chars().count() > TITLE_LENGTH_MAX {
        return Some("A title has 1 to 200 characters.");
    }
    if body.is_empty() || body.chars().count() > BODY_LENGTH_MAX {
        return Some("A text has 1 to 200,000 characters.");
    }
    None
}

/// One line: control characters are blanks.
fn line(given: &str) -> String {
    given.replace(char::is_control, " ").trim().to_owned()
}

/// Lines end as on Unix; other control characters, which the marks of a search are, go.
fn text(given: &str) -> String {
    let plain: String = given.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    plain.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{line, text};

    #[test]
    fn control_characters_do_not_get_in() {
        assert_eq!(line(" a\r\nb\u{2} "), "a  b");
        assert_eq!(text("a\r\n\u{2}b\u{3}\0\n\tc\n\n"), "a\nb\n\tc");
    }
}
