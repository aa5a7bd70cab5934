//! Unpacking as seen from outside: hostile layers do no harm, and what lies on disk is what overlayfs wants.

use crate::build::{GZIP, Layer, Tar, layer, push};
use crate::registry::Registry;
use crate::{open, pull, read};
use images::{Config, Image, Ownership, Pull, PullError, Store};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use tar::EntryType;

async fn pulled(root: &Path, ownership: Ownership, layers: &[Layer]) -> Result<Image, PullError> {
    let registry = Registry::start().await;
    push(&registry, "app", Some("latest"), "{}", layers);
    let store = Store::open(root, Config { ownership, ..Config::default() }).await.unwrap();
    pull(&store, &registry.reference("app"), Pull::Missing).await
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[tokio::test]
async fn hostile_layers_are_refused_and_touch_nothing_outside() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("victim"), "unharmed").unwrap();
    let target = outside.path().to_str().unwrap();
    let check = async |tar: Tar, expected: &str| {
        let root = tempfile::tempdir().unwrap();
        let error = pulled(root.path(), Ownership::Mine, &[layer(GZIP, tar)]).await.unwrap_err();
        let shown = chain(&error);
        assert!(shown.contains(expected), "{shown} instead of {expected}");
        assert!(!error.is_retryable(), "{shown}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(outside.path().join("victim")).unwrap(), "unharmed");
        for folder in ["unpacking", "layers/mine", "downloads"] {
            assert_eq!(std::fs::read_dir(root.path().join(folder)).unwrap().count(), 0, "{expected}: {folder}");
        }
    };
    let through = "goes through something that is not a folder";
    check(Tar::default().file("../victim", "x"), "leads out of its folder").await;
    check(Tar::default().file("a/../../victim", "x"), "leads out of its folder").await;
    check(Tar::default().symlink("out", target).file("out/victim", "x"), through).await;
    check(Tar::default().symlink("out", "..").symlink("out/deep", target).file("out/deep/victim", "x"), through).await;
    check(Tar::default().symlink("out", target).file("out/.wh.victim", ""), through).await;
    check(Tar::default().symlink("out", target).file("out/.wh..wh..opq", ""), through).await;
    check(Tar::default().symlink("out", target).hard_link("in", "out/victim"), "not in the layer").await;
    check(Tar::default().hard_link("in", &format!("{target}/victim")), "not in the layer").await;
    check(Tar::default().hard_link("in", "../../victim"), "leads out of its folder").await;
    check(Tar::default().folder("d").hard_link("in", "d"), "not in the layer").await;
    check(Tar::default().file(".wh...", ""), "whiteout of nothing").await;
    check(Tar::default().file(".wh.", ""), "whiteout of nothing").await;
    check(Tar::default().file(".wh.a/b", ""), "below a whiteout").await;
    check(Tar::default().lying_file("bomb", 1 << 40), "too large: more than 1024 MiB").await;
    check(Tar::default().lying_file("short", 4_000), "ends within an entry").await;
}

#[tokio::test]
async fn odd_but_honest_layers_are_unpacked() {
    let root = tempfile::tempdir().unwrap();
    let tar = Tar::default()
        .file("/absolute", "is inside")
        .file("deep/without/parents", "x")
        .hard_link("link", "deep/without/parents")
        .hard_link("link", "link")
        .symlink("absolute-link", "/etc/shadow")
        .file("twice", "first")
        .file("twice", "second")
        .folder("was-folder")
        .file("was-folder/inside", "x")
        .file("was-folder", "now a file")
        .symlink("was-link", "/etc")
        .folder("was-link")
        .entry(EntryType::Fifo, "pipe", "", 0o600, b"")
        .entry(EntryType::Char, "dev/null", "", 0o666, b"")
        .entry(EntryType::Block, "dev/sda", "", 0o666, b"")
        .entry(EntryType::Directory, "locked", "", 0o000, b"")
        .file("locked/inside", "x")
        .entry(EntryType::Regular, "suid", "", 0o4755, b"x")
        .file(".wh..wh.plnk/1.2", "aufs");
    let image = pulled(root.path(), Ownership::Mine, &[layer(GZIP, tar)]).await.unwrap();
    let files = &image.layers[0];
    assert_eq!(read(&image, "absolute").as_deref(), Some("is inside"));
    assert_eq!(read(&image, "twice").as_deref(), Some("second"));
    assert_eq!(read(&image, "was-folder").as_deref(), Some("now a file"));
    assert!(files.join("was-link").symlink_metadata().unwrap().is_dir());
    assert_eq!(std::fs::metadata(files.join("link")).unwrap().nlink(), 2);
    assert_eq!(std::fs::read_link(files.join("absolute-link")).unwrap(), Path::new("/etc/shadow"));
    assert!(std::fs::metadata(files.join("pipe")).unwrap().file_type().is_fifo());
    assert!(!files.join("dev/null").exists() && !files.join("dev/sda").exists());
    assert_eq!(std::fs::metadata(files.join("locked")).unwrap().permissions().mode() & 0o7777, 0);
    assert_eq!(std::fs::metadata(files.join("suid")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(std::fs::metadata(files.join("deep")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(std::fs::metadata(files.join("absolute")).unwrap().mtime(), 1_600_000_000);
    assert!(!files.join(".wh..wh.plnk").exists());
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

fn whiteouts() -> [Layer; 2] {
    let lower = Tar::default()
        .folder("etc")
        .file("etc/gone", "x")
        .file("etc/stays", "stays")
        .folder("data")
        .file("data/old", "x")
        .folder("swap")
        .file("swap/old", "x")
        .file("file", "old");
    let upper = Tar::default()
        .file("etc/.wh.gone", "")
        .folder("data")
        .file("data/.wh..wh..opq", "")
        .file("data/new", "new")
        .file(".wh.swap", "")
        .file("swap/new", "new")
        .file("file", "new")
        .file(".wh.file", "");
    [layer(GZIP, lower), layer(GZIP, upper)]
}

#[tokio::test]
async fn whiteouts_are_written_as_overlayfs_reads_them() {
    let root = tempfile::tempdir().unwrap();
    let image = pulled(root.path(), Ownership::Mine, &whiteouts()).await.unwrap();
    let upper = &image.layers[1];
    let gone = upper.join("etc/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(attribute(&upper.join("data"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(attribute(&upper.join("swap"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(attribute(&upper.join("etc"), "user.overlay.opaque"), None);
    assert_eq!(std::fs::read_to_string(upper.join("file")).unwrap(), "new", "a layer's own file outlives its whiteout");
}

#[tokio::test]
async fn a_layer_that_hides_everything_below_stands_alone() {
    let root = tempfile::tempdir().unwrap();
    let layers = [
        layer(GZIP, Tar::default().file("old", "x")),
        layer(GZIP, Tar::default().file(".wh..wh..opq", "").file("new", "x")),
        layer(GZIP, Tar::default().file("newer", "x")),
    ];
    let image = pulled(root.path(), Ownership::Mine, &layers).await.unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!((read(&image, "old"), read(&image, "new").as_deref()), (None, Some("x")));
}

/// The kernel's own opinion, in a user namespace as boxes have it.
#[tokio::test]
async fn an_overlay_mount_shows_the_merged_image() {
    let root = tempfile::tempdir().unwrap();
    let image = pulled(root.path(), Ownership::Mine, &whiteouts()).await.unwrap();
    let lower: Vec<&str> = image.layers.iter().rev().map(|layer| layer.to_str().unwrap()).collect();
    let script = format!(
        "mkdir {0}/m && mount -t overlay overlay -o userxattr,lowerdir={1} {0}/m && cd {0}/m && find . | sort && cat file",
        root.path().display(),
        lower.join(":")
    );
    let unshare = std::process::Command::new("unshare").args(["-Urm", "sh", "-c", &script]).output();
    let Ok(output) = unshare else { return eprintln!("skipped: no unshare") };
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("unshare failed") {
        return eprintln!("skipped: {errors}");
    }
    assert_eq!(errors, "");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(shown.replace('\n', " "), ". ./data ./data/new ./etc ./etc/stays ./file ./swap ./swap/new new");
}

#[tokio::test]
async fn host_root_keeps_or_shifts_owners() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let mut capability = vec![1, 0, 0, 2];
    capability.extend_from_slice(&[0; 16]);
    let tar = || {
        Tar::default()
            .attribute("SCHILY.xattr.security.capability", &capability)
            .owned(EntryType::Regular, "of-app", 0o4755, (1_000, 1_001), b"x")
            .owned(EntryType::Directory, "of-app-too", 0o750, (1_000, 1_001), b"")
            .owned(EntryType::Regular, "far", 0o644, (1_000_000_000, 0), b"x")
            .symlink("link", "of-app")
            .file("d/.wh.gone", "")
    };
    let owner = |path: &Path| {
        let metadata = path.symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    };
    let root = tempfile::tempdir().unwrap();
    let shift = Ownership::Shift { base: 100_000, count: 65_536 };
    let image = pulled(root.path(), shift, &[layer(GZIP, tar())]).await.unwrap();
    let files = &image.layers[0];
    assert_eq!(owner(&files.join("of-app")), (101_000, 101_001));
    assert_eq!(owner(&files.join("of-app-too")), (101_000, 101_001));
    assert_eq!(owner(&files.join("far")), (165_534, 100_000));
    assert_eq!(owner(&files.join("link")), (100_000, 100_000));
    assert_eq!(owner(&files.join("d")), (100_000, 100_000));
    assert_eq!(owner(&files.join("d/gone")), (100_000, 100_000));
    assert_eq!(owner(files), (100_000, 100_000));
    assert_eq!(files.join("of-app").symlink_metadata().unwrap().permissions().mode() & 0o7777, 0o4755);

    let root = tempfile::tempdir().unwrap();
    let image = pulled(root.path(), Ownership::Keep, &[layer(GZIP, tar())]).await.unwrap();
    let files = &image.layers[0];
    assert_eq!(owner(&files.join("of-app")), (1_000, 1_001));
    assert_eq!(owner(&files.join("far")), (1_000_000_000, 0));
    assert_eq!(attribute(&files.join("of-app"), "security.capability"), Some(capability.clone()));
    assert_eq!(std::fs::metadata(root.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn long_names_and_attributes_come_through() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let tar = Tar::default()
        .long_name(&long)
        .file("short", "by GNU")
        .attribute("path", format!("{long}-pax").as_bytes())
        .file("short", "by PAX");
    let root = tempfile::tempdir().unwrap();
    let image = pulled(root.path(), Ownership::Mine, &[layer(GZIP, tar)]).await.unwrap();
    assert_eq!(read(&image, &long).as_deref(), Some("by GNU"));
    assert_eq!(read(&image, &format!("{long}-pax")).as_deref(), Some("by PAX"));
    drop(open(root.path()).await);
}
