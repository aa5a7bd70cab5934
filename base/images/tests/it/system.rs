//! Against the system as it is: without root, on a full disk, with a registry that others wrote.

use crate::build::{GZIP, MANIFEST, Tar, arch, configuration, layer, manifest, noise, push};
use crate::registry::{Registry, digest};
use crate::{open, pull, read};
use images::{Pull, PullError};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Runs the tests of unpacking once more as a user without any rights.
#[test]
fn unpacking_needs_no_root() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: the other tests run without root already");
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    for path in [folder.path(), &copy] {
        rustix::fs::chown(path, Some(rustix::fs::Uid::from_raw(NOBODY)), Some(rustix::fs::Gid::from_raw(NOBODY)))
            .unwrap();
    }
    let output = Command::new(&copy)
        .args(["layers::", "retention::", "users::"])
        .env("TMPDIR", folder.path())
        .current_dir(folder.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("whiteouts_are_written_as_overlayfs_reads_them ... ok"), "{shown}");
}

const NOBODY: u32 = 65_534;

/// Unmounts when the test ends, however it ends.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_corrupts_nothing() {
    let registry = Registry::start().await;
    let big = |size| layer(GZIP, Tar::default().entry(tar::EntryType::Regular, "big", "", 0o644, &noise(size, 3)));
    push(&registry, "small", Some("latest"), "{}", &[layer(GZIP, Tar::default().file("a", "a"))]);
    push(&registry, "download", Some("latest"), "{}", &[big(6 << 20)]);
    // Its blob fits, but not beside its content.
    push(&registry, "unpack", Some("latest"), "{}", &[big(5 << 19)]);
    let root = tempfile::tempdir().unwrap();
    let mount = rustix::mount::mount("tmpfs", root.path(), "tmpfs", rustix::mount::MountFlags::empty(), c"size=4m");
    if mount.is_err() {
        return eprintln!("skipped: cannot mount");
    }
    let _mounted = Mounted(root.path());
    let store = open(root.path()).await;
    let small = pull(&store, &registry.reference("small"), Pull::Missing).await.unwrap();
    for name in ["download", "unpack"] {
        let error = pull(&store, &registry.reference(name), Pull::Missing).await.unwrap_err();
        assert!(matches!(error, PullError::DiskFull { .. }), "{name}: {error}");
        assert!(error.is_retryable());
        assert_eq!(store.find(&registry.reference(name)), None);
        assert_eq!(
            std::fs::read_dir(root.path().join("downloads")).unwrap().count(),
            0,
            "{name}: the room is given back"
        );
        assert_eq!(std::fs::read_dir(root.path().join("unpacking")).unwrap().count(), 0);
    }
    assert_eq!(store.find(&registry.reference("small")), Some(small));
}

/// Ends the process it started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's `docker-registry`, the reference implementation.
#[tokio::test]
async fn the_reference_registry_serves_us() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
        folder.path().join("data").display()
    );
    std::fs::write(folder.path().join("config.yml"), config).unwrap();
    let started = Command::new("docker-registry")
        .args(["serve", "config.yml"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else { return eprintln!("skipped: docker-registry is not installed") };
    let _running = Running(child);
    let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls()).build().unwrap();
    while client.get(format!("http://{host}/v2/")).send().await.is_err() {
        tokio::task::yield_now().await;
    }
    let big = Tar::default().entry(tar::EntryType::Regular, "big", "", 0o644, &noise(3 << 20, 5));
    let layers = [layer(GZIP, big), layer(GZIP, Tar::default().file("a", "a"))];
    let configuration = configuration(arch(), "{}", &layers);
    let manifest = manifest(&configuration, &layers);
    for blob in [configuration.as_bytes(), &layers[0].blob, &layers[1].blob] {
        let answer = client.post(format!("http://{host}/v2/team/app/blobs/uploads/")).send().await.unwrap();
        let place = answer.headers()["location"].to_str().unwrap().to_owned();
        let separator = if place.contains('?') { '&' } else { '?' };
        let put = format!("{place}{separator}digest={}", digest(blob));
        assert!(client.put(put).body(blob.to_vec()).send().await.unwrap().status().is_success());
    }
    let put = client.put(format!("http://{host}/v2/team/app/manifests/1")).header("content-type", MANIFEST);
    assert!(put.body(manifest.clone()).send().await.unwrap().status().is_success());

    let root = tempfile::tempdir().unwrap();
    // Half of the big layer is here already: the rest comes by range.
    let store = open(root.path()).await;
    let partial = root.path().join("downloads").join(format!("{}.part", &digest(&layers[0].blob)[7..39]));
    std::fs::write(&partial, &layers[0].blob[..1_000_000]).unwrap();
    let reference = format!("{host}/team/app:1").parse().unwrap();
    let image = pull(&store, &reference, Pull::Missing).await.unwrap();
    assert_eq!(image.digest, digest(manifest.as_bytes()));
    assert_eq!(std::fs::read(image.layers[0].join("big")).unwrap(), noise(3 << 20, 5));
    assert_eq!(read(&image, "a").as_deref(), Some("a"));
    let absent = pull(&store, &format!("{host}/team/app:2").parse().unwrap(), Pull::Missing).await.unwrap_err();
    assert!(matches!(absent, PullError::Unknown { .. }), "{absent}");
}

fn tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}
