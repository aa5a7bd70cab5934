//! Gathers commands that wait at the same time for another member, the leader, into one message.
//!
//! A message between members costs far more than a command more in it. One that waits alone goes as it is, and at once.

use crate::batcher::{BATCH_BYTES, BATCH_COMMANDS};
use crate::message::{Message, read_answer, read_answers};
use crate::network::{Network, SendError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use storage::replicated::ProposeError;
use tokio::sync::{mpsc, oneshot};

/// What the leader said of a command; `None` when it said nothing that can be read.
pub(crate) type Said = Option<Result<Vec<u8>, ProposeError>>;

pub(crate) struct Forward {
    pub(crate) leader: u64,
    pub(crate) command: Vec<u8>,
    pub(crate) answer: oneshot::Sender<Result<Said, SendError>>,
}

/// Sends what arrives until the group and with it the sender is gone. Cancelled, it drops what is under way, whose callers then
/// know that it may have happened.
pub(crate) async fn run(network: Arc<dyn Network>, mut arriving: mpsc::Receiver<Forward>) {
    let mut under_way = FuturesUnordered::new();
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(first) => first,
            None => tokio::select! {
                biased;
                Some(()) = under_way.next() => continue,
                first = arriving.recv() => match first {
                    Some(first) => first,
                    None => return,
                },
            },
        };
        let (leader, mut bytes, mut batch) = (first.leader, first.command.len(), vec![first]);
        while batch.len() < BATCH_COMMANDS {
            let Ok(forward) = arriving.try_recv() else { break };
            if forward.leader != leader || bytes + forward.command.len() > BATCH_BYTES {
                left_over = Some(forward);
                break;
            }
            bytes += forward.command.len();
            batch.push(forward);
        }
        // Whoever stopped waiting before it was sent does not want it any more.
        batch.retain(|forward| !forward.answer.is_closed());
        under_way.push(send(&*network, leader, batch));
    }
}

async fn send(network: &dyn Network, leader: u64, mut batch: Vec<Forward>) {
    if batch.len() > 1 {
        let commands = batch.iter_mut().map(|forward| std::mem::take(&mut forward.command)).collect::<Vec<_>>();
        let message = Message::ProposeAll(commands);
        let sent = network.send(leader, message.encode()).await;
        let Message::ProposeAll(commands) = message else { return };
        match sent.map(|said| read_answers(&said, commands.len())) {
            Ok(Some(said)) => return tell(batch, said.into_iter().map(|said| Ok(Some(said)))),
            Err(error) => return tell(batch, std::iter::repeat(Err(error))),
            // A member of a version that does not know the message: none of them has happened.
            Ok(None) => batch.iter_mut().zip(commands).for_each(|(forward, command)| forward.command = command),
        }
    }
    for forward in batch {
        let said = network.send(leader, Message::Propose(forward.command).encode()).await;
        drop(forward.answer.send(said.map(|said| from_answer(&said))));
    }
}

fn tell(batch: Vec<Forward>, said: impl Iterator<Item = Result<Said, SendError>>) {
    for (forward, said) in batch.into_iter().zip(said) {
        drop(forward.answer.send(said));
    }
}

/// What is read of an answer to one command or question.
pub(crate) fn from_answer(bytes: &[u8]) -> Said {
    let (result, reply) = read_answer::<Result<(), ProposeError>>(bytes)?;
    Some(result.map(|()| reply))
}
