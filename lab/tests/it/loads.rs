//! Machines tell how busy they are: one whose owner needs it is left until it is calm, and clients are sent to where there is
//! room. What the kernel says of a machine is in a folder of the test's, since all machines here are one.

use crate::alerts::alert;
use crate::cluster::{known, machines, web};
use lab::load::Load;
use lab::run::{Stream, code, with};
use lab::{Node, Settings, program, wait};
use serde_json::{Value, json};
use std::path::Path;
use wire::run::Channel;

/// What the kernel of one machine says.
struct Kernel(tempfile::TempDir);

impl Kernel {
    fn calm() -> Kernel {
        let kernel = Kernel(tempfile::tempdir().expect("a temporary folder"));
        std::fs::create_dir(kernel.0.path().join("pressure")).expect("a folder can be made");
        let meminfo = std::fs::read_to_string("/proc/meminfo").expect("Linux tells of memory");
        kernel.say("meminfo", &meminfo);
        kernel.say("stat", "cpu  10 0 10 980 0 0 0 0 0 0\ncpu0 10 0 10 980 0 0 0 0 0 0\nprocs_running 1\n");
        kernel.say("loadavg", "0.10 0.10 0.10 1/100 42\n");
        for kind in ["cpu", "memory", "io"] {
            kernel.waits(kind, 0);
        }
        kernel
    }

    /// Something waits so much of the time.
    fn waits(&self, kind: &str, percent: u32) {
        let text = format!("some avg10={percent}.00 avg60=0.00 avg300=0.00 total=0\n");
        self.say(&format!("pressure/{kind}"), &text);
    }

    /// All at once: who reads meanwhile reads what was there or what is.
    fn say(&self, file: &str, text: &str) {
        let (path, fresh) = (self.0.path().join(file), self.0.path().join("fresh"));
        std::fs::write(&fresh, text).expect("a file can be written");
        std::fs::rename(&fresh, path).expect("a file can be renamed");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let own = ["--proc-lab".to_owned(), self.path().display().to_string()];
        own.into_iter().chain(more.iter().map(|one| (*one).to_owned())).collect()
    }
}

fn two(first: &Kernel, second: &Kernel) -> (Node, Node) {
    let arguments = first.arguments(&["--alerts-after", "1"]);
    let first = Node::with(Settings { arguments, ..Settings::default() });
    let token = Some(first.join_token(&[]));
    let second = Node::with(Settings { arguments: second.arguments(&[]), token, ..Settings::default() });
    wait::until("both know both", 20, || (known(&first) == 2 && known(&second) == 2).then_some(()));
    (first, second)
}

fn considerate(node: &Node, id: &str, more: &[&str]) {
    let said = node.cli(&[&["node", "considerate", id], more].concat());
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// Why nothing new comes to a machine.
fn shut(node: &Node, id: &str) -> String {
    node.json(&["node", "show", id])["shut"].as_str().expect("a text").to_owned()
}

fn scale(node: &Node, to: usize) {
    assert!(node.cli(&["service", "scale", "shop/web", &to.to_string()]).status.success());
    wait::until("as many are ready", 30, || (web_machines(node).len() == to).then_some(()));
}

/// Where ready instances of the web service are.
fn web_machines(node: &Node) -> Vec<String> {
    let instances = node.instances();
    let ready = |one: &&Value| {
        one["status"]["ready"] == true && one["instance"]["wanted"] == "running" && one["instance"]["service"] == "web"
    };
    instances.iter().filter(ready).filter_map(|one| one["instance"]["node"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_machine_whose_owner_needs_it_is_left_and_takes_work_again_when_it_is_calm() {
    let (calm, owned) = (Kernel::calm(), Kernel::calm());
    let (first, second) = two(&calm, &owned);
    let id = second.id();
    first.deployed("shop", &web(2));
    wait::until("one is on each machine", 20, || web_machines(&first).contains(&id).then_some(()));
    // What keeps its data on that machine cannot leave it.
    let keeps = program::service(&format!(
        "volumes: ['kept:/kept']\ndeploy: {{placement: {{constraints: ['node.id == {id}']}}, update_config: {{monitor: 100ms}}}}"
    ));
    let keeps = keeps.replace("    volumes: ['kept:/kept']\n", "").replace(":/app:ro'", ":/app:ro', 'kept:/kept'");
    first.deployed("kept", &format!("services:\n  keeper:\n{keeps}volumes: {{kept: {{}}}}\n"));
    considerate(&first, &id, &["--psi", "20", "--hold", "1", "--calm", "25", "--keep-cpu", "0.5"]);

    owned.waits("io", 60);
    wait::until("its instance is elsewhere", 60, || {
        let on = web_machines(&first);
        (on.len() == 2 && !on.contains(&id)).then_some(())
    });
    assert_eq!(shut(&first, &id), "under pressure");
    assert_eq!(machines(&first).iter().filter(|on| **on == id).count(), 1, "what keeps its data is there");
    let pressed = wait::until("that it is still there is an alert", 30, || alert(&first, "machine_pressed"));
    assert_eq!(pressed["labels"]["machine"], id.as_str());
    let listed = String::from_utf8_lossy(&first.cli(&["node", "ls"]).stdout).into_owned();
    assert!(listed.lines().any(|line| line.contains(&id) && line.contains("under pressure")), "{listed}");
    let why = String::from_utf8_lossy(&first.cli(&["service", "why", "shop/web"]).stdout).into_owned();
    assert!(why.contains("its machine is under pressure") && why.contains("1 under pressure"), "{why}");

    // Its owner has gone, and may be back in a moment.
    owned.waits("io", 0);
    scale(&first, 4);
    if shut(&first, &id) == "under pressure" {
        assert!(!web_machines(&first).contains(&id), "nothing comes before it is calm");
    }
    wait::until("it is calm", 60, || shut(&first, &id).is_empty().then_some(()));
    scale(&first, 6);
    assert!(web_machines(&first).contains(&id), "it takes work again");
    wait::until("the alert has ended", 30, || alert(&first, "machine_pressed").is_none().then_some(()));
}

/// How the kernel schedules a process that has `variable` in its environment, once there is one.
fn policy_of(variable: &str) -> Option<String> {
    let processes = std::fs::read_dir("/proc").expect("there is /proc").flatten();
    let marked = processes.map(|process| process.path()).find(|process| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
    })?;
    let stat = std::fs::read_to_string(marked.join("stat")).ok()?;
    // Field 41; the third follows the name, which may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(38).map(str::to_owned)
}

#[test]
fn code_of_strangers_gives_way_to_a_machines_owner() {
    const SCHED_IDLE: &str = "5";
    let (calm, owned) = (Kernel::calm(), Kernel::calm());
    let (first, second) = two(&calm, &owned);
    let id = second.id();
    considerate(&first, &id, &["--psi", "20", "--hold", "1", "--calm", "25"]);
    wait::until("its owner comes first, as it knows itself", 20, || {
        let shown = second.json(&["node", "show", &id]);
        (!shown["node"]["considerate"].is_null()).then_some(())
    });
    for node in [&first, &second] {
        assert_eq!(node.call("POST", "/v1/languages/python/prepare", "").status, 204);
    }
    let sleeps = code("python", "import time\nprint('here', flush=True)\ntime.sleep(60)");
    let mut tries = 0;
    let (_runs, mark) = wait::until("one runs there", 30, || {
        tries += 1;
        let mark = format!("{id}-{tries}");
        let mut stream = Stream::run(&second, &with(sleeps.clone(), json!({ "env": { "OWNED": mark } })));
        stream.until(Channel::Stdout, "here\n");
        if stream.machine == id {
            return Some((stream, mark));
        }
        stream.leave();
        None
    });
    assert_eq!(policy_of(&format!("OWNED={mark}")).as_deref(), Some(SCHED_IDLE));
    owned.waits("io", 60);
    wait::until("it knows that its owner needs it", 60, || (shut(&second, &id) == "under pressure").then_some(()));
    for _ in 0..4 {
        let stream = Stream::run(&second, &sleeps);
        assert_eq!(stream.machine, first.id());
        stream.leave();
    }
}

#[test]
fn a_machine_is_left_outside_its_hours() {
    let (one, other) = (Kernel::calm(), Kernel::calm());
    let (first, second) = two(&one, &other);
    let id = second.id();
    first.deployed("shop", &web(2));
    wait::until("one is on each machine", 20, || web_machines(&first).contains(&id).then_some(()));
    let refused = first.refused(&["node", "considerate", &id, "--hours", "mon-fry 18:00-08:00"]);
    assert!(refused.contains("B0406") && refused.contains("character 5: `fry` is no day"), "{refused}");
    let refused = first.refused(&["node", "considerate", &id, "--psi", "100"]);
    assert!(refused.contains("B0406") && refused.contains("1 to 99"), "{refused}");
    // Three days from now, by whichever clock.
    const DAYS: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    let day = usize::try_from(world::clock::unix_ms() / 86_400_000).expect("days are few") + 3;
    let hours = format!("{} 03:00-04:00", DAYS[day % 7]);
    considerate(&second, &id, &["--hours", &hours]);
    wait::until("it is left", 30, || {
        let on = web_machines(&first);
        (on.len() == 2 && !on.contains(&id)).then_some(())
    });
    assert_eq!(shut(&first, &id), "outside its hours");
    let told = String::from_utf8_lossy(&first.cli(&["node", "show", &id]).stdout).into_owned();
    assert!(told.contains(&hours), "{told}");
    considerate(&first, &id, &["--hours", "always"]);
    wait::until("it is open", 20, || shut(&first, &id).is_empty().then_some(()));
    considerate(&first, &id, &["--off"]);
    let shown = first.json(&["node", "show", &id]);
    assert_eq!(shown["node"]["considerate"], Value::Null, "{shown}");
    scale(&first, 4);
    assert!(web_machines(&first).contains(&id), "it takes work again");
}

/// So many that several are under way at all times, since one alone goes to whoever has nothing to do; and so few that nobody
/// waits for this machine's processors, which would make the machine that is asked more the slower one.
const CLIENTS: usize = 8;

/// How many answers each machine gave, of a thousand.
fn shares(node: &Node, ids: &[String; 2]) -> [u32; 2] {
    let load = Load::start_at("/paced", CLIENTS, node.http, "web.test");
    wait::until("a thousand are answered", 60, || (load.so_far().answered() > 1_000).then_some(()));
    let report = load.stop();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let instances = node.instances();
    let on = |answer: &str| {
        let is_of = |one: &&Value| format!("slot {}", one["instance"]["slot"]) == answer;
        instances
            .iter()
            .find(is_of)
            .and_then(|one| one["instance"]["node"].as_str())
            .expect("an instance has a machine")
    };
    ids.each_ref().map(|id| report.answers.iter().filter(|(answer, _)| on(answer) == *id).map(|(_, count)| count).sum())
}

#[test]
fn clients_are_sent_to_where_there_is_room() {
    let kernels = [Kernel::calm(), Kernel::calm()];
    let gateway = Node::start();
    let others = kernels.each_ref().map(|kernel| {
        let (arguments, token) = (kernel.arguments(&[]), Some(gateway.join_token(&[])));
        Node::with(Settings { arguments, token, ..Settings::default() })
    });
    wait::until("all are known", 20, || (known(&gateway) == 3).then_some(()));
    // Both are as far away: the one that answers sooner would be asked more.
    assert!(gateway.cli(&["node", "cordon", &gateway.id()]).status.success());
    let ids = others.each_ref().map(Node::id);
    gateway.deployed("shop", &web(2));
    wait::until("one is on each of the others", 20, || {
        let on = web_machines(&gateway);
        ids.iter().all(|id| on.contains(id)).then_some(())
    });
    for busy in [1, 0] {
        kernels[busy].waits("cpu", 90);
        kernels[1 - busy].waits("cpu", 0);
        wait::until("the gateway knows who is busy", 30, || knows(&gateway, &ids[busy]).then_some(()));
        let shares = shares(&gateway, &ids);
        println!("answers of each machine, where machine {} is busy: {shares:?}", busy + 1);
        assert!(shares[busy] * 2 < shares[1 - busy], "machine {} is busy: {shares:?}", busy + 1);
    }
}

/// Whether a gateway takes one machine for busy, and no other.
fn knows(node: &Node, busy: &str) -> bool {
    let (routes, instances) = (node.json(&["route", "show", "web.test"]), node.instances());
    let endpoints = routes[0]["endpoints"].as_array().cloned().unwrap_or_default();
    let is_right = |one: &Value| {
        let of = instances.iter().find(|detail| detail["instance"]["id"] == one["instance"]);
        let machine = of.and_then(|of| of["instance"]["node"].as_str());
        one["load"].as_f64().is_some_and(|load| (machine == Some(busy)) == (load > 0.8))
    };
    endpoints.len() == 2 && endpoints.iter().all(is_right)
}
