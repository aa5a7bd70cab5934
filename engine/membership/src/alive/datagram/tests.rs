use super::*;
use proptest::prelude::*;

fn counter() -> impl Strategy<Value = u64> {
    prop_oneof![0..=200_u64, Just(COUNTER_MAX), 0..=COUNTER_MAX]
}

fn known() -> impl Strategy<Value = Known> {
    (counter(), counter(), counter(), 0..AGE_UNITS_MAX, any::<bool>()).prop_map(
        |(generation, heartbeat, version, age, left)| Known {
            generation,
            heartbeat,
            version,
            age_ms: age * AGE_UNIT_MS,
            left,
        },
    )
}

fn head() -> impl Strategy<Value = Head> {
    (any::<[u8; 32]>(), counter(), counter()).prop_map(|(sender, generation, heartbeat)| Head {
        sender: NodeId(sender),
        generation,
        heartbeat,
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    let range = any::<(u64, u64)>().prop_map(|(a, b)| Kind::Ask { first: Short(a), last: Short(b) });
    prop_oneof![range, Just(Kind::Answer), Just(Kind::Tell)]
}

fn entry() -> impl Strategy<Value = Entry> {
    (any::<u64>(), known()).prop_map(|(short, known)| Entry { short: Short(short), known })
}

fn item() -> impl Strategy<Value = ([u8; 32], Known, Record)> {
    let record = ("[a-z]{0,20}", 0..9_u32, any::<u64>()).prop_map(|(zone, cores, memory_free_bytes)| Record {
        zone,
        cores,
        memory_free_bytes,
        ..Record::default()
    });
    (any::<[u8; 32]>(), known(), record)
}

#[derive(Debug, Clone)]
struct Said {
    kind: Kind,
    head: Head,
    entries: Vec<Entry>,
    wants: Vec<u64>,
    items: Vec<([u8; 32], Known, Record)>,
}

fn said() -> impl Strategy<Value = Said> {
    let lists = (
        prop::collection::vec(entry(), 0..80),
        prop::collection::vec(any::<u64>(), 0..20),
        prop::collection::vec(item(), 0..6),
    );
    (kind(), head(), lists).prop_map(|(kind, head, (entries, wants, items))| Said { kind, head, entries, wants, items })
}

/// The letter, and how much of what was to be said found room.
fn write(said: &Said) -> (Vec<u8>, [usize; 3]) {
    let mut letter = Letter::new(said.head);
    let wants = said.wants.iter().take_while(|short| letter.want(Short(**short))).count();
    let items = said.items.iter().take_while(|(id, known, record)| {
        letter.item(&Item { id: NodeId(*id), known: *known, raw: &record.encode().unwrap() })
    });
    let items = items.count();
    let entries = said.entries.iter().take_while(|entry| letter.entry(entry)).count();
    (letter.seal(said.kind), [entries, wants, items])
}

proptest! {
    #[test]
    fn what_is_written_is_read(said in said()) {
        let (bytes, [entries, wants, items]) = write(&said);
        prop_assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
        prop_assert_eq!(sender(&bytes), Ok(said.head.sender));
        let read = decode(&bytes).unwrap();
        prop_assert_eq!(read.kind, said.kind);
        prop_assert_eq!(read.head, said.head);
        prop_assert_eq!(&read.entries, &said.entries[..entries]);
        prop_assert_eq!(read.wants, said.wants[..wants].iter().map(|short| Short(*short)).collect::<Vec<_>>());
        let of = |(item, record): &(Item<'_>, Record)| (item.id.0, item.known, record.clone());
        prop_assert_eq!(read.items.iter().map(of).collect::<Vec<_>>(), &said.items[..items]);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..1_300)) {
        let _ = (decode(&bytes).is_ok(), sender(&bytes), Record::decode(&bytes));
        // Past the first two checks.
        let mut bytes = bytes;
        for (at, byte) in [VERSION, kind::ANSWER].into_iter().enumerate() {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        if let Ok(read) = decode(&bytes) {
            prop_assert!(read.entries.len() + read.wants.len() + read.items.len() <= bytes.len() / 8);
        }
    }

    #[test]
    fn changed_and_cut_datagrams_are_read_or_refused(
        said in said(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut bytes, _) = write(&said);
        let _ = decode(&bytes[..cut.index(bytes.len())]).is_ok();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(read) = decode(&bytes) {
            for known in read.entries.iter().map(|entry| entry.known).chain(read.items.iter().map(|(item, _)| item.known)) {
                prop_assert!(known.generation.max(known.heartbeat).max(known.version) <= COUNTER_MAX);
                prop_assert!(known.age_ms <= AGE_UNITS_MAX * AGE_UNIT_MS);
            }
        }
    }
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    let head = Head { sender: NodeId([7; 32]), generation: 5, heartbeat: 9 };
    let mut letter = Letter::new(head);
    assert!(letter.want(Short(1)));
    let mut bytes = letter.seal(Kind::Tell);
    bytes.extend([99, 0, 3, 1, 2, 3]);
    assert_eq!(decode(&bytes).unwrap().wants, [Short(1)]);
    bytes.push(99);
    assert_eq!(decode(&bytes).err(), Some(Malformed::CutOff));
}

/// Of 50 machines with counters as after a month, all are in one datagram: that is what the interval's step is from.
#[test]
fn fifty_machines_fit_into_one_digest() {
    let generation = 1_795_000_000_000;
    let mut letter = Letter::new(Head { sender: NodeId([7; 32]), generation, heartbeat: 10_000_000 });
    let month_ms = 30 * 86_400_000;
    let fitting = (0..100_u64).take_while(|number| {
        let known = Known {
            generation: generation - number * month_ms / 100,
            heartbeat: 10_000_000,
            version: 2_500_000,
            age_ms: 1_000,
            left: false,
        };
        letter.entry(&Entry { short: Short(*number), known })
    });
    let fitting = fitting.count();
    assert!(fitting >= 50, "{fitting}");
}

#[test]
fn the_longest_record_can_be_told() {
    let mut letter = Letter::new(Head { sender: NodeId([7; 32]), generation: COUNTER_MAX, heartbeat: COUNTER_MAX });
    let known =
        Known { generation: COUNTER_MAX, heartbeat: COUNTER_MAX, version: COUNTER_MAX, age_ms: u64::MAX, left: true };
    assert!(letter.item(&Item { id: NodeId([1; 32]), known, raw: &[1; RECORD_BYTES_MAX] }));
}
