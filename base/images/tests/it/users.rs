//! `user[:group]` by the image's own accounts, through layers, whiteouts and links.

use crate::build::{GZIP, Layer, Tar, layer, push};
use crate::registry::Registry;
use crate::{open, pull};
use images::{Image, Pull};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# no one\nbroken\napp:x:1000:1001::/home/app:\n1234:x:7:8::/:\n";
const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nlog:x:20:other,app\n";

async fn image(root: &std::path::Path, layers: &[Layer]) -> Image {
    let registry = Registry::start().await;
    push(&registry, "app", Some("latest"), "{}", layers);
    pull(&open(root).await, &registry.reference("app"), Pull::Missing).await.unwrap()
}

fn check(image: &Image, spec: &str, expected: &str) {
    let found = match image.resolve_user(spec) {
        Ok((uid, gid, groups)) => format!("{uid}:{gid} {groups:?}"),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected, "{spec:?}");
}

#[tokio::test]
async fn users_are_found_by_name_and_number() {
    let root = tempfile::tempdir().unwrap();
    let image =
        image(root.path(), &[layer(GZIP, Tar::default().file("etc/passwd", PASSWD).file("etc/group", GROUP))]).await;
    check(&image, "", "0:0 [10]");
    check(&image, "app", "1000:1001 [10, 20]");
    check(&image, "1000", "1000:1001 [10, 20]");
    check(&image, "app:wheel", "1000:10 []");
    check(&image, "app:77", "1000:77 []");
    check(&image, "app:", "1000:1001 [10, 20]");
    check(&image, ":log", "0:20 []");
    check(&image, "4242", "4242:0 []");
    check(&image, "4242:4343", "4242:4343 []");
    check(&image, "1234", "7:8 []");
    check(&image, "nobody", "there is no user \"nobody\" in the image");
    check(&image, "app:none", "there is no group \"none\" in the image");
    check(&image, "a:b:c", "\"a:b:c\" is not a user");
    check(&image, "4294967295", "\"4294967295\" is not a user");
    check(&image, "-1", "there is no user \"-1\" in the image");
}

#[tokio::test]
async fn the_uppermost_accounts_count_and_hidden_ones_do_not() {
    let lower = || layer(GZIP, Tar::default().file("etc/passwd", PASSWD).file("etc/group", GROUP));
    let root = tempfile::tempdir().unwrap();
    let newer = layer(GZIP, Tar::default().file("etc/passwd", "app:x:5:6::/:\n"));
    check(&image(root.path(), &[lower(), newer]).await, "app", "5:6 [10, 20]");
    let unknown = "there is no user \"app\" in the image";
    let root = tempfile::tempdir().unwrap();
    check(
        &image(root.path(), &[lower(), layer(GZIP, Tar::default().file("etc/.wh.passwd", ""))]).await,
        "app",
        unknown,
    );
    let root = tempfile::tempdir().unwrap();
    check(
        &image(root.path(), &[lower(), layer(GZIP, Tar::default().file("etc/.wh..wh..opq", ""))]).await,
        "app",
        unknown,
    );
    let root = tempfile::tempdir().unwrap();
    check(&image(root.path(), &[lower(), layer(GZIP, Tar::default().file(".wh.etc", ""))]).await, "app", unknown);
    let root = tempfile::tempdir().unwrap();
    check(&image(root.path(), &[]).await, "app", unknown);
}

#[tokio::test]
async fn links_lead_through_the_image_and_never_to_the_host() {
    let store = Tar::default().file("nix/store/accounts/passwd", "app:x:5:6::/:\n");
    let link = Tar::default()
        .symlink("etc/passwd", "/nix/store/here/../accounts/passwd")
        .symlink("nix/store/here", "accounts");
    let root = tempfile::tempdir().unwrap();
    check(&image(root.path(), &[layer(GZIP, store), layer(GZIP, link)]).await, "app", "5:6 []");

    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("passwd"), "app:x:5:6::/:\n").unwrap();
    let up = format!("{}{}", "../".repeat(40), host.path().display());
    let unknown = "there is no user \"app\" in the image";
    for target in [host.path().to_str().unwrap(), &up] {
        let root = tempfile::tempdir().unwrap();
        let escape = layer(GZIP, Tar::default().attribute("linkpath", target.as_bytes()).symlink("etc", "long"));
        check(&image(root.path(), &[escape]).await, "app", unknown);
    }
    let root = tempfile::tempdir().unwrap();
    check(&image(root.path(), &[layer(GZIP, Tar::default().symlink("etc", "etc"))]).await, "app", unknown);
    let root = tempfile::tempdir().unwrap();
    let pipe = Tar::default().entry(tar::EntryType::Fifo, "etc/passwd", "", 0o644, b"");
    check(&image(root.path(), &[layer(GZIP, pipe)]).await, "app", unknown);
}
