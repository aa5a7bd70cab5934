//! The merge against a plain one: sort everything, keep the end.

use super::{Bed, everything};
use proptest::prelude::*;
use telemetry::logs::Query;

/// How one instance's lines are spread over its two files.
#[derive(Debug, Clone)]
struct Instance {
    /// Steps from one line's time to the next.
    steps: Vec<u64>,
    in_previous: usize,
}

fn instance() -> impl Strategy<Value = Instance> {
    (proptest::collection::vec(0..4_u64, 0..30), 0..30_usize)
        .prop_map(|(steps, in_previous)| Instance { in_previous: in_previous.min(steps.len()), steps })
}

/// Bytes that are sometimes nearly lines.
fn junk() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"12 o ".to_vec()),
        Just(b"18446744073709551615 e ".to_vec()),
        Just(b"0 b".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_are_lines(previous in junk(), current in junk(), other in junk()) {
        let bed = Bed::new();
        bed.append("a", "previous", &previous);
        bed.append("a", "current", &current);
        bed.append("b", "current", &other);
        let lines = |bytes: &[u8]| match bytes {
            [] => 0,
            [.., b'\n'] => bytes.split(|byte| *byte == b'\n').count() - 1,
            _ => bytes.split(|byte| *byte == b'\n').count(),
        };
        prop_assert_eq!(bed.texts(everything()).len(), lines(&previous) + lines(&current) + lines(&other));
    }

    #[test]
    fn it_finds_what_sorting_everything_finds(
        instances in proptest::collection::vec(instance(), 0..5),
        since in proptest::option::of(0..40_u64),
        until in proptest::option::of(0..80_u64),
        tail in proptest::option::of(0..20_usize),
        grep in proptest::option::of("[0-3]"),
    ) {
        let bed = Bed::new();
        let mut all = Vec::new();
        for (at, instance) in instances.iter().enumerate() {
            let name = format!("i{at}");
            let mut time = 1;
            for (line, step) in instance.steps.iter().enumerate() {
                time += step;
                let text = format!("{name} line {line}");
                let file = if line < instance.in_previous { "previous" } else { "current" };
                bed.append(&name, file, format!("{time} o {text}\n"));
                all.push((time, text));
            }
        }
        // A stable sort keeps each instance's order, and the lower instance first at equal times.
        all.sort_by_key(|(time, _)| *time);
        all.retain(|(time, text)| {
            since.is_none_or(|since| *time >= since)
                && until.is_none_or(|until| *time <= until)
                && grep.as_ref().is_none_or(|grep| text.contains(grep.as_str()))
        });
        let from = all.len() - tail.unwrap_or(all.len()).min(all.len());
        let expected: Vec<_> = all.split_off(from).into_iter().map(|(_, text)| text).collect();
        let found = bed.texts(Query { since_ms: since, until_ms: until, tail, grep, ..everything() });
        prop_assert_eq!(found, expected);
    }
}
