//! Uploading pictures and showing them.

use super::Blog;
use super::visitor::{Fields, Writer, now_ms};
use crate::failure::Failure;
use crate::picture::{self, Kind};
use crate::store;
use axum::extract::multipart::MultipartError;
use axum::extract::{Multipart, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use serde::Deserialize;
use std::io::ErrorKind;
use std::sync::Arc;

/// The token and the picture; more parts than a browser would send are nobody's honest form.
const PARTS_MAX: usize = 4;

#[derive(Deserialize)]
pub(crate) struct Token {
    csrf: String,
}

pub(crate) async fn upload(
    State(blog): State<Arc<Blog>>,
    writer: Writer,
    mut parts: Multipart,
) -> Result<Redirect, Failure> {
    // Never closed, so there is always a turn to wait for; the request's own deadline bounds the wait.
    let _turn = blog.uploads.acquire().await.expect("nobody closes it");
    let (mut checked, mut bytes) = (false, None);
    for _ in 0..PARTS_MAX {
        let Some(part) = parts.next_field().await.map_err(unreadable)? else { break };
        match part.name() {
            Some("csrf") => {
                writer.check(&part.text().await.map_err(unreadable)?)?;
                checked = true;
            }
            // The token comes first, so nothing large is read for a forged form.
            Some("picture") if checked => bytes = Some(part.bytes().await.map_err(unreadable)?),
            _ => {}
        }
    }
    if !checked {
        return Err(Failure::ForgedForm);
    }
    let bytes = bytes.ok_or(Failure::Invalid("there is no picture in the form"))?;
    if bytes.len() > picture::SIZE_BYTES_MAX {
        return Err(Failure::TooLarge);
    }
    let kind = Kind::of(&bytes).ok_or(Failure::Invalid("this is neither PNG, JPEG, GIF nor WebP"))?;
    let (name, owner_id, now) = (picture::name_for(kind), writer.session.user_id, now_ms());
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    // The file first: a row without a file would show a broken picture, a file without a row only takes room.
    let (folder, file_name) = (blog.pictures.clone(), name.clone());
    let saved = tokio::task::spawn_blocking(move || picture::save(&folder, &file_name, &bytes)).await;
    saved.map_err(|error| Failure::Picture(error.into()))?.map_err(Failure::Picture)?;
    let row_name = name.clone();
    if !blog.database.write(move |tx| store::picture::insert(tx, &row_name, owner_id, size, now)).await? {
        remove(&blog, &name).await?;
        return Err(Failure::Invalid("you have 200 pictures, which is as many as fit"));
    }
    Ok(Redirect::to("/desk"))
}

fn unreadable(error: MultipartError) -> Failure {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Failure::TooLarge
    } else {
        Failure::Invalid("the form could not be read")
    }
}

pub(crate) async fn show(
    State(blog): State<Arc<Blog>>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, Failure> {
    let kind = picture::kind_of_name(&name).ok_or(Failure::NotFound)?;
    let bytes = tokio::fs::read(blog.pictures.join(&name)).await.map_err(|error| {
        if error.kind() == ErrorKind::NotFound { Failure::NotFound } else { Failure::Picture(error) }
    })?;
    let kept = "public, max-age=31536000, immutable";
    Ok(([(header::CONTENT_TYPE, kind.media_type()), (header::CACHE_CONTROL, kept)], bytes))
}

pub(crate) async fn delete(
    State(blog): State<Arc<Blog>>,
    writer: Writer,
    Path(name): Path<String>,
    Fields(given): Fields<Token>,
) -> Result<Redirect, Failure> {
    writer.check(&given.csrf)?;
    if picture::kind_of_name(&name).is_none() {
        return Err(Failure::NotFound);
    }
    let (row_name, owner_id) = (name.clone(), writer.session.user_id);
    if !blog.database.write(move |tx| store::picture::delete(tx, &row_name, owner_id)).await? {
        return Err(Failure::NotFound);
    }
    remove(&blog, &name).await?;
    Ok(Redirect::to("/desk"))
}

async fn remove(blog: &Blog, name: &str) -> Result<(), Failure> {
    match tokio::fs::remove_file(blog.pictures.join(name)).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::Picture(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
