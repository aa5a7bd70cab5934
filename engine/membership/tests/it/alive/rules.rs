//! Single rules, on two or three machines by hand.

use membership::alive::{
    DATAGRAM_BYTES_MAX, Effect, Event, Gossip, Malformed, NodeId, Record, Settings, Standing, sender,
};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::net::SocketAddr;

fn id(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 7_946))
}

fn gossip_with(settings: Settings, number: u8) -> Gossip {
    let record = Record { zone: format!("z{number}"), addresses: vec![address(number)], ..Record::default() };
    Gossip::new(settings, id(number), 1_000, record).expect("it is short enough")
}

fn gossip(number: u8) -> Gossip {
    gossip_with(Settings::default(), number)
}

/// Carries datagrams at once until nobody has anything to say. Returns the events, and by whom.
fn carry(machines: &mut [&mut Gossip], now_ms: u64, by: usize, effects: Vec<Effect>) -> Vec<(NodeId, Event)> {
    let mut events = Vec::new();
    let mut waiting = VecDeque::from([(by, effects)]);
    while let Some((by, effects)) = waiting.pop_front() {
        for effect in effects {
            match effect {
                Effect::Tell(event) => events.push((machines[by].me(), event)),
                Effect::Send { to, datagram } => {
                    let from = machines[by].record().addresses[0];
                    let Some(there) = machines.iter().position(|machine| machine.record().addresses[0] == to) else {
                        continue;
                    };
                    let mut answers = Vec::new();
                    machines[there].hear(now_ms, from, &datagram, &mut answers).expect("it was just written");
                    waiting.push_back((there, answers));
                }
            }
        }
    }
    events
}

fn tick(machines: &mut [&mut Gossip], now_ms: u64) -> Vec<(NodeId, Event)> {
    let mut events = Vec::new();
    for by in 0..machines.len() {
        let mut effects = Vec::new();
        machines[by].tick(now_ms, now_ms + by as u64, &mut effects);
        events.extend(carry(machines, now_ms, by, effects));
    }
    events
}

#[test]
fn one_contact_is_enough_to_be_known() {
    let (mut one, mut other) = (gossip(1), gossip(2));
    other.contact(address(1));
    let mut events = tick(&mut [&mut one, &mut other], 1_000);
    events.sort_by_key(|(by, _)| *by);
    assert_eq!(events, [(id(1), Event::Came(id(2))), (id(2), Event::Came(id(1)))]);
    let seen = one.peer(1_000, &id(2)).expect("it came");
    assert_eq!(seen.address, Some(address(2)));
    assert_eq!(seen.record.zone, "z2");
    assert_eq!(seen.heard_ms, Some(1_000));
}

#[test]
fn a_changed_record_is_told_and_the_same_one_is_not() {
    let (mut one, mut other) = (gossip(1), gossip(2));
    other.contact(address(1));
    tick(&mut [&mut one, &mut other], 1_000);
    let record = Record { cores: 4, ..other.record().clone() };
    other.set_record(record.clone()).expect("it is short enough");
    assert_eq!(tick(&mut [&mut one, &mut other], 1_300), [(id(1), Event::Changed(id(2)))]);
    assert_eq!(one.peer(1_300, &id(2)).expect("known").record, &record);
    other.set_record(record).expect("it is short enough");
    assert_eq!(tick(&mut [&mut one, &mut other], 1_600), []);
}

#[test]
fn a_verdict_falls_when_the_next_tick_was_said_to_be() {
    let (mut one, mut other) = (gossip(1), gossip(2));
    other.contact(address(1));
    tick(&mut [&mut one, &mut other], 1_000);
    let mut effects = Vec::new();
    let mut now_ms = 1_000;
    while !effects.contains(&Effect::Tell(Event::Silent(id(2)))) {
        now_ms = one.next_tick_ms();
        assert!(now_ms < 5_000);
        one.tick(now_ms, 0, &mut effects);
    }
    assert_eq!(now_ms, 1_000 + 1_700);
    let seen = one.peer(now_ms, &id(2)).expect("it is remembered");
    assert_eq!(seen.standing, Standing::Silent { since_ms: now_ms });
    assert!(seen.phi >= Settings::default().phi_silent);
}

#[test]
fn no_more_machines_are_remembered_than_may_be_and_the_living_stay() {
    let mut one = gossip_with(Settings { machines_max: 3, ..Settings::default() }, 1);
    let came = |number: u8, now_ms: u64, one: &mut Gossip| {
        let mut newcomer = gossip(number);
        newcomer.contact(address(1));
        tick(&mut [one, &mut newcomer], now_ms);
        one.peers(now_ms).any(|seen| seen.id == id(number))
    };
    assert!((2..5).all(|number| came(number, 1_000, &mut one)));
    assert!(!came(5, 1_100, &mut one), "nobody alive makes room");
    let mut now_ms = 1_100;
    while now_ms < 4_000 {
        now_ms = one.next_tick_ms();
        one.tick(now_ms, 0, &mut Vec::new());
    }
    assert!(came(6, now_ms, &mut one), "the silent do");
    assert_eq!(one.peers(now_ms).count(), 3);
}

#[test]
fn nothing_is_said_after_the_farewells() {
    let (mut one, mut other) = (gossip(1), gossip(2));
    other.contact(address(1));
    tick(&mut [&mut one, &mut other], 1_000);
    let mut effects = Vec::new();
    one.leave(1_100, &mut effects);
    assert_eq!(carry(&mut [&mut one, &mut other], 1_100, 0, effects), [(id(2), Event::Left(id(1)))]);
    for now_ms in [1_400, 1_800] {
        let mut effects = Vec::new();
        one.tick(now_ms, 0, &mut effects);
        assert_eq!(effects.len(), 1, "in case the first was lost");
    }
    assert_eq!(one.next_tick_ms(), u64::MAX);
}

#[test]
fn a_foreign_datagram_is_refused() {
    let mut one = gossip(1);
    let mut effects = Vec::new();
    assert_eq!(one.hear(0, address(2), &[9, 9], &mut effects), Err(Malformed::Version(9)));
    let long = vec![1; DATAGRAM_BYTES_MAX + 1];
    let refused = Malformed::TooLong { bytes: 1_201, bytes_max: 1_200 };
    assert_eq!(one.hear(0, address(2), &long, &mut effects), Err(refused));
    assert_eq!(effects, []);
    assert_eq!(refused.to_string(), "cannot read what another machine said: 1201 bytes, of at most 1200");
}

#[test]
fn a_question_names_who_asks() {
    let (mut one, mut effects) = (gossip(1), Vec::new());
    one.contact(address(2));
    one.tick(0, 0, &mut effects);
    let Some(Effect::Send { to, datagram }) = effects.first() else { panic!("it asks its contact: {effects:?}") };
    assert_eq!((*to, sender(datagram)), (address(2), Ok(id(1))));
}

proptest! {
    /// A member may be broken or worse: whatever it sends, the machine stays within its bounds and goes on.
    #[test]
    fn hostile_members_change_no_bound(
        datagrams in prop::collection::vec(
            (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), 0..3_000_u64),
            1..40,
        ),
    ) {
        let mut one = gossip_with(Settings { machines_max: 8, ..Settings::default() }, 1);
        let mut other = gossip(2);
        other.contact(address(1));
        let mut now_ms = 1_000;
        for (changes, wait_ms) in datagrams {
            now_ms += wait_ms;
            let mut questions = Vec::new();
            other.tick(now_ms, now_ms, &mut questions);
            for question in questions {
                let Effect::Send { mut datagram, .. } = question else { continue };
                for (at, byte) in &changes {
                    let at = at.index(datagram.len());
                    datagram[at] = *byte;
                }
                let mut effects = Vec::new();
                let _ = one.hear(now_ms, address(2), &datagram, &mut effects);
                let sent = effects.iter().filter_map(|effect| match effect {
                    Effect::Send { datagram, .. } => Some(datagram.len()),
                    Effect::Tell(_) => None,
                });
                let sent: Vec<usize> = sent.collect();
                prop_assert!(sent.len() <= 4 && sent.iter().all(|bytes| *bytes <= DATAGRAM_BYTES_MAX));
                for effect in effects {
                    let Effect::Send { datagram, .. } = effect else { continue };
                    let _ = other.hear(now_ms, address(1), &datagram, &mut Vec::new());
                }
            }
            one.tick(now_ms, 1, &mut Vec::new());
            prop_assert!(one.peers(now_ms).count() <= 8);
            prop_assert!(one.next_tick_ms() > now_ms);
        }
    }
}
