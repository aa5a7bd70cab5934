//! What members agree on, as bytes: commands, questions to the leader's memory, and their replies.
//!
//! The first byte is the format's version. A log may hold commands of every version since the first, so reading
//! an old one stays for good; a newer one is refused by [`Malformed`], never guessed at.

use crate::codec::{Malformed, Reader, Writer};
use crate::txn::{Compare, Operation, Relation, Target, Txn};
use crate::{Committed, Entry};

/// The first format. There is no predecessor.
const FORMAT: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Commit { compares: Vec<Compare>, success: Vec<Operation>, failure: Vec<Operation> },
    Grant { id: u64, ttl_ms: u64 },
    Revoke { id: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Committed(Committed),
    Leased { revision: u64 },
    Refused(Refusal),
}

/// Decided while applying, the same on every member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    LeaseNotFound { id: u64 },
    LeaseExists { id: u64 },
    SpaceFull,
    Malformed,
}

/// Asked of the leader's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Renew { id: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Renewed { ttl_ms: u64 },
    LeaseNotFound { id: u64 },
    Malformed,
}

impl From<Txn> for Command {
    fn from(txn: Txn) -> Self {
        Self::Commit { compares: txn.compares, success: txn.success, failure: txn.failure }
    }
}

impl Command {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.byte(FORMAT);
        match self {
            Self::Commit { compares, success, failure } => {
                out.byte(1);
                out.count(compares.len());
                compares.iter().for_each(|compare| write_compare(&mut out, compare));
                for branch in [success, failure] {
                    out.count(branch.len());
                    branch.iter().for_each(|operation| write_operation(&mut out, operation));
                }
            }
            Self::Grant { id, ttl_ms } => {
                out.byte(2);
                out.number(*id);
                out.number(*ttl_ms);
            }
            Self::Revoke { id } => {
                out.byte(3);
                out.number(*id);
            }
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = opened(bytes)?;
        let command = match input.byte()? {
            1 => {
                let compares = read_many(&mut input, read_compare)?;
                let success = read_many(&mut input, read_operation)?;
                let failure = read_many(&mut input, read_operation)?;
                Self::Commit { compares, success, failure }
            }
            2 => Self::Grant { id: input.number()?, ttl_ms: input.number()? },
            3 => Self::Revoke { id: input.number()? },
            _ => return Err(Malformed("unknown command")),
        };
        input.end()?;
        Ok(command)
    }
}

impl Reply {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.byte(FORMAT);
        match self {
            Self::Committed(committed) => {
                out.byte(1);
                out.byte(u8::from(committed.succeeded));
                out.number(committed.revision);
                out.count(committed.replies.len());
                for entries in &committed.replies {
                    out.count(entries.len());
                    entries.iter().for_each(|entry| write_entry(&mut out, entry));
                }
            }
            Self::Leased { revision } => {
                out.byte(2);
                out.number(*revision);
            }
            Self::Refused(refusal) => {
                out.byte(3);
                let (code, id) = match refusal {
                    Refusal::LeaseNotFound { id } => (1, *id),
                    Refusal::LeaseExists { id } => (2, *id),
                    Refusal::SpaceFull => (3, 0),
                    Refusal::Malformed => (4, 0),
                };
                out.byte(code);
                out.number(id);
            }
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = opened(bytes)?;
        let reply = match input.byte()? {
            1 => {
                let succeeded = input.byte()? == 1;
                let revision = input.number()?;
                let replies = read_many(&mut input, |input| read_many(input, read_entry))?;
                Self::Committed(Committed { succeeded, revision, replies })
            }
            2 => Self::Leased { revision: input.number()? },
            3 => {
                let (code, id) = (input.byte()?, input.number()?);
                Self::Refused(match code {
                    1 => Refusal::LeaseNotFound { id },
                    2 => Refusal::LeaseExists { id },
                    3 => Refusal::SpaceFull,
                    4 => Refusal::Malformed,
                    _ => return Err(Malformed("unknown refusal")),
                })
            }
            _ => return Err(Malformed("unknown reply")),
        };
        input.end()?;
        Ok(reply)
    }
}

impl Question {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Writer::default();
        out.byte(FORMAT);
        match self {
            Self::Renew { id } => {
                out.byte(1);
                out.number(id);
            }
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = opened(bytes)?;
        let question = match input.byte()? {
            1 => Self::Renew { id: input.number()? },
            _ => return Err(Malformed("unknown question")),
        };
        input.end()?;
        Ok(question)
    }
}

impl Answer {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Writer::default();
        out.byte(FORMAT);
        let (code, number) = match self {
            Self::Renewed { ttl_ms } => (1, ttl_ms),
            Self::LeaseNotFound { id } => (2, id),
            Self::Malformed => (3, 0),
        };
        out.byte(code);
        out.number(number);
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = opened(bytes)?;
        let (code, number) = (input.byte()?, input.number()?);
        input.end()?;
        match code {
            1 => Ok(Self::Renewed { ttl_ms: number }),
            2 => Ok(Self::LeaseNotFound { id: number }),
            3 => Ok(Self::Malformed),
            _ => Err(Malformed("unknown answer")),
        }
    }
}

fn opened(bytes: &[u8]) -> Result<Reader<'_>, Malformed> {
    let mut input = Reader::new(bytes);
    if input.byte()? != FORMAT { Err(Malformed("unknown format version")) } else { Ok(input) }
}

fn read_many<T>(
    input: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = input.count()?;
    (0..count).map(|_| read(input)).collect()
}

fn write_compare(out: &mut Writer, compare: &Compare) {
    out.text(&compare.key);
    out.byte(match compare.relation {
        Relation::Equal => 1,
        Relation::NotEqual => 2,
        Relation::Less => 3,
        Relation::Greater => 4,
    });
    let (code, number) = match &compare.target {
        Target::ModRevision(number) => (1, *number),
        Target::CreateRevision(number) => (2, *number),
        Target::Version(number) => (3, *number),
        Target::Lease(number) => (4, *number),
        Target::Value(value) => {
            out.byte(5);
            return out.blob(value);
        }
    };
    out.byte(code);
    out.number(number);
}

fn read_compare(input: &mut Reader<'_>) -> Result<Compare, Malformed> {
    let key = input.text()?;
    let relation = match input.byte()? {
        1 => Relation::Equal,
        2 => Relation::NotEqual,
        3 => Relation::Less,
        4 => Relation::Greater,
        _ => return Err(Malformed("unknown relation")),
    };
    let target = match input.byte()? {
        1 => Target::ModRevision(input.number()?),
        2 => Target::CreateRevision(input.number()?),
        3 => Target::Version(input.number()?),
        4 => Target::Lease(input.number()?),
        5 => Target::Value(input.value()?),
        _ => return Err(Malformed("unknown target")),
    };
    Ok(Compare { key, relation, target })
}

fn write_operation(out: &mut Writer, operation: &Operation) {
    out.byte(match operation {
        Operation::Put { .. } => 1,
        Operation::Delete { .. } => 2,
        Operation::DeletePrefix { .. } => 3,
        Operation::Get { .. } => 4,
        Operation::List { .. } => 5,
    });
    out.text(operation.name());
    if let Operation::Put { value, lease, .. } = operation {
        out.lease(*lease);
        out.blob(value);
    }
}

fn read_operation(input: &mut Reader<'_>) -> Result<Operation, Malformed> {
    let code = input.byte()?;
    let name = input.text()?;
    Ok(match code {
        1 => {
            let lease = input.lease()?;
            Operation::Put { key: name, value: input.value()?, lease }
        }
        2 => Operation::Delete { key: name },
        3 => Operation::DeletePrefix { prefix: name },
        4 => Operation::Get { key: name },
        5 => Operation::List { prefix: name },
        _ => return Err(Malformed("unknown operation")),
    })
}

pub(crate) fn write_entry(out: &mut Writer, entry: &Entry) {
    out.text(&entry.key);
    out.number(entry.create_revision);
    out.number(entry.mod_revision);
    out.number(entry.version);
    out.lease(entry.lease);
    out.blob(&entry.value);
}

pub(crate) fn read_entry(input: &mut Reader<'_>) -> Result<Entry, Malformed> {
    Ok(Entry {
        key: input.text()?,
        create_revision: input.number()?,
        mod_revision: input.number()?,
        version: input.number()?,
        lease: input.lease()?,
        value: input.value()?,
    })
}
