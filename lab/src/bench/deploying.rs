//! From a stack file to answers, and from one instance to fifty, on a real node.

use super::figures::{lowest, median};
use super::image::{PORT, web_server};
use super::report::{Goal, Row};
use super::{Measured, Options};
use lab::registry::Registry;
use lab::{Node, http, node};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const DEPLOYS: usize = 10;
const SCALES: usize = 3;
const INSTANCES: usize = 50;
/// Between two looks: short beside what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A look at fifty instances costs more.
const COUNT_EVERY: Duration = Duration::from_millis(20);
/// Until it is no longer slow but broken.
const DEADLINE: Duration = Duration::from_secs(60);
const STACK: &str = "measured";

/// A node that has the image.
struct Place {
    node: Node,
    _registry: Registry,
    _folder: tempfile::TempDir,
    image: String,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let registry = Registry::start();
        let image = registry.add("measured/web", "1", &web_server(folder.path()));
        let node = Node::start();
        node.json(&["image", "pull", &image]);
        Place { node, _registry: registry, _folder: folder, image }
    }

    fn file(&self, port: u16) -> String {
        format!("services:\n  web:\n    image: '{}'\n    ports: ['127.0.0.1:{port}:{PORT}']\n", self.image)
    }

    fn remove(&self) {
        assert!(self.node.cli(&["stack", "rm", STACK]).status.success(), "a stack is removed: {}", self.node.log());
        until("no instance is left", Duration::from_millis(20), || self.node.instances().is_empty());
    }
}

/// Seconds until `look` holds.
fn until(what: &str, every: Duration, mut look: impl FnMut() -> bool) -> f64 {
    let began = world::clock::monotonic();
    while !look() {
        assert!(world::clock::monotonic() - began < DEADLINE, "after {DEADLINE:?} still not: {what}");
        std::thread::sleep(every);
    }
    (world::clock::monotonic() - began).as_secs_f64()
}

pub(super) fn deploy(_options: &Options) -> Measured {
    let place = Place::new();
    let mut times = Vec::new();
    // One more, uncounted, for what is done once.
    for round in 0..=DEPLOYS {
        let port = node::free_port();
        let (file, address) = (place.file(port), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let seconds = std::thread::scope(|scope| {
            let deploy = scope.spawn(|| place.node.deployed(STACK, &file));
            let answered = || http::get(address, "/").is_ok_and(|answer| answer.status == 200);
            let seconds = until("the first answer", LOOK_EVERY, answered);
            deploy.join().expect("the deploy succeeds");
            seconds
        });
        if round > 0 {
            times.push(seconds * 1000.0);
        }
        place.remove();
    }
    Measured::Rows(vec![
        Row::new("deploy to first answer, image at hand", "ms", median(&times), Goal::Below(300.0)),
        Row::new("the fastest of them", "ms", lowest(&times), Goal::None),
    ])
}

pub(super) fn scale(_options: &Options) -> Measured {
    let place = Place::new();
    let service = format!("{STACK}/web");
    place.node.deployed(STACK, &place.file(node::free_port()));
    let ready = |wanted: usize| {
        let instances = place.node.instances();
        instances.len() == wanted && instances.iter().all(|one| one["status"]["ready"] == true)
    };
    let mut times = Vec::new();
    for _round in 0..SCALES {
        let seconds = std::thread::scope(|scope| {
            let scaling = scope.spawn(|| place.node.json(&["service", "scale", &service, &INSTANCES.to_string()]));
            let seconds = until("fifty instances are ready", COUNT_EVERY, || ready(INSTANCES));
            scaling.join().expect("scaling succeeds");
            seconds
        });
        times.push(seconds);
        place.node.json(&["service", "scale", &service, "1"]);
        until("one instance is left", COUNT_EVERY, || ready(1));
    }
    Measured::Rows(vec![
        Row::new("1 to 50 instances, all ready", "s", median(&times), Goal::Below(3.0)),
        Row::new("the fastest of them", "s", lowest(&times), Goal::None),
    ])
}
