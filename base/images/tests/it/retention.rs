//! What stays and what goes: removing names, pruning images, surviving damage.

use crate::build::{GZIP, Tar, layer, noise, push};
use crate::registry::Registry;
use crate::{open, pull};
use images::{Config, OpenError, Ownership, Pull, Store};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Semaphore;

#[tokio::test]
async fn pruning_keeps_what_is_in_use_and_every_layer_it_shares() {
    let registry = Registry::start().await;
    let base = || layer(GZIP, Tar::default().file("base", "b").entry(tar::EntryType::Directory, "no", "", 0, b""));
    push(&registry, "one", Some("latest"), "{}", &[base(), layer(GZIP, Tar::default().file("1", "one"))]);
    push(&registry, "two", Some("latest"), "{}", &[base(), layer(GZIP, Tar::default().file("2", "two"))]);
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let (one_name, two_name) = (registry.reference("one"), registry.reference("two"));
    let one = pull(&store, &one_name, Pull::Missing).await.unwrap();
    let two = pull(&store, &two_name, Pull::Missing).await.unwrap();
    assert_eq!(store.list().len(), 2);

    store.remove(&one_name).await.unwrap();
    assert_eq!(store.find(&one_name), None);
    assert!(one.layers.iter().all(|layer| layer.exists()), "a removed name leaves the files to whoever runs them");
    assert!(store.list().iter().any(|record| record.reference.is_none() && record.digest == one.digest));
    assert!(store.remove(&one_name).await.is_err());

    let in_use = BTreeSet::from([one.digest.clone(), two.digest.clone()]);
    assert_eq!(store.prune(&in_use).await, images::Pruned::default());
    assert!(one.layers[1].exists());

    let pruned = store.prune(&BTreeSet::from([two.digest.clone()])).await;
    assert_eq!((pruned.images, pruned.layers, pruned.freed_bytes), (vec![one.digest.clone()], 1, 3));
    assert!(!one.layers[1].exists());
    assert!(two.layers.iter().all(|layer| layer.exists()), "the shared layer stays");
    assert_eq!(store.find(&two_name), Some(two.clone()));

    drop(store);
    let store = open(root.path()).await;
    assert_eq!(store.list().len(), 1);
    let pruned = store.prune(&BTreeSet::new()).await;
    assert_eq!((pruned.images.len(), pruned.layers), (1, 2));
    assert_eq!((store.list().len(), store.find(&two_name)), (0, None));
    assert_eq!(std::fs::read_dir(root.path().join("trash")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(root.path().join("layers/mine")).unwrap().count(), 0);
}

#[tokio::test]
async fn pruning_during_a_pull_takes_nothing_from_it() {
    let registry = Registry::start().await;
    let layers = [layer(GZIP, Tar::default().file("a", "a")), layer(GZIP, Tar::default().file("b", "b"))];
    push(&registry, "app", Some("latest"), "{}", &layers);
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), Config { layers_at_once: 1, ..Config::default() }).await.unwrap();
    // The configuration and the first layer come, the second waits.
    let gate = Arc::new(Semaphore::new(2));
    registry.faults().gate = Some(gate.clone());
    let reference = registry.reference("app");
    let pruning = async {
        registry.until(|log| log.iter().filter(|line| line.contains("/blobs/")).count() >= 3).await;
        let pruned = store.prune(&BTreeSet::new()).await;
        gate.add_permits(10);
        pruned
    };
    let (image, pruned) = tokio::join!(pull(&store, &reference, Pull::Missing), pruning);
    assert_eq!(pruned, images::Pruned::default());
    assert!(image.unwrap().layers.iter().all(|layer| layer.exists()));
    assert_eq!(registry.count("/blobs/"), 3, "nothing is fetched twice");
}

#[tokio::test]
async fn abandoned_downloads_are_pruned() {
    let registry = Registry::start().await;
    let big = Tar::default().entry(tar::EntryType::Regular, "big", "", 0o644, &noise(2 << 20, 1));
    push(&registry, "big", Some("latest"), "{}", &[layer(GZIP, big)]);
    registry.faults().cuts = [usize::MAX, 1_500_000, 1, 1, 1].into();
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    pull(&store, &registry.reference("big"), Pull::Missing).await.unwrap_err();
    assert_eq!(std::fs::read_dir(root.path().join("downloads")).unwrap().count(), 1);
    assert!(store.prune(&BTreeSet::new()).await.freed_bytes > 1_000_000);
    assert_eq!(std::fs::read_dir(root.path().join("downloads")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_damaged_store_costs_a_pull_and_never_a_start() {
    let registry = Registry::start().await;
    push(&registry, "app", Some("latest"), "{}", &[layer(GZIP, Tar::default().file("a", "a"))]);
    let root = tempfile::tempdir().unwrap();
    let reference = registry.reference("app");
    let image = pull(&open(root.path()).await, &reference, Pull::Missing).await.unwrap();
    let only = |folder: &str| std::fs::read_dir(root.path().join(folder)).unwrap().next().unwrap().unwrap().path();

    let damages: [&dyn Fn(); 5] = [
        &|| std::fs::write(only("images"), "{").unwrap(),
        &|| std::fs::write(only("names"), "{}").unwrap(),
        &|| std::fs::write(only("layers/mine").join("layer.json"), "").unwrap(),
        &|| std::fs::remove_dir_all(only("layers/mine")).unwrap(),
        // Half-done work of a process that was killed.
        &|| {
            std::fs::create_dir_all(root.path().join("unpacking/half/files/deep")).unwrap();
            std::fs::create_dir_all(root.path().join("trash/half")).unwrap();
            std::fs::write(root.path().join("names/half.new"), "{").unwrap();
            std::fs::write(root.path().join("version"), "").unwrap();
        },
    ];
    for damage in damages {
        damage();
        let store = open(root.path()).await;
        let again = pull(&store, &reference, Pull::Missing).await.unwrap();
        assert_eq!(again, image);
        assert_eq!(std::fs::read_to_string(again.layers[0].join("a")).unwrap(), "a");
        assert_eq!(std::fs::read_dir(root.path().join("unpacking")).unwrap().count(), 0);
        drop(store);
    }
    std::fs::write(root.path().join("version"), "2").unwrap();
    let newer = Store::open(root.path(), Config::default()).await;
    assert!(matches!(newer.err(), Some(OpenError::Newer { .. })));
}

/// What version 1 wrote must be read for ever.
#[tokio::test]
async fn a_store_of_format_1_is_read() {
    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.replace("HEX", HEX)).unwrap();
    };
    let short = &HEX[..32];
    put("version", "1");
    put(
        &format!("layers/mine/{short}/layer.json"),
        r#"{"version":1,"diff_id":"sha256:HEX","size_bytes":5,"devices_skipped":0,"owners_clamped":0}"#,
    );
    put(&format!("layers/mine/{short}/files/a"), "hello");
    put(
        &format!("images/{short}.json"),
        r#"{"version":1,"digest":"sha256:HEX","layers":["sha256:HEX"],"size_bytes":5,"config":{"entrypoint":["/a"],
        "cmd":[],"env":[["A","1"]],"user":"app","working_dir":"/","exposed":[[80,false]],"volumes":["/data"],
        "healthcheck":{"test":["CMD","a"],"interval_ms":1,"timeout_ms":2,"start_period_ms":3,"retries":4},
        "stop_signal":"SIGINT","labels":{"k":"v"}}}"#,
    );
    put(
        "names/any.json",
        r#"{"version":1,"reference":"docker.io/library/app:1","digest":"sha256:HEX","pulled_ms":1700000000000}"#,
    );
    let image = open(root.path()).await.find(&"app:1".parse().unwrap()).unwrap();
    assert_eq!(std::fs::read_to_string(image.layers[0].join("a")).unwrap(), "hello");
    assert_eq!((image.config.exposed, image.config.env.len(), image.size_bytes), (vec![(80, false)], 1, 5));
}

#[tokio::test]
async fn another_ownership_gets_layers_of_its_own() {
    let registry = Registry::start().await;
    push(&registry, "app", Some("latest"), "{}", &[layer(GZIP, Tar::default().file("a", "a"))]);
    let root = tempfile::tempdir().unwrap();
    let reference = registry.reference("app");
    pull(&open(root.path()).await, &reference, Pull::Missing).await.unwrap();
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let store = Store::open(root.path(), Config { ownership: Ownership::Keep, ..Config::default() }).await.unwrap();
    assert_eq!(store.find(&reference), None);
    assert!(pull(&store, &reference, Pull::Missing).await.unwrap().layers[0].exists());
}

#[tokio::test]
async fn a_store_has_one_owner_and_the_next_waits_for_it() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let first_lets_go = async move { drop(store) };
    let (second, ()) = tokio::join!(biased; open(root.path()), first_lets_go);
    assert_eq!(second.list().len(), 0);
}

#[tokio::test]
async fn configuration_mistakes_are_named() {
    let root = tempfile::tempdir().unwrap();
    for url in ["mirror.example.org", "ftp://x", "https://", "https://user:pass@x"] {
        let mirrors = std::collections::BTreeMap::from([("docker.io".to_owned(), url.to_owned())]);
        let opened = Store::open(root.path(), Config { mirrors, ..Config::default() }).await;
        assert!(matches!(opened.err(), Some(OpenError::Mirror { .. })), "{url}");
    }
}
