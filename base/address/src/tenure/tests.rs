//! Two machines and whoever leases the address to them, millisecond by millisecond: their kernels never both have it.

use super::{Effect, Event, KERNEL_LATE_MS, QUIET_MS, Take, Tenure, kernel_seconds, successor_from_ms};
use crate::frame::Mac;
use proptest::prelude::*;

const OTHER: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Everything a machine does at `now_ms`, with a kernel that does what it is told.
fn settle(tenure: &mut Tenure, now_ms: u64, effects: Vec<Effect>) -> Vec<Effect> {
    let mut all = Vec::new();
    let mut left = effects;
    while !left.is_empty() {
        let mut more = Vec::new();
        for effect in left {
            all.push(effect);
            if let Effect::Set { .. } = effect {
                more.extend(tenure.was_set(now_ms, true));
            }
        }
        left = more;
    }
    all
}

#[test]
fn it_is_taken_announced_kept_and_let_go() {
    let mut tenure = Tenure::default();
    let effects = tenure.hold(1_000, 3_100, Take::AtOnce);
    let told = Effect::Tell(Event::Taken { after_ms: 0 });
    assert_eq!(settle(&mut tenure, 1_000, effects), [Effect::Set { seconds: 2 }, told, Effect::Announce]);
    assert_eq!(tenure.wake_at_ms(), Some(1_030));
    assert_eq!(tenure.wake(1_029), []);
    assert_eq!(tenure.wake(1_030), [Effect::Announce]);
    assert_eq!(tenure.hold(1_500, 3_600, Take::AtOnce), [Effect::Set { seconds: 2 }]);
    assert_eq!(tenure.was_set(1_500, true), [Effect::Announce]);
    // Nobody says that it may be held any longer.
    assert_eq!(tenure.wake(3_600), [Effect::Remove, Effect::Tell(Event::Expired)]);
    assert_eq!((tenure.wake_at_ms(), tenure.is_held()), (None, false));
    assert_eq!(tenure.wake(9_000), []);
}

#[test]
fn what_is_released_is_gone_and_comes_back_when_asked_again() {
    let mut tenure = Tenure::default();
    assert_eq!(tenure.release(), []);
    let effects = tenure.hold(0, 2_500, Take::AtOnce);
    settle(&mut tenure, 0, effects);
    assert_eq!(tenure.release(), [Effect::Remove, Effect::Tell(Event::Released)]);
    assert_eq!(tenure.wake(10), []);
    assert_eq!(tenure.hold(20, 2_500, Take::AtOnce), [Effect::Set { seconds: 2 }]);
}

#[test]
fn nothing_is_taken_with_less_than_a_second_left_and_nothing_is_kept_for_longer_than_told() {
    let mut tenure = Tenure::default();
    assert_eq!(tenure.hold(0, 999, Take::AtOnce), []);
    let effects = tenure.hold(10, 5_010, Take::AtOnce);
    settle(&mut tenure, 10, effects);
    // The lease was made shorter: the kernel is told.
    assert_eq!(tenure.hold(20, 2_020, Take::AtOnce)[0], Effect::Set { seconds: 2 });
    assert_eq!(tenure.was_set(20, true), []);
    assert_eq!(tenure.hold(30, 900, Take::AtOnce), [Effect::Remove]);
}

#[test]
fn a_program_that_was_frozen_while_it_asked_the_kernel_takes_back_what_it_asked() {
    let mut tenure = Tenure::default();
    assert_eq!(tenure.hold(0, 2_100, Take::AtOnce), [Effect::Set { seconds: 2 }]);
    // The kernel would have it until 3,000.
    assert_eq!(tenure.was_set(1_000, true), [Effect::Set { seconds: 1 }]);
    assert!(!tenure.is_held());
    assert_eq!(tenure.was_set(1_500, true), [Effect::Remove]);
    assert_eq!(tenure.wake(2_100), [Effect::Tell(Event::Expired)]);
}

#[test]
fn who_may_still_be_there_is_waited_for_until_nobody_answers_or_it_is_surely_gone() {
    let mut tenure = Tenure::default();
    let take = Take::WhenQuiet { gone_at: 2_000 };
    assert_eq!(tenure.hold(0, 9_000, take), [Effect::Probe]);
    assert_eq!(tenure.heard(5, OTHER), [Effect::Tell(Event::Occupied { by: OTHER })]);
    let mut now_ms = 5;
    for _ in 0..4 {
        now_ms = tenure.wake_at_ms().expect("it goes on asking");
        assert_eq!(tenure.wake(now_ms), [Effect::Probe]);
        assert_eq!(tenure.heard(now_ms, OTHER), [], "told once");
    }
    let quiet_from_ms = now_ms;
    let mut effects = Vec::new();
    while !effects.contains(&Effect::Set { seconds: 8 }) {
        now_ms = tenure.wake_at_ms().expect("it goes on asking");
        effects = tenure.wake(now_ms);
    }
    assert!(now_ms >= quiet_from_ms + QUIET_MS && now_ms <= quiet_from_ms + 2 * QUIET_MS, "{now_ms}");
    // Somebody who answers for ever does not keep it from the one who has the lease.
    let mut tenure = Tenure::default();
    tenure.hold(0, 9_000, take);
    for now_ms in (50..2_000).step_by(50) {
        assert_eq!(tenure.wake(now_ms), [Effect::Probe]);
        tenure.heard(now_ms, OTHER);
    }
    assert_eq!(tenure.wake(2_000), [Effect::Set { seconds: 7 }]);
}

#[test]
fn who_claims_what_is_held_here_is_answered_but_not_every_time() {
    let mut tenure = Tenure::default();
    let effects = tenure.hold(0, 9_000, Take::AtOnce);
    settle(&mut tenure, 0, effects);
    let defended = [Effect::Announce, Effect::Tell(Event::Contested { by: OTHER })];
    assert_eq!(tenure.heard(10, OTHER), defended);
    assert_eq!(tenure.heard(11, OTHER), []);
    for now_ms in [30, 150, 500, 1_500, 5_000] {
        assert_eq!(tenure.wake(now_ms), [Effect::Announce]);
    }
    assert_eq!(tenure.heard(5_100, OTHER), defended);
    assert_eq!(tenure.heard(5_101, OTHER), []);
    // Nobody else has the last word for long.
    assert_eq!(tenure.wake_at_ms(), Some(6_100));
    assert_eq!(tenure.wake(6_100), [Effect::Announce]);
}

#[test]
fn a_kernel_that_refuses_is_asked_again() {
    let mut tenure = Tenure::default();
    tenure.hold(0, 5_000, Take::AtOnce);
    assert_eq!(tenure.was_set(0, false), [Effect::Tell(Event::Failed)]);
    assert!(!tenure.is_held());
    let at_ms = tenure.wake_at_ms().expect("it tries again");
    assert_eq!(tenure.wake(at_ms), [Effect::Set { seconds: 4 }]);
    assert_eq!(tenure.was_set(at_ms, false), [Effect::Tell(Event::Failed)]);
    assert_eq!(tenure.release(), [Effect::Remove, Effect::Tell(Event::Released)]);
}

/// What happens to the two, and when after what happened before.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// The program of one stands still.
    Freeze { machine: usize, for_ms: u64 },
    /// It stands still as soon as it has decided to ask its kernel.
    FreezeAtSet { machine: usize, for_ms: u64 },
    /// It ends, and nobody starts it again for so long.
    Kill { machine: usize, for_ms: u64 },
    /// Without power nothing is kept.
    Cut { machine: usize, for_ms: u64 },
    /// The other one is to have the address as soon as it is safe.
    Move,
    /// It is handed over.
    HandOver,
}

struct Machine {
    tenure: Tenure,
    /// Until when its kernel has the address.
    kernel_until_ms: u64,
    frozen_until_ms: u64,
    freeze_at_set_ms: u64,
    /// Decided, not done yet.
    effects: Vec<Effect>,
    late_ms: u64,
}

impl Machine {
    fn has(&self, now_ms: u64) -> bool {
        now_ms < self.kernel_until_ms
    }

    /// Does what was decided; whether it asked who has the address, took it, and let it go as asked.
    fn run(&mut self, now_ms: u64) -> (bool, bool, bool) {
        let (mut probed, mut taken, mut released) = (false, false, false);
        while !self.effects.is_empty() && now_ms >= self.frozen_until_ms {
            match self.effects.remove(0) {
                Effect::Set { seconds } => {
                    self.kernel_until_ms = now_ms + u64::from(seconds) * 1_000 + self.late_ms;
                    let more = self.tenure.was_set(now_ms, true);
                    self.effects.extend(more);
                }
                Effect::Remove => self.kernel_until_ms = 0,
                Effect::Announce => assert!(self.has(now_ms), "it says that it has what it has not"),
                Effect::Probe => probed = true,
                Effect::Tell(event) => {
                    taken |= matches!(event, Event::Taken { .. });
                    released |= event == Event::Released;
                }
            }
            if self.freeze_at_set_ms > 0 && matches!(self.effects.first(), Some(Effect::Set { .. })) {
                self.frozen_until_ms = now_ms + std::mem::take(&mut self.freeze_at_set_ms);
            }
        }
        (probed, taken, released)
    }
}

/// Who leases: to whom, and until when the lease of each may last at most.
struct Lessor {
    to: usize,
    take: Take<u64>,
    over_ms: [u64; 2],
    handing_over: bool,
    /// It is called expired, and not renewed.
    moving: bool,
    /// Who has the lease has said that it took the address. What was not taken yet is nowhere to be heard of, and may be taken
    /// as soon as a frozen program goes on: it is not moved before its lease is over.
    taken: bool,
}

fn live(lease_ms: u64, late_ms: u64, fates: &[(u64, Fate)]) -> Result<u64, TestCaseError> {
    const RENEW_EVERY_MS: u64 = 500;
    const AFTER_MS: u64 = 12_000;
    let machine = || Machine {
        tenure: Tenure::default(),
        kernel_until_ms: 0,
        frozen_until_ms: 0,
        freeze_at_set_ms: 0,
        effects: Vec::new(),
        late_ms,
    };
    let mut machines = [machine(), machine()];
    let mut lessor =
        Lessor { to: 0, take: Take::AtOnce, over_ms: [0, 0], handing_over: false, moving: false, taken: false };
    let mut fates = fates.iter().copied();
    let mut next = fates.next();
    let (mut end_ms, mut held_ms) = (AFTER_MS, 0);
    let mut now_ms = 0;
    while now_ms < end_ms {
        while let Some((at_ms, fate)) = next.filter(|(at_ms, _)| now_ms >= *at_ms) {
            befall(&mut machines, &mut lessor, now_ms, fate);
            next = fates.next().map(|(after_ms, fate)| (at_ms + after_ms, fate));
            end_ms = now_ms + AFTER_MS;
        }
        lease(&mut machines, &mut lessor, now_ms, lease_ms, now_ms % RENEW_EVERY_MS == 0);
        for one in 0..2 {
            if now_ms < machines[one].frozen_until_ms {
                continue;
            }
            let due = machines[one].tenure.wake(now_ms);
            machines[one].effects.extend(due);
            if machines[one].freeze_at_set_ms > 0 && matches!(machines[one].effects.first(), Some(Effect::Set { .. })) {
                machines[one].frozen_until_ms = now_ms + std::mem::take(&mut machines[one].freeze_at_set_ms);
                continue;
            }
            let (probed, taken, released) = machines[one].run(now_ms);
            lessor.taken |= taken && lessor.to == one;
            if probed && machines[1 - one].has(now_ms) {
                let effects = machines[one].tenure.heard(now_ms, OTHER);
                machines[one].effects.extend(effects);
            }
            if released && lessor.handing_over && lessor.to == one {
                lessor = Lessor { to: 1 - one, take: Take::AtOnce, ..lessor };
                (lessor.handing_over, lessor.moving, lessor.taken) = (false, false, false);
                lessor.over_ms[one] = now_ms;
            }
        }
        prop_assert!(!(machines[0].has(now_ms) && machines[1].has(now_ms)), "both have it at {now_ms}");
        held_ms += u64::from(machines.iter().any(|machine| machine.has(now_ms)));
        now_ms += 1;
    }
    prop_assert!(machines[lessor.to].has(now_ms - 1), "whoever has the lease has the address in the end");
    Ok(held_ms)
}

fn befall(machines: &mut [Machine; 2], lessor: &mut Lessor, now_ms: u64, fate: Fate) {
    match fate {
        Fate::Freeze { machine, for_ms } => machines[machine].frozen_until_ms = now_ms + for_ms,
        Fate::FreezeAtSet { machine, for_ms } => machines[machine].freeze_at_set_ms = for_ms,
        Fate::Kill { machine, for_ms } | Fate::Cut { machine, for_ms } => {
            let one = &mut machines[machine];
            (one.tenure, one.effects) = (Tenure::default(), Vec::new());
            one.frozen_until_ms = now_ms + for_ms;
            if let Fate::Cut { .. } = fate {
                one.kernel_until_ms = 0;
            }
        }
        Fate::Move => lessor.moving = true,
        Fate::HandOver => lessor.handing_over = true,
    }
}

fn lease(machines: &mut [Machine; 2], lessor: &mut Lessor, now_ms: u64, lease_ms: u64, renews: bool) {
    let holder = lessor.to;
    if std::mem::take(&mut lessor.moving) && lessor.taken {
        let gone_at = successor_from_ms(lessor.over_ms[holder]);
        let take = Take::WhenQuiet { gone_at };
        *lessor =
            Lessor { to: 1 - holder, take, over_ms: lessor.over_ms, handing_over: false, moving: false, taken: false };
    } else if now_ms > successor_from_ms(lessor.over_ms[holder]) {
        *lessor = Lessor {
            to: 1 - holder,
            take: Take::AtOnce,
            over_ms: lessor.over_ms,
            handing_over: false,
            moving: false,
            taken: false,
        };
    }
    let machine = &mut machines[lessor.to];
    if !renews || now_ms < machine.frozen_until_ms {
        // It may have been granted before anybody asked: counted from now on.
        if lessor.over_ms[lessor.to] == 0 || lessor.to != holder {
            lessor.over_ms[lessor.to] = now_ms + lease_ms;
        }
        return;
    }
    let effects = if lessor.handing_over {
        machine.tenure.release()
    } else {
        lessor.over_ms[lessor.to] = now_ms + lease_ms;
        machine.tenure.hold(now_ms, now_ms + lease_ms, lessor.take)
    };
    machine.effects.extend(effects);
}

fn fates() -> impl Strategy<Value = Vec<(u64, Fate)>> {
    let (machine, for_ms) = (0usize..2, 1u64..6_000);
    let fate = prop_oneof![
        (machine.clone(), for_ms.clone()).prop_map(|(machine, for_ms)| Fate::Freeze { machine, for_ms }),
        (machine.clone(), for_ms.clone()).prop_map(|(machine, for_ms)| Fate::FreezeAtSet { machine, for_ms }),
        (machine.clone(), for_ms.clone()).prop_map(|(machine, for_ms)| Fate::Kill { machine, for_ms }),
        (machine, for_ms).prop_map(|(machine, for_ms)| Fate::Cut { machine, for_ms }),
        Just(Fate::Move),
        Just(Fate::HandOver),
    ];
    proptest::collection::vec((0u64..4_000, fate), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn two_machines_never_both_have_it(lease_ms in 2_010u64..5_000, late_ms in 0..=KERNEL_LATE_MS, fates in fates()) {
        live(lease_ms, late_ms, &fates)?;
    }

    #[test]
    fn the_kernel_is_never_told_more_than_is_left(now_ms in 0u64..1 << 40, left_ms in 0u64..1 << 45) {
        let until_ms = now_ms + left_ms;
        match kernel_seconds(now_ms, until_ms) {
            Some(seconds) => {
                prop_assert!(now_ms + u64::from(seconds) * 1_000 <= until_ms);
                prop_assert!(seconds == u32::MAX - 1 || now_ms + (u64::from(seconds) + 1) * 1_000 > until_ms);
            }
            None => prop_assert!(left_ms < 1_000),
        }
        prop_assert!(successor_from_ms(until_ms) >= until_ms + KERNEL_LATE_MS);
    }
}

#[test]
fn without_faults_it_is_always_there() {
    for lease_ms in [2_100, 2_500, 4_000] {
        assert_eq!(live(lease_ms, 0, &[]).expect("nothing goes wrong"), 12_000, "{lease_ms}");
    }
}
