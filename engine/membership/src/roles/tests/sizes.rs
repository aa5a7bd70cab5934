//! How roles are stacked on clusters of each size: the table of docs/roles.md.

use super::Quiet;
use crate::roles::Spec;

/// Gateway, monitor, assigner, worker; voter, learner; `-` is empty.
fn check(count: usize, spec: Spec, expected: &str) {
    let quiet = Quiet::settled(count, spec);
    assert_eq!(quiet.table(), expected, "{count} machines: {:#?}", quiet.assignment);
    let plan = quiet.plan();
    assert!(plan.steps.is_empty() && plan.wake_at_ms.is_none(), "{plan:?}");
}

fn apart(workers: u32) -> Spec {
    Spec { apart: true, workers, ..Spec::default() }
}

#[test]
fn one_machine_does_all() {
    check(1, Spec::default(), "GMAWv");
}

#[test]
fn the_second_of_two_holds_no_vote() {
    check(2, Spec::default(), "GMAWv MAWl");
}

#[test]
fn roles_part_as_machines_join() {
    check(3, Spec::default(), "GMWv MAWv MAWv");
    check(4, Spec::default(), "GMWv MAWv MWv AWl");
    check(5, Spec::default(), "GMWv MWv MWv AWv AWv");
    check(7, Spec::default(), "GMWv MWv MWv AWv AWv W W");
    check(30, Spec::default(), &["GMWv MWv MWv AWv AWv", &" W".repeat(25)].concat());
}

#[test]
fn orchestrators_do_not_work_where_the_spec_says_so_and_others_can() {
    check(5, apart(u32::MAX), "GMWv MWv MWv AWv AWv");
    check(7, apart(u32::MAX), "GMv Mv Mv Av Av W W");
    check(7, apart(1), "GMv Mv Mv Av Av W -");
}
