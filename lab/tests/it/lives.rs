//! An instance's life: what it starts with, how it ends, when it starts again, what waits for it.

use crate::probe::{self, python, run};
use lab::registry::Registry;
use lab::{Node, image, node, process, wait};
use serde_json::{Value, json};
use std::time::Duration;

fn one(node: &Node, service: &str) -> Option<Value> {
    node.instances().into_iter().find(|one| one["instance"]["service"] == service)
}

fn phase(node: &Node, service: &str, phase: &str) -> Value {
    wait::until(&format!("{service} is {phase}"), 20, || {
        one(node, service).filter(|one| one["status"]["phase"] == phase)
    })
}

fn service(name: &str, program: &str, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!("  {name}:\n    image: host\n    command: {}\n{more}", python(program))
}

/// Deploys without waiting: some of these never serve.
fn detached(node: &Node, file: &str) {
    let path = node.file("lives.yml", format!("services:\n{file}"));
    let output = node.cli(&["deploy", "-f", &path.to_string_lossy(), "lives", "--detach"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn who_ends_starts_again_as_its_policy_says() {
    let node = Node::start();
    let file = [
        service("job", "print('done')", "deploy: {mode: replicated-job}"),
        service(
            "bad",
            "raise SystemExit(7)",
            "deploy: {restart_policy: {condition: on-failure, max_attempts: 2, delay: 50ms}}",
        ),
        service("good", "print('fine')", "restart: on-failure"),
        service("never", "raise SystemExit(9)", "restart: 'no'"),
        service("always", "print('again')", "deploy: {restart_policy: {condition: any, delay: 50ms}}"),
    ];
    detached(&node, &file.concat());
    for (service, code) in [("job", 0), ("good", 0), ("never", 9)] {
        let ended = phase(&node, service, "exited");
        assert_eq!(ended["status"]["exit"]["code"], code, "{service}: {ended}");
        assert_eq!(ended["status"]["restarts"], 0, "{service}");
    }
    let failed = phase(&node, "bad", "failed");
    assert_eq!((&failed["status"]["restarts"], &failed["status"]["exit"]["code"]), (&json!(2), &json!(7)));
    let message = failed["status"]["message"].as_str().expect("a sentence");
    assert!(message.contains('7') && message.contains("no more attempts"), "{message}");
    wait::until("it starts again and again", 20, || {
        let restarts = one(&node, "always")?["status"]["restarts"].as_u64()?;
        (restarts >= 3).then_some(())
    });
    let pauses: Vec<u64> = node
        .said("lives", "always")
        .iter()
        .chain(&[one(&node, "always").expect("it is there")["status"]["message"].to_string()])
        .filter_map(|line| line.split("starts again in ").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    assert!(pauses.iter().all(|pause| pause % 50 == 0), "{pauses:?}");
    assert_eq!(one(&node, "job").expect("it is there")["status"]["restarts"], 0, "a job that is done stays done");
}

const WAITER: &str = "
import signal, sys, time
def bye(*a):
    print('cleaning up', flush=True)
    time.sleep(0.3)
    print('cleaned up', flush=True)
    sys.exit(0)
signal.signal(signal.SIGNAL, bye)
print('ready', flush=True)
while True: time.sleep(10)
";

const DEAF: &str = "
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready', flush=True)
while True: time.sleep(10)
";

#[test]
fn a_stop_is_asked_for_and_then_enforced() {
    let node = Node::start();
    let polite = |name: &str, signal: &str, more: &str| service(name, &WAITER.replace("SIGNAL", signal), more);
    let file = [
        polite("term", "SIGTERM", "stop_grace_period: 20s"),
        polite("usr", "SIGUSR1", "stop_signal: SIGUSR1\nstop_grace_period: 20s"),
        service("deaf", DEAF, "stop_grace_period: 300ms"),
    ];
    detached(&node, &file.concat());
    for service in ["term", "usr", "deaf"] {
        node.says("lives", service, "ready");
    }
    let scaled = |service: &str| {
        let output = node.cli(&["service", "scale", &format!("lives/{service}"), "0", "--detach"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for service in ["term", "usr", "deaf"] {
        scaled(service);
    }
    for service in ["term", "usr"] {
        node.says("lives", service, "cleaned up");
    }
    node.says("lives", "deaf", "did not stop within its grace and is killed");
    wait::until("none is left", 20, || node.instances().is_empty().then_some(()));
}

#[test]
fn services_start_after_what_they_depend_on() {
    let node = Node::start();
    let slow = "import time, http.server\ntime.sleep(0.6)\nhttp.server.HTTPServer(('0.0.0.0', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()";
    let file = [
        service("setup", "import time\ntime.sleep(0.5)\nprint('set up')", ""),
        service(
            "db",
            slow,
            "x-bramble: {healthcheck: {tcp: 8000, interval: 100ms, start_period: 10s}}\ndepends_on: {setup: {condition: service_completed_successfully}}",
        ),
        service("app", "import time\ntime.sleep(1000)", "depends_on: {db: {condition: service_healthy}}"),
        service("last", "import time\ntime.sleep(1000)", "depends_on: [app]"),
    ];
    node.deployed("lives", &format!("services:\n{}", file.concat()));
    let at = |service: &str, field: &str| {
        let one = one(&node, service).expect("it is there");
        one["status"][field].as_u64().or_else(|| one["status"]["exit"]["at_ms"].as_u64()).expect("a time")
    };
    let ended = one(&node, "setup").expect("it is there")["status"]["exit"]["at_ms"].as_u64().expect("it has ended");
    assert!(ended <= at("db", "started_ms"), "the database starts after the set-up is done");
    assert!(at("db", "started_ms") + 500 <= at("app", "started_ms"), "the app starts when the database is healthy");
    assert!(at("app", "started_ms") <= at("last", "started_ms"));
    assert_eq!(node.json(&["stack", "show", "lives"])["summary"]["state"], "running");
}

#[test]
fn an_instance_over_its_memory_ends_with_the_reason() {
    let node = Node::start();
    let hog = "import time\nprint('ready', flush=True)\ntime.sleep(0.2)\nheld = bytearray(200 << 20)\nfor at in range(0, len(held), 4096): held[at] = 1\ntime.sleep(1000)";
    let more = "restart: 'no'\ndeploy: {resources: {limits: {memory: 64M}}}";
    detached(&node, &service("hog", hog, more));
    let ended = wait::until("it is ended", 20, || one(&node, "hog").filter(|one| !one["status"]["exit"].is_null()));
    let reason = ended["status"]["exit"]["reason"].as_str().expect("a sentence").to_owned();
    assert_eq!(reason, "killed: over its 64 MiB memory limit");
    node.says("lives", "hog", "killed: over its 64 MiB memory limit");
    assert!(process::all().contains(&node.pid()));
}

#[test]
fn a_program_finds_the_files_variables_and_limits_it_was_given() {
    let node = Node::start();
    let port = node::free_port();
    node.file("settings.conf", "colour = blue\n");
    node.file("key.pem", "very secret\n");
    node.file("app.env", "FROM_FILE=file\nBOTH=file\n");
    let more = "env_file: [app.env]
environment: {BOTH: own, WHO: '{{.Service.Name}}/{{.Task.Slot}}', NODE: '{{.Node.Hostname}}'}
hostname: 'h-{{.Task.Slot}}'
working_dir: /tmp
configs: [{source: conf, target: /app/settings.conf, mode: 0440}, plain]
secrets: [key]
volumes: [{type: tmpfs, target: /scratch, tmpfs: {size: 4m}}, 'kept:/kept', 'kept:/looked-at:ro']
ulimits: {nofile: {soft: 1234, hard: 2345}}
extra_hosts: ['legacy:10.9.8.7']
x-bramble: {}";
    let tail = "configs: {conf: {file: settings.conf}, plain: {content: 'inline'}}
secrets: {key: {file: key.pem}}
volumes: {kept: {}}
";
    node.deployed("shop", &format!("services:\n  web:\n{}{tail}", probe::service(port, more)));
    let see = |code: &str| run(port, &format!("import os, resource, socket, stat\n{code}"));
    assert_eq!(see("say(os.environ['FROM_FILE'], os.environ['BOTH'], os.environ['WHO'])"), "file own shop_web/1");
    assert_eq!(see("say(os.environ['NODE'] != '' and '{' not in os.environ['NODE'])"), "True");
    assert_eq!(see("say(socket.gethostname(), os.getcwd())"), "h-1 /tmp");
    let file =
        |path: &str| see(&format!("say(open({path:?}).read().strip(), oct(stat.S_IMODE(os.stat({path:?}).st_mode)))"));
    assert_eq!(file("/app/settings.conf"), "colour = blue 0o440");
    assert_eq!(file("/plain"), "inline 0o444");
    assert_eq!(file("/run/secrets/key"), "very secret 0o444");
    assert_eq!(see("say(resource.getrlimit(resource.RLIMIT_NOFILE))"), "(1234, 2345)");
    assert_eq!(see("say(socket.gethostbyname('legacy'))"), "10.9.8.7");
    assert_eq!(see("open('/kept/a', 'w').write('x')\nsay(open('/looked-at/a').read())"), "x");
    assert!(see("open('/looked-at/b', 'w')").starts_with("OSError: [Errno 30]"), "read-only");
    assert!(see("open('/usr/b', 'w')").starts_with("OSError: [Errno 30]"), "the host's root is read-only");
    assert!(see("open('/scratch/large', 'wb').write(b'x' * (5 << 20))").starts_with("OSError: [Errno 28]"), "4 MiB");
    assert!(see("say(sorted(os.listdir('/proc'))[0])").starts_with('1'), "it sees its own processes");
    assert_eq!(see("say(len([name for name in os.listdir('/proc') if name.isdigit()]) < 9)"), "True");
}

#[test]
fn an_image_runs_as_its_user_and_its_root_is_what_the_file_says() {
    let node = Node::start();
    let registry = Registry::start();
    let image =
        image::with_shell(json!({"Cmd": ["sh", "-c", "sleep 1000"], "WorkingDir": "/data", "Env": ["A=image"]}));
    let reference = registry.add("shop/app", "1", &image);
    let look = "id; pwd; echo A=$$A; (echo x > /new) 2>/dev/null && echo wrote || echo refused; touch /scratch/x && echo scratched; sleep 1000";
    let app = |name: &str, more: &str| {
        format!("  {name}:\n    image: '{reference}'\n    command: [sh, -c, '{look}']\n    tmpfs: [/scratch]\n{more}")
    };
    let file = [
        app("root", ""),
        app("user", "    user: app\n    environment: {A: file}\n    working_dir: /tmp\n"),
        app("locked", "    read_only: true\n"),
    ];
    node.deployed("shop", &format!("services:\n{}", file.concat()));
    let said = |service: &str| {
        node.says("shop", service, "scratched");
        node.said("shop", service).join("\n")
    };
    let root = said("root");
    assert!(
        root.contains("uid=0(root)") && root.contains("/data") && root.contains("A=image") && root.contains("wrote"),
        "{root}"
    );
    let user = said("user");
    assert!(user.contains("uid=1000(app) gid=1000(app)") && user.contains("/tmp") && user.contains("A=file"), "{user}");
    // Without root there is one user in the box, who owns all of it.
    assert_eq!(user.contains("refused"), process::is_root(), "its root is somebody else's: {user}");
    assert!(said("locked").contains("refused"), "{}", said("locked"));
}

/// How long a crashed box may take to be noticed is not what is tested: only that its pause grows.
#[test]
fn pauses_between_restarts_grow() {
    let node = Node::start();
    detached(&node, &service("bad", "raise SystemExit(1)", "deploy: {restart_policy: {delay: 100ms}}"));
    let mut pauses: Vec<u64> = Vec::new();
    wait::until("three different pauses", 20, || {
        let message = one(&node, "bad")?["status"]["message"].as_str()?.to_owned();
        let pause = message.split("starts again in ").nth(1)?.split(' ').next()?.parse().ok()?;
        if pauses.last() != Some(&pause) {
            pauses.push(pause);
        }
        (pauses.len() >= 3).then_some(())
    });
    assert!(pauses.windows(2).all(|two| two[0] < two[1]), "{pauses:?}");
    assert!(Duration::from_millis(pauses[0]) >= Duration::from_millis(100));
}
