//! What members agree on, as bytes: commands, questions to the leader's memory, and their replies.
//!
//! The first byte is the format's version. A log may hold commands of every version since the first, so reading
//! an old one stays for good; a newer one is refused by [`Malformed`], never guessed at.

use crate::codec::{Malformed, Reader, Writer};
use crate::nested::DEPTH_MAX;
use crate::txn::{Compare, Leasing, Nested, Operation, Outcome, Relation, Target, Txn};
use crate::{Committed, Entry, Range};

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
    KeyNotFound,
    AnswerTooLarge,
}

/// Asked of the leader's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Renew { id: u64 },
    TimeLeft { id: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Renewed { ttl_ms: u64 },
    LeaseNotFound { id: u64 },
    Malformed,
    TimeLeft { ttl_ms: u64, left_ms: u64 },
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
                write_branches(&mut out, compares, success, failure);
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
                let (compares, success, failure) = read_branches(&mut input, DEPTH_MAX)?;
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
                // Members that know of no outcomes ask for none.
                out.byte(if committed.outcomes.is_empty() { 1 } else { 4 });
                write_committed(&mut out, committed);
                if !committed.outcomes.is_empty() {
                    write_outcomes(&mut out, &committed.outcomes);
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
                    Refusal::KeyNotFound => (5, 0),
                    Refusal::AnswerTooLarge => (6, 0),
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
            1 => Self::Committed(read_committed(&mut input)?),
            2 => Self::Leased { revision: input.number()? },
            3 => {
                let (code, id) = (input.byte()?, input.number()?);
                Self::Refused(match code {
                    1 => Refusal::LeaseNotFound { id },
                    2 => Refusal::LeaseExists { id },
                    3 => Refusal::SpaceFull,
                    4 => Refusal::Malformed,
                    5 => Refusal::KeyNotFound,
                    6 => Refusal::AnswerTooLarge,
                    _ => return Err(Malformed("unknown refusal")),
                })
            }
            4 => {
                let committed = read_committed(&mut input)?;
                let outcomes = read_outcomes(&mut input, DEPTH_MAX)?;
                Self::Committed(Committed { outcomes, ..committed })
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
            Self::TimeLeft { id } => {
                out.byte(2);
                out.number(id);
            }
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = opened(bytes)?;
        let question = match input.byte()? {
            1 => Self::Renew { id: input.number()? },
            2 => Self::TimeLeft { id: input.number()? },
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
            Self::TimeLeft { ttl_ms, .. } => (4, ttl_ms),
        };
        out.byte(code);
        out.number(number);
        if let Self::TimeLeft { left_ms, .. } = self {
            out.number(left_ms);
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = opened(bytes)?;
        let (code, number) = (input.byte()?, input.number()?);
        let left_ms = if code == 4 { input.number()? } else { 0 };
        input.end()?;
        match code {
            1 => Ok(Self::Renewed { ttl_ms: number }),
            2 => Ok(Self::LeaseNotFound { id: number }),
            3 => Ok(Self::Malformed),
            4 => Ok(Self::TimeLeft { ttl_ms: number, left_ms }),
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

fn write_branches(out: &mut Writer, compares: &[Compare], success: &[Operation], failure: &[Operation]) {
    out.count(compares.len());
    compares.iter().for_each(|compare| write_compare(out, compare));
    for branch in [success, failure] {
        out.count(branch.len());
        branch.iter().for_each(|operation| write_operation(out, operation));
    }
}

type Branches = (Vec<Compare>, Vec<Operation>, Vec<Operation>);

/// Every level of what is nested is one of the stack's: no deeper than `depth`.
fn read_branches(input: &mut Reader<'_>, depth: usize) -> Result<Branches, Malformed> {
    let Some(depth) = depth.checked_sub(1) else { return Err(Malformed("nested too deep")) };
    let compares = read_many(input, read_compare)?;
    let success = read_many(input, |input| read_operation(input, depth))?;
    let failure = read_many(input, |input| read_operation(input, depth))?;
    Ok((compares, success, failure))
}

/// Added to a relation's number where the compare has an end.
const OVER_RANGE: u8 = 0x10;

fn write_compare(out: &mut Writer, compare: &Compare) {
    out.text(&compare.key);
    let relation = match compare.relation {
        Relation::Equal => 1,
        Relation::NotEqual => 2,
        Relation::Less => 3,
        Relation::Greater => 4,
    };
    match &compare.end {
        None => out.byte(relation),
        Some(end) => {
            out.byte(relation | OVER_RANGE);
            out.text(end);
        }
    }
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
    let code = input.byte()?;
    let end = if code & OVER_RANGE == 0 { None } else { Some(input.text()?) };
    let relation = match code & !OVER_RANGE {
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
    Ok(Compare { key, end, relation, target })
}

fn write_operation(out: &mut Writer, operation: &Operation) {
    out.byte(match operation {
        Operation::Put { .. } => 1,
        Operation::Delete { .. } => 2,
        Operation::DeletePrefix { .. } => 3,
        Operation::Get { .. } => 4,
        Operation::List { .. } => 5,
        Operation::Range { .. } => 6,
        Operation::DeleteRange { .. } => 7,
        Operation::Replace { .. } => 8,
        Operation::Nested(_) => 9,
    });
    out.text(operation.name());
    match operation {
        Operation::Put { value, lease, .. } => {
            out.lease(*lease);
            out.blob(value);
        }
        Operation::Range { range, limit } => {
            out.text(&range.end);
            out.number(*limit as u64);
        }
        Operation::DeleteRange { range, tell } => {
            out.text(&range.end);
            out.byte(u8::from(*tell));
        }
        Operation::Replace { value, lease, tell, .. } => {
            let (is_set, lease) = match lease {
                Leasing::Set(lease) => (true, *lease),
                Leasing::Keep => (false, None),
            };
            out.byte(u8::from(*tell) | u8::from(is_set) << 1 | u8::from(value.is_some()) << 2);
            out.lease(lease);
            out.blob(value.as_deref().unwrap_or_default());
        }
        Operation::Nested(nested) => write_branches(out, &nested.compares, &nested.success, &nested.failure),
        Operation::Delete { .. } | Operation::DeletePrefix { .. } | Operation::Get { .. } | Operation::List { .. } => {}
    }
}

fn read_operation(input: &mut Reader<'_>, depth: usize) -> Result<Operation, Malformed> {
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
        6 => {
            let range = Range { start: name, end: input.text()? };
            Operation::Range { range, limit: usize::try_from(input.number()?).unwrap_or(usize::MAX) }
        }
        7 => {
            let range = Range { start: name, end: input.text()? };
            Operation::DeleteRange { range, tell: input.byte()? == 1 }
        }
        8 => {
            let (flags, lease, value) = (input.byte()?, input.lease()?, input.value()?);
            let lease = if flags & 2 == 0 { Leasing::Keep } else { Leasing::Set(lease) };
            Operation::Replace { key: name, value: (flags & 4 != 0).then_some(value), lease, tell: flags & 1 != 0 }
        }
        9 => {
            let (compares, success, failure) = read_branches(input, depth)?;
            Operation::Nested(Box::new(Nested { compares, success, failure }))
        }
        _ => return Err(Malformed("unknown operation")),
    })
}

fn write_committed(out: &mut Writer, committed: &Committed) {
    out.byte(u8::from(committed.succeeded));
    out.number(committed.revision);
    out.count(committed.replies.len());
    committed.replies.iter().for_each(|entries| write_entries(out, entries));
}

fn read_committed(input: &mut Reader<'_>) -> Result<Committed, Malformed> {
    let succeeded = input.byte()? == 1;
    let revision = input.number()?;
    let replies = read_many(input, |input| read_many(input, read_entry))?;
    Ok(Committed { succeeded, revision, replies, outcomes: Vec::new() })
}

fn write_outcomes(out: &mut Writer, outcomes: &[Outcome]) {
    out.count(outcomes.len());
    for outcome in outcomes {
        match outcome {
            Outcome::Ranged { entries, count } => {
                out.byte(1);
                out.number(*count);
                write_entries(out, entries);
            }
            Outcome::Changed { count, before } => {
                out.byte(2);
                out.number(*count);
                write_entries(out, before);
            }
            Outcome::Nested(committed) => {
                out.byte(3);
                write_committed(out, committed);
                write_outcomes(out, &committed.outcomes);
            }
        }
    }
}

fn read_outcomes(input: &mut Reader<'_>, depth: usize) -> Result<Vec<Outcome>, Malformed> {
    let Some(depth) = depth.checked_sub(1) else { return Err(Malformed("nested too deep")) };
    read_many(input, |input| {
        Ok(match input.byte()? {
            1 => Outcome::Ranged { count: input.number()?, entries: read_many(input, read_entry)? },
            2 => Outcome::Changed { count: input.number()?, before: read_many(input, read_entry)? },
            3 => {
                let committed = read_committed(input)?;
                Outcome::Nested(Committed { outcomes: read_outcomes(input, depth)?, ..committed })
            }
            _ => return Err(Malformed("unknown outcome")),
        })
    })
}

fn write_entries(out: &mut Writer, entries: &[Entry]) {
    out.count(entries.len());
    entries.iter().for_each(|entry| write_entry(out, entry));
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
