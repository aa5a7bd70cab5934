//! An instance that must not run twice stops by itself where nobody hears of who leads, and only then another has its place.
//!
//! Instances write when they live into a file that all machines share: what one wrote last comes before what the next wrote first.

use lab::machines::Verb;
use lab::{Machines, Node, process, wait};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The verdict, the lease, what is counted longer, and a machine with much to do.
const MOVED: u64 = 60;
/// An instance writes twenty times a second.
const WRITES: &str = "while :; do read now rest </proc/uptime; echo \"$ME $now\" >>/shared/$FILE; sleep 0.05; done";

/// What was written, by instance: first and last, in hundredths of a second since the machine was started, and how often.
type Timeline = BTreeMap<String, (u64, u64, usize)>;

struct Case {
    cluster: Machines,
    shared: tempfile::TempDir,
    /// Where the one instance is that stops by itself, and which it is.
    at: usize,
    first: String,
    /// Who is asked: a machine that stays.
    by: usize,
}

/// `one` runs where `where_to` says, `all` everywhere.
fn stack(shared: &Path, where_to: &str) -> String {
    let service = |file: &str, more: &str| {
        format!(
            "    image: host\n    command: [/bin/sh, -c, '{}']\n    volumes: ['{}:/shared']\n    \
             environment: {{ME: '{{{{.Task.ID}}}} {{{{.Node.ID}}}}', FILE: {file}}}\n{more}",
            WRITES.replace('$', "$$"),
            shared.display(),
        )
    };
    let one = service(
        "one",
        &format!(
            "    deploy: {{placement: {{constraints: ['{where_to}']}}, update_config: {{monitor: 100ms}}}}\n    \
             x-bramble: {{disconnect: {{stop_after: 6s}}}}\n"
        ),
    );
    let all = service("all", "    deploy: {mode: global, update_config: {monitor: 100ms}}\n");
    format!("services:\n  one:\n{one}  all:\n{all}")
}

impl Case {
    /// The instance is on another machine than the first, which leads.
    fn begin() -> Option<Case> {
        let cluster = three()?;
        let leader = cluster.node(1).id();
        Some(Case::with(cluster, 1, &[&format!("node.id != {leader}")]))
    }

    /// With a stack whose instance is placed first as the first constraint says, and may then move as the last does.
    fn with(cluster: Machines, by: usize, constraints: &[&str]) -> Case {
        let node = cluster.node(by);
        let shared = folder();
        for constraint in constraints {
            node.deployed("shop", &stack(shared.path(), constraint));
        }
        let (first, machine) = wait::until("it runs", 30, || one(node));
        let at = cluster.number(&machine).expect("it is on one of them");
        let case = Case { cluster, shared, at, first, by };
        wait::until("it writes", 20, || case.written("one").contains_key(&case.first).then_some(()));
        case
    }

    fn by(&self) -> &Node {
        self.cluster.node(self.by)
    }

    fn written(&self, file: &str) -> Timeline {
        read(&self.shared.path().join(file)).into_iter().map(|((id, _), times)| (id, times)).collect()
    }

    /// Of the service without `stop_after`, by machine.
    fn others_written(&self) -> Timeline {
        read(&self.shared.path().join("all")).into_iter().map(|((_, machine), times)| (machine, times)).collect()
    }

    /// Another has its place, and began after the first had ended; which one.
    fn moves(&self) -> String {
        let node = self.by();
        wait::until("why it waits is told, if it still does", 20, || {
            if one(node).is_some_and(|(id, _)| id != self.first) {
                return Some(());
            }
            let why = node.json(&["service", "why", "shop/one"]);
            let note = why["slots"][0]["note"].as_str()?.to_owned();
            (note.contains("has surely stopped it") && note.contains("at the latest in")).then_some(())
        });
        let next = wait::until("another has its place", MOVED, || {
            one(node).filter(|(id, machine)| *id != self.first && *machine != self.cluster.node(self.at).id())
        });
        let next =
            wait::until("that one writes", 20, || self.written("one").contains_key(&next.0).then_some(next.0.clone()));
        self.never_both(&next);
        next
    }

    fn never_both(&self, next: &str) {
        let written = self.written("one");
        let (ended, began) = (written[&self.first].1, written[next].0);
        println!("the first ended {} ms before the next began", (began.saturating_sub(ended)) * 10);
        assert!(ended < began, "{written:?}");
        assert_eq!(written.len(), 2, "{written:?}");
    }

    /// The machine is there again, and everybody agrees that only the second is.
    fn one_is_left(&self, next: &str) {
        let (node, back) = (self.by(), self.cluster.node(self.at));
        let sees = |node: &Node| -> Vec<String> {
            let all = node.instances();
            let of = all.iter().filter(|one| one["instance"]["service"] == "one");
            of.map(|one| format!("{} {} {}", one["instance"]["id"], one["instance"]["wanted"], one["status"])).collect()
        };
        let is_left = |seen: &[String]| seen.len() == 1 && seen[0].contains(next);
        let deadline = world::clock::monotonic() + Duration::from_secs(60);
        loop {
            let machines = node.json(&["node", "ls"]);
            let are_up = machines.as_array().is_some_and(|all| all.iter().all(|one| one["presence"] == "up"));
            let (here, there) = (sees(node), sees(back));
            if are_up && is_left(&here) && is_left(&there) {
                break;
            }
            assert!(world::clock::monotonic() < deadline, "{are_up} {here:#?}\n{there:#?}\n{}", back.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        let before = self.written("one")[next].2;
        wait::until("the second goes on", 20, || (self.written("one")[next].2 > before + 20).then_some(()));
        self.never_both(next);
    }
}

fn three() -> Option<Machines> {
    let cluster = Machines::in_network(3)?;
    wait::until("three vote", 60, || cluster.node(1).log().contains("voters=3").then_some(()));
    Some(cluster)
}

/// What all machines share; what is root inside is not outside.
fn folder() -> tempfile::TempDir {
    let shared = tempfile::tempdir().expect("a temporary folder");
    std::fs::set_permissions(shared.path(), Permissions::from_mode(0o777)).expect("it is ours");
    shared
}

/// The instance that stops by itself, if it is wanted and ready, and its machine.
fn one(by: &Node) -> Option<(String, String)> {
    let instances = by.instances();
    let is_it = |one: &&serde_json::Value| {
        one["instance"]["service"] == "one" && one["instance"]["wanted"] == "running" && one["status"]["ready"] == true
    };
    let found = instances.iter().find(is_it)?;
    let text = |key: &str| found["instance"][key].as_str().map(str::to_owned);
    Some((text("id")?, text("node")?))
}

fn read(path: &PathBuf) -> BTreeMap<(String, String), (u64, u64, usize)> {
    let mut written = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let mut words = line.split(' ');
        let (Some(id), Some(machine), Some(at)) = (words.next(), words.next(), words.next()) else { continue };
        // Hundredths, whatever a torn line says.
        let Ok(at) = at.replace('.', "").parse::<u64>() else { continue };
        let entry = written.entry((id.to_owned(), machine.to_owned())).or_insert((at, at, 0));
        entry.1 = entry.1.max(at);
        entry.2 += 1;
    }
    written
}

#[test]
fn one_whose_machine_is_cut_off_is_dead_before_another_starts() {
    let Some(mut case) = Case::begin() else { return };
    let cut_off = case.cluster.node(case.at).id();
    case.cluster.act(Verb::Partition(case.at, None)).expect("it is cut off");
    let next = case.moves();
    let began = case.written("one")[&next].0;
    wait::until("what has no `stop_after` goes on there", 20, || {
        (case.others_written()[&cut_off].1 > began).then_some(())
    });
    assert!(case.cluster.node(case.at).log().contains("this machine has no word from who leads"));
    case.cluster.act(Verb::Heal).expect("it is back");
    case.one_is_left(&next);
}

#[test]
fn one_whose_agent_is_killed_is_dead_before_another_starts() {
    let Some(mut case) = Case::begin() else { return };
    case.cluster.act(Verb::Kill(case.at)).expect("its node is gone");
    let next = case.moves();
    case.cluster.act(Verb::Rejoin(case.at)).expect("it starts again");
    case.one_is_left(&next);
}

#[test]
fn one_whose_machine_stands_still_does_not_go_on_with_it() {
    let Some(mut case) = Case::begin() else { return };
    case.cluster.act(Verb::Freeze(case.at)).expect("it stands still");
    let next = case.moves();
    case.cluster.act(Verb::Thaw(case.at)).expect("it goes on");
    case.one_is_left(&next);
}

#[test]
fn one_whose_machine_is_dark_starts_elsewhere() {
    let Some(mut case) = Case::begin() else { return };
    case.cluster.act(Verb::PowerCut(Some(case.at))).expect("it is dark");
    let next = case.moves();
    case.cluster.act(Verb::Rejoin(case.at)).expect("it starts again");
    case.one_is_left(&next);
}

#[test]
fn one_whose_agent_is_stopped_is_dead_before_another_starts() {
    let Some(case) = Case::begin() else { return };
    let agent = case.cluster.node(case.at).pid();
    process::signal(agent, Signal::STOP);
    let next = case.moves();
    process::signal(agent, Signal::CONT);
    case.one_is_left(&next);
}

#[test]
fn one_on_the_machine_that_leads_is_waited_for_by_who_leads_next() {
    let Some(cluster) = three() else { return };
    let leader = cluster.node(1).id();
    let mut case = Case::with(cluster, 2, &[&format!("node.id == {leader}"), "node.id != nobody"]);
    assert_eq!(case.at, 1);
    case.cluster.act(Verb::Partition(1, None)).expect("it is cut off");
    let next = case.moves();
    case.cluster.act(Verb::Heal).expect("it is back");
    case.one_is_left(&next);
}

#[test]
fn where_nobody_leads_it_stops_and_it_starts_there_when_somebody_does() {
    let Some(mut case) = Case::begin() else { return };
    let others: Vec<usize> = (1..=3).filter(|number| *number != case.at).collect();
    for number in &others {
        case.cluster.act(Verb::PowerCut(Some(*number))).expect("it is dark");
    }
    let last = |case: &Case| case.written("one")[&case.first].1;
    wait::until("it stops, and what has no `stop_after` goes on", 60, || {
        let all = case.others_written().values().map(|times| times.1).max()?;
        // Five seconds in which it did not write.
        (all > last(&case) + 500).then_some(())
    });
    let stopped = last(&case);
    case.cluster.act(Verb::Rejoin(others[1])).expect("it starts again");
    wait::until("the same one runs again", 60, || (last(&case) > stopped + 100).then_some(()));
    assert_eq!(case.written("one").len(), 1);
}

#[test]
fn a_machine_on_its_own_needs_no_word_of_anybody() {
    let mut node = Node::start();
    let shared = folder();
    node.deployed("shop", &stack(shared.path(), "node.id != nobody"));
    let (first, machine) = wait::until("it runs", 30, || one(&node));
    let last = || read(&shared.path().join("one")).get(&(first.clone(), machine.clone())).map_or(0, |times| times.1);
    wait::until("it writes", 20, || (last() > 0).then_some(()));
    node.kill();
    let killed = last();
    // Longer than it could have lived by a lease.
    wait::until("it goes on without its agent", 30, || (last() > killed + 900).then_some(()));
    node.launch();
    assert_eq!(wait::until("it is found again", 30, || one(&node)).0, first);
}
