//! Runs that have to do with several machines: the way between them, and what each tells of itself.
//!
//! Promises that a machine that was removed is asked for nothing, and that one is found to be gone as soon as those who watch the
//! machines agree.

use bytes::{Bytes, BytesMut};
use control::Soft;
use control::view::{Snapshot, View};
use membership::roles::Role;
use rpc::{Answer, Call, CallError, Code, Failure, OPENING_BYTES_MAX, Opening, Peers, Terms};
use runs::front::Front;
use runs::link::{Reader, Writer};
use runs::talk::{Cast, Elsewhere, Going, Place};
use scheduler::Pressure;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use wire::identity::NodeId;
use wire::resource::{Presence, key};
use wire::run::Running;

/// The methods behind it.
pub const TALK: &str = "runs/talk";
pub const ASK: &str = "runs/ask";
/// A connection that takes longer is to a machine that is not there, or as good as that.
const OPENED_WITHIN: Duration = Duration::from_secs(3);
/// Most questions take microseconds; the longest has a language copied.
const ANSWERED_WITHIN: Duration = Duration::from_secs(240);
/// Between two reports. Who assigns counts what it has given meanwhile.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// What nobody tells of, as a compiler that was installed, is found by then.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The way to other machines' runs.
pub struct Others {
    me: String,
    peers: Peers,
    view: View,
}

impl Others {
    pub fn new(me: &str, peers: Peers, view: View) -> Arc<Others> {
        Arc::new(Others { me: me.to_owned(), peers, view })
    }

    fn node(&self, machine: &str) -> io::Result<NodeId> {
        let snapshot = self.view.borrow();
        let member = snapshot.members.get(machine).filter(|member| !member.revoked);
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("there is no machine {machine}"));
        member.map(|member| member.node).ok_or_else(unknown)
    }
}

fn is_gone(snapshot: &Snapshot, machine: &str) -> bool {
    let revoked = snapshot.members.get(machine).is_none_or(|member| member.revoked);
    revoked || matches!(snapshot.presence(machine), Presence::Down { .. })
}

impl Elsewhere for Others {
    fn cast(&self) -> Cast {
        let snapshot = self.view.borrow().clone();
        let place = |machine: &str| {
            let has = snapshot.runs.get(machine).cloned().unwrap_or_default();
            Place { machine: machine.to_owned(), has }
        };
        let roles = &snapshot.roles;
        let pairs: Vec<Vec<String>> =
            roles.pairs.values().map(|pair| pair.members.keys().map(ToString::to_string).collect()).collect();
        let mut workers: Vec<Place> = roles.workers.keys().map(|machine| place(machine)).collect();
        if workers.is_empty() {
            // Nobody has decided about roles yet.
            workers.push(place(&self.me));
        }
        let gone: BTreeSet<String> =
            snapshot.members.keys().filter(|machine| is_gone(&snapshot, machine)).cloned().collect();
        Cast {
            me: self.me.clone(),
            others: snapshot.members.keys().filter(|machine| **machine != self.me).cloned().collect(),
            monitors: roles.monitors.keys().map(ToString::to_string).collect(),
            assigners: pairs.iter().flatten().map(|machine| place(machine)).collect(),
            pairs,
            workers,
            gone,
        }
    }

    fn talk<'a>(&'a self, machine: &'a str, first: Bytes) -> Going<'a, io::Result<(Reader, Writer)>> {
        Box::pin(async move {
            let node = self.node(machine)?;
            // What fits goes with what opens the tunnel: it is read a way there and back earlier.
            let fits = first.len() <= OPENING_BYTES_MAX;
            let opening = if fits { first.clone() } else { Bytes::new() };
            let tunnel = self.peers.tunnel(node, TALK, opening, Terms::within(OPENED_WITHIN)).await;
            let (reader, writer) = tunnel.map_err(untold)?.into_split();
            let (reader, mut writer) = (Reader::new(reader), Writer::new(writer));
            if !fits {
                writer.frames(&first).await?;
            }
            Ok((reader, writer))
        })
    }

    fn ask<'a>(&'a self, machine: &'a str, question: Vec<u8>) -> Going<'a, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let node = self.node(machine)?;
            let answer = self.peers.call(node, ASK, question, Terms::within(ANSWERED_WITHIN)).await;
            Ok(answer.map_err(io::Error::other)?.bytes.to_vec())
        })
    }

    fn lost<'a>(&'a self, machine: &'a str) -> Going<'a, ()> {
        Box::pin(async move {
            let mut view = self.view.clone();
            // Its sender gone is the end of this node's part in anything.
            let _ = view.wait_for(|snapshot| is_gone(snapshot, machine)).await;
        })
    }
}

/// Whether what opens a tunnel can have arrived is in the error's kind.
fn untold(error: CallError) -> io::Error {
    match error {
        CallError::Failed { .. }
        | CallError::Unreachable { .. }
        | CallError::Waiting { .. }
        | CallError::NoAddress { .. }
        | CallError::Crowded { .. }
        | CallError::Revoked { .. } => io::Error::new(io::ErrorKind::NotConnected, error),
        late @ (CallError::Late { .. }
        | CallError::Lost { .. }
        | CallError::TooLarge { .. }
        | CallError::Nonsense { .. }) => io::Error::other(late),
    }
}

/// Another machine's connection.
pub async fn carry(front: &Arc<Front>, call: Call, opening: Opening) -> Result<(), Failure> {
    let (reader, writer) = opening.accept().into_split();
    let reader = Reader::after(BytesMut::from(call.request), reader);
    // A break is the two ends' business, and both see it.
    drop(front.answer(reader, Writer::new(writer)).await);
    Ok(())
}

/// Another machine's question.
pub async fn reply(front: &Arc<Front>, call: &Call) -> Result<Answer, Failure> {
    let answer = front.reply(&call.request).await;
    Ok(answer.map_err(|error| Failure::new(Code::FailedPrecondition, error.to_string()))?.into())
}

/// Whether this machine takes runs: not when its owner needs it, nor when it is to be left.
pub fn refuses(me: &str, view: &View) -> Option<String> {
    let snapshot = view.borrow();
    let machine = snapshot.machines.get(me)?;
    if machine.node.drained || machine.node.cordoned {
        return Some("the machine is to take nothing new".to_owned());
    }
    let wanted = snapshot.roles.workers.is_empty() || snapshot.roles.roles(me).contains(&Role::Worker);
    if !wanted {
        return Some("the machine is no worker".to_owned());
    }
    let is_needed = machine.node.considerate.is_some() && machine.pressure != Pressure::Calm;
    is_needed.then(|| "the machine's owner needs it".to_owned())
}

/// Whether whoever owns this machine comes before what is run on it.
pub fn gives_way(me: &str, view: &View) -> bool {
    view.borrow().machines.get(me).is_some_and(|machine| machine.node.considerate.is_some())
}

/// Tells all machines what this one has to do with runs, for as long as it is dropped.
pub async fn report(me: String, soft: Soft, front: Arc<Front>) {
    let mut said: Option<Running> = None;
    loop {
        let changed = front.house.workers().changed.notified();
        let stirred = front.stirred();
        let running = front.running();
        if said.as_ref() != Some(&running) {
            if let Err(error) = soft.put_json(key::runs(&me), &running) {
                tracing::warn!(%error, "what this machine runs cannot be reported");
            }
            said = Some(running);
        }
        let waited = tokio::time::timeout(LOOK_EVERY, async {
            tokio::select! {
                () = changed => {}
                () = stirred => {}
            }
        });
        // After so long it is looked at all the same.
        let _ = waited.await;
        tokio::time::sleep(REPORT_EVERY).await;
    }
}
