//! Three members in one process.

use crate::book::{Book, Member, member, options};
use replication::{Network, RestoreError, SendError, Start, Switchboard, restore};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use storage::replicated::{Machine, Proposer, Waiting};
use world::disk::{Disk, Simulated};

struct Cluster {
    board: Switchboard,
    members: Vec<Member>,
}

impl Cluster {
    async fn of_three() -> Self {
        let board = Switchboard::new();
        let mut members = Vec::new();
        for node in 1..=3 {
            let start = if node == 1 { Start::Found } else { Start::Join };
            let member = member(&Simulated::new(node), node, start, board.line(node)).await.unwrap();
            board.connect(node, member.group.clone());
            members.push(member);
        }
        members[0].group.add_learner(2).await.unwrap();
        members[0].group.add_learner(3).await.unwrap();
        members[0].group.set_voters(BTreeSet::from([1, 2, 3])).await.unwrap();
        Self { board, members }
    }

    fn member(&self, node: u64) -> &Member {
        self.members.iter().find(|member| member.group.overview().node == node).unwrap()
    }

    /// Waits until a member other than `not` leads and says which.
    async fn leader_but(&self, not: Option<u64>) -> u64 {
        loop {
            let leading = self.members.iter().filter(|member| member.group.leading().is_some());
            let mut nodes = leading.map(|member| member.group.overview().node);
            if let Some(node) = nodes.find(|node| Some(*node) != not) {
                return node;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn close(self) {
        for member in &self.members {
            self.board.disconnect(member.group.overview().node);
            member.group.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_agree_and_any_of_them_takes_commands() {
    let cluster = Cluster::of_three().await;
    for round in 0..10u8 {
        for member in &cluster.members {
            member.group.propose(vec![round, member.group.overview().node as u8]).await.unwrap();
        }
    }
    for member in &cluster.members {
        member.group.barrier().await.unwrap();
        assert_eq!(member.book.pages().len(), 30);
        assert_eq!(member.book.pages(), cluster.members[0].book.pages());
        assert_eq!(member.group.ask(b"x".to_vec()).await.unwrap(), b"re: x");
    }
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_catches_up() {
    let cluster = Cluster::of_three().await;
    cluster.member(1).group.propose(b"before".to_vec()).await.unwrap();
    let lost = cluster.leader_but(None).await;
    cluster.board.isolate(lost);
    let next = cluster.leader_but(Some(lost)).await;
    for _ in 0..5 {
        cluster.member(next).group.propose(b"without".to_vec()).await.unwrap();
    }
    cluster.board.mend();
    // As long as it takes itself for the leader, what it is given may be lost to the next one's entries, and it says so.
    while cluster.member(lost).group.overview().leader != Some(next) {
        tokio::task::yield_now().await;
    }
    cluster.member(lost).group.propose(b"after".to_vec()).await.unwrap();
    for member in &cluster.members {
        member.group.barrier().await.unwrap();
        assert_eq!(member.book.pages().len(), 7, "member {}", member.group.overview().node);
    }
    cluster.close().await;
}

/// A line that counts what is sent through it.
struct Counting {
    line: Arc<dyn Network>,
    sent: Arc<AtomicUsize>,
}

impl Network for Counting {
    fn send(&self, to: u64, message: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, SendError>> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.line.send(to, message)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_does_not_end_the_lead_of_a_leader_the_others_hear() {
    let sent = Arc::new(AtomicUsize::new(0));
    let board = Switchboard::new();
    let mut members = Vec::new();
    for node in 1..=3 {
        let start = if node == 1 { Start::Found } else { Start::Join };
        let line = board.line(node);
        let line = if node == 3 { Arc::new(Counting { line, sent: Arc::clone(&sent) }) } else { line };
        members.push(member(&Simulated::new(node), node, start, line).await.unwrap());
        board.connect(node, members.last().unwrap().group.clone());
    }
    let cluster = Cluster { board, members };
    let leader = &cluster.member(1).group;
    leader.add_learner(2).await.unwrap();
    leader.add_learner(3).await.unwrap();
    leader.set_voters(BTreeSet::from([1, 2, 3])).await.unwrap();
    leader.propose(b"before".to_vec()).await.unwrap();
    let before = leader.overview();
    cluster.board.isolate(3);
    // It follows, so that all it says is that it would like to be elected.
    let (begun, rounds) = (sent.load(Ordering::Relaxed), 3);
    until(|| sent.load(Ordering::Relaxed) >= begun + 2 * rounds).await;
    leader.propose(b"without".to_vec()).await.unwrap();
    cluster.board.mend();
    let away = cluster.member(3);
    until(|| away.book.pages().len() == 2).await;
    leader.propose(b"after".to_vec()).await.unwrap();
    until(|| away.book.pages().len() == 3).await;
    let after = leader.overview();
    assert_eq!((after.term, after.leader), (before.term, before.leader));
    assert_eq!(away.group.overview().term, before.term);
    cluster.close().await;
}

/// A line to a leader that may be of a version before commands were gathered, which answers nothing to what it does not know.
struct Gathered {
    line: Arc<dyn Network>,
    is_old: bool,
    commands: Arc<AtomicUsize>,
}

impl Network for Gathered {
    fn send(&self, to: u64, message: Vec<u8>) -> Waiting<'_, Result<Vec<u8>, SendError>> {
        const PROPOSE: u8 = 4;
        const PROPOSE_ALL: u8 = 8;
        if [PROPOSE, PROPOSE_ALL].contains(&message[1]) {
            self.commands.fetch_add(1, Ordering::Relaxed);
        }
        if self.is_old && message[1] == PROPOSE_ALL {
            return Box::pin(async { Ok(Vec::new()) });
        }
        self.line.send(to, message)
    }
}

#[tokio::test]
async fn commands_that_wait_at_once_go_to_the_leader_together_and_each_happens_once() {
    const COMMANDS: usize = 100;
    for is_old in [false, true] {
        let (board, commands) = (Switchboard::new(), Arc::<AtomicUsize>::default());
        let leader = member(&Simulated::new(1), 1, Start::Found, board.line(1)).await.unwrap();
        board.connect(1, leader.group.clone());
        let line = Arc::new(Gathered { line: board.line(2), is_old, commands: Arc::clone(&commands) });
        let follower = member(&Simulated::new(2), 2, Start::Join, line).await.unwrap();
        board.connect(2, follower.group.clone());
        leader.group.add_learner(2).await.unwrap();
        until(|| follower.group.overview().leader == Some(1)).await;
        let proposed = (0..COMMANDS).map(|number| follower.group.propose(vec![u8::try_from(number).unwrap()]));
        for answered in futures::future::join_all(proposed).await {
            answered.unwrap();
        }
        let mut pages = leader.book.pages();
        pages.sort();
        assert_eq!(pages, (0..COMMANDS).map(|number| vec![u8::try_from(number).unwrap()]).collect::<Vec<_>>());
        let sent = commands.load(Ordering::Relaxed);
        assert!(if is_old { sent >= COMMANDS } else { sent < COMMANDS / 10 }, "{sent} messages, old: {is_old}");
        for member in [&leader, &follower] {
            member.group.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joins_late_gets_a_snapshot() {
    let board = Switchboard::new();
    let first = member(&Simulated::new(1), 1, Start::Found, board.line(1)).await.unwrap();
    board.connect(1, first.group.clone());
    for _ in 0..120 {
        let mut together = tokio::task::JoinSet::new();
        for _ in 0..25 {
            let group = first.group.clone();
            together.spawn(async move { group.propose(vec![1; 100]).await });
        }
        assert!(together.join_all().await.iter().all(Result::is_ok));
    }
    let late = member(&Simulated::new(2), 2, Start::Join, board.line(2)).await.unwrap();
    board.connect(2, late.group.clone());
    first.group.add_learner(2).await.unwrap();
    late.group.barrier().await.unwrap();
    assert_eq!(late.book.pages().len(), 3000);
    Cluster { board, members: vec![first, late] }.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_on_all_members_loses_nothing_acknowledged() {
    let cluster = Cluster::of_three().await;
    for number in 0..20u8 {
        cluster.member(1).group.propose(vec![number]).await.unwrap();
    }
    let Cluster { board, members } = cluster;
    let disks = members.iter().map(|member| member.disk.clone()).collect::<Vec<_>>();
    for (node, member) in (1..).zip(members) {
        board.disconnect(node);
        member.disk.power_cut();
        member.group.close().await;
    }
    let mut members = Vec::new();
    for (node, disk) in (1..).zip(&disks) {
        let member = member(disk, node, Start::Join, board.line(node)).await.unwrap();
        board.connect(node, member.group.clone());
        members.push(member);
    }
    let cluster = Cluster { board, members };
    cluster.leader_but(None).await;
    for member in &cluster.members {
        member.group.barrier().await.unwrap();
        assert_eq!(member.book.pages(), (0..20u8).map(|number| vec![number]).collect::<Vec<_>>());
    }
    cluster.close().await;
}

#[tokio::test]
async fn an_even_number_of_voters_is_refused() {
    let board = Switchboard::new();
    let one = member(&Simulated::new(1), 1, Start::Found, board.line(1)).await.unwrap();
    assert!(one.group.set_voters(BTreeSet::from([1, 2])).await.is_err());
    one.group.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_alone_when_told_to_and_the_others_follow_it() {
    let cluster = Cluster::of_three().await;
    for number in 0..5u8 {
        cluster.member(1).group.propose(vec![number]).await.unwrap();
    }
    for member in &cluster.members {
        member.group.barrier().await.unwrap();
    }
    let Cluster { board, members } = cluster;
    let disks = members.iter().map(|member| member.disk.clone()).collect::<Vec<_>>();
    for (node, member) in (1..).zip(members) {
        board.disconnect(node);
        member.group.close().await;
    }
    let forced = member(&disks[2], 3, Start::Force, board.line(3)).await.unwrap();
    board.connect(3, forced.group.clone());
    assert_eq!(forced.group.overview().voters, BTreeSet::from([3]));
    forced.group.propose(b"alone".to_vec()).await.unwrap();
    assert_eq!(forced.book.pages().len(), 6);
    // The others are back with what they had, and elect and write without it. It is not disturbed, and they are told.
    let mut members = vec![forced];
    let mut of_before = Vec::new();
    for (node, disk) in (1..).zip(disks.iter().take(2)) {
        let member = member(disk, node, Start::Join, board.line(node)).await.unwrap();
        board.connect(node, member.group.clone());
        of_before.push(member);
    }
    of_before[0].group.propose(b"of before".to_vec()).await.unwrap();
    // Whether it is said to have been added or not, nothing of before reaches the one that leads now.
    let _ = tokio::time::timeout(Duration::from_secs(1), members[0].group.add_learner(1)).await;
    while !of_before[0].group.overview().is_superseded {
        tokio::task::yield_now().await;
    }
    assert!(!members[0].group.overview().is_superseded);
    assert_eq!(members[0].book.pages().len(), 6);
    members[0].group.propose(b"still alone".to_vec()).await.unwrap();
    // With nothing they are welcome.
    for (node, member) in (1..).zip(of_before) {
        board.disconnect(node);
        member.group.close().await;
    }
    for node in [1, 2] {
        let member = member(&Simulated::new(node + 10), node, Start::Join, board.line(node)).await.unwrap();
        board.connect(node, member.group.clone());
        members.push(member);
    }
    for node in [1, 2] {
        while members[0].group.add_learner(node).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
    while members[0].group.set_voters(BTreeSet::from([1, 2, 3])).await.is_err() {
        tokio::task::yield_now().await;
    }
    let cluster = Cluster { board, members };
    cluster.member(1).group.propose(b"together".to_vec()).await.unwrap();
    for member in &cluster.members {
        member.group.barrier().await.unwrap();
        assert_eq!(member.book.pages().len(), 8, "member {}", member.group.overview().node);
    }
    cluster.close().await;
}

#[tokio::test]
async fn who_never_had_the_state_takes_no_lead() {
    let board = Switchboard::new();
    let refused = member(&Simulated::new(1), 1, Start::Force, board.line(1)).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("nothing to go on with")));
}

/// Long beside an election on a busy machine.
const WITHIN: Duration = Duration::from_secs(20);

/// Waits until it is so.
async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, waiting).await.unwrap();
}

/// Opens a member whose disk an earlier one of it, which was closed, may still be letting go of.
async fn free_member(disk: &Simulated, node: u64, start: Start, board: &Switchboard) -> Member {
    let opened = async {
        loop {
            match member(disk, node, start, board.line(node)).await {
                Ok(member) => return member,
                Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, opened).await.unwrap()
}

/// Writes `snapshot` as the state of a new group of `node` alone.
fn restored(disk: &Simulated, node: u64, snapshot: &[u8], term: u64, now_ms: u64) -> Result<(), RestoreError> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let machine: Arc<dyn Machine> = Book::open(Arc::clone(&shared), "/member/state.redb").unwrap();
    restore(options(shared, Path::new("/member/log"), node, Start::Found), &machine, snapshot, term, now_ms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_begins_anew_from_a_kept_state_and_those_of_before_are_superseded() {
    let cluster = Cluster::of_three().await;
    for page in [b"one", b"two"] {
        cluster.members[0].group.propose(page.to_vec()).await.unwrap();
    }
    let (snapshot, term) = (cluster.members[0].book.snapshot(), cluster.members[0].group.overview().term);
    cluster.members[0].group.propose(b"lost".to_vec()).await.unwrap();
    // As often as people force leads: the state that was kept knows nothing of it.
    let disks: Vec<Simulated> = cluster.members.iter().map(|member| member.disk.clone()).collect();
    cluster.close().await;
    let board = Switchboard::new();
    let mut of_before = None;
    for _ in 0..3 {
        let forced = free_member(&disks[1], 2, Start::Force, &board).await;
        forced.group.close().await;
        of_before = Some(forced.disk);
    }
    let of_before = free_member(&of_before.unwrap(), 2, Start::Join, &board).await;
    board.connect(2, of_before.group.clone());

    let disk = Simulated::new(9);
    restored(&disk, 9, &snapshot, term, 1_800_000_000_000).unwrap();
    assert!(matches!(restored(&disk, 9, &snapshot, term, 0), Err(RestoreError::Occupied { .. })));
    let anew = member(&disk, 9, Start::Found, board.line(9)).await.unwrap();
    board.connect(9, anew.group.clone());
    assert_eq!(anew.book.pages(), [b"one", b"two"]);
    assert_eq!(anew.group.overview().voters, BTreeSet::from([9]));
    anew.group.propose(b"three".to_vec()).await.unwrap();
    let _ = tokio::time::timeout(Duration::from_secs(1), anew.group.add_learner(2)).await;
    until(|| of_before.group.overview().is_superseded).await;
    assert!(!anew.group.overview().is_superseded);
    board.disconnect(2);
    of_before.group.close().await;
    // With nothing it is welcome, and gets what nobody ever proposed to this group.
    let empty = member(&Simulated::new(20), 2, Start::Join, board.line(2)).await.unwrap();
    board.connect(2, empty.group.clone());
    let added = async {
        while anew.group.add_learner(2).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, added).await.unwrap();
    until(|| empty.book.pages().len() == 3).await;
    assert_eq!(empty.book.pages(), [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    // What was written is there after the next start as well.
    board.disconnect(9);
    anew.group.close().await;
    drop(anew);
    let again = free_member(&disk, 9, Start::Join, &board).await;
    assert_eq!(again.book.pages().len(), 3);
    Cluster { board, members: vec![again, empty] }.close().await;
}

#[test]
fn a_term_that_no_group_had_is_refused() {
    let refused = restored(&Simulated::new(1), 1, &[], u64::MAX, 0);
    assert!(matches!(refused, Err(RestoreError::Term { term: u64::MAX })));
    let refused = restored(&Simulated::new(1), 1, &[], 1, u64::MAX);
    assert!(matches!(refused, Err(RestoreError::Term { term: 1 })), "a clock of another age");
}
