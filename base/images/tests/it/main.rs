//! The image store against a registry in this process, with every fault a real one shows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must say where")]

mod build;
mod import;
mod layers;
mod pull;
mod registry;
mod retention;
mod system;
mod users;

use images::{Config, Image, Progress, Pull, PullError, Reference, Store};
use std::path::Path;

/// Pulls without anybody watching.
async fn pull(store: &Store, reference: &Reference, policy: Pull) -> Result<Image, PullError> {
    store.pull(reference, policy, tokio::sync::watch::channel(Progress::default()).0).await
}

async fn open(root: &Path) -> Store {
    Store::open(root, Config::default()).await.unwrap()
}

/// A file's text in the uppermost layer that has it.
fn read(image: &Image, path: &str) -> Option<String> {
    image.layers.iter().rev().find_map(|layer| std::fs::read_to_string(layer.join(path)).ok())
}
