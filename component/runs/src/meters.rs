//! Figures of runs.

use crate::order::Boxes;
use meter::{Counter, Gauge, Histogram, Meter};
use std::time::Duration;
use wire::run::RunRecord;

/// Of waits and times, in seconds: from a box that was ready to a minute's computation.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

#[derive(Clone)]
pub struct Meters {
    meter: Meter,
    queued: Histogram,
    placed: Histogram,
    boxes: Histogram,
    compiled: Histogram,
    waiting: Gauge,
    refused: Counter,
    workers_lost: Counter,
    resumed: Counter,
    begun_again: Counter,
    buddies_unheard: Counter,
    boxes_built: Counter,
    boxes_ahead: Counter,
    boxes_again: Counter,
    boxes_given_up: Counter,
    copied: Counter,
    not_copied: Counter,
    copying: Histogram,
}

impl Meters {
    pub fn new(meter: &Meter) -> Meters {
        let programs = |from| {
            let help =
                "Programs begun: in a box they waited for, in one built ahead, or in one that another program had.";
            meter.counter("bramble_run_boxes_total", help, &[("from", from)])
        };
        let copies = |result| {
            meter.counter("bramble_language_copies_total", "Languages copied for boxes.", &[("result", result)])
        };
        Meters {
            queued: meter.histogram("bramble_run_queue_seconds", "How long runs waited for a worker.", &[], SECONDS),
            placed: meter.histogram(
                "bramble_run_place_seconds",
                "How long it took to give runs to a machine when it was their turn.",
                &[],
                SECONDS,
            ),
            boxes: meter.histogram("bramble_run_box_seconds", "How long runs waited for their box.", &[], SECONDS),
            compiled: meter.histogram("bramble_run_compile_seconds", "How long compiling took.", &[], SECONDS),
            waiting: meter.gauge("bramble_runs_waiting", "Runs nobody has room for yet.", &[]),
            refused: meter.counter("bramble_runs_refused_total", "Runs refused because too many waited.", &[]),
            workers_lost: meter.counter("bramble_workers_lost_total", "Workers that ended or hung.", &[]),
            resumed: meter.counter(
                "bramble_runs_resumed_total",
                "Times another way was found to a run when a machine between was lost.",
                &[],
            ),
            begun_again: meter.counter(
                "bramble_runs_begun_again_total",
                "Repeatable runs begun anew as their machine was lost.",
                &[],
            ),
            buddies_unheard: meter.counter(
                "bramble_run_buddies_unheard_total",
                "Times an assigner's buddy did not answer when it was told of a run.",
                &[],
            ),
            boxes_built: programs("built"),
            boxes_ahead: programs("ahead"),
            boxes_again: programs("again"),
            boxes_given_up: meter.counter(
                "bramble_run_boxes_given_up_total",
                "Boxes that could not be used again: something of a program would have been left.",
                &[],
            ),
            copied: copies("ok"),
            not_copied: copies("failed"),
            copying: meter.histogram(
                "bramble_language_copy_seconds",
                "How long copying a language took.",
                &[],
                SECONDS,
            ),
            meter: meter.clone(),
        }
    }

    /// A run came to its end.
    pub fn ended(&self, record: &RunRecord) {
        let verdict = record.verdict.map_or("", |verdict| verdict.as_str());
        let of = [("language", record.language.as_str()), ("verdict", verdict)];
        self.meter.counter("bramble_runs_total", "Runs that ended, by language and verdict.", &of).inc();
        let language = [("language", record.language.as_str())];
        let seconds = |usec: u64| usec as f64 / 1e6;
        let times = record.times;
        self.meter
            .histogram("bramble_run_seconds", "How long programs ran.", &language, SECONDS)
            .observe(seconds(times.run_usec));
        self.meter
            .counter("bramble_run_cpu_milliseconds_total", "Processor time of programs.", &language)
            .add(record.cpu_usec / 1_000);
        self.queued.observe(seconds(times.queue_usec));
        self.placed.observe(seconds(times.place_usec));
        self.boxes.observe(seconds(times.box_usec));
        if times.compile_usec > 0 {
            self.compiled.observe(seconds(times.compile_usec));
        }
    }

    /// What a worker did since it told last.
    pub fn boxes(&self, before: Boxes, now: Boxes) {
        self.boxes_built.add(now.built.saturating_sub(before.built));
        self.boxes_ahead.add(now.ahead.saturating_sub(before.ahead));
        self.boxes_again.add(now.again.saturating_sub(before.again));
        self.boxes_given_up.add(now.given_up.saturating_sub(before.given_up));
    }

    /// A language was copied, or could not be.
    pub fn copied(&self, took: Duration, done: bool) {
        if done {
            self.copied.inc();
            self.copying.observe(took.as_secs_f64());
        } else {
            self.not_copied.inc();
        }
    }

    pub fn waiting(&self, count: usize) {
        self.waiting.set(count as f64);
    }

    pub fn refused(&self) {
        self.refused.inc();
    }

    pub fn resumed(&self) {
        self.resumed.inc();
    }

    pub fn begun_again(&self) {
        self.begun_again.inc();
    }

    pub fn buddy_unheard(&self) {
        self.buddies_unheard.inc();
    }

    pub fn worker_lost(&self) {
        self.workers_lost.inc();
    }
}
