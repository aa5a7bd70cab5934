//! A member on its own: what was acknowledged survives, a commit is one sync, a full disk refuses and recovers.

use crate::book::{Book, Member, member, options};
use replication::{Group, Nowhere, OpenError, Options, Start};
use std::path::Path;
use std::sync::Arc;
use storage::replicated::{ProposeError, Proposer};
use world::disk::{Disk, Real, Simulated};

async fn open(disk: &Simulated) -> Result<Member, OpenError> {
    member(disk, 1, Start::Found, Arc::new(Nowhere)).await
}

fn command(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

#[tokio::test]
async fn a_member_on_its_own_commits_and_reopens() {
    let disk = Simulated::new(1);
    let first = open(&disk).await.unwrap();
    assert_eq!(first.group.propose(command(1)).await.unwrap(), command(1));
    assert_eq!(first.group.propose(command(2)).await.unwrap(), command(2));
    assert_eq!(first.group.ask(b"hello".to_vec()).await.unwrap(), b"re: hello");
    first.group.close().await;
    drop(first);
    let second = open(&disk).await.unwrap();
    assert_eq!(second.book.pages(), [command(1), command(2)]);
    assert_eq!(second.group.propose(command(3)).await.unwrap(), command(3));
    second.group.close().await;
}

#[tokio::test]
async fn a_commit_is_one_sync_and_waiting_is_none() {
    let disk = Simulated::new(1);
    let one = open(&disk).await.unwrap();
    one.group.propose(command(0)).await.unwrap();
    let before = disk.syncs();
    for number in 0..20 {
        one.group.propose(command(number)).await.unwrap();
    }
    assert_eq!(disk.syncs() - before, 20);
    let (syncs, operations) = (disk.syncs(), disk.operations());
    for _ in 0..8 {
        one.group.barrier().await.unwrap();
        one.group.ask(Vec::new()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(crate::book::TIMING.heartbeat_ms)).await;
    }
    assert_eq!((disk.syncs(), disk.operations()), (syncs, operations), "heartbeats and reading write nothing");
    one.group.close().await;
}

#[tokio::test]
async fn commands_that_wait_together_share_a_sync() {
    let disk = Simulated::new(1);
    let one = open(&disk).await.unwrap();
    let before = disk.syncs();
    let proposals = (0..300).map(|number| one.group.propose(command(number)));
    let replies = futures_join(proposals).await;
    assert!(replies.iter().all(Result::is_ok));
    assert!(disk.syncs() - before < 30, "{} syncs", disk.syncs() - before);
    assert_eq!(one.book.pages().len(), 300);
    one.group.close().await;
}

/// Goes on until the log has given up entries, which happens behind the commits; returns how many it took.
async fn purged_to(member: &Member, index: u64) -> usize {
    let mut more = 0;
    while member.group.overview().purged_index.is_none_or(|purged| purged < index) {
        member.group.propose(command(0)).await.unwrap();
        more += 1;
    }
    more
}

async fn futures_join<T: Send>(work: impl Iterator<Item = impl Future<Output = T> + Send>) -> Vec<T> {
    let mut work = work.map(Box::pin).collect::<Vec<_>>();
    let mut done = work.iter().map(|_| None).collect::<Vec<_>>();
    std::future::poll_fn(|context| {
        for (work, done) in work.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = work.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    for cut_after in 0..90 {
        let disk = Simulated::new(cut_after);
        disk.lose_power_after(cut_after);
        let mut acknowledged = 0;
        if let Ok(member) = open(&disk).await {
            while acknowledged < 25 {
                let proposed = tokio::time::timeout(
                    std::time::Duration::from_secs(5),
                    member.group.propose(vec![acknowledged as u8; 20_000]),
                );
                match proposed.await {
                    Ok(Ok(_)) => acknowledged += 1,
                    Ok(Err(_)) | Err(_) => break,
                }
            }
            member.group.close().await;
        }
        disk.power_cut();
        let member = open(&disk).await.unwrap_or_else(|error| panic!("cut after {cut_after}: {error:?}"));
        let pages = member.book.pages();
        assert!(
            pages.len() == acknowledged || pages.len() == acknowledged + 1,
            "cut after {cut_after}: {} of {acknowledged}",
            pages.len()
        );
        assert!(pages.iter().enumerate().all(|(number, page)| *page == vec![number as u8; 20_000]));
        member.group.propose(command(1)).await.unwrap();
        member.group.close().await;
    }
}

#[tokio::test]
async fn the_disk_stays_bounded_and_a_restart_replays_little() {
    let disk = Simulated::new(1);
    let one = open(&disk).await.unwrap();
    for number in 0..12_000u64 {
        if number % 50 == 0 {
            let batch = futures_join((0..50).map(|_| one.group.propose(vec![7; 600]))).await;
            assert!(batch.iter().all(Result::is_ok));
        }
    }
    let more = purged_to(&one, 100).await;
    assert!(one.group.overview().stopped.is_none());
    one.group.close().await;
    drop(one);
    let names = disk.list(Path::new("/member/log")).unwrap();
    let segments = names.iter().filter(|name| name.ends_with(".log")).count();
    assert!(segments < 25, "{names:?}");
    disk.power_cut();
    let again = open(&disk).await.unwrap();
    assert_eq!(again.book.pages().len(), 12_000 + more);
    again.group.close().await;
}

#[tokio::test]
async fn what_members_may_lack_stays_in_the_log_when_a_checkpoint_has_it() {
    let disk = Simulated::new(1);
    let book = Book::open(Arc::new(disk.clone()), "/state.redb").unwrap();
    let usual = options(Arc::new(disk), Path::new("/member/log"), 1, Start::Found);
    let kept_bytes = usual.kept_bytes;
    let group = Group::open(Options { checkpoint_commands: 100, ..usual }, book, Arc::new(Nowhere)).await.unwrap();
    while group.overview().purged_index.is_none() {
        group.propose(vec![7; 1_000]).await.unwrap();
    }
    let overview = group.overview();
    let kept = overview.last_index.unwrap() - overview.purged_index.unwrap();
    let least = kept_bytes / 1_100;
    assert!(kept >= least && kept <= least + 150, "{kept} entries of a kilobyte are kept, wanted at least {least}");
    group.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_keeps_reading_and_recovers() {
    let disk = Simulated::new(1);
    let one = open(&disk).await.unwrap();
    one.group.propose(vec![1; 1000]).await.unwrap();
    disk.set_capacity(Some(disk.taken_bytes()));
    let mut acknowledged = 1;
    let refused = loop {
        match one.group.propose(vec![2; 20_000]).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ProposeError::DiskFull);
    assert!(acknowledged > 1, "the room taken ahead is used");
    one.group.barrier().await.unwrap();
    assert_eq!(one.book.pages().len(), acknowledged);
    disk.set_capacity(None);
    one.group.propose(vec![3; 20_000]).await.unwrap();
    one.group.close().await;
    drop(one);
    disk.power_cut();
    assert_eq!(open(&disk).await.unwrap().book.pages().len(), acknowledged + 1);
}

#[tokio::test]
async fn another_members_log_is_refused() {
    let disk = Simulated::new(1);
    open(&disk).await.unwrap().group.close().await;
    let other = member(&disk, 2, Start::Found, Arc::new(Nowhere)).await;
    assert!(matches!(other, Err(OpenError::OtherMember { found: 1, node: 2, .. })));
}

#[tokio::test]
async fn a_state_that_lags_behind_its_log_is_refused() {
    let disk = Simulated::new(1);
    let one = open(&disk).await.unwrap();
    for _ in 0..60 {
        futures_join((0..50).map(|_| one.group.propose(vec![7; 600]))).await;
        one.group.propose(vec![8; 1000]).await.unwrap();
    }
    purged_to(&one, 1).await;
    one.group.close().await;
    drop(one);
    disk.remove(Path::new("/member/state.redb")).unwrap();
    let opened = open(&disk).await;
    assert!(matches!(opened, Err(OpenError::Gap { state: None, .. })), "{:?}", opened.err());
}

#[tokio::test]
async fn without_room_taken_ahead_a_write_waits_for_it_and_closing_gives_it_up() {
    let disk = Simulated::new(1);
    disk.cannot_reserve();
    let one = open(&disk).await.unwrap();
    one.group.propose(vec![1; 1000]).await.unwrap();
    disk.set_capacity(Some(disk.taken_bytes()));
    let waiting = one.group.clone();
    let waiting = world::task::spawn("test.propose", async move { waiting.propose(vec![2; 20_000]).await });
    while !one.group.overview().disk_full {
        tokio::task::yield_now().await;
    }
    assert_eq!(one.group.propose(vec![3; 1000]).await, Err(ProposeError::DiskFull));
    one.group.barrier().await.unwrap();
    disk.set_capacity(None);
    waiting.join().await.unwrap().unwrap();
    disk.set_capacity(Some(disk.taken_bytes()));
    let waiting = one.group.clone();
    let waiting = world::task::spawn("test.propose", async move { waiting.propose(vec![4; 20_000]).await });
    while !one.group.overview().disk_full {
        tokio::task::yield_now().await;
    }
    one.group.close().await;
    assert!(matches!(waiting.join().await.unwrap(), Err(ProposeError::Stopped { .. })));
    drop(one);
    disk.set_capacity(None);
    assert_eq!(open(&disk).await.unwrap().book.pages().len(), 2);
}

#[tokio::test]
async fn messages_of_any_content_are_answered_without_a_panic() {
    let disk = Simulated::new(1);
    let one = open(&disk).await.unwrap();
    one.group.propose(command(1)).await.unwrap();
    for length in 0..64usize {
        for kind in 0..10u8 {
            let mut message = (0..length).map(|n| (n * 37 + length) as u8).collect::<Vec<_>>();
            message.splice(..2.min(length), [1, kind].into_iter().take(length));
            assert!(one.group.handle(&message).await.is_empty(), "{message:?}");
        }
    }
    assert_eq!(one.book.pages(), [command(1)]);
    one.group.close().await;
}

fn fixture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/group-1")
}

/// The commands of the fixture, and its restart: entries of every kind, a vote, a note.
async fn scripted(directory: &Path) {
    let book = Book::open(Arc::new(Simulated::new(1)), "/state.redb").unwrap();
    let group =
        Group::open(options(Arc::new(Real), directory, 1, Start::Found), book, Arc::new(Nowhere)).await.unwrap();
    for number in 0..5 {
        group.propose(command(number)).await.unwrap();
    }
    group.close().await;
}

#[tokio::test]
async fn the_first_format_is_still_read() {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    let book = Book::open(Arc::new(Simulated::new(1)), "/state.redb").unwrap();
    let options = options(Arc::new(Real), directory.path(), 1, Start::Found);
    let group = Group::open(options, book.clone(), Arc::new(Nowhere)).await.unwrap();
    assert_eq!(book.pages(), (0..5).map(command).collect::<Vec<_>>());
    group.propose(command(5)).await.unwrap();
    group.close().await;
}

#[tokio::test]
#[ignore = "writes the fixture of the current format, once per version"]
async fn write_the_fixture() {
    scripted(&fixture()).await;
}
