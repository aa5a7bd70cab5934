//! Code that people hand in: what it writes, how it ends, and what happens when those who watch it or have it are gone.

use crate::alerts::alert;
use lab::node::{Node, Settings};
use lab::registry::Registry;
use lab::run::{Event, Stream, code, with};
use lab::{http, image, process, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use wire::run::{Channel, RunVerdict};

/// The answer of `POST /v1/runs`, which is good.
fn post(node: &Node, wanted: &Value) -> Value {
    let answer = node.call("POST", "/v1/runs", &wanted.to_string());
    assert_eq!(answer.status, 200, "{wanted}: {}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Programs of runs that live on this machine, by a word in their environment.
fn programs(mark: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == format!("MARK={mark}").as_bytes())
    };
    process::all().into_iter().filter(has).collect()
}

fn marked(wanted: Value, mark: &str) -> Value {
    with(wanted, json!({ "env": { "MARK": mark } }))
}

#[test]
fn code_is_run_and_what_became_of_it_is_told() {
    let node = Node::start();
    let check = |wanted: Value, verdict: &str, output: &str| {
        let answer = post(&node, &wanted);
        assert_eq!((answer["verdict"].as_str(), answer["stdout"].as_str()), (Some(verdict), Some(output)), "{answer}");
        answer
    };
    let python = |text: &str| code("python", text);
    let limits = |limits: Value| json!({ "limits": limits });
    check(with(python("print('hello', input())"), json!({ "stdin": "ann" })), "finished", "hello ann\n");
    let wrong = check(python("import sys; print('so far'); sys.exit(3)"), "wrong_exit", "so far\n");
    assert_eq!((wrong["exit_code"].as_i64(), wrong["message"].as_str()), (Some(3), Some("it ended with exit code 3")));
    let raised = check(python("raise ValueError('no')"), "wrong_exit", "");
    assert!(raised["stderr"].as_str().is_some_and(|said| said.contains("ValueError: no")), "{raised}");
    let slow = with(python("while True: pass"), limits(json!({ "cpu_ms": 200 })));
    assert_eq!(check(slow, "out_of_time", "")["message"], "it used more than 200 ms of processor time");
    let sleepy = with(python("import time; time.sleep(60)"), limits(json!({ "wall_ms": 300 })));
    check(sleepy, "out_of_time", "");
    let large = with(python("x = bytearray(300_000_000); print(len(x))"), limits(json!({ "memory_bytes": 64 << 20 })));
    assert_eq!(check(large, "out_of_memory", "")["message"], "it used more than 64 MiB of memory");
    let loud = with(python("while True: print('x' * 99)"), limits(json!({ "output_bytes": 1_000 })));
    check(loud, "too_much_output", &format!("{}\n", "x".repeat(99)).repeat(10));
    check(python("import os; os.kill(os.getpid(), 11)"), "killed", "");
    let written = "import sys; sys.argv.append(open('b/data.txt').read()); print(*sys.argv[1:]); open('out.txt', 'w').write('left')";
    let files = json!([{ "name": "a.py", "content": written }, { "name": "b/data.txt", "content_base64": "bW9yZQ==" }]);
    let left = check(
        json!({ "files": files, "args": ["one", "two words"], "collect": true }),
        "finished",
        "one two words more\n",
    );
    assert_eq!(left["files"], json!([{ "name": "out.txt", "content": "left" }]));
    let binary = check(python("import sys; sys.stdout.buffer.write(bytes([255, 0, 65]))"), "finished", "\u{fffd}\0A");
    assert_eq!(binary["stdout_base64"], "/wBB");
    // What there is of the machine, and what is not.
    let sees = "import os; print(sorted(os.listdir('/')), os.path.exists('/home'), os.getcwd(), os.getuid()); open('/usr/x', 'w')";
    let seen = check(
        python(sees),
        "wrong_exit",
        "['bin', 'box', 'dev', 'etc', 'lib', 'lib64', 'proc', 'root', 'run', 'sys', 'tmp', 'usr'] False /box 0\n",
    );
    assert!(seen["stderr"].as_str().is_some_and(|said| said.contains("Read-only file system")), "{seen}");
    all_is_recorded(&node);
}

/// Every run is in the record, in series, and survives the node.
fn all_is_recorded(node: &Node) {
    let runs = node.json(&["runs", "ls", "--limit", "100"]);
    let runs = runs.as_array().expect("a list");
    assert_eq!(runs.len(), 11);
    let verdicts: BTreeSet<&str> = runs.iter().filter_map(|run| run["verdict"].as_str()).collect();
    assert_eq!(verdicts.len(), 6, "{verdicts:?}");
    let id = runs[0]["id"].as_str().expect("an id");
    let shown = node.json(&["runs", "show", id]);
    assert!(shown["code_sha256"].as_str().is_some_and(|hash| hash.len() == 64), "{shown}");
    assert!(shown["times"]["run_usec"].as_u64().is_some_and(|usec| usec > 0), "{shown}");
    let metrics = node.call("GET", "/metrics", "").text();
    let counted =
        |line: &str| assert!(metrics.lines().any(|known| known.starts_with(line)), "{line} is not in the metrics");
    counted("bramble_runs_total{language=\"python\",verdict=\"finished\"} 3");
    counted("bramble_runs_total{language=\"python\",verdict=\"out_of_time\"} 2");
    counted("bramble_run_seconds_count{language=\"python\"} 11");
    counted("bramble_workers ");
    counted("bramble_language_copies_total{result=\"ok\"} 1");
    // Workers tell of their boxes twice a second.
    wait::until("each program had a box, some one that another had", 5, || {
        let metrics = node.call("GET", "/metrics", "").text();
        let programs = |from: &str| {
            let name = format!("bramble_run_boxes_total{{from=\"{from}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or_default()
        };
        let (built, ahead, again) = (programs("built"), programs("ahead"), programs("again"));
        (built + ahead + again == 11 && built > 0 && again > 0).then_some(())
    });
}

#[test]
fn what_is_wrong_is_told_before_anything_runs() {
    let node = Node::start();
    let check = |wanted: Value, status: u16, code: &str, part: &str| {
        let answer = node.call("POST", "/v1/runs", &wanted.to_string());
        let text = answer.text();
        assert!(
            answer.status == status && text.contains(code) && text.contains(part),
            "{wanted}: {} {text}",
            answer.status
        );
    };
    check(json!({ "files": [] }), 400, "B0901", "says no language");
    check(json!({ "language": "python" }), 400, "B0901", "there is no file");
    check(code("klingon", "x"), 400, "B0901", "no language is called \\\"klingon\\\"");
    check(json!({ "language": "c", "files": [{ "name": "../x.c" }] }), 400, "B0901", "no name of a file");
    check(json!({ "language": "c", "filse": [] }), 400, "B0202", "filse");
    check(with(code("python", "x"), json!({ "limits": { "wall_ms": 0 } })), 400, "B0901", "wall_ms");
    check(with(code("python", "x"), json!({ "env": { "A=B": "c" } })), 400, "B0901", "environment variable");
    check(with(code("python", "x"), json!({ "inputs": ["a"], "stdin": "b" })), 400, "B0901", "exclude");
    check(with(code("python", "x"), json!({ "detach": true })), 400, "B0901", "stream");
    let missing = node.call("GET", "/v1/runs/nosuchrun", "");
    assert!(missing.status == 404 && missing.text().contains("B0903"), "{}", missing.text());
    // A stream that begins with anything else.
    for first in [
        r#"{"ack": 1}"#,
        "{",
        r#"{"run": {"language": "klingon", "files": [{"name": "x"}]}}"#,
        r#"{"attach": {"id": "gone"}}"#,
    ] {
        let mut stream = Stream::open(&node);
        assert!(stream.try_send(first.into()));
        let Event::Told(key, problem) = stream.hear() else { panic!("{first} was not answered") };
        assert!(key == "problem" && problem["code"].as_str().is_some_and(|code| code.starts_with("B09")), "{problem}");
        assert_eq!(stream.hear(), Event::Closed);
    }
    // A language of the machine's owner.
    let text = "title = 'Upside'\nextensions = ['up']\nmain = 'main.up'\nrun = ['/usr/bin/nosuch', '{main}']\n[root]\nneeds = ['/usr/bin/nosuch']";
    let own = Node::with(Settings { data: Some(with_language(text)), ..Settings::default() });
    let answer = own.call("POST", "/v1/runs", &code("upside", "x").to_string());
    assert!(answer.status == 422 && answer.text().contains("/usr/bin/nosuch"), "{}", answer.text());
    let listed = own.json(&["language", "ls"]);
    let upside =
        listed.as_array().and_then(|all| all.iter().find(|one| one["name"] == "upside")).expect("it is listed");
    assert_eq!(upside["machines"][0]["lack"], "/usr/bin/nosuch is not there");
}

/// A language whose files are an image's: fetched once, and then here for good.
#[test]
fn a_language_comes_from_an_image() {
    let registry = Registry::start();
    let reference = registry.add("upside", "1", &image::with_shell(json!({})));
    let text = format!(
        "title = 'Upside'\nextensions = ['up']\nmain = 'main.up'\nrun = ['/bin/sh', '{{main}}']\n[root]\nimage = '{reference}'"
    );
    let node = Node::with(Settings { data: Some(with_language(&text)), ..Settings::default() });
    let program = "echo hello; cat /etc/passwd; ls -d /usr/bin/gcc /box /data 2>&1; id -u";
    let mut stream = Stream::run(&node, &code("upside", program));
    stream.end_input();
    assert_eq!(stream.to_the_end().verdict, RunVerdict::Finished);
    let said = stream.text(Channel::Stdout);
    assert!(
        said.starts_with("hello\nrunner:x:0:0") && said.contains("/box\n/data\n") && said.ends_with("0\n"),
        "{said}"
    );
    assert!(said.contains("gcc: No such file") || said.contains("'/usr/bin/gcc': No such file"), "{said}");
    // Nothing is asked of the registry any more, and what was copied is in use.
    drop(registry);
    let images = node.json(&["image", "ls"]).to_string();
    assert!(images.contains("bramble/languages/upside") && !images.contains(&reference), "{images}");
    assert_eq!(node.json(&["image", "prune"])["images"], 1, "what was fetched, and not its copy");
    assert_eq!(post(&node, &code("upside", "exit 3"))["exit_code"], 3);
    let listed = node.json(&["language", "ls"]);
    let upside =
        listed.as_array().and_then(|all| all.iter().find(|one| one["name"] == "upside")).expect("it is listed");
    assert_eq!(
        (&upside["machines"][0]["version"], &upside["machines"][0]["copied"]),
        (&json!(reference), &json!(true))
    );

    // What cannot be had is told with its reason.
    let nowhere = text.replace(&reference, "127.0.0.1:9/upside:1");
    let node = Node::with(Settings { data: Some(with_language(&nowhere)), ..Settings::default() });
    let answer = node.call("POST", "/v1/runs", &code("upside", "x").to_string());
    assert!(
        answer.status == 422 && answer.text().contains("fetch the image 127.0.0.1:9/upside:1"),
        "{}",
        answer.text()
    );
    wait::until("whoever looks after the machine is told, too", 30, || {
        alert(&node, "language_copy_failing").filter(|failing| failing["firing"] == true)
    });
}

fn with_language(text: &str) -> std::path::PathBuf {
    let data = tempfile::Builder::new().prefix("bramble-lab-").tempdir().expect("a folder").keep();
    std::fs::create_dir(data.join("languages")).expect("a folder");
    std::fs::write(data.join("languages/upside.toml"), text).expect("written");
    data
}

#[test]
fn what_is_compiled_is_compiled_once() {
    let node = Node::start();
    let source = "#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a + b); }";
    let inputs: Vec<String> = (0..20).map(|number| format!("{number} {number}")).collect();
    let answers = post(&node, &with(code("c", source), json!({ "inputs": inputs })));
    let answers = answers["runs"].as_array().expect("runs");
    let sums: Vec<&str> = answers.iter().filter_map(|answer| answer["stdout"].as_str()).collect();
    assert_eq!(sums, (0..20).map(|number| format!("{}\n", number * 2)).collect::<Vec<_>>());
    let compiled = answers.iter().filter(|answer| answer["times"]["compile_usec"] != 0).count();
    assert_eq!(compiled, 1, "the others found it compiled");
    let wrong = post(&node, &code("c", "int main(void) { return x; }"));
    assert_eq!(wrong["verdict"], "not_compiled", "{wrong}");
    assert!(wrong["compiler"].as_str().is_some_and(|said| said.contains("undeclared")), "{wrong}");
    // Several files, with a header.
    let files = json!([
        { "name": "main.c", "content": "#include \"twice.h\"\nint main(void) { return twice(21); }" },
        { "name": "twice.h", "content": "int twice(int);" },
        { "name": "twice.c", "content": "int twice(int x) { return 2 * x; }" },
    ]);
    assert_eq!(post(&node, &json!({ "files": files }))["exit_code"], 42);
}

/// A worker has several inputs one after the other; each is a run with an end and a record of its own all the same.
#[test]
fn each_of_many_inputs_ends_by_itself() {
    let node = Node::start();
    let program = "read word; case $word in
        exit*) exit ${word#exit};;
        loop) while :; do :; done;;
        much) yes;;
        crash) kill -SEGV $$;;
        left) echo x > left; ls;;
        large) head -c 150000 /dev/zero | tr '\\0' y;;
        *) echo $word; ls;;
    esac";
    let words = ["one", "exit3", "loop", "much", "crash", "left", "two", "large", "large", "exit0", "three", ""];
    let inputs: Vec<String> = std::iter::repeat_n(words, 3).flatten().map(|word| format!("{word}\n")).collect();
    let limits = json!({ "cpu_ms": 300, "output_bytes": 200_000 });
    let answers = post(&node, &with(code("bash", program), json!({ "inputs": inputs, "limits": limits })));
    let answers = answers["runs"].as_array().expect("runs");
    assert_eq!(answers.len(), inputs.len());
    let mut ids = BTreeSet::new();
    for (input, answer) in inputs.iter().zip(answers) {
        let (verdict, stdout) = match input.trim() {
            "exit3" => ("wrong_exit", String::new()),
            "loop" => ("out_of_time", String::new()),
            "much" => ("too_much_output", "y\n".repeat(100_000)),
            "crash" => ("killed", String::new()),
            "left" => ("finished", "left\nmain.sh\n".to_owned()),
            "large" => ("finished", "y".repeat(150_000)),
            "exit0" => ("finished", String::new()),
            word => ("finished", format!("{word}\nmain.sh\n")),
        };
        assert_eq!((answer["verdict"].as_str(), answer["stdout"].as_str()), (Some(verdict), Some(&*stdout)), "{input}");
        let id = answer["id"].as_str().expect("an id");
        assert!(ids.insert(id), "{id} is there twice");
        wait::until("its record says the same", 5, || {
            let record = node.call("GET", &format!("/v1/runs/{id}"), "");
            (record.status == 200 && record.text().contains(&format!("\"verdict\":\"{verdict}\""))).then_some(())
        });
    }
    // Those of which the first was short went together.
    wait::until("some go together", 30, || {
        let answers = post(&node, &with(code("bash", "exit 0"), json!({ "inputs": vec![""; 20] })));
        let mut answers = answers["runs"].as_array()?.iter();
        answers.any(|answer| answer["id"].as_str().is_some_and(|id| id.contains('.'))).then_some(())
    });
    assert!(node.json(&["runs", "ls"]).as_array().is_some_and(|runs| runs.iter().all(|run| !run["verdict"].is_null())));

    // What does not compile is compiled once.
    let wrong = with(code("c", "int main(void) { return x; }"), json!({ "inputs": vec![""; 50] }));
    let answers = post(&node, &wrong);
    let answers = answers["runs"].as_array().expect("runs");
    assert!(answers.len() == 50 && answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    assert_eq!(answers[0]["verdict"], "not_compiled");
}

/// Killed by the id of any of them, all end that a worker has together, and nothing is left running.
#[test]
fn a_worker_with_many_inputs_is_told_to_stop() {
    let node = Node::start();
    let program = "read word; test $word = go || sleep 57";
    let inputs: Vec<&str> = ["go\n", "wait\n"].into_iter().chain(std::iter::repeat_n("go\n", 6)).collect();
    let wanted = marked(with(code("bash", program), json!({ "inputs": inputs })), "middle").to_string();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| node.call("POST", "/v1/runs", &wanted));
        let sleeps =
            |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"57\0"));
        wait::until("it waits in the middle", 20, || programs("middle").iter().any(sleeps).then_some(()));
        let id = wait::until("that is on record", 20, || {
            let runs = node.json(&["runs", "ls"]);
            let mut on = runs.as_array()?.iter().filter(|run| run["verdict"].is_null());
            on.find_map(|run| run["id"].as_str().map(str::to_owned))
        });
        if let Some((whole, _)) = id.split_once('.') {
            assert!(!Stream::open(&node).come_back(whole, 0), "a stream is of one run");
        }
        assert_eq!(node.call("DELETE", &format!("/v1/runs/{id}"), "").status, 204);
        let answer = asked.join().expect("an answer").text();
        let answers: Value = serde_json::from_str(&answer).expect("JSON");
        let verdicts: Vec<&str> =
            answers["runs"].as_array().expect("runs").iter().filter_map(|run| run["verdict"].as_str()).collect();
        assert_eq!(verdicts.len(), inputs.len(), "{answer}");
        assert_eq!(verdicts[..2], ["finished", "killed"], "{answer}");
        let together = answers["runs"][1]["id"].as_str().is_some_and(|id| id.contains('.'));
        assert_eq!(verdicts[2] == "killed", together, "{answer}");
        assert!(answers["runs"][1]["times"]["run_usec"] != 0, "{answer}");
        assert!(!together || answers["runs"][2]["times"]["run_usec"] == 0, "what had no turn took no time: {answer}");
    });
    wait::until("none is told to run that does not", 5, || {
        let runs = node.json(&["runs", "ls"]);
        runs.as_array()?.iter().all(|run| !run["verdict"].is_null()).then_some(())
    });
}

#[test]
fn a_program_is_spoken_with() {
    let node = Node::start();
    let asking = "name = input('name? ')\nprint('hello', name)\nimport sys\nprint('oops', file=sys.stderr)\nprint(sys.stdin.read().upper())";
    let mut stream = Stream::run(&node, &code("python", asking));
    stream.until(Channel::Stdout, "name? ");
    stream.feed(b"ann\n");
    stream.until(Channel::Stdout, "hello ann\n");
    stream.feed("grüße ".as_bytes());
    stream.feed(b"again");
    stream.end_input();
    assert_eq!(stream.to_the_end().verdict, RunVerdict::Finished);
    assert_eq!(stream.text(Channel::Stdout), "name? hello ann\nGRÜSSE AGAIN\n");
    assert_eq!((stream.text(Channel::Stderr).as_str(), stream.taken), ("oops\n", 4));

    let patient = "import signal, sys\nsignal.signal(signal.SIGINT, lambda *_: (print('caught', flush=True), sys.exit(7)))\nprint('ready', flush=True)\nsignal.pause()";
    let mut stream = Stream::run(&node, &code("python", patient));
    stream.until(Channel::Stdout, "ready\n");
    stream.signal("INT");
    assert_eq!(stream.to_the_end().exit_code, Some(7));
    assert!(stream.text(Channel::Stdout).ends_with("caught\n"));

    let mut stream = Stream::run(&node, &code("python", "print('ready', flush=True)\nwhile True: pass"));
    stream.until(Channel::Stdout, "ready\n");
    stream.signal("KILL");
    let ended = stream.to_the_end();
    assert_eq!((ended.verdict, ended.signal), (RunVerdict::Killed, Some(9)));

    let looks = "stty size; tty; read line; echo \"got $line\"; stty size; cat; echo end";
    let terminal = json!({ "terminal": { "columns": 101, "rows": 33 } });
    let mut stream = Stream::run(&node, &with(code("bash", looks), terminal));
    stream.until(Channel::Stdout, "33 101");
    stream.say(&json!({ "resize": { "columns": 55, "rows": 22 } }));
    stream.feed(b"typed\n");
    stream.until(Channel::Stdout, "22 55");
    assert!(stream.text(Channel::Stdout).contains("/dev/pts/0") && stream.text(Channel::Stdout).contains("got typed"));
    stream.feed(b"\x04");
    stream.until(Channel::Stdout, "end");
    assert_eq!(stream.to_the_end().verdict, RunVerdict::Finished);
}

#[test]
fn a_run_nobody_watches_any_more_is_killed() {
    let node = Node::start();
    let endless = code("python", "print('ready', flush=True)\nimport time\ntime.sleep(1000)");
    let begun = |mark: &str, more: Value| {
        let mut stream = Stream::run(&node, &with(marked(endless.clone(), mark), more));
        stream.until(Channel::Stdout, "ready\n");
        assert_eq!(programs(mark).len(), 1);
        stream
    };
    let verdict = |id: &str| node.json(&["runs", "show", id])["verdict"].clone();
    let stream = begun("leaves", json!({}));
    let id = stream.id.clone();
    stream.leave();
    wait::until("who left has nothing that runs", 2, || programs("leaves").is_empty().then_some(()));
    wait::until("and that is recorded", 2, || (verdict(&id) == "killed").then_some(()));

    // A line that breaks is none that was closed: whoever comes back goes on.
    let stream = begun("breaks", json!({}));
    let id = stream.id.clone();
    let arrived = stream.arrived;
    stream.break_off();
    let again = Stream::attach(&node, &id, arrived);
    assert_eq!(programs("breaks").len(), 1);
    again.leave();
    wait::until("it is killed then", 2, || programs("breaks").is_empty().then_some(()));

    let stream = begun("detached", json!({ "detach": true }));
    let id = stream.id.clone();
    stream.leave();
    let mut again = Stream::attach(&node, &id, 0);
    again.until(Channel::Stdout, "ready\n");
    again.leave();
    assert_eq!((programs("detached").len(), verdict(&id)), (1, Value::Null));
    assert!(node.cli(&["runs", "kill", &id]).status.success());
    wait::until("it was asked for", 2, || programs("detached").is_empty().then_some(()));
    let mut again = Stream::attach(&node, &id, 0);
    assert_eq!(again.to_the_end().verdict, RunVerdict::Killed, "its end is kept for who comes back");
    assert_eq!(again.text(Channel::Stdout), "ready\n", "and what it wrote, although others have had it");

    // Who hangs up on a POST wants no answer.
    let wanted = with(marked(endless, "posted"), json!({ "stdin": "" })).to_string();
    let hung_up = std::thread::scope(|scope| {
        let posting = scope.spawn(|| {
            let connection = std::net::TcpStream::connect(node.api).expect("the API listens");
            let head = format!("POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{wanted}", node.token(), wanted.len());
            std::io::Write::write_all(&mut &connection, head.as_bytes()).expect("written");
            wait::until("it runs", 20, || (programs("posted").len() == 1).then_some(()));
        });
        posting.join()
    });
    hung_up.expect("it ran");
    wait::until("its caller is gone", 2, || programs("posted").is_empty().then_some(()));
}

/// Writes lines that say which they are, for some seconds.
const COUNTING: &str = "import time\nfor number in range(2000):\n    print('line', number, flush=True)\n    time.sleep(0.002)\nprint(input())";

fn counted() -> String {
    (0..2000).map(|number| format!("line {number}\n")).collect()
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_when_the_node_is_killed() {
    let mut node = Node::start();
    let mut stream = Stream::run(&node, &marked(code("python", COUNTING), "goes-on"));
    let id = stream.id.clone();
    stream.until(Channel::Stdout, "line 300\n");
    let (mut written, mut arrived) = (stream.written[&Channel::Stdout].clone(), stream.arrived);
    for _ in 0..2 {
        node.kill();
        drop(stream);
        node.launch();
        stream = Stream::attach(&node, &id, arrived);
        let line = format!("line {}\n", 600 + written.len() / 12);
        stream.until(Channel::Stdout, &line);
        written.extend_from_slice(&stream.written[&Channel::Stdout]);
        arrived = stream.arrived;
    }
    stream.written.clear();
    stream.feed(b"the end\n");
    assert_eq!(stream.to_the_end().verdict, RunVerdict::Finished);
    written.extend_from_slice(&stream.written[&Channel::Stdout]);
    assert_eq!(String::from_utf8_lossy(&written), counted() + "the end\n");
    let recorded = || (node.json(&["runs", "show", &id])["verdict"] == "finished").then_some(());
    wait::until("it is recorded once", 5, recorded);
    assert_eq!(node.json(&["runs", "ls"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn an_upgrade_leaves_runs_as_they_are() {
    let mut node = Node::start();
    let mut stream = Stream::run(&node, &code("python", COUNTING));
    let id = stream.id.clone();
    stream.until(Channel::Stdout, "line 300\n");
    node.upgrade(None, &[]).expect("it is upgraded");
    while stream.hear() != Event::Closed {}
    let mut again = Stream::attach(&node, &id, stream.arrived);
    again.feed(b"the end\n");
    assert_eq!(again.to_the_end().verdict, RunVerdict::Finished);
    assert_eq!(stream.text(Channel::Stdout) + &again.text(Channel::Stdout), counted() + "the end\n");
}

#[test]
fn a_worker_that_dies_is_replaced_and_its_runs_are_told_of_as_lost() {
    let node = Node::start();
    let mut stream = Stream::run(
        &node,
        &marked(code("python", "print('ready', flush=True)\nimport time\ntime.sleep(1000)"), "lost"),
    );
    stream.until(Channel::Stdout, "ready\n");
    let worker = |pid: &u32| process::command_line(*pid).contains(" worker --data ");
    for pid in process::of_data(node.data()).into_iter().filter(worker) {
        process::signal(pid, rustix::process::Signal::KILL);
    }
    let mut last = Event::Closed;
    while stream.ended.is_none() {
        last = stream.hear();
        assert_ne!(last, Event::Closed, "{}", node.log());
    }
    assert_eq!(stream.to_the_end().verdict, RunVerdict::Lost, "{last:?}");
    wait::until("nothing of it is left", 2, || programs("lost").is_empty().then_some(()));
    wait::until("it is recorded", 5, || (node.json(&["runs", "show", &stream.id])["verdict"] == "lost").then_some(()));
    assert_eq!(post(&node, &code("python", "print('again')"))["stdout"], "again\n");
}

#[test]
fn a_flood_stops_the_program_and_not_the_memory() {
    let node = Node::start();
    let limits = json!({ "limits": { "output_bytes": 1_u64 << 40, "cpu_ms": 60_000 } });
    let mut stream = Stream::open(&node);
    stream.acknowledges = false;
    stream.say(&json!({ "run": with(code("bash", "yes 0123456789"), limits) }));
    stream.accepted();
    let mut bytes = 0;
    // As much as is kept for who does not acknowledge, and not a byte more.
    while bytes < 900_000 {
        let Event::Wrote(_, payload) = stream.hear() else { continue };
        bytes += payload.len();
    }
    let before: u64 = process::of_data(node.data()).into_iter().map(process::resident_bytes).sum();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let after: u64 = process::of_data(node.data()).into_iter().map(process::resident_bytes).sum();
    assert!(after < before + (16 << 20), "{before} bytes became {after}");
    // Others are not held up by it.
    assert_eq!(post(&node, &code("bash", "echo quick"))["stdout"], "quick\n");
    stream.acknowledges = true;
    stream.acknowledge();
    while bytes < 20_000_000 {
        let Event::Wrote(_, payload) = stream.hear() else { continue };
        bytes += payload.len();
    }
    assert!(stream.text(Channel::Stdout).starts_with("0123456789\n0123456789\n"));
    stream.leave();
}

#[test]
fn the_command_line_runs_code() {
    let node = Node::start();
    let file = |name: &str, content: &str| node.file(name, content).display().to_string();
    let run = |arguments: &[&str]| {
        let output = node.cli(&[&["run"], arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let hello = file("hello.py", "import sys\nprint('hello', *sys.argv[1:], input())");
    let input = file("input.txt", "from a file\n");
    let (code, out, err) = run(&[&hello, "--stdin", &input, "--", "--flag", "x"]);
    assert_eq!((code, out.as_str()), (Some(0), "hello --flag x from a file\n"), "{err}");
    let (code, out, err) = run(&[&file("bad.py", "import sys; sys.exit(9)")]);
    assert_eq!((code, out.as_str()), (Some(9), ""), "{err}");
    let (code, _, err) = run(&[&file("slow.py", "while True: pass"), "--time", "300ms"]);
    assert!(code == Some(124) && err.contains("out_of_time: it "), "{err}");
    let (code, _, err) = run(&[&file("large.py", "x = bytearray(300_000_000)"), "--memory", "64m"]);
    assert!(code == Some(137) && err.contains("out_of_memory"), "{err}");
    let (code, _, err) = run(&[&file("odd.xyz", "x")]);
    assert!(code == Some(1) && err.contains("says no language"), "{err}");
    assert_eq!(run(&[&hello, "--time", "fast"]).0, Some(2));
    let json = node.json(&["run", &file("one.py", "print(1)")]);
    assert_eq!((json["stdout"].as_str(), json["verdict"].as_str()), (Some("1\n"), Some("finished")));
    let (code, id, err) = run(&[&file("long.py", "import time; print('there'); time.sleep(1000)"), "--detach"]);
    assert_eq!(code, Some(0), "{err}");
    let id = id.trim();
    wait::until("it runs", 5, || (node.json(&["runs", "show", id])["verdict"] == Value::Null).then_some(()));
    assert!(node.cli(&["runs", "kill", id]).status.success());
    wait::until("it was killed", 5, || (node.json(&["runs", "show", id])["verdict"] == "killed").then_some(()));
    assert!(String::from_utf8_lossy(&node.cli(&["language", "example", "py"]).stdout).contains("input("));
}

/// As `| head` does: who reads has enough, and the program is not run for nobody.
#[test]
fn output_that_nobody_reads_any_more_ends_the_run() {
    let node = Node::start();
    let path = node.file("yes.sh", "i=0; while :; do echo $i; i=$((i+1)); done").display().to_string();
    let mut child = node.command(&["run", &path, "--output", "900g", "--time", "1000s"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first: Vec<String> = lines.by_ref().take(3).map_while(Result::ok).collect();
    assert_eq!(first, ["0", "1", "2"]);
    drop(lines);
    let status = wait::until("the command ends", 10, || child.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(141));
    wait::until("the run was killed", 5, || {
        let runs = node.json(&["runs", "ls"]);
        (runs.as_array()?.first()?["verdict"] == "killed").then_some(())
    });
}

/// The last word is heard although the connection is reset behind it, and was found broken by who wrote to it.
#[test]
fn who_leaves_in_the_middle_of_a_flood_has_left() {
    let node =
        Node::with(Settings { arguments: vec!["--runs-host".into(), "runs.test".into()], ..Settings::default() });
    let limits = json!({ "limits": { "output_bytes": 1_u64 << 40, "cpu_ms": 60_000 } });
    let through_gateway = || Stream::at_host("runs.test", node.http, &node.token()).ok();
    drop(wait::until("the gateway has the route", 20, through_gateway));
    for number in 0..20 {
        let through = if number % 2 == 0 { through_gateway() } else { Some(Stream::open(&node)) };
        let mut stream = through.expect("a stream");
        assert!(stream.ask(&with(code("bash", "exec yes"), limits.clone())));
        stream.until(Channel::Stdout, "y\n");
        let id = stream.id.clone();
        stream.leave_at_once();
        wait::until("it is killed", 5, || (node.json(&["runs", "show", &id])["verdict"] == "killed").then_some(()));
    }
}

#[test]
fn code_is_handed_in_through_the_gateway_at_its_host_and_nothing_else_is() {
    let node =
        Node::with(Settings { arguments: vec!["--runs-host".into(), "Runs.test".into()], ..Settings::default() });
    let bearer = format!("Bearer {}", node.token());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [
        ("Host", "runs.test"),
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("traceparent", parent.as_str()),
    ];
    let ask = |method: &str, path: &str, body: &str| http::request(node.http, method, path, &headers, body.as_bytes());
    // It may listen a little later than the API.
    let answer = wait::until("the gateway has the route", 20, || {
        let answer = ask("POST", "/v1/runs", &code("python", "print(6 * 7)").to_string()).ok()?;
        (answer.status == 200).then_some(answer)
    });
    let answer: Value = serde_json::from_slice(&answer.body).expect("an answer");
    assert_eq!(answer["stdout"], "42\n");
    let run = node.json(&["runs", "show", answer["id"].as_str().expect("an id")]);
    assert_eq!((run["trace"].as_str(), run["times"]["place_usec"].as_u64().is_some()), (Some(trace), true), "{run}");
    // What the gateway tells of it and where the run's time went are one trace.
    let told = wait::until("both are told of", 10, || {
        let told = node.json(&["gateway", "trace", trace]);
        let has = |what: &str| told[what].as_array().is_some_and(|all| !all.is_empty());
        (has("requests") && has("runs")).then_some(told)
    });
    assert!(told["runs"].as_array().expect("runs").iter().any(|one| one["id"] == answer["id"]), "{told}");
    let shown = node.cli(&["gateway", "trace", trace]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let id = answer["id"].as_str().expect("an id");
    for part in ["POST runs.test/v1/runs", &format!("run {id} (python)"), "program      |", "finished, worker"] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    let echo = code("python", "print('hello', input())");
    let mut stream = Stream::at_host("runs.test", node.http, &node.token()).expect("a stream through the gateway");
    assert!(stream.ask(&echo));
    stream.feed(b"ann\n");
    assert_eq!(stream.to_the_end().verdict, RunVerdict::Finished);
    assert_eq!(stream.text(Channel::Stdout), "hello ann\n");
    // Whoever leaves there has left.
    let mut stream = Stream::at_host("runs.test", node.http, &node.token()).expect("a stream through the gateway");
    assert!(stream.ask(&code("python", "print('here', flush=True)\nwhile True: pass")));
    stream.until(Channel::Stdout, "here\n");
    let id = stream.id.clone();
    stream.leave();
    wait::until("it is killed", 10, || {
        let run = node.json(&["runs", "show", &id]);
        run["verdict"].is_string().then_some(())
    });
    let stacks = ask("GET", "/v1/stacks", "").expect("an answer");
    assert_eq!(stacks.status, 404, "nothing else of the API is there");
    let nobody = http::request(node.http, "GET", "/v1/runs", &[("Host", "runs.test")], b"").expect("an answer");
    assert_eq!(nobody.status, 401);
}
