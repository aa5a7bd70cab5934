//! What a commit and an idle hour cost on this machine's disk. Not a test: numbers to read, run by hand.

use crate::replicated::alone;
use control::Txn;
use std::sync::Arc;
use world::clock::monotonic;
use world::disk::Real;

/// Processor time of this process so far, in clock ticks of 10 ms.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().collect::<Vec<_>>();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, for people"]
async fn commits_and_idling() {
    let directory = tempfile::tempdir().unwrap();
    let machine = alone(Arc::new(Real), directory.path()).await;
    let start = monotonic();
    for number in 0..1000u64 {
        machine.space.commit(Txn::new().put(format!("k{}", number % 50), vec![1; 400])).await.unwrap();
    }
    println!("one after the other: {:?} a commit", start.elapsed() / 1000);
    let (start, writes) = (monotonic(), machine.group.overview().writes);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64u64 {
        let space = machine.space.clone();
        writers.spawn(async move {
            for _ in 0..100 {
                space.commit(Txn::new().put(format!("w{writer}"), vec![1; 400])).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let rate = 6400.0 / start.elapsed().as_secs_f64();
    println!("64 at once: {rate:.0} commits/s in {} syncs", machine.group.overview().writes - writes);
    let (before, writes) = (processor_ticks(), machine.group.overview().writes);
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    let ticks = processor_ticks() - before;
    println!("idle: {:.2} % of a core, {} writes", ticks as f64 / 20.0, machine.group.overview().writes - writes);
    machine.close().await;
}
