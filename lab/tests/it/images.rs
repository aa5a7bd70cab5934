//! Images from a registry to running services: what an image says is what happens, unless the stack file says other.

use crate::deploying::address;
use lab::image::{self, Image};
use lab::registry::Registry;
use lab::{Node, Settings, http, node, process, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Somebody without any rights on the machine.
const NOBODY_IN_PARTICULAR: u32 = 12_346;

/// The looking glass, compiled once per test process; kept until that ends.
fn glass() -> PathBuf {
    static MADE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("glass");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/programs/glass.c");
        let done = Command::new("cc").args(["-O1", "-o"]).arg(&path).arg(source).status().expect("a C compiler runs");
        assert!(done.success(), "the looking glass compiles");
        (folder, path)
    });
    path.clone()
}

/// An image that runs the looking glass on port 8000; `more` of its configuration.
fn image(more: &Value) -> Image {
    let mut config = json!({
        "Entrypoint": ["/bin/glass", "serve"],
        "Cmd": ["8000", "from", "image"],
        "ExposedPorts": {"8000/tcp": {}},
    });
    let config_map = config.as_object_mut().expect("an object");
    config_map.extend(more.as_object().expect("an object").clone());
    image::with_program(&glass(), config)
}

/// A node with its registry.
struct World {
    node: Node,
    registry: Registry,
}

/// What an image's files belong to shows only where a box can have several users. Says so.
fn only_one_user() -> bool {
    if !process::is_root() {
        eprintln!("skipped: an ordinary user's boxes with a user of their own have only that one");
    }
    !process::is_root()
}

impl World {
    fn new() -> World {
        World::with(Settings::default())
    }

    fn with(settings: Settings) -> World {
        World { registry: Registry::start(), node: Node::with(settings) }
    }

    /// Deploys stack `shop` with one service `web` of this image, published; gives its port.
    fn serve(&self, reference: &str, more: &str) -> u16 {
        let port = node::free_port();
        self.node.deployed("shop", &stack(reference, port, more));
        port
    }

    /// The port that the service is published at.
    fn port(&self) -> u16 {
        let published = self.web()["instance"]["spec"]["ports"][0]["published"].as_u64();
        published.and_then(|port| u16::try_from(port).ok()).expect("the file names one")
    }

    fn web(&self) -> Value {
        let wanted = |one: &Value| one["instance"]["service"] == "web" && one["instance"]["wanted"] == "running";
        let found = self.node.instances().into_iter().find(wanted);
        found.expect("the service has an instance")
    }

    /// Kills the instance and waits until the same instance serves from another box.
    fn restart(&self) {
        let before = self.web();
        let id = before["instance"]["id"].as_str().expect("an id");
        assert_eq!(self.node.call("POST", &format!("/v1/instances/{id}/kill"), "").status, 202);
        wait::until("the instance is back", 20, || {
            let now = self.web();
            assert_eq!(now["instance"]["id"], before["instance"]["id"], "it is restarted, not replaced");
            (now["status"]["ready"] == true && now["status"]["pid"] != before["status"]["pid"]).then_some(())
        });
    }

    fn images(&self) -> Vec<Value> {
        self.node.json(&["image", "ls"]).as_array().expect("a list").clone()
    }
}

fn stack(reference: &str, port: u16, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!("services:\n  web:\n    image: {reference}\n    ports: [\"127.0.0.1:{port}:8000\"]\n{more}")
}

fn get(port: u16, path: &str) -> String {
    http::get(address(port), path).expect("the service answers").text()
}

/// Waits for the new instance's answer: a request may still have reached the one it replaces.
fn answers(port: u16, who: &str) {
    wait::until(&format!("the answer {who:?}"), 10, || (get(port, "/who") == who).then_some(()));
}

fn write(port: u16, path: &str, text: &str) -> String {
    let answer = http::request(address(port), "POST", &format!("/file?{path}"), &[], text.as_bytes());
    answer.expect("the service answers").text()
}

#[test]
fn an_image_says_how_it_runs_and_the_file_has_the_last_word() {
    if only_one_user() {
        return;
    }
    let world = World::new();
    let more = json!({"User": "app", "WorkingDir": "/data", "Env": ["COLOUR=blue", "SHADE=dark"]});
    let reference = world.registry.add("shop", "1", &image(&more));

    let port = world.serve(&reference, "environment: {SHADE: light}");
    assert_eq!(get(port, "/who"), "1000 1000 /data serve 8000 from image");
    assert_eq!((get(port, "/env?COLOUR"), get(port, "/env?SHADE")), ("blue".to_owned(), "light".to_owned()));
    assert_eq!(write(port, "/data/own", "x"), "written", "the image's folder is its user's");
    assert_eq!(write(port, "/etc/own", "x"), "Permission denied");
    let exposed = &world.web()["status"]["image_ports"][0];
    assert_eq!(exposed["port"], 8000);

    let port = world.serve(&reference, "command: [\"8000\", other]");
    answers(port, "1000 1000 /data serve 8000 other");

    let port = world.serve(&reference, "entrypoint: [/bin/glass, again, \"8000\"]\nworking_dir: /tmp\nuser: \"0\"");
    // An own entrypoint takes no arguments of the image.
    answers(port, "0 0 /tmp again 8000");
}

#[test]
fn services_reach_each_other_at_ports_that_nobody_declared() {
    let world = World::new();
    // Neither the image nor the file says which port it is.
    let reference = world.registry.add("shop", "1", &image(&json!({"ExposedPorts": {}})));
    let back = format!("  back: {{image: \"{reference}\", command: [\"9000\", behind]}}\n");
    let port = node::free_port();
    world.node.deployed("shop", &format!("{}{back}", stack(&reference, port, "")));
    assert_eq!(get(port, "/dial?back:9000"), "0 0 / serve 9000 behind");
}

#[test]
fn a_health_check_of_the_image_counts() {
    let world = World::new();
    let check = json!({"Healthcheck": {"Test": ["CMD", "/bin/glass", "check"], "Interval": 100_000_000, "Retries": 1}});
    let reference = world.registry.add("checked", "1", &image(&check));
    let port = world.serve(&reference, "");
    assert_eq!(world.web()["status"]["health"], "healthy");
    assert_eq!(write(port, "/tmp/sick", ""), "written");
    wait::until("it is told to be unhealthy", 20, || (world.web()["status"]["health"] == "unhealthy").then_some(()));

    let short = json!({"Healthcheck": {"Test": ["CMD", "/bin/glass", "check"]}});
    let reference = world.registry.add("checked", "2", &image(&short));
    world.serve(&reference, "");
    assert_eq!(world.web()["status"]["health"], "healthy", "times that the image leaves open have defaults");

    let never = json!({"Healthcheck": {"Test": ["CMD", "/bin/false"], "Interval": 100_000_000, "Retries": 1}});
    let reference = world.registry.add("checked", "3", &image(&never));
    world.serve(&reference, "healthcheck: {disable: true}");
    assert_eq!(world.web()["status"]["health"], "none");
}

#[test]
fn what_a_box_writes_outlives_a_restart_and_not_a_replacement() {
    let world = World::new();
    let reference = world.registry.add("shop", "1", &image(&json!({"Volumes": {"/data": {}}})));
    let file = stack(&reference, node::free_port(), "volumes: [\"kept:/kept\"]") + "volumes: {kept: {}}\n";
    world.node.deployed("shop", &file);
    let port = world.port();
    for place in ["/root-file", "/data/file", "/kept/file"] {
        assert_eq!(write(port, place, place), "written");
    }
    world.restart();
    for place in ["/root-file", "/data/file", "/kept/file"] {
        assert_eq!(get(port, &format!("/file?{place}")), place, "still there after a restart");
    }
    world.node.json(&["service", "restart", "shop/web"]);
    for place in ["/root-file", "/data/file"] {
        assert_eq!(get(port, &format!("/file?{place}")), "No such file or directory", "gone with the instance");
    }
    assert_eq!(get(port, "/file?/kept/file"), "/kept/file", "a volume outlives its instances");
}

#[test]
fn a_new_volume_begins_with_what_the_image_has_there() {
    if only_one_user() {
        return;
    }
    let world = World::new();
    let reference = world.registry.add("shop", "1", &image(&json!({"User": "app"})));
    let mounts = "volumes: [\"accounts:/etc\", \"/data\", \"fresh:/fresh\"]";
    let file = stack(&reference, node::free_port(), mounts) + "volumes: {accounts: {}, fresh: {}}\n";
    world.node.deployed("shop", &file);
    let port = world.port();
    assert!(get(port, "/file?/etc/passwd").starts_with("root:"), "the image's files are in the volume");
    assert_eq!(write(port, "/etc/own", "x"), "Permission denied", "the folder is whose it is in the image");
    assert_eq!(write(port, "/data/own", "x"), "written", "also where no name is given");
    assert_eq!(write(port, "/fresh/own", "x"), "written", "what the image has not is its user's");
}

#[test]
fn a_tag_moves_and_what_runs_stays_until_it_is_replaced() {
    let world = World::new();
    let version = |number: &str| image(&json!({"Env": [format!("VERSION={number}")]}));
    let first = version("one");
    let reference = world.registry.add("shop", "latest", &first);
    let port = world.serve(&reference, "pull_policy: always");
    assert_eq!(write(port, "/mine", "kept"), "written");

    world.registry.add("shop", "latest", &version("two"));
    world.node.json(&["image", "pull", &reference]);
    assert_eq!(world.node.json(&["image", "prune"])["images"], 1, "nothing runs from the new one yet");
    let left: Vec<Value> = world.images().iter().map(|image| image["digest"].clone()).collect();
    assert_eq!(left, [first.manifest.digest.as_str()], "the image that runs has lost its name, not its place");
    world.restart();
    assert_eq!((get(port, "/env?VERSION"), get(port, "/file?/mine")), ("one".to_owned(), "kept".to_owned()));

    world.node.json(&["service", "restart", "shop/web"]);
    assert_eq!(get(port, "/env?VERSION"), "two");
    wait::until("the old instance is gone", 20, || (world.node.instances().len() == 1).then_some(()));
    assert_eq!(world.node.json(&["image", "prune"])["images"], 1);

    let digest = first.manifest.digest;
    let port = world.serve(&format!("{}/shop@{digest}", world.registry.address), "");
    assert_eq!(get(port, "/env?VERSION"), "one", "a digest never moves");
}

#[test]
fn images_are_listed_pulled_removed_and_pruned() {
    let world = World::new();
    let reference = world.registry.add("shop", "1", &image(&json!({})));
    assert_eq!(world.images(), Vec::<Value>::new());
    let pulled = world.node.json(&["image", "pull", &reference]);
    let listed = world.images();
    assert_eq!((listed.len(), &listed[0]["digest"]), (1, &pulled["digest"]));
    assert_eq!((&listed[0]["references"][0], &listed[0]["instances"]), (&json!(reference), &json!(0)));

    world.serve(&reference, "pull_policy: never");
    assert_eq!(world.images()[0]["instances"], 1);
    assert!(world.node.refused(&["image", "rm", &reference]).contains("is used by instance shop.web.1"));
    assert_eq!(world.node.json(&["image", "prune"])["images"], 0);

    assert!(world.node.cli(&["stack", "rm", "shop"]).status.success());
    assert!(world.node.cli(&["image", "rm", &reference]).status.success());
    assert_eq!(world.images()[0]["references"], json!([]));
    let pruned = world.node.json(&["image", "prune"]);
    assert_eq!(pruned["images"], 1);
    assert!(pruned["freed_bytes"].as_u64().is_some_and(|freed| freed > 0));
    assert!(world.node.refused(&["image", "rm", &reference]).contains(&reference));
    let missing = format!("{}/nothing:1", world.registry.address);
    assert!(world.node.refused(&["image", "pull", &missing]).contains("nothing:1"));
}

#[test]
fn ten_instances_share_one_image() {
    let world = World::new();
    let reference = world.registry.add("shop", "1", &image(&json!({})));
    let port = world.serve(&reference, "deploy: {replicas: 10}\nenvironment: {SLOT: \"{{.Task.Slot}}\"}");
    let mut slots = std::collections::BTreeSet::new();
    wait::until("all ten have answered", 20, || {
        slots.insert(get(port, "/env?SLOT"));
        (slots.len() == 10).then_some(())
    });
    let listed = world.images();
    assert_eq!((listed.len(), &listed[0]["instances"]), (1, &json!(10)));
}

#[test]
fn an_ordinary_user_runs_images_too() {
    if !process::is_root() {
        eprintln!("skipped: only root can become another user; the other tests have run as one");
        return;
    }
    let world = World::with(Settings { user: Some(NOBODY_IN_PARTICULAR), ..Settings::default() });
    let reference = world.registry.add("shop", "1", &image(&json!({"User": "app", "WorkingDir": "/data"})));
    let port = world.serve(&reference, "");
    assert_eq!(get(port, "/who"), "1000 1000 /data serve 8000 from image");
    assert_eq!(write(port, "/data/own", "x"), "written");
    world.restart();
    assert_eq!(get(port, "/file?/data/own"), "x");

    let port = world.serve(&reference, "user: root");
    // The one before it may answer for as long as it takes the gateway to hear that it is to leave.
    wait::until("root's instance answers", 10, || {
        (get(port, "/who") == "0 0 /data serve 8000 from image").then_some(())
    });
    assert_eq!(write(port, "/etc/own", "x"), "written");
    // One user is all there is without subordinate ids: see docs/rootless.md.
    assert_eq!(get(port, "/give?/etc/own"), "Invalid argument");
}

/// Somebody whom /etc/subuid and /etc/subgid give users: ourselves, or, to root, anybody.
fn user_with_subordinates() -> Option<u32> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (users, groups) = (read("/etc/subuid"), read("/etc/subgid"));
    let passwd = read("/etc/passwd");
    let mut accounts = passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        Some((*fields.first()?, fields.get(2)?.parse::<u32>().ok()?))
    });
    let me = rustix::process::geteuid().as_raw();
    let given = |file: &str, name: &str| file.lines().any(|line| line.starts_with(&format!("{name}:")));
    let fits = |name: &str, uid: u32| (me == 0 || me == uid) && given(&users, name) && given(&groups, name);
    accounts.find(|(name, uid)| *uid != 0 && fits(name, *uid)).map(|(_, uid)| uid)
}

#[test]
fn an_ordinary_user_with_subordinate_users_runs_images_that_change_users() {
    let Some(user) = user_with_subordinates() else {
        eprintln!("skipped: nobody here has users in /etc/subuid and /etc/subgid");
        return;
    };
    let user = process::is_root().then_some(user);
    let world = World::with(Settings { user, ..Settings::default() });
    if world.node.log().contains("containers have a single user") {
        eprintln!("skipped: newuidmap does not work here: {}", world.node.log());
        return;
    }
    let reference = world.registry.add("shop", "1", &image(&json!({})));
    let file = stack(&reference, node::free_port(), "volumes: [\"kept:/kept\"]") + "volumes: {kept: {}}\n";
    world.node.deployed("shop", &file);
    let port = world.port();
    assert_eq!(get(port, "/who"), "0 0 / serve 8000 from image");
    for place in ["/etc/own", "/kept/own"] {
        assert_eq!(write(port, place, "x"), "written");
        assert_eq!(get(port, &format!("/give?{place}")), "given", "root may give {place} away");
    }
    // A folder full of another user's files is what only the box's own root can remove.
    assert_eq!(get(port, "/lock?/etc/locked"), "locked");
    world.restart();
    assert_eq!(get(port, "/file?/etc/own"), "x");
    assert!(world.node.cli(&["stack", "rm", "shop"]).status.success());
    let boxes = world.node.data().join("boxes");
    wait::until("nothing of the box is left", 20, || (std::fs::read_dir(&boxes).ok()?.count() == 0).then_some(()));

    let reference = world.registry.add("shop", "2", &image(&json!({"User": "app", "WorkingDir": "/data"})));
    let port = world.serve(&reference, "");
    assert_eq!(write(port, "/data/own", "x"), "written", "the image's folder is its user's");
}

/// Debian's registry, which is Docker's.
struct Debians {
    address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Debians {
    /// `None` where it is not installed.
    fn start() -> Option<Debians> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = address(node::free_port());
        let settings = folder.path().join("config.yml");
        let storage = json!({"filesystem": {"rootdirectory": folder.path().join("images")}});
        let content = json!({"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": {"addr": address}});
        std::fs::write(&settings, content.to_string()).expect("a file can be written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&settings).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().ok()?;
        let registry = Debians { address, process, _folder: folder };
        wait::until("the registry answers", 20, || http::get(address, "/v2/").ok());
        Some(registry)
    }

    fn push(&self, name: &str, tag: &str, image: &Image) {
        for blob in [&image.config, &image.layer] {
            let begun = http::request(self.address, "POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"");
            let begun = begun.expect("the registry answers");
            let place = begun.head.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a place to put it");
            let path = place.trim().split_once(&self.address.to_string()).map_or(place, |(_, path)| path);
            let path = format!("{path}&digest={}", blob.digest);
            let kind = [("Content-Type", "application/octet-stream")];
            let put = http::request(self.address, "PUT", &path, &kind, &blob.bytes).expect("the registry answers");
            assert_eq!(put.status, 201, "{}", put.text());
        }
        let kind = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
        let path = format!("/v2/{name}/manifests/{tag}");
        let put =
            http::request(self.address, "PUT", &path, &kind, &image.manifest.bytes).expect("the registry answers");
        assert_eq!(put.status, 201, "{}", put.text());
    }
}

impl Drop for Debians {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What `lab/real/ghost` shows at full size, with an image that fits CI: the names stand in the file as they do there.
#[test]
fn a_real_registry_stands_in_for_docker_hub() {
    let Some(registry) = Debians::start() else {
        eprintln!("skipped: docker-registry is not installed");
        return;
    };
    registry.push("library/ghost", "4-alpine", &image(&json!({})));
    let mirror = format!("docker.io=http://{}", registry.address);
    let arguments = vec!["--mirror".to_owned(), mirror];
    let node = Node::with(Settings { arguments, ..Settings::default() });
    let port = node::free_port();
    node.deployed("blog", &stack("ghost:4-alpine", port, "deploy: {replicas: 3}"));
    assert_eq!(get(port, "/who"), "0 0 / serve 8000 from image");
    let listed = node.json(&["image", "ls"]);
    assert_eq!(listed[0]["references"][0], "docker.io/library/ghost:4-alpine");
    assert_eq!(listed[0]["instances"], 3);
}
