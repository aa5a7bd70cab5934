//! What other machines may ask of this one.
//!
//! Owns the methods' names and who may call them; what each does is elsewhere. Promises that only machines with a
//! certificate of the cluster get past it, but for the one question that makes a machine a member.

use super::elsewhere::{self, DIAL};
use super::entry::{self, Asked};
use super::fences;
use super::gossip::{Circle, KEY};
use super::lease::{self, HOLD, Lessor};
use super::line::MESSAGE;
use super::reports::{self, FOLLOW};
use super::running;
use super::twin::{BEGIN, Life, PING, Witness};
use super::{RENEW, internal};
use containers::Boxes;
use control::view::View;
use control::{Soft, Space};
use replication::Group;
use rpc::{Answer, Call, Code, Failure, Handler, Messages, Method, Opening, Working};
use runs::front::Front;
use std::sync::Arc;
use wire::identity::ClusterId;

/// What it needs of the node.
pub struct Desk {
    pub me: String,
    pub cluster: ClusterId,
    pub group: Group,
    pub space: Space,
    pub soft: Soft,
    pub view: View,
    pub boxes: Arc<Boxes>,
    pub runs: Arc<Front>,
    pub circle: Arc<Circle>,
    pub lessor: Arc<Lessor>,
    pub witness: Witness,
    pub fences: Arc<fences::Lessor>,
}

impl Desk {
    /// Each machine asks for its own lease.
    fn is_of(&self, machine: &str, call: &Call) -> Result<(), Failure> {
        let snapshot = self.view.borrow();
        let known = snapshot.members.get(machine).filter(|member| !member.revoked).map(|member| member.node);
        if known.is_none() || known != call.caller.node() {
            return Err(Failure::new(Code::PermissionDenied, "each machine asks for its own lease"));
        }
        Ok(())
    }
}

impl Handler for Desk {
    fn methods(&self) -> Vec<Method> {
        vec![
            Method::open_call(entry::JOIN),
            Method::call(RENEW),
            Method::call(PING),
            Method::call(BEGIN),
            Method::call(KEY),
            Method::call(MESSAGE),
            Method::call(HOLD),
            Method::call(fences::HOLD),
            Method::watch(FOLLOW),
            Method::call(running::ASK),
            Method::tunnel(DIAL),
            Method::tunnel(running::TALK),
        ]
    }

    fn call(&self, call: Call) -> Working<'_, Answer> {
        Box::pin(async move {
            match call.method {
                MESSAGE => Ok(self.group.handle(&call.request).await.into()),
                PING => Ok(serde_json::to_vec(&self.witness.life()).map_err(internal)?.into()),
                BEGIN => {
                    let asked: Life = serde_json::from_slice(&call.request).map_err(unreadable)?;
                    let unknown = || Failure::new(Code::Unauthenticated, "only members begin");
                    self.witness.admit(call.caller.node().ok_or_else(unknown)?, &asked).await?;
                    Ok(Answer::default())
                }
                HOLD => {
                    let asked: lease::Asked = serde_json::from_slice(&call.request).map_err(unreadable)?;
                    self.is_of(&asked.machine, &call)?;
                    let granted = self.lessor.answer(&self.group, &self.space, &self.view, &asked).await?;
                    Ok(serde_json::to_vec(&granted).map_err(internal)?.into())
                }
                fences::HOLD => {
                    let asked: fences::Asked = serde_json::from_slice(&call.request).map_err(unreadable)?;
                    self.is_of(&asked.machine, &call)?;
                    let granted = self.fences.answer(&self.group, &self.space, &asked).await?;
                    Ok(serde_json::to_vec(&granted).map_err(internal)?.into())
                }
                running::ASK => running::reply(&self.runs, &call).await,
                KEY => {
                    let key = call.caller.node().and_then(|node| self.circle.invite(node));
                    let unknown =
                        || Failure::new(Code::FailedPrecondition, "this machine is not known here as a member yet");
                    Ok(key.ok_or_else(unknown)?.into())
                }
                entry::JOIN => {
                    let asked: Asked = serde_json::from_slice(&call.request).map_err(unreadable)?;
                    let told = entry::admit(&self.space, &self.cluster, asked).await?;
                    Ok(serde_json::to_vec(&told).map_err(unreadable)?.into())
                }
                RENEW => {
                    let request = std::str::from_utf8(&call.request).map_err(unreadable)?;
                    let told = entry::renew(&self.space, &self.cluster, call.caller.node(), request).await?;
                    Ok(serde_json::to_vec(&told).map_err(unreadable)?.into())
                }
                other => Err(Failure::new(Code::Unimplemented, format!("{other} is no call"))),
            }
        })
    }

    fn watch(&self, _call: Call, to: Messages) -> Working<'_, ()> {
        // There is only one.
        Box::pin(async move { reports::tell(&self.me, &self.soft, &self.view, to).await })
    }

    fn tunnel(&self, call: Call, opening: Opening) -> Working<'_, ()> {
        Box::pin(async move {
            match call.method {
                running::TALK => running::carry(&self.runs, call, opening).await,
                _dial => elsewhere::carry(&self.boxes, call, opening).await,
            }
        })
    }
}

fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::InvalidArgument, format!("read what was asked: {error}"))
        .with_hint("is one of the two programs a later version?")
}
