use crate::world::{World, shell, with_world};
use sandbox::{BoxSpec, Command, Outcome, Root, RunLimits, Trust, Verdict};
use std::io::Read;
use std::os::fd::OwnedFd;

/// Runs in a parked box; returns how it ended and what it wrote.
async fn run(world: &World, spec: &BoxSpec, command: Command, limits: RunLimits) -> (Outcome, String) {
    let parked = world.spawner.park(spec).await.unwrap();
    let (mut output, inside) = std::io::pipe().unwrap();
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let stdio = [null(), OwnedFd::from(inside.try_clone().unwrap()), OwnedFd::from(inside)];
    let outcome = parked.run(command, stdio, limits).await.unwrap();
    let mut text = Vec::new();
    output.read_to_end(&mut text).unwrap();
    (outcome, String::from_utf8_lossy(&text).into_owned())
}

fn untrusted(name: &str) -> BoxSpec {
    BoxSpec::new(name, Trust::Untrusted, Root::Host)
}

#[test]
fn a_parked_box_runs_once() {
    with_world(|world| async move {
        let (outcome, output) = run(&world, &untrusted("run"), shell("echo hello; exit 5"), RunLimits::default()).await;
        assert_eq!((outcome.verdict, outcome.code, output.as_str()), (Verdict::Exited, Some(5), "hello\n"));
    });
}

#[test]
fn a_run_over_its_time_is_killed() {
    with_world(|world| async move {
        let limits = RunLimits { wall_ms: Some(100), ..RunLimits::default() };
        let (outcome, _) = run(&world, &untrusted("wall"), shell("trap '' TERM; while :; do :; done"), limits).await;
        assert_eq!((outcome.verdict, outcome.signal), (Verdict::Wall, Some(9)));
    });
}

#[test]
fn strangers_have_no_capability_and_no_way_to_one() {
    with_world(|world| async move {
        let line = "grep -E 'Cap(Prm|Eff|Bnd|Inh)|NoNewPrivs|Seccomp:' /proc/self/status; ls /proc/sys 2>&1; \
                    unshare -U true 2>&1; ls /sys | wc -l; cat /proc/1/environ 2>&1";
        let (outcome, output) = run(&world, &untrusted("caps"), shell(line), RunLimits::default()).await;
        assert!(outcome.signal.is_none());
        for expected in [
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "/proc/sys': No such file",
            "unshare failed: Operation not permitted",
            "environ: Permission denied",
        ] {
            assert!(output.contains(expected), "{expected} not in {output}");
        }
    });
}

#[test]
fn a_run_over_a_limit_says_which() {
    with_world(|world| async move {
        let check = async |name: &str, limits: RunLimits, line: &str, expected: Verdict| {
            let limits = RunLimits { wall_ms: Some(20_000), ..limits };
            let (outcome, output) = run(&world, &untrusted(name), shell(line), limits).await;
            assert_eq!(outcome.verdict, expected, "{name}: {outcome:?}");
            output
        };
        let none = RunLimits::default();
        let cpu = RunLimits { cpu_ms: Some(100), ..none.clone() };
        check("cpu", cpu.clone(), "while :; do :; done", Verdict::Cpu).await;
        check("cpu-children", cpu, "for n in 1 2 3 4; do (while :; do :; done) & done; wait", Verdict::Cpu).await;
        let memory = RunLimits { memory_bytes: Some(64 << 20), ..none.clone() };
        check("memory", memory, "head -c 300000000 /dev/zero | tail", Verdict::Memory).await;
        let output = RunLimits { output_bytes: Some(50_000), ..none.clone() };
        let text = check("output", output.clone(), "echo start; exec yes", Verdict::Output).await;
        assert_eq!(text.len(), 50_000);
        let text = check("output-within", output, "yes | head -c 49999; sleep 1000 & exit", Verdict::Exited).await;
        assert_eq!(text.len(), 49_999);
        let exact = RunLimits { output_bytes: Some(5), ..none };
        assert_eq!(check("output-exact", exact, "printf 12345", Verdict::Exited).await, "12345");
    });
}
