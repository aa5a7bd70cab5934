//! Transactions with transactions in them: their bounds, checked before they are proposed.

use crate::txn::{Compare, OPERATIONS_MAX, Operation, TRANSACTION_BYTES_MAX, Target, check_key, check_value};
use crate::{Range, SpaceError};
use std::collections::BTreeSet;

/// How deep transactions may be nested: every level is one of the stack's.
pub(crate) const DEPTH_MAX: usize = 8;
/// In all levels together.
const PARTS_MAX: usize = 8 * OPERATIONS_MAX;

/// Whether a transaction keeps the bounds.
pub(crate) fn check(compares: &[Compare], success: &[Operation], failure: &[Operation]) -> Result<(), SpaceError> {
    let mut sum = Sum::default();
    sum.level(compares, success, failure, DEPTH_MAX)?;
    if sum.bytes > TRANSACTION_BYTES_MAX {
        return Err(SpaceError::TransactionTooLarge { max: TRANSACTION_BYTES_MAX });
    }
    distinct(success)?;
    distinct(failure).map(drop)
}

#[derive(Default)]
struct Sum {
    bytes: usize,
    parts: usize,
}

impl Sum {
    fn level(
        &mut self,
        compares: &[Compare],
        success: &[Operation],
        failure: &[Operation],
        depth: usize,
    ) -> Result<(), SpaceError> {
        let lists = [compares.len(), success.len(), failure.len()];
        self.parts += lists.iter().sum::<usize>();
        if depth == 0 || self.parts > PARTS_MAX || lists.iter().any(|list| *list > OPERATIONS_MAX) {
            return Err(SpaceError::TooManyOperations { max: OPERATIONS_MAX });
        }
        for compare in compares {
            check_key(&compare.key)?;
            self.bytes += compare.key.len() + compare.end.as_ref().map_or(0, String::len);
            if let Target::Value(value) = &compare.target {
                check_value(&compare.key, value)?;
                self.bytes += value.len();
            }
        }
        for operation in success.iter().chain(failure) {
            self.operation(operation, depth)?;
        }
        Ok(())
    }

    fn operation(&mut self, operation: &Operation, depth: usize) -> Result<(), SpaceError> {
        self.bytes += operation.name().len();
        match operation {
            Operation::List { prefix } if prefix.is_empty() => Ok(()),
            Operation::Put { key, value, .. } | Operation::Replace { key, value: Some(value), .. } => {
                self.bytes += value.len();
                check_key(key)?;
                check_value(key, value)
            }
            Operation::Range { range, .. } | Operation::DeleteRange { range, .. } => {
                self.bytes += range.end.len();
                check_key(&range.start)
            }
            Operation::Nested(nested) => self.level(&nested.compares, &nested.success, &nested.failure, depth - 1),
            Operation::Replace { key: name, value: None, .. }
            | Operation::Delete { key: name }
            | Operation::DeletePrefix { prefix: name }
            | Operation::Get { key: name }
            | Operation::List { prefix: name } => check_key(name),
        }
    }
}

/// What operations change.
#[derive(Default)]
struct Changes<'a> {
    put: BTreeSet<&'a str>,
    deleted: Vec<(Gone, &'a Operation)>,
}

#[derive(Clone)]
struct Gone(Range, bool);

/// A key put twice, or put and deleted, would have two values at one revision: refused, as etcd does. Deletions may meet.
/// Branches of what is nested exclude each other; what is beside it does not.
fn distinct(operations: &[Operation]) -> Result<Changes<'_>, SpaceError> {
    let mut all = Changes::default();
    for operation in operations {
        match operation {
            Operation::Put { key, .. } | Operation::Replace { key, .. } => all.put(key)?,
            Operation::Delete { key } => all.delete(Gone(Range::key(key.as_str()), true), operation)?,
            Operation::DeletePrefix { prefix } => {
                all.delete(Gone(Range { start: prefix.clone(), end: String::new() }, false), operation)?;
            }
            Operation::DeleteRange { range, .. } => all.delete(Gone(range.clone(), true), operation)?,
            Operation::Nested(nested) => {
                let branches = [distinct(&nested.success)?, distinct(&nested.failure)?];
                let before = (all.put.clone(), all.deleted.clone());
                for branch in branches {
                    let mut beside = Changes { put: before.0.clone(), deleted: before.1.clone() };
                    for key in &branch.put {
                        beside.put(key)?;
                    }
                    for (gone, operation) in &branch.deleted {
                        beside.delete(gone.clone(), operation)?;
                    }
                    all.put.extend(branch.put);
                    all.deleted.extend(branch.deleted);
                }
            }
            Operation::Get { .. } | Operation::List { .. } | Operation::Range { .. } => {}
        }
    }
    Ok(all)
}

impl Gone {
    fn holds(&self, key: &str) -> bool {
        let Gone(range, is_range) = self;
        if *is_range { range.contains(key) } else { key.starts_with(range.start.as_str()) }
    }
}

impl<'a> Changes<'a> {
    fn put(&mut self, key: &'a str) -> Result<(), SpaceError> {
        if self.deleted.iter().any(|(gone, _)| gone.holds(key)) || !self.put.insert(key) {
            return Err(SpaceError::DuplicateKey { key: key.to_owned() });
        }
        Ok(())
    }

    fn delete(&mut self, gone: Gone, operation: &'a Operation) -> Result<(), SpaceError> {
        // Twice the same single key is a slip of whoever wrote it.
        let is_twice =
            matches!(operation, Operation::Delete { .. }) && self.deleted.iter().any(|(_, other)| *other == operation);
        let put = self.put.range(gone.0.start.as_str()..).next().filter(|key| gone.holds(key));
        match put {
            Some(key) => Err(SpaceError::DuplicateKey { key: (*key).to_owned() }),
            None if is_twice => Err(SpaceError::DuplicateKey { key: operation.name().to_owned() }),
            None => {
                self.deleted.push((gone, operation));
                Ok(())
            }
        }
    }
}
