//! What was measured: a table for people, JSON for programs.

use serde_json::{Value, json};
use std::path::PathBuf;

/// One figure, with what it is compared to.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) ours: f64,
    /// Another's figure for the same, and whose.
    pub(super) peer: Option<(f64, String)>,
    pub(super) goal: Goal,
    pub(super) holds: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    /// To know, not to reach.
    None,
    /// Less than this, in the row's unit.
    Below(f64),
    /// This, in the row's unit, or more.
    AtLeast(f64),
    /// At most this many times the peer's.
    TimesPeer(f64),
    /// At least this many times the peer's.
    LeastTimesPeer(f64),
}

impl Row {
    pub(super) fn new(name: impl Into<String>, unit: &'static str, ours: f64, goal: Goal) -> Row {
        Row { name: name.into(), unit, ours, peer: None, goal, holds: true }.judged()
    }

    pub(super) fn beside(mut self, name: impl Into<String>, peer: f64) -> Row {
        self.peer = Some((peer, name.into()));
        self.judged()
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|(peer, _)| self.ours / peer)
    }

    fn judged(mut self) -> Row {
        self.holds = match self.goal {
            Goal::None => true,
            Goal::Below(most) => self.ours < most,
            Goal::AtLeast(least) => self.ours >= least,
            Goal::TimesPeer(most) => self.ratio().is_some_and(|ratio| ratio <= most),
            Goal::LeastTimesPeer(least) => self.ratio().is_some_and(|ratio| ratio >= least),
        };
        self
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::None => String::new(),
            Goal::Below(most) => format!("< {most} {}", self.unit),
            Goal::AtLeast(least) => format!(">= {least} {}", self.unit),
            Goal::TimesPeer(most) => format!("<= {most} x"),
            Goal::LeastTimesPeer(least) => format!(">= {least} x"),
        }
    }

    fn json(&self) -> Value {
        let (peer, peer_name) = match &self.peer {
            Some((peer, name)) => (Some(*peer), Some(name)),
            None => (None, None),
        };
        json!({
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "peer": peer,
            "peer_name": peer_name,
            "ratio": self.ratio(),
            "goal": self.goal(),
            "holds": self.holds,
        })
    }
}

pub(super) fn print(rows: &[Row]) {
    println!("{:<44} {:>10} {:>10} {:<14} {:>7} {:<12} holds", "", "ours", "peer", "", "ratio", "goal");
    for row in rows {
        let (peer, name) = match &row.peer {
            Some((peer, name)) => (format!("{peer:.3}"), name.as_str()),
            None => (String::new(), ""),
        };
        let ratio = row.ratio().map(|ratio| format!("{ratio:.2} x")).unwrap_or_default();
        let holds = match (row.goal, row.holds) {
            (Goal::None, _) => "",
            (Goal::Below(_) | Goal::AtLeast(_) | Goal::TimesPeer(_) | Goal::LeastTimesPeer(_), true) => "yes",
            (Goal::Below(_) | Goal::AtLeast(_) | Goal::TimesPeer(_) | Goal::LeastTimesPeer(_), false) => "NO",
        };
        let label = format!("{}, {}", row.name, row.unit);
        println!("{label:<44} {:>10.3} {peer:>10} {name:<14} {ratio:>7} {:<12} {holds}", row.ours, row.goal());
    }
}

/// Writes the rows beside the build; false when that failed.
pub(super) fn write(name: &str, rows: &[Row]) -> bool {
    let folder = folder();
    let path = folder.join(format!("{name}.json"));
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    let text = serde_json::to_string_pretty(&rows).expect("plain values are JSON");
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text + "\n"));
    match written {
        Ok(()) => true,
        Err(error) => {
            println!("{} cannot be written: {error}", path.display());
            false
        }
    }
}

/// `target/bench`: this program is in `target/PROFILE`.
fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    let target = program.parent().and_then(|profile| profile.parent()).expect("cargo puts it two folders deep");
    target.join("bench")
}
