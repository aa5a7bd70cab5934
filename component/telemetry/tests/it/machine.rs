//! The machine's numbers, from files a test writes and from this very machine.

use std::fs;
use std::path::Path;
use telemetry::Machine;

fn write(dir: &Path, file: &str, content: &str) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().expect("has one")).expect("makes a folder");
    fs::write(path, content).expect("writes");
}

fn shim(dir: &Path, pid: u32, started: u64, ticks: u64, rss_kib: u64, written: u64) {
    let stat = format!("{pid} (bramble-shim (x) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {started} 0 0\n");
    write(dir, &format!("{pid}/stat"), &stat);
    write(dir, &format!("{pid}/status"), &format!("Name:\tx\nVmRSS:\t  {rss_kib} kB\n"));
    write(dir, &format!("{pid}/io"), &format!("rchar: 1\nwrite_bytes: {written}\n"));
}

#[test]
fn the_kernels_files_become_a_load() {
    let proc = tempfile::tempdir().expect("makes a folder");
    write(proc.path(), "stat", "cpu  10 0 10 80 0 0 0 0 0 0\n");
    write(proc.path(), "loadavg", "1.50 1.00 0.50 2/100 42\n");
    write(proc.path(), "meminfo", "MemTotal: 1000 kB\nMemAvailable: 250 kB\n");
    write(proc.path(), "pressure/memory", "some avg10=25.00 avg60=0.00 avg300=0.00 total=1\n");
    let machine = Machine::new(proc.path(), proc.path());
    machine.look();
    write(proc.path(), "stat", "cpu  25 0 20 155 0 0 0 0 0 0\n");
    machine.look();
    let load = machine.load();
    assert_eq!((load.load_1m, load.cpu_busy, load.psi_memory), (1.5, 0.25, 0.25));
    assert_eq!(load.memory_available_bytes, 250 << 10);
    assert!(load.disk_total_bytes >= load.disk_available_bytes && load.disk_total_bytes > 0);
    let reading = machine.reading();
    assert_eq!((reading.psi_cpu, reading.memory_total_bytes), (None, Some(1_000 << 10)));
}

#[test]
fn what_waits_is_found_out_where_the_kernel_does_not_tell() {
    let proc = tempfile::tempdir().expect("makes a folder");
    let stat = |idle: u32, disk_idle: u32, running: u32| {
        let cores = "cpu0 1 0 0 0\ncpu1 1 0 0 0\n";
        write(proc.path(), "stat", &format!("cpu  0 0 0 {idle} {disk_idle} 0 0 0\n{cores}procs_running {running}\n"));
    };
    let machine = Machine::new(proc.path(), proc.path());
    stat(100, 0, 9);
    let first = machine.look();
    assert_eq!((first.waiting_cpu(), first.waiting_io()), (Some(0.0), Some(0.0)), "one look says nothing");
    // An hour later: all of it counts. One of two processors was idle because of a disk.
    let long = std::time::Duration::from_secs(3_600);
    stat(150, 50, 9);
    let later = machine.look_after(long);
    assert_eq!((later.waiting_cpu(), later.waiting_io()), (Some(1.0), Some(1.0)));
    stat(210, 70, 3);
    let later = machine.look_after(long);
    assert_eq!((later.waiting_cpu(), later.waiting_io()), (Some(0.0), Some(0.5)), "two run, and whoever looks");
    assert_eq!((later.psi_cpu, later.psi_io), (None, None));
    write(proc.path(), "pressure/cpu", "some avg10=25.00 avg60=0.00 avg300=0.00 total=1\n");
    assert_eq!(machine.look_after(long).waiting_cpu(), Some(0.25), "the kernel knows better");
}

#[test]
fn what_the_kernel_does_not_tell_is_left_out() {
    let proc = tempfile::tempdir().expect("makes a folder");
    let machine = Machine::new(proc.path(), &proc.path().join("nowhere"));
    let meter = meter::Meter::new();
    let _held = machine.register(&meter);
    let names: Vec<_> = meter.samples().into_iter().map(|sample| sample.name).collect();
    assert!(!names.iter().any(|name| name.starts_with("bramble_node_")), "{names:?}");
    assert_eq!(machine.load(), wire::api::Load::default());
}

#[test]
fn shims_are_counted_together_and_what_ended_stays_counted() {
    let proc = tempfile::tempdir().expect("makes a folder");
    let machine = Machine::new(proc.path(), proc.path());
    shim(proc.path(), 11, 500, 100, 2_000, 4_096);
    shim(proc.path(), 12, 500, 200, 1_000, 0);
    machine.watch_shims(vec![11, 12, 13]);
    let shims = machine.look().shims;
    assert_eq!((shims.count, shims.resident_bytes, shims.written_bytes), (2, 3_000 << 10, 4_096));
    assert_eq!(shims.cpu_seconds, 3.0);
    // 11 goes on, 12 ended and its pid is another's now.
    shim(proc.path(), 11, 500, 150, 2_000, 8_192);
    shim(proc.path(), 12, 900, 50, 500, 1);
    let shims = machine.look().shims;
    assert_eq!((shims.cpu_seconds, shims.written_bytes), (4.0, 8_193));
    machine.watch_shims(Vec::new());
    let shims = machine.look().shims;
    assert_eq!((shims.count, shims.resident_bytes, shims.cpu_seconds), (0, 0, 4.0));
}

#[test]
fn this_machine_can_be_read() {
    let machine = Machine::new(Path::new("/proc"), Path::new("/"));
    let reading = machine.look();
    assert!(reading.memory_available_bytes.is_some_and(|bytes| bytes > 0));
    assert!(reading.cpu_busy.is_some_and(|busy| (0.0..=1.0).contains(&busy)));
    assert!(reading.load_1m.is_some() && reading.disk_total_bytes.is_some());
    assert!(reading.agent.count == 1 && reading.agent.resident_bytes > 0);
}
