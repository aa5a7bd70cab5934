//! Runs on several machines: they go where there is room, and whoever watches one does not notice what goes away between.

use crate::cluster::known;
use lab::run::{Stream, code, with};
use lab::{Node, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use wire::run::{Channel, RunVerdict};

/// Lines that come one after the other for some seconds, each told apart, with a sum of what is read from the input at the end.
const COUNTS: &str = "import sys, time\nfor n in range(400):\n    print('line', n, flush=True)\n    time.sleep(0.01)\nprint('read', sum(int(line) for line in sys.stdin))";

fn counted(sum: u64) -> String {
    let lines: Vec<String> = (0..400).map(|number| format!("line {number}\n")).collect();
    format!("{}read {sum}\n", lines.concat())
}

/// Machines that know each other, have their roles, and can run a language.
fn machines(count: usize, language: &str) -> Vec<Node> {
    let mut nodes = vec![Node::start()];
    for _ in 1..count {
        let joined = nodes[0].join();
        nodes.push(joined);
    }
    ready(&nodes.iter().collect::<Vec<_>>(), language);
    nodes
}

/// Waits until these know each other, have their roles, and can run a language.
pub fn ready(nodes: &[&Node], language: &str) {
    let count = nodes.len();
    for node in nodes {
        wait::until("all know all", 30, || (known(node) == count).then_some(()));
        wait::until("all may run code", 30, || (holders(node, "worker").len() == count).then_some(()));
        wait::until("there are two assigners", 30, || (holders(node, "assigner").len() == 2).then_some(()));
        assert_eq!(node.call("POST", &format!("/v1/languages/{language}/prepare"), "").status, 204);
    }
    for node in nodes {
        wait::until("everybody knows that all can run it", 30, || {
            let languages: Value = serde_json::from_slice(&node.call("GET", "/v1/languages", "").body).ok()?;
            let wanted = languages.as_array()?.iter().find(|one| one["name"] == language)?;
            let copied = wanted["machines"].as_array()?.iter().filter(|machine| machine["copied"] == true).count();
            (copied == count).then_some(())
        });
    }
}

/// Who has a role, by id.
fn holders(node: &Node, role: &str) -> BTreeSet<String> {
    let roles = node.json(&["cluster", "roles"]);
    let has = |one: &&Value| one["roles"].as_array().is_some_and(|roles| roles.iter().any(|has| has == role));
    let of = roles["machines"].as_array().into_iter().flatten().filter(has);
    of.filter_map(|one| one["node"].as_str().map(str::to_owned)).collect()
}

/// What the machines say of their workers, for who wonders why a run was lost.
fn of_workers(nodes: &[Node]) -> String {
    let logs = nodes.iter().map(Node::log).collect::<Vec<_>>().concat();
    let said = logs.lines().filter(|line| line.contains("worker") || line.contains("run"));
    said.map(|line| format!("\n{line}")).collect()
}

fn index_of(nodes: &[Node], id: &str) -> usize {
    nodes.iter().position(|node| node.id() == id).expect("one of ours")
}

/// A machine that neither assigns nor has this run: where a client may stay while others are lost.
fn bystander(nodes: &[Node], but: &BTreeSet<String>) -> usize {
    nodes.iter().position(|node| !but.contains(&node.id())).expect("there are enough")
}

#[test]
fn runs_go_to_machines_with_room_and_are_known_at_each() {
    let nodes = machines(3, "python");
    let sleeps = code("python", "import time\nprint('here', flush=True)\ntime.sleep(60)");
    let mut streams: Vec<Stream> = (0..12).map(|_| Stream::run(&nodes[0], &sleeps)).collect();
    for stream in &mut streams {
        stream.until(Channel::Stdout, "here\n");
    }
    let on: BTreeSet<&String> = streams.iter().map(|stream| &stream.machine).collect();
    assert_eq!(on.len(), 3, "each machine has some");
    for node in &nodes {
        let listed = node.json(&["runs", "ls"]);
        let running = listed.as_array().expect("a list").iter().filter(|run| run["verdict"].is_null()).count();
        assert_eq!(running, 12, "{}", of_workers(&nodes));
    }
    // One is ended from a machine that has nothing to do with it; others by who leaves.
    let mut last = streams.pop().expect("twelve");
    let other = nodes.iter().find(|node| node.id() != last.machine).expect("three");
    assert!(other.cli(&["runs", "kill", &last.id]).status.success());
    assert_eq!(last.to_the_end().verdict, RunVerdict::Killed);
    streams.into_iter().for_each(Stream::leave);
    wait::until("nothing runs any more", 20, || {
        let listed = nodes[1].json(&["runs", "ls"]);
        listed.as_array()?.iter().all(|run| run["verdict"].is_string()).then_some(())
    });
    let answer = nodes[2].call("POST", "/v1/runs", &code("python", "print(6 * 7)").to_string());
    let answer: Value = serde_json::from_slice(&answer.body).expect("an answer");
    assert_eq!((answer["stdout"].as_str(), answer["verdict"].as_str()), (Some("42\n"), Some("finished")), "{answer}");
}

/// The last word arrives through machines between, although nobody takes the output behind it any more.
#[test]
fn who_leaves_in_the_middle_of_a_flood_has_left_wherever_it_runs() {
    let nodes = machines(3, "bash");
    let floods = json!({ "limits": { "output_bytes": 1_u64 << 40, "cpu_ms": 60_000 } });
    let floods = with(code("bash", "exec yes"), floods);
    let mut on = BTreeSet::new();
    for number in 0..24 {
        let mut stream = Stream::run(&nodes[number % 3], &floods);
        stream.until(Channel::Stdout, "y\n");
        let id = stream.id.clone();
        on.insert((number % 3, stream.machine.clone()));
        stream.leave_at_once();
        let killed = || (nodes[0].json(&["runs", "show", &id])["verdict"] == "killed").then_some(());
        wait::until("it is killed", 5, killed);
    }
    assert!(on.len() > 3, "not each was run where it was watched: {on:?}");
}

#[test]
fn a_lost_assigner_is_not_noticed_by_who_watches() {
    let mut nodes = machines(4, "python");
    let assigners = holders(&nodes[0], "assigner");
    let at = bystander(&nodes, &assigners);
    let mut streams: Vec<Stream> = (0..4).map(|_| Stream::run(&nodes[at], &code("python", COUNTS))).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.until(Channel::Stdout, "line 20\n");
        stream.feed(format!("{number}\n").as_bytes());
    }
    // Its process first: workers go on without. Whoever of the two had a run, the other has it then.
    let first = assigners.iter().next().expect("two");
    let killed = index_of(&nodes, first);
    nodes[killed].kill();
    for stream in streams.iter_mut().filter(|stream| stream.machine != *first) {
        stream.until(Channel::Stdout, "line 150\n");
    }
    nodes[killed].launch();
    for stream in &mut streams {
        stream.feed(b"1000\n");
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.until(Channel::Stdout, "line 390\n");
        stream.end_input();
        assert_eq!(stream.to_the_end().verdict, RunVerdict::Finished);
        assert_eq!(stream.text(Channel::Stdout), counted(number as u64 + 1_000));
    }
    let resumed = |node: &Node| {
        let text = node.call("GET", "/metrics", "").text();
        let line = text.lines().find(|line| line.starts_with("bramble_runs_resumed_total")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    assert!(resumed(&nodes[at]) >= 1.0, "somebody was carried on");
}

#[test]
fn a_lost_machine_takes_its_runs_along_and_repeatable_ones_begin_again() {
    let mut nodes = machines(4, "python");
    let assigners = holders(&nodes[0], "assigner");
    let at = bystander(&nodes, &assigners);
    // None of them ends before the machine is lost, however long it takes to begin all.
    let counts = COUNTS.replace("0.01", "0.05");
    let (mine, repeatable) =
        (nodes[at].id(), with(code("python", &counts), json!({ "repeatable": true, "stdin": "7\n" })));
    let plain = with(code("python", &counts), json!({ "stdin": "" }));
    // So many that another machine than the client's own has some of both kinds.
    let mut streams: Vec<(bool, Stream)> = Vec::new();
    for number in 0..12 {
        let again = number % 2 == 0;
        streams.push((again, Stream::run(&nodes[at], if again { &repeatable } else { &plain })));
    }
    let has_both = |machine: &String| {
        let of = |kind: bool| streams.iter().any(|(again, stream)| *again == kind && stream.machine == *machine);
        *machine != mine && of(true) && of(false)
    };
    let machines: BTreeSet<String> = streams.iter().map(|(_, stream)| stream.machine.clone()).collect();
    let lost = machines.iter().find(|machine| has_both(machine)).expect("runs are spread").clone();
    for (_, stream) in &mut streams {
        stream.until(Channel::Stdout, "line 10\n");
    }
    let down = index_of(&nodes, &lost);
    nodes[down].cut_power();
    for (again, stream) in &mut streams {
        let was_there = stream.machine == lost;
        let ended = stream.to_the_end();
        match (was_there, *again) {
            (true, false) => {
                assert_eq!(ended.verdict, RunVerdict::Lost);
                assert!(ended.message.contains(&lost), "who had it is told: {}", ended.message);
            }
            (true, true) => {
                assert_eq!((ended.verdict, stream.again), (RunVerdict::Finished, 1));
                assert_eq!(stream.text(Channel::Stdout), counted(7));
                assert_ne!(stream.machine, lost);
            }
            (false, _) => {
                assert_eq!((ended.verdict, stream.again), (RunVerdict::Finished, 0));
                assert_eq!(stream.text(Channel::Stdout), counted(if *again { 7 } else { 0 }));
            }
        }
    }
}

/// Many inputs, of which a machine that is lost had several at once: those are run again elsewhere, and each is answered once.
#[test]
fn inputs_that_a_lost_machine_had_are_run_elsewhere() {
    let mut nodes = machines(4, "bash");
    let at = bystander(&nodes, &holders(&nodes[0], "assigner"));
    let client = nodes.remove(at);
    let mine = client.id();
    let inputs: Vec<String> = (0..1_000).map(|number| format!("{number}\n")).collect();
    let twice = "read number; sleep 0.01; echo $((number * 2))";
    let limits = json!({ "output_bytes": 1_000 });
    let wanted = json!({ "inputs": inputs, "limits": limits, "repeatable": true });
    let wanted = with(code("bash", twice), wanted).to_string();
    let answer = std::thread::scope(|scope| {
        let asked = scope.spawn(|| client.call("POST", "/v1/runs", &wanted).text());
        let lost = wait::until("another machine has several of them", 20, || {
            let runs = client.json(&["runs", "ls"]);
            let others = runs.as_array()?.iter().filter(|run| run["verdict"].is_null() && run["node"] != *mine);
            others.filter_map(|run| run["node"].as_str().map(str::to_owned)).next()
        });
        let down = index_of(&nodes, &lost);
        nodes[down].cut_power();
        asked.join().expect("an answer")
    });
    let answers: Value = serde_json::from_str(&answer).expect("JSON");
    let answers = answers["runs"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(answers.len(), inputs.len());
    for (number, answer) in answers.iter().enumerate() {
        let said = (answer["verdict"].as_str(), answer["stdout"].as_str());
        assert_eq!(said, (Some("finished"), Some(&*format!("{}\n", number * 2))), "{answer}");
    }
}

#[test]
fn a_client_comes_back_to_its_run_through_another_machine() {
    let mut nodes = machines(3, "python");
    let mut stream = Stream::run(&nodes[0], &code("python", COUNTS));
    stream.until(Channel::Stdout, "line 30\n");
    let (id, arrived, before) = (stream.id.clone(), stream.arrived, stream.text(Channel::Stdout));
    let runs_here = stream.machine == nodes[0].id();
    // The machine that the client was connected to is gone; the run is not, unless it was there.
    if runs_here {
        stream.break_off();
    } else {
        nodes[0].kill();
    }
    let mut back = wait::until("it is found", 20, || {
        let mut back = Stream::open(&nodes[1]);
        back.come_back(&id, arrived).then_some(back)
    });
    back.feed(b"5\n");
    back.end_input();
    assert_eq!(back.to_the_end().verdict, RunVerdict::Finished);
    assert_eq!(before + &back.text(Channel::Stdout), counted(5));
}

#[test]
fn a_node_that_begins_again_finds_the_runs_of_others_at_its_workers() {
    let mut nodes = machines(2, "python");
    let mut streams: Vec<Stream> = (0..6).map(|_| Stream::run(&nodes[0], &code("python", COUNTS))).collect();
    for stream in &mut streams {
        stream.until(Channel::Stdout, "line 20\n");
        stream.end_input();
    }
    let other = nodes[1].id();
    assert!(streams.iter().any(|stream| stream.machine == other), "both machines have some");
    nodes[1].kill();
    nodes[1].launch();
    for stream in &mut streams {
        assert_eq!(stream.to_the_end().verdict, RunVerdict::Finished);
        assert_eq!(stream.text(Channel::Stdout), counted(0));
    }
}
