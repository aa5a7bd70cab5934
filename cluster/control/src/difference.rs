//! What separates two stacks, told field by field. Pure.

use serde_json::Value;
use std::collections::BTreeSet;
use wire::api::{Action, Plan, ServicePlan};
use wire::spec::{Service, Stack};

/// Longest value shown whole; the rest of a long one helps nobody in a terminal.
const SHOWN_CHARS_MAX: usize = 80;

/// What changing `before` to `after` does, service by service.
pub fn plan(before: Option<&Stack>, after: &Stack) -> Plan {
    let empty = Stack::default();
    let before = before.unwrap_or(&empty);
    let names: BTreeSet<&String> = before.services.keys().chain(after.services.keys()).collect();
    let services = names
        .into_iter()
        .filter_map(|name| {
            let (action, start, stop, changes) = match (before.services.get(name), after.services.get(name)) {
                (None, None) => return None,
                (None, Some(new)) => (Action::Create, new.replicas, 0, vec![format!("image: {}", new.image)]),
                (Some(old), None) => (Action::Remove, 0, old.replicas, Vec::new()),
                (Some(old), Some(new)) => change(old, new),
            };
            Some(ServicePlan { service: name.clone(), action, start, stop, changes })
        })
        .collect();
    Plan { stack: after.name.clone(), services, warnings: Vec::new() }
}

fn change(old: &Service, new: &Service) -> (Action, u32, u32, Vec<String>) {
    if old == new {
        return (Action::Keep, 0, 0, Vec::new());
    }
    let changes = fields(old, new);
    if scheduler::shape(old) != scheduler::shape(new) {
        return (Action::Update, new.replicas, old.replicas, changes);
    }
    let (start, stop) = (new.replicas.saturating_sub(old.replicas), old.replicas.saturating_sub(new.replicas));
    let action = if start + stop > 0 { Action::Scale } else { Action::Update };
    (action, start, stop, changes)
}

fn fields(old: &Service, new: &Service) -> Vec<String> {
    let to_value = |service| serde_json::to_value(service).expect("a spec is plain data with string keys");
    let mut changes = Vec::new();
    compare("", &to_value(old), &to_value(new), &mut changes);
    changes
}

fn compare(path: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    if old == new {
        return;
    }
    if let (Value::Object(left), Value::Object(right)) = (old, new) {
        let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
        for key in keys {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
            compare(&below, &value(left), &value(right), changes);
        }
        return;
    }
    // A secret's bytes are never shown, not even as base 64.
    let (old, new) =
        if path.starts_with("files") { ("changed".into(), "content".into()) } else { (show(old), show(new)) };
    changes.push(format!("{path}: {old} -> {new}"));
}

fn show(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    text.chars().take(SHOWN_CHARS_MAX).chain(['…']).collect()
}
