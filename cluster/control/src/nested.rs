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

/// The ranges a transaction may look at: those of its compares, and of either branch.
pub(crate) fn ranges(compares: &[Compare], success: &[Operation], failure: &[Operation]) -> Vec<Range> {
    let compared = compares.iter().filter_map(|compare| Some((compare.key.clone(), compare.end.clone()?)));
    let mut all = compared.map(|(start, end)| Range { start, end }).collect::<Vec<_>>();
    for operation in success.iter().chain(failure) {
        match operation {
            Operation::Range { range, .. } | Operation::DeleteRange { range, .. } => all.push(range.clone()),
            Operation::Nested(nested) => all.extend(ranges(&nested.compares, &nested.success, &nested.failure)),
            Operation::Put { .. }
            | Operation::Replace { .. }
            | Operation::Delete { .. }
            | Operation::DeletePrefix { .. }
            | Operation::Get { .. }
            | Operation::List { .. } => {}
        }
    }
    all
}

/// The ranges of which a transaction may tell what they hold, and how many entries of each, in either branch.
pub(crate) fn told(success: &[Operation], failure: &[Operation]) -> Vec<(Range, usize)> {
    let mut all = Vec::new();
    for operation in success.iter().chain(failure) {
        match operation {
            Operation::Range { range, limit } => all.push((range.clone(), *limit)),
            Operation::DeleteRange { range, tell: true } => all.push((range.clone(), usize::MAX)),
            Operation::Replace { key, tell: true, .. } | Operation::Get { key } => all.push((Range::key(key), 1)),
            Operation::Nested(nested) => all.extend(told(&nested.success, &nested.failure)),
            Operation::DeleteRange { tell: false, .. }
            | Operation::Replace { tell: false, .. }
            | Operation::Put { .. }
            | Operation::Delete { .. }
            | Operation::DeletePrefix { .. }
            | Operation::List { .. } => {}
        }
    }
    all
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
    deleted: Vec<Gone<'a>>,
}

#[derive(Clone, Copy)]
enum Gone<'a> {
    Key(&'a str),
    Under(&'a str),
    In(&'a Range),
}

impl Gone<'_> {
    fn holds(self, key: &str) -> bool {
        match self {
            Gone::Key(gone) => gone == key,
            Gone::Under(prefix) => key.starts_with(prefix),
            Gone::In(range) => range.contains(key),
        }
    }
}

/// A key put twice, or put and deleted, would have two values at one revision: refused, by etcd's own rules. Branches of
/// what is nested exclude each other. Deletions may meet, but for one key that is named twice: a slip of whoever wrote it.
fn distinct(operations: &[Operation]) -> Result<Changes<'_>, SpaceError> {
    let mut all = Changes::default();
    for operation in operations {
        match operation {
            Operation::Delete { key }
                if all.deleted.iter().any(|gone| matches!(gone, Gone::Key(other) if other == key)) =>
            {
                return Err(SpaceError::DuplicateKey { key: key.clone() });
            }
            Operation::Delete { key } => all.deleted.push(Gone::Key(key)),
            Operation::DeletePrefix { prefix } => all.deleted.push(Gone::Under(prefix)),
            Operation::DeleteRange { range, .. } => all.deleted.push(Gone::In(range)),
            Operation::Put { .. }
            | Operation::Replace { .. }
            | Operation::Nested(_)
            | Operation::Get { .. }
            | Operation::List { .. }
            | Operation::Range { .. } => {}
        }
    }
    for operation in operations {
        let Operation::Nested(nested) = operation else { continue };
        let (success, failure) = (distinct(&nested.success)?, distinct(&nested.failure)?);
        let met = success.put.union(&failure.put).copied().collect::<Vec<_>>();
        for key in met {
            all.put(key)?;
        }
        all.deleted.extend(success.deleted);
        all.deleted.extend(failure.deleted);
    }
    for operation in operations {
        if let Operation::Put { key, .. } | Operation::Replace { key, .. } = operation {
            all.put(key)?;
        }
    }
    Ok(all)
}

impl<'a> Changes<'a> {
    fn put(&mut self, key: &'a str) -> Result<(), SpaceError> {
        if self.deleted.iter().any(|gone| gone.holds(key)) || !self.put.insert(key) {
            return Err(SpaceError::DuplicateKey { key: key.to_owned() });
        }
        Ok(())
    }
}
