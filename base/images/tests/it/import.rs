//! Images from tarballs.

use crate::build::{GZIP, Layer, MANIFEST, PLAIN, Tar, arch, configuration, descriptor, gzip, layer, manifest};
use crate::registry::digest;
use crate::{open, read};
use images::{Image, ImportError, Packed, Reference};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tar::EntryType;

const CONFIG: &str = r#"{"User":"app","Cmd":["run"]}"#;

async fn import(root: &Path, tarball: Vec<u8>) -> Result<Image, ImportError> {
    let store = open(root).await;
    let path = root.join("image.tar");
    std::fs::write(&path, tarball).unwrap();
    let name: Reference = "localhost/app:1".parse().unwrap();
    let image = store.import_tarball(&path, &name).await?;
    assert!(path.exists(), "the tarball belongs to its owner");
    assert_eq!(store.find(&name), Some(image.clone()));
    assert_eq!(std::fs::read_dir(root.join("unpacking")).unwrap().count(), 0);
    Ok(image)
}

fn layers() -> [Layer; 2] {
    [layer(GZIP, Tar::default().file("a", "lower").file("b", "b")), layer(PLAIN, Tar::default().file("a", "upper"))]
}

fn bytes(tar: Tar, path: &str, content: &[u8]) -> Tar {
    tar.entry(EntryType::Regular, path, "", 0o644, content)
}

fn blob(tar: Tar, content: &[u8]) -> Tar {
    let path = format!("blobs/sha256/{}", digest(content).trim_start_matches("sha256:"));
    // Blobs' names do not fit the oldest header.
    bytes(tar.long_name(&path), "blob", content)
}

#[tokio::test]
async fn an_oci_layout_becomes_an_image() {
    let layers = layers();
    let configuration = configuration(arch(), CONFIG, &layers);
    let manifest = manifest(&configuration, &layers);
    let entry = descriptor(MANIFEST, &digest(manifest.as_bytes()), manifest.len());
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{{{entry}}}]}}"#);
    let mut tar = Tar::default().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).file("index.json", &index);
    for content in [manifest.as_bytes(), configuration.as_bytes(), &layers[0].blob, &layers[1].blob] {
        tar = blob(tar, content);
    }
    let root = tempfile::tempdir().unwrap();
    let image = import(root.path(), gzip(&tar.done())).await.unwrap();
    assert_eq!(image.digest, digest(manifest.as_bytes()));
    assert_eq!((image.config.user.as_str(), &image.config.cmd[..]), ("app", &["run".to_owned()][..]));
    assert_eq!((read(&image, "a").as_deref(), read(&image, "b").as_deref()), (Some("upper"), Some("b")));
}

#[tokio::test]
async fn what_docker_save_writes_becomes_an_image() {
    let layers = layers();
    let configuration = configuration(arch(), CONFIG, &layers);
    let saved = r#"[{"Config":"c.json","RepoTags":["other:1"],"Layers":[]},
        {"Config":"c.json","RepoTags":["localhost/app:1"],"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    let tar = Tar::default().file("manifest.json", saved).file("c.json", &configuration);
    let tar = bytes(tar, "real.tar", &layers[0].blob).symlink("one/layer.tar", "../real.tar");
    let tar = bytes(tar, "two/layer.tar", &layers[1].blob);
    let root = tempfile::tempdir().unwrap();
    let image = import(root.path(), tar.done()).await.unwrap();
    assert_eq!(image.digest, digest(configuration.as_bytes()));
    assert_eq!((read(&image, "a").as_deref(), read(&image, "b").as_deref()), (Some("upper"), Some("b")));
}

#[tokio::test]
async fn a_root_file_system_becomes_an_image_of_one_layer() {
    let root = tempfile::tempdir().unwrap();
    let image =
        import(root.path(), gzip(&Tar::default().folder("./").file("./etc/os-release", "x").done())).await.unwrap();
    assert_eq!(image.layers.len(), 1);
    assert_eq!(read(&image, "etc/os-release").as_deref(), Some("x"));
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let check = async |tarball: Vec<u8>, expected: &str| {
        let root = tempfile::tempdir().unwrap();
        let error = import(root.path(), tarball).await.unwrap_err();
        let shown = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(shown.contains(expected), "{shown}");
        assert!(!error.hint().is_empty());
        assert_eq!(std::fs::read_dir(root.path().join("unpacking")).unwrap().count(), 0);
    };
    check(Vec::new(), "it holds no files").await;
    check(b"#!/bin/sh\necho no tarball\n".to_vec(), "ends within a header").await;
    check(vec![b'x'; 4096], "checksum").await;
    check(vec![0x1f, 0x8b, 8, 0, 1, 2, 3], "cannot be read").await;
    check(Tar::default().file("oci-layout", "{}").done(), "it has no index.json").await;
    let escape = Tar::default().file("manifest.json", r#"[{"Config":"/etc/hostname","Layers":[]}]"#);
    check(escape.done(), "it lacks /etc/hostname").await;
    let linked = Tar::default().file("oci-layout", "{}").symlink("index.json", "/etc/hostname");
    check(linked.done(), "it has no index.json").await;
    let foreign = configuration("s390x", "{}", &[]);
    let saved = r#"[{"Config":"c.json","Layers":[]}]"#;
    check(Tar::default().file("manifest.json", saved).file("c.json", &foreign).done(), "does not exist for linux/")
        .await;
}

/// Layers become one that shows the same, with what is added in its place; nothing else of their files is kept.
#[tokio::test]
async fn an_image_is_copied_as_a_box_would_see_it() {
    let lower = Tar::default()
        .folder("usr")
        .folder("usr/bin")
        .entry(EntryType::Regular, "usr/bin/run", "", 0o755, b"program")
        .file("usr/both", "lower")
        .file("usr/gone", "gone")
        .folder("old")
        .file("old/hidden", "hidden")
        .symlink("bin", "usr/bin")
        .symlink("tmp", "/var/tmp")
        .symlink("away", "/etc/shadow")
        .file("etc/passwd", "root:x:0:0")
        .entry(EntryType::Fifo, "pipe", "", 0o644, b"");
    let upper = Tar::default()
        .file("usr/both", "upper")
        .file("usr/.wh.gone", "")
        .folder("old")
        .file("old/.wh..wh..opq", "")
        .file("old/new", "new");
    let layers = [layer(GZIP, lower), layer(PLAIN, upper)];
    let configuration = configuration(arch(), CONFIG, &layers);
    let saved = r#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["lower.tar","upper.tar"]}]"#;
    let mut tar = Tar::default().file("manifest.json", saved).file("c.json", &configuration);
    for (name, layer) in ["lower.tar", "upper.tar"].iter().zip(&layers) {
        tar = bytes(tar, name, &layer.blob);
    }
    let root = tempfile::tempdir().unwrap();
    let image = import(root.path(), tar.done()).await.unwrap();
    let added = [
        (PathBuf::from("/etc/passwd"), Packed::Text("runner:x:0:0")),
        (PathBuf::from("/tmp"), Packed::Folder { mode: 0o1777 }),
        (PathBuf::from("/usr"), Packed::Folder { mode: 0o711 }),
        (PathBuf::from("/box"), Packed::Folder { mode: 0o755 }),
    ];
    let store = open(root.path()).await;
    let name: Reference = "localhost/copies/app:1".parse().unwrap();
    let copy = store.import_merged(&image, added.into(), 1 << 20, &name).await.unwrap();
    let [files] = copy.layers.as_slice() else { panic!("{:?}", copy.layers) };
    let text = |path: &str| std::fs::read_to_string(files.join(path)).ok();
    let mode = |path: &str| std::fs::symlink_metadata(files.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((text("usr/both").as_deref(), text("usr/gone"), text("usr/.wh.gone")), (Some("upper"), None, None));
    assert_eq!((text("old/new").as_deref(), text("old/hidden")), (Some("new"), None));
    assert_eq!(
        (text("etc/passwd").as_deref(), text("usr/bin/run").as_deref()),
        (Some("runner:x:0:0"), Some("program"))
    );
    assert_eq!((mode("usr/bin/run"), mode("usr/both"), mode("tmp"), mode("usr")), (0o755, 0o644, 0o1777, 0o711));
    assert_eq!(std::fs::read_link(files.join("bin")).unwrap().to_str(), Some("usr/bin"));
    assert_eq!(std::fs::read_link(files.join("away")).unwrap().to_str(), Some("/etc/shadow"));
    let error = store.import_merged(&image, BTreeMap::new(), 10, &name).await.unwrap_err();
    assert!(
        matches!(&error, ImportError::Read { source, .. } if source.kind() == std::io::ErrorKind::FileTooLarge),
        "{error}"
    );
    assert!(files.join("tmp").is_dir() && files.join("box").is_dir() && !files.join("pipe").exists());
}
