//! How hard it is for this machine, and who is refused when it is too hard.
//!
//! Owns the measure: how long ready work of the gateway waits for a processor, and how much of the time programs of the
//! machine waited. What is refused first is what the stack files call less important; the machine's own business (a build, a backup) keeps only the least important out. Nobody is refused at
//! a stroke: the share grows with the strain, so that what is let through settles where the machine can bear it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use wire::spec::PriorityClass;

/// Between two looks: often enough to see a burst of a second.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Ready work that waits for so long is all a client notices of a request.
const DELAY_MS_FULL: f32 = 200.0;
/// What one look counts for: the strain is that of the last second.
const GAIN: f32 = 0.2;
/// From which strain on a class is refused, and from where on as far as it ever is.
const LOW: (f32, f32) = (0.75, 0.90);
const NORMAL: (f32, f32) = (0.90, 1.0);
/// Some are let through for as long as anybody is: otherwise nothing would tell that it has become easier.
const SHARE_MAX: f32 = 0.95;

/// The strain now; each part from 0, none, to 1, all there is.
#[derive(Debug, Default)]
pub(crate) struct Strain {
    /// Of the latest thread since the last look, in seconds.
    late: AtomicU32,
    /// Of work that is ready.
    delay: AtomicU32,
    /// Of programs of the machine, as the kernel tells.
    waiting: AtomicU32,
}

impl Strain {
    /// How much later than wanted a thread came to something.
    pub(crate) fn note_late(&self, late: Duration) {
        // Numbers that are not negative are in the order of their bits.
        self.late.fetch_max(late.as_secs_f32().to_bits(), Ordering::Relaxed);
    }

    /// Takes in how late the latest thread was since the last look.
    pub(crate) fn look(&self) {
        let late = f32::from_bits(self.late.swap(0, Ordering::Relaxed));
        let late = (late * 1_000.0 / DELAY_MS_FULL).min(1.0);
        let before = get(&self.delay);
        set(&self.delay, before + GAIN * (late - before));
    }

    /// How much of the time something waited for a processor.
    pub(crate) fn note_waiting(&self, share: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "a share needs no more digits")]
        set(&self.waiting, share as f32);
    }

    /// What there is of it for a class, from 0 to 1.
    pub(crate) fn of(&self, class: PriorityClass) -> f32 {
        let own = get(&self.delay);
        match class {
            PriorityClass::Low => own.max(get(&self.waiting)),
            PriorityClass::Normal | PriorityClass::High => own,
        }
    }

    /// Whether one more of a class may come; `random` makes an even number.
    pub(crate) fn admits(&self, class: PriorityClass, random: impl FnOnce() -> u64) -> bool {
        let (from, to) = match class {
            PriorityClass::Low => LOW,
            PriorityClass::Normal => NORMAL,
            PriorityClass::High => return true,
        };
        let strain = self.of(class);
        if strain < from {
            return true;
        }
        let refused = ((strain - from) / (to - from)).clamp(0.0, 1.0) * SHARE_MAX;
        #[expect(clippy::cast_precision_loss, reason = "a draw needs no more digits")]
        let drawn = (random() >> 40) as f32 / (1_u32 << 24) as f32;
        drawn >= refused
    }
}

fn get(cell: &AtomicU32) -> f32 {
    f32::from_bits(cell.load(Ordering::Relaxed))
}

fn set(cell: &AtomicU32, value: f32) {
    let value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
    cell.store(value.to_bits(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a hundred of each class are let through.
    fn admitted(strain: &Strain) -> [usize; 3] {
        PriorityClass::ALL
            .map(|class| (0..100_u64).filter(|step| strain.admits(class, || (2 * step + 1) * (u64::MAX / 200))).count())
    }

    #[test]
    fn the_least_important_are_refused_first() {
        let strain = Strain::default();
        assert_eq!(admitted(&strain), [100, 100, 100]);
        strain.note_waiting(0.825);
        assert_eq!(admitted(&strain), [52, 100, 100], "half as far as it goes");
        strain.note_waiting(1.0);
        assert_eq!(admitted(&strain), [5, 100, 100], "what others do keeps out no more than these");
        strain.note_waiting(f64::NAN);
        assert_eq!(admitted(&strain), [100, 100, 100]);
    }

    #[test]
    fn work_that_waits_for_a_second_is_a_strain_and_is_forgotten() {
        let strain = Strain::default();
        strain.note_late(Duration::from_secs(5));
        strain.note_late(Duration::ZERO);
        strain.look();
        assert_eq!(admitted(&strain), [100, 100, 100], "one pause is none");
        for _ in 0..20 {
            strain.note_late(Duration::from_secs(5));
            strain.look();
        }
        assert_eq!(admitted(&strain), [5, 14, 100]);
        for _ in 0..20 {
            strain.look();
        }
        assert_eq!(admitted(&strain), [100, 100, 100]);
    }
}
