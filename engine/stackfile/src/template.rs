//! Go templates in a service, as swarm has them: filled in for one instance.
//!
//! Only the placeholders swarm documents; nothing can loop or call. Bramble also allows them in `command`.

use std::collections::BTreeMap;
use wire::spec::{MountSource, Service};

/// What an instance is, for its templates.
#[derive(Debug, Clone, Copy)]
pub struct TemplateContext<'a> {
    pub stack: &'a str,
    pub service: &'a str,
    pub slot: u32,
    pub task_id: &'a str,
    pub node_id: &'a str,
    pub node_hostname: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("`{{{{{placeholder}}}}}` in `{field}` is not a placeholder that can be filled in")]
    Unknown { field: String, placeholder: String },
    #[error("`{{{{` in `{field}` is never closed")]
    Unclosed { field: String },
}

impl TemplateError {
    pub fn hint(&self) -> &'static str {
        "known are .Service.ID, .Service.Name, .Service.Labels.x, .Node.ID, .Node.Hostname, .Task.ID, .Task.Name, .Task.Slot"
    }
}

/// The service with the templates of `environment`, `hostname`, `domainname`, `mounts`, `command` and `entrypoint`
/// filled in. What is no known placeholder stays as it is in `environment`, `command` and `entrypoint`: other
/// programs use double braces too. In names and paths it is an error.
pub fn fill_templates(service: &Service, context: &TemplateContext<'_>) -> Result<Service, TemplateError> {
    let mut filled = service.clone();
    let labels = &service.labels;
    let strict = |text: &mut String, field: &str| -> Result<(), TemplateError> {
        if text.contains("{{") {
            check(text, field)?;
            *text = fill(text, labels, context);
        }
        Ok(())
    };
    for (field, slot) in [("hostname", &mut filled.hostname), ("domainname", &mut filled.domainname)] {
        if let Some(text) = slot {
            strict(text, field)?;
        }
    }
    for mount in &mut filled.mounts {
        strict(&mut mount.target, "volumes")?;
        match &mut mount.source {
            MountSource::Bind { path } => strict(path, "volumes")?,
            MountSource::Volume { name } => strict(name, "volumes")?,
            MountSource::Anonymous | MountSource::Tmpfs { .. } => {}
        }
    }
    let words = [&mut filled.command, &mut filled.entrypoint].into_iter().flatten().flatten();
    for text in words.chain(filled.environment.values_mut()) {
        if text.contains("{{") {
            *text = fill(text, labels, context);
        }
    }
    Ok(filled)
}

/// Whether every placeholder of a text can be filled in.
pub(crate) fn check(text: &str, field: &str) -> Result<(), TemplateError> {
    let any = TemplateContext { stack: "s", service: "s", slot: 1, task_id: "t", node_id: "n", node_hostname: "n" };
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let inside = &rest[start + 2..];
        let end = inside.find("}}").ok_or_else(|| TemplateError::Unclosed { field: field.to_string() })?;
        let placeholder = &inside[..end];
        if value_of(placeholder, &BTreeMap::new(), &any).is_none() {
            let placeholder = crate::read::shortened(placeholder);
            return Err(TemplateError::Unknown { field: field.to_string(), placeholder });
        }
        rest = &inside[end + 2..];
    }
    Ok(())
}

/// Fills in what is known and leaves the rest.
fn fill(text: &str, labels: &BTreeMap<String, String>, context: &TemplateContext<'_>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let Some(end) = rest[start..].find("}}").map(|end| start + end + 2) else { break };
        out.push_str(&rest[..start]);
        match value_of(&rest[start + 2..end - 2], labels, context) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[start..end]),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

fn value_of(placeholder: &str, labels: &BTreeMap<String, String>, context: &TemplateContext<'_>) -> Option<String> {
    let inner = placeholder.trim_start_matches('-').trim_end_matches('-').trim();
    let service_name = || format!("{}_{}", context.stack, context.service);
    Some(match inner {
        ".Service.Name" | ".Service.ID" => service_name(),
        ".Node.ID" => context.node_id.to_string(),
        ".Node.Hostname" => context.node_hostname.to_string(),
        ".Task.ID" => context.task_id.to_string(),
        ".Task.Name" => format!("{}.{}.{}", service_name(), context.slot, context.task_id),
        ".Task.Slot" => context.slot.to_string(),
        other => {
            // A label that the service does not have is empty, as in Go's maps.
            let name = match other.strip_prefix(".Service.Labels.") {
                Some(name) => name,
                None => other.strip_prefix("index .Service.Labels")?.trim().strip_prefix('"')?.strip_suffix('"')?,
            };
            labels.get(name).cloned().unwrap_or_default()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::spec::Mount;

    const CONTEXT: TemplateContext<'static> = TemplateContext {
        stack: "shop",
        service: "web",
        slot: 3,
        task_id: "abc",
        node_id: "n1",
        node_hostname: "lab-7",
    };

    fn check(template: &str, expected: Result<&str, &str>) {
        let mut service = Service::default();
        service.labels.insert("tier".into(), "front".into());
        service.labels.insert("a.b/c".into(), "dotted".into());
        service.hostname = Some(template.to_string());
        let found = fill_templates(&service, &CONTEXT).map_err(|error| error.to_string());
        let found = found.map(|service| service.hostname.unwrap_or_default());
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{template}");
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        check("{{.Service.Name}}-{{ .Task.Slot }}", Ok("shop_web-3"));
        check("{{.Task.ID}} {{.Task.Name}}", Ok("abc shop_web.3.abc"));
        check("{{.Node.Hostname}}/{{.Node.ID}}", Ok("lab-7/n1"));
        check("{{.Service.Labels.tier}}{{index .Service.Labels \"a.b/c\"}}{{.Service.Labels.none}}", Ok("frontdotted"));
        check("plain {x}", Ok("plain {x}"));
    }

    #[test]
    fn unknown_placeholders_are_named() {
        check("{{.Task.Nmae}}", Err("`{{.Task.Nmae}}` in `hostname` is not a placeholder that can be filled in"));
        check("{{.Task.Slot", Err("`{{` in `hostname` is never closed"));
    }

    #[test]
    fn mounts_environment_and_command_are_filled_in_too() {
        let mut service =
            Service { command: Some(vec!["x{{.Task.Slot}}".into(), "{{range .}}".into()]), ..Service::default() };
        service.environment.insert("ID".into(), "{{.Task.Slot}} {{ json . }}".into());
        let source = MountSource::Bind { path: "/data/{{.Task.Slot}}".into() };
        service.mounts.push(Mount { source, target: "/d".into(), read_only: false });
        let filled = fill_templates(&service, &CONTEXT).expect("known placeholders");
        assert_eq!(filled.command.expect("kept"), ["x3", "{{range .}}"]);
        assert_eq!(filled.environment["ID"], "3 {{ json . }}");
        assert_eq!(filled.mounts[0].source, MountSource::Bind { path: "/data/3".into() });
    }
}
