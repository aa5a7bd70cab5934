//! A little multi-user blog, as a twelve-factor app.
//!
//! Owns posts, their authors and their pictures, in one SQLite database and one folder of files. Promises that any
//! number of instances may share that folder: nothing is remembered in an instance. Knows nothing of the cloud it
//! runs in, but its environment, a port, and SIGTERM.

pub mod config;
mod database;
mod failure;
mod password;
mod picture;
mod prose;
mod store;
mod view;
mod web;

use config::Config;
use database::{Database, OpenError};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How long requests may still run after the signal to end. Less than the ten seconds after which a platform kills.
const DRAIN: Duration = Duration::from_secs(8);

/// Why the blog does not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot prepare the data folder {folder}")]
    Folder { folder: String, source: std::io::Error },
    #[error("cannot open the database")]
    Open(#[source] OpenError),
    #[error("cannot go on accepting connections")]
    Accept(#[source] std::io::Error),
}

/// Serves the blog on `listener` until `ended` is ready and the requests under way then are answered.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    ended: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let pictures = config.data_dir.join("pictures");
    tokio::fs::create_dir_all(&pictures)
        .await
        .map_err(|source| ServeError::Folder { folder: pictures.display().to_string(), source })?;
    let database = Database::open(config.data_dir.join("blog.sqlite")).await.map_err(ServeError::Open)?;
    let blog = Arc::new(web::Blog::new(config, database, pictures));
    let (drain, draining) = tokio::sync::oneshot::channel::<()>();
    let serving =
        axum::serve(listener, web::router(blog).into_make_service_with_connect_info::<std::net::SocketAddr>())
            .with_graceful_shutdown(async move {
                ended.await;
                // Nobody waits any more only when the server has ended by itself.
                let _ = drain.send(());
            });
    let too_late = async {
        if draining.await.is_ok() {
            tokio::time::sleep(DRAIN).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = serving.into_future() => served.map_err(ServeError::Accept),
        () = too_late => Ok(()),
    }
}
