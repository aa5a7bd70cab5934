//! Pulling: the protocol, its failures, and going on after them.

use crate::build::{self, GZIP, INDEX, PLAIN, Tar, ZSTD, layer, noise, push, push_for};
use crate::registry::{Guard, PASSWORD, Registry, USER};
use crate::{open, pull, read};
use images::{Config, Credentials, Fault, Pull, PullError, Step, Store};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

const CONFIG: &str = r#"{"User":"app","Env":["A=1","B=x=y"],"Entrypoint":["/run"],"Cmd":["a","b"],
    "WorkingDir":"/srv","ExposedPorts":{"80/tcp":{},"53/udp":{},"x":{}},"Volumes":{"/data":{}},"StopSignal":"SIGINT",
    "Labels":{"k":"v"},"Healthcheck":{"Test":["CMD","true"],"Interval":30000000000,"Timeout":2000000000,"Retries":3}}"#;

/// 2 MiB in one layer: enough to be cut in the middle.
fn big() -> Tar {
    Tar::default().entry(tar::EntryType::Regular, "big", "", 0o644, &noise(2 << 20, 7))
}

#[tokio::test]
async fn an_image_of_several_platforms_and_compressions_is_pulled_whole() {
    let registry = Registry::start().await;
    let layers = [
        layer(GZIP, Tar::default().folder("etc/").file("etc/one", "1").file("etc/over", "old")),
        layer(ZSTD, Tar::default().file("./etc/over", "new")),
        layer(PLAIN, Tar::default().file("/three", "3")),
    ];
    let other = [layer(GZIP, Tar::default().file("wrong", "arch"))];
    let ours = push(&registry, "team/app", None, CONFIG, &layers);
    let theirs = push_for(&registry, "team/app", None, "s390x", "{}", &other);
    let entries: Vec<String> = [("s390x", &theirs), ("unknown", &theirs), (build::arch(), &ours)]
        .iter()
        .map(|(arch, digest)| {
            let descriptor = build::descriptor(build::MANIFEST, digest, 100);
            format!(r#"{{{descriptor},"platform":{{"os":"linux","architecture":"{arch}"}}}}"#)
        })
        .collect();
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","));
    let digest = registry.put_manifest("team/app", Some("1"), INDEX, index);

    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let reference = registry.reference("team/app:1");
    let (sender, mut progress) = tokio::sync::watch::channel(images::Progress::default());
    let image = store.pull(&reference, Pull::Missing, sender).await.unwrap();

    assert_eq!(progress.borrow_and_update().step, Step::Done);
    assert_eq!((progress.borrow().layers_done, progress.borrow().layers_total), (3, 3));
    assert_eq!(progress.borrow().bytes_done, progress.borrow().bytes_total);
    assert_eq!(image.digest, digest);
    assert_eq!(image.layers.len(), 3);
    assert_eq!(read(&image, "etc/over").as_deref(), Some("new"));
    assert_eq!(read(&image, "etc/one").as_deref(), Some("1"));
    assert_eq!(read(&image, "three").as_deref(), Some("3"));
    assert_eq!(image.size_bytes, 8);
    assert_eq!(image.config.user, "app");
    assert_eq!(image.config.env, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "x=y".to_owned())]);
    assert_eq!(image.config.exposed, [(53, true), (80, false)]);
    assert_eq!(image.config.healthcheck.as_ref().map(|check| (check.interval_ms, check.retries)), Some((30_000, 3)));
    assert_eq!(image.config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(registry.count(&theirs), 0, "the other platform is not asked for");

    drop(store);
    let store = open(root.path()).await;
    assert_eq!(store.find(&reference), Some(image.clone()), "a reopened store knows the image");
    let by_digest = registry.reference(&format!("team/app@{digest}"));
    assert_eq!(store.find(&by_digest).map(|image| image.digest), Some(digest));
    assert_eq!(std::fs::read_dir(root.path().join("downloads")).unwrap().count(), 0, "blobs are not kept");
}

#[tokio::test]
async fn policies_decide_whether_the_registry_is_asked() {
    let registry = Registry::start().await;
    let first = push(&registry, "app", Some("latest"), "{}", &[layer(GZIP, Tar::default().file("v", "1"))]);
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let reference = registry.reference("app");
    let absent = pull(&store, &reference, Pull::Never).await.unwrap_err();
    assert!(matches!(absent, PullError::NotHere { .. }));
    assert_eq!(registry.log().len(), 0);
    assert_eq!(pull(&store, &reference, Pull::Missing).await.unwrap().digest, first);
    let second = push(&registry, "app", Some("latest"), "{}", &[layer(GZIP, Tar::default().file("v", "2"))]);
    let asked = registry.log().len();
    assert_eq!(pull(&store, &reference, Pull::Missing).await.unwrap().digest, first);
    assert_eq!(pull(&store, &reference, Pull::Never).await.unwrap().digest, first);
    assert_eq!(registry.log().len(), asked);
    let image = pull(&store, &reference, Pull::Always).await.unwrap();
    assert_eq!((image.digest.as_str(), read(&image, "v").as_deref()), (second.as_str(), Some("2")));
    let asked = registry.log().len();
    pull(&store, &reference, Pull::Always).await.unwrap();
    assert_eq!(registry.log()[asked..], ["HEAD /v2/app/manifests/latest"], "an unchanged image costs one question");
}

#[tokio::test]
async fn a_registry_gets_no_image_for_claiming_its_digest() {
    let registry = Registry::start().await;
    let private = push(&registry, "private", Some("latest"), "{}", &[layer(GZIP, Tar::default().file("secret", "x"))]);
    let first = push(&registry, "app", Some("latest"), "{}", &[layer(GZIP, Tar::default().file("v", "1"))]);
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    pull(&store, &registry.reference("private"), Pull::Missing).await.unwrap();
    pull(&store, &registry.reference("app"), Pull::Missing).await.unwrap();
    registry.faults().claimed_digest = Some(private);
    assert_eq!(pull(&store, &registry.reference("app"), Pull::Always).await.unwrap().digest, first);
}

#[tokio::test]
async fn challenges_are_answered_with_credentials_and_refused_without() {
    for guard in [Guard::Bearer, Guard::Basic] {
        let registry = Registry::start().await;
        push(&registry, "private", Some("latest"), "{}", &[layer(GZIP, Tar::default().file("a", "a"))]);
        registry.guard(guard);
        let root = tempfile::tempdir().unwrap();
        let reference = registry.reference("private");
        let error = pull(&open(root.path()).await, &reference, Pull::Missing).await.unwrap_err();
        assert!(matches!(error, PullError::Unauthorized { .. }), "{error}");
        assert_eq!((error.fault(), error.is_retryable()), (Fault::Caller, false));

        let mine = Credentials { username: USER.to_owned(), password: PASSWORD.to_owned() };
        let credentials = BTreeMap::from([(registry.host.clone(), mine)]);
        let store = Store::open(root.path(), Config { credentials, ..Config::default() }).await.unwrap();
        pull(&store, &reference, Pull::Missing).await.unwrap();
        assert!(registry.count("/token") <= 2, "one token serves the whole pull: {:?}", registry.log());
    }
}

#[tokio::test]
async fn redirects_lead_to_the_blobs_and_take_no_secrets_along() {
    let (front, store_behind) = (Registry::start().await, Registry::start().await);
    let layers = [layer(GZIP, Tar::default().file("a", "a"))];
    push(&front, "app", Some("latest"), "{}", &layers);
    push(&store_behind, "app", Some("latest"), "{}", &layers);
    front.guard(Guard::Bearer);
    let mine = Credentials { username: USER.to_owned(), password: PASSWORD.to_owned() };
    let credentials = BTreeMap::from([(front.host.clone(), mine)]);
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), Config { credentials, ..Config::default() }).await.unwrap();
    front.faults().redirect = Some("http://192.0.2.1".to_owned());
    let astray = pull(&store, &front.reference("app"), Pull::Missing).await.unwrap_err();
    assert!(astray.to_string().contains("without TLS"), "{astray}");
    front.faults().redirect = Some(format!("http://{}", store_behind.host));
    pull(&store, &front.reference("app"), Pull::Missing).await.unwrap();
    assert_eq!((store_behind.count("/blobs/"), store_behind.count("secrets")), (2, 0), "{:?}", store_behind.log());
    assert!(front.count("with secrets") > 0);
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was() {
    let registry = Registry::start().await;
    push(&registry, "big", Some("latest"), "{}", &[layer(GZIP, big())]);
    registry.faults().cuts = [usize::MAX, 900_000, 700_000].into();
    let root = tempfile::tempdir().unwrap();
    let image = pull(&open(root.path()).await, &registry.reference("big"), Pull::Missing).await.unwrap();
    assert_eq!(std::fs::read(image.layers[0].join("big")).unwrap(), noise(2 << 20, 7));
    assert_eq!(registry.count("bytes="), 2, "{:?}", registry.log());
}

#[tokio::test]
async fn a_cut_download_goes_on_after_a_restart() {
    let registry = Registry::start().await;
    push(&registry, "big", Some("latest"), "{}", &[layer(GZIP, big())]);
    // The configuration passes; then one attempt brings something and two bring nothing.
    registry.faults().cuts = [usize::MAX, 1_500_000, 1, 1, 1].into();
    let root = tempfile::tempdir().unwrap();
    let reference = registry.reference("big");
    let store = open(root.path()).await;
    let error = pull(&store, &reference, Pull::Missing).await.unwrap_err();
    assert!(matches!(error, PullError::Interrupted { .. }), "{error}");
    assert!(error.is_retryable());
    drop(store);
    registry.faults().cuts.clear();
    let before = registry.count("bytes=");
    let image = pull(&open(root.path()).await, &reference, Pull::Missing).await.unwrap();
    assert_eq!(std::fs::read(image.layers[0].join("big")).unwrap(), noise(2 << 20, 7));
    assert_eq!(registry.count("bytes="), before + 1, "the rest came by range: {:?}", registry.log());
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_from_the_start() {
    let registry = Registry::start().await;
    push(&registry, "big", Some("latest"), "{}", &[layer(GZIP, big())]);
    registry.faults().cuts = [usize::MAX, 900_000].into();
    registry.faults().no_ranges = true;
    let root = tempfile::tempdir().unwrap();
    let image = pull(&open(root.path()).await, &registry.reference("big"), Pull::Missing).await.unwrap();
    assert_eq!(std::fs::read(image.layers[0].join("big")).unwrap(), noise(2 << 20, 7));
}

#[tokio::test]
async fn altered_content_is_refused_and_leaves_nothing() {
    let registry = Registry::start().await;
    let layers = [layer(GZIP, big())];
    push(&registry, "big", Some("latest"), "{}", &layers);
    let digest = crate::registry::digest(&layers[0].blob);
    let good = registry.blob(&digest);
    let mut bad = good.to_vec();
    bad[1_000] ^= 1;
    registry.corrupt_blob(&digest, bad.into());
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let reference = registry.reference("big");
    let error = pull(&store, &reference, Pull::Missing).await.unwrap_err();
    assert!(matches!(error, PullError::DigestMismatch { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Registry);
    assert_eq!(store.find(&reference), None);
    registry.corrupt_blob(&digest, good);
    pull(&store, &reference, Pull::Missing).await.unwrap();
}

#[tokio::test]
async fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let registry = Registry::start().await;
    let mut wrong = layer(GZIP, Tar::default().file("a", "a"));
    wrong.diff_id = layer(GZIP, Tar::default().file("a", "b")).diff_id;
    push(&registry, "app", Some("latest"), "{}", &[wrong]);
    let root = tempfile::tempdir().unwrap();
    let error = pull(&open(root.path()).await, &registry.reference("app"), Pull::Missing).await.unwrap_err();
    assert!(matches!(error, PullError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn failures_say_what_is_wrong() {
    let registry = Registry::start().await;
    push_for(&registry, "foreign", Some("latest"), "s390x", "{}", &[layer(GZIP, Tar::default().file("a", "a"))]);
    let chart = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json",
        "digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}"#;
    registry.put_manifest("chart", Some("latest"), build::MANIFEST, chart.to_owned());
    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    registry.put_manifest("old", Some("latest"), old, r#"{"schemaVersion":1}"#.to_owned());
    registry.put_manifest("broken", Some("latest"), build::MANIFEST, "{".to_owned());
    registry.put_manifest("huge", Some("latest"), build::MANIFEST, " ".repeat(5 << 20));
    let many: Vec<build::Layer> = (0..128).map(|_| layer(GZIP, Tar::default())).collect();
    push(&registry, "many", Some("latest"), "{}", &many);

    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let check = async |name: &str, expected: &str, fault: Fault| {
        let error = pull(&store, &registry.reference(name), Pull::Missing).await.unwrap_err();
        let shown = error.to_string().replace(&registry.host, "HOST");
        assert!(shown.contains(expected), "{name}: {shown}");
        assert_eq!((error.fault(), error.is_retryable()), (fault, false), "{name}");
        assert!(!error.hint().is_empty());
    };
    check("none:1", "there is no image HOST/none:1", Fault::Caller).await;
    check("foreign", "does not exist for linux/", Fault::Image).await;
    check("chart", "unsupported kind \"application/vnd.cncf.helm", Fault::Image).await;
    check("old", "unsupported kind \"application/vnd.docker.distribution.manifest.v1", Fault::Image).await;
    check("broken", "is not well-formed", Fault::Image).await;
    check("huge", "the manifest is too large", Fault::Image).await;
    check("many", "too large: more than 127 layers", Fault::Image).await;
    assert_eq!(registry.count("/none/"), 1, "a 404 is not asked for twice");
}

#[tokio::test]
async fn passing_server_trouble_is_waited_out_and_lasting_trouble_reported() {
    let registry = Registry::start().await;
    push(&registry, "app", Some("latest"), "{}", &[layer(GZIP, Tar::default().file("a", "a"))]);
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    registry.faults().statuses = [503; 8].into();
    let error = pull(&store, &registry.reference("app"), Pull::Missing).await.unwrap_err();
    assert!(matches!(error, PullError::Refused { status: 503, .. }), "{error}");
    assert!(error.is_retryable());
    assert_eq!(registry.log().len(), 3, "three attempts: {:?}", registry.log());
    // The manifest at the third attempt, the configuration at the second, the layer at the second.
    registry.faults().statuses = [500, 429].into();
    pull(&store, &registry.reference("app"), Pull::Missing).await.unwrap();
}

#[tokio::test]
async fn an_unreachable_registry_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let refused = pull(&store, &format!("{host}/app").parse().unwrap(), Pull::Missing).await.unwrap_err();
    assert!(
        matches!(&refused, PullError::Unreachable { registry, why } if *registry == host && why.contains("refused"))
    );
    let nowhere = "registry.invalid/app".parse().unwrap();
    let unknown = pull(&store, &nowhere, Pull::Missing).await.unwrap_err();
    assert!(matches!(&unknown, PullError::Unreachable { registry, .. } if registry == "registry.invalid"), "{unknown}");
    assert_eq!((unknown.fault(), unknown.is_retryable()), (Fault::Registry, true));
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_when_it_fails() {
    let (mirror, origin) = (Registry::start().await, Registry::start().await);
    let layers = [layer(GZIP, Tar::default().file("a", "a"))];
    push(&mirror, "library/ghost", Some("5"), "{}", &layers);
    push(&origin, "other", Some("latest"), "{}", &[layer(GZIP, Tar::default().file("b", "b"))]);
    let mirrors = BTreeMap::from([
        ("docker.io".to_owned(), format!("http://{}/", mirror.host)),
        (origin.host.clone(), format!("http://{}", mirror.host)),
    ]);
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path(), Config { mirrors, ..Config::default() }).await.unwrap();
    let image = pull(&store, &"ghost:5".parse().unwrap(), Pull::Missing).await.unwrap();
    assert_eq!(image.reference, "docker.io/library/ghost:5");
    pull(&store, &origin.reference("other"), Pull::Missing).await.unwrap();
    assert_eq!(mirror.count("/v2/other/manifests/latest"), 1);
    assert_eq!(origin.count("/v2/other/manifests/latest"), 1);
}

#[tokio::test]
async fn concurrent_pulls_of_a_layer_share_one_download() {
    let registry = Registry::start().await;
    let shared = || layer(GZIP, Tar::default().file("shared", "s"));
    let digest = crate::registry::digest(&shared().blob);
    push(&registry, "one", Some("latest"), "{}", &[shared(), layer(GZIP, Tar::default().file("1", "1"))]);
    push(&registry, "two", Some("latest"), r#"{"User":"x"}"#, &[shared()]);
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await;
    let gate = Arc::new(Semaphore::new(0));
    registry.faults().gate = Some(gate.clone());
    let (one, two) = (registry.reference("one"), registry.reference("two"));
    let opened = async {
        // Both configurations first, then whoever asks.
        let asked = |log: &[String], part: &str| log.iter().any(|line| line.contains(part));
        registry.until(|log| asked(log, "/v2/one/blobs/") && asked(log, "/v2/two/blobs/")).await;
        gate.add_permits(1_000);
    };
    let (one, two, ()) = tokio::join!(pull(&store, &one, Pull::Missing), pull(&store, &two, Pull::Missing), opened);
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.layers[0], two.layers[0]);
    assert_eq!(registry.count(&digest), 1, "{:?}", registry.log());
}

#[tokio::test]
async fn a_pull_dropped_in_the_middle_leaves_a_store_that_completes() {
    let registry = Registry::start().await;
    push(&registry, "big", Some("latest"), "{}", &[layer(GZIP, big()), layer(PLAIN, Tar::default().file("a", "a"))]);
    let root = tempfile::tempdir().unwrap();
    let reference = registry.reference("big");
    for permits in 0..4 {
        let store = open(root.path()).await;
        let gate = Arc::new(Semaphore::new(permits));
        registry.faults().gate = Some(gate.clone());
        let asked = registry.log().len();
        let (sender, _receiver) = tokio::sync::watch::channel(images::Progress::default());
        let pulling = store.pull(&reference, Pull::Missing, sender);
        let stop = async {
            // Until the requests that can be answered are answered and the next one waits.
            registry.until(|log| log.len() >= asked + 2 + permits.min(2)).await;
        };
        tokio::select! {
            biased;
            () = stop => {}
            outcome = pulling => assert!(outcome.is_ok() && permits >= 3, "it waits for the gate"),
        }
    }
    registry.faults().gate = None;
    let image = pull(&open(root.path()).await, &reference, Pull::Missing).await.unwrap();
    assert_eq!(std::fs::read(image.layers[0].join("big")).unwrap(), noise(2 << 20, 7));
    assert_eq!(read(&image, "a").as_deref(), Some("a"));
    assert_eq!(std::fs::read_dir(root.path().join("unpacking")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_layer_listed_twice_is_mounted_once_where_it_is_uppermost() {
    let registry = Registry::start().await;
    let same = || layer(GZIP, Tar::default().file("a", "same"));
    push(&registry, "twice", Some("latest"), "{}", &[same(), layer(GZIP, Tar::default().file("a", "x")), same()]);
    let root = tempfile::tempdir().unwrap();
    let image = pull(&open(root.path()).await, &registry.reference("twice"), Pull::Missing).await.unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(read(&image, "a").as_deref(), Some("same"));
}
