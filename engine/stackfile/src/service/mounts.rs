//! `volumes`, `tmpfs`, `volumes_from`, `shm_size`: what is mounted where.
//!
//! Owns how a source is understood: a path, a name declared at the top level, or nothing. Never asks whether a path
//! exists on a machine.

use super::{Reader, VolumesFrom};
use crate::findings::{Findings, Place};
use crate::read::{At, Fields, shortened};
use crate::stack::Surroundings;
use base64::Engine as _;
use wire::spec::{File, FileKind, Mount, MountSource};

/// Options that only matter to docker's own file sharing or to SELinux labels: the sandbox needs none of them.
const IDLE_OPTIONS: [&str; 7] = ["z", "Z", "cached", "delegated", "consistent", "rprivate", "private"];
/// Options that would change what is seen.
const IGNORED_OPTIONS: [&str; 6] = ["nocopy", "shared", "rshared", "slave", "rslave", "U"];

const SHORT_HINT: &str = "write `name:/path`, `./folder:/path`, `/folder:/path:ro`, or `/path` for an unnamed volume";

/// As a file that an editor writes.
const CONTENT_MODE_DEFAULT: u32 = 0o644;

/// Sockets through which a container would rule the machine's other containers.
const ENGINE_SOCKETS: [&str; 3] = ["/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock"];

/// What a mount is called in a file, before names are looked up.
struct Wanted<'t> {
    source: &'t str,
    target: &'t str,
    read_only: bool,
}

impl Reader<'_, '_> {
    pub(super) fn mounts(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        for item in fields.take("volumes").map(|at| at.list(findings)).unwrap_or_default() {
            if item.is_map() {
                self.long_mount(&item, findings);
            } else {
                self.short_mount(&item, findings);
            }
        }
        for item in fields.take("tmpfs").map(|at| at.one_or_list(findings)).unwrap_or_default() {
            self.tmpfs(&item, findings);
        }
        for item in fields.take("volumes_from").map(|at| at.list(findings)).unwrap_or_default() {
            self.volumes_from(&item, findings);
        }
        self.spec.shm_size_bytes = fields.take_filled("shm_size").and_then(|at| at.size_bytes(findings));
    }

    fn short_mount(&mut self, item: &At<'_>, findings: &mut Findings) {
        let Some(text) = item.filled_text(findings) else { return };
        let parts: Vec<&str> = text.split(':').collect();
        let (wanted, options) = match parts.as_slice() {
            [target] => (Wanted { source: "", target, read_only: false }, ""),
            [source, target] => (Wanted { source, target, read_only: false }, ""),
            [source, target, options] => (Wanted { source, target, read_only: false }, *options),
            _ => {
                findings.error(&item.place, format!("`{}` has too many `:` for a volume", shortened(text)), SHORT_HINT);
                return;
            }
        };
        let mut read_only = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => read_only = true,
                "rw" => read_only = false,
                idle if IDLE_OPTIONS.contains(&idle) => {}
                ignored if IGNORED_OPTIONS.contains(&ignored) => {
                    let hint = "the volume is mounted without it";
                    findings.warn(&item.place, format!("the option `{ignored}` is not honoured"), hint);
                }
                other => {
                    let message = format!("`{}` is not an option of a volume", shortened(other));
                    findings.error(&item.place, message, "write `ro` or `rw`");
                }
            }
        }
        let source = if parts.len() == 1 {
            Some(MountSource::Anonymous)
        } else {
            self.source(wanted.source, &item.place, findings)
        };
        if let Some(source) = source {
            self.add_mount(source, &Wanted { read_only, ..wanted }, &item.place, findings);
        }
    }

    /// What stands before the `:`. `None` when there is nothing to mount.
    fn source(&self, text: &str, place: &Place, findings: &mut Findings) -> Option<MountSource> {
        if text.is_empty() {
            let message = "the volume's source is empty, perhaps because a variable is not set";
            findings.warn(place, message, "an empty folder is mounted that lives as long as the instance");
            return Some(MountSource::Anonymous);
        }
        if text.starts_with(['/', '.', '~']) {
            return self.bind(text, place, findings);
        }
        match self.around.volumes.get(text) {
            Some(declared) => Some(declared.source.clone()),
            None => {
                let looks_like_a_path = text.contains(['/', '\\']);
                let hint = if looks_like_a_path {
                    format!("write `./{}` for a folder beside the stack file", shortened(text))
                } else {
                    Surroundings::declare_hint("volumes", text, self.around.volumes.keys())
                };
                findings.error(place, format!("there is no volume `{}`", shortened(text)), hint);
                None
            }
        }
    }

    /// A path of the machine, made absolute.
    fn bind(&self, text: &str, place: &Place, findings: &mut Findings) -> Option<MountSource> {
        let directory = self.around.input.directory;
        if ENGINE_SOCKETS.contains(&text) {
            let hint = "nothing is mounted there: whoever holds that socket rules the machine's containers";
            findings.warn(place, "the socket of a container engine is not handed out", hint);
            return None;
        }
        if text.starts_with('/') {
            return Some(MountSource::Bind { path: crate::files::joined("", text) });
        }
        let beside = |path: &str, findings: &Findings| {
            let path = crate::files::joined(findings.folder(place.spot), path);
            if path.starts_with('/') { path } else { crate::files::joined(directory, &path) }
        };
        let path = match text.strip_prefix('~') {
            Some(below) => match self.around.input.variables.get("HOME").filter(|home| home.starts_with('/')) {
                Some(home) => crate::files::joined(home, below.trim_start_matches('/')),
                None => {
                    let path = beside(below.trim_start_matches('/'), findings);
                    let message = "`~` is not known, since the variable HOME is not set";
                    findings.warn(place, message, format!("`{}` is mounted; write the path in full", shortened(&path)));
                    path
                }
            },
            None => beside(text, findings),
        };
        if directory.is_empty() && !path.starts_with('/') {
            let hint = "deploy with the command line from the folder of the file, or write the path in full";
            findings.error(
                place,
                format!("`{}` is relative, and the stack file's folder is not known", shortened(text)),
                hint,
            );
            return None;
        }
        Some(MountSource::Bind { path })
    }

    fn add_mount(&mut self, source: MountSource, wanted: &Wanted<'_>, place: &Place, findings: &mut Findings) {
        self.check_template(wanted.target, "volumes", place, findings);
        match &source {
            MountSource::Bind { path } => self.check_template(path, "volumes", place, findings),
            MountSource::Volume { name } => self.check_template(name, "volumes", place, findings),
            MountSource::Anonymous | MountSource::Tmpfs { .. } => {}
        }
        let target = wanted.target.trim_end_matches('/');
        if !wanted.target.starts_with('/') {
            let message = format!("`{}` is not a path inside the container", shortened(wanted.target));
            findings.error(place, message, SHORT_HINT);
            return;
        }
        if target.is_empty() || target.split('/').any(|part| part == "..") {
            let message = format!("nothing can be mounted at `{}`", shortened(wanted.target));
            findings.error(place, message, "write the full path of a folder or file below `/`");
            return;
        }
        if self.spec.mounts.iter().any(|mount| mount.target == target) {
            findings.error(
                place,
                format!("something is mounted at `{}` already", shortened(target)),
                "keep one of the two",
            );
            return;
        }
        self.spec.mounts.push(Mount { source, target: target.to_string(), read_only: wanted.read_only });
    }

    fn long_mount(&mut self, item: &At<'_>, findings: &mut Findings) {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Bind,
            Volume,
            Tmpfs,
        }
        const KINDS: [(&str, Kind); 3] = [("bind", Kind::Bind), ("volume", Kind::Volume), ("tmpfs", Kind::Tmpfs)];
        let Some(mut fields) = item.fields(findings) else { return };
        let kind = fields.take("type");
        let source = fields.take("source").or_else(|| fields.take("src"));
        let target = ["target", "dst", "destination"].into_iter().find_map(|key| fields.take(key));
        let read_only = fields.truth("read_only", findings) | fields.truth("readonly", findings);
        let content = fields.take("content");
        // A mode says something about a file that is written, not about one that is mounted.
        let mode = if content.is_some() { fields.take("mode") } else { None };
        let size = fields.take("tmpfs").and_then(|at| tmpfs_size(&at, findings));
        read_volume_options(&mut fields, findings);
        // Every folder that is missing is made; how docker's own file sharing behaves does not matter here.
        for idle in ["is_directory", "isDirectory", "consistency"] {
            fields.take(idle);
        }
        fields.finish(&[], findings);
        let source_text = source.as_ref().and_then(|at| at.text(findings)).unwrap_or_default();
        let kind = match kind.map(|at| at.one_of(&KINDS, findings)) {
            Some(Some(kind)) => kind,
            Some(None) => return,
            None if source_text.starts_with(['/', '.', '~']) => Kind::Bind,
            None => Kind::Volume,
        };
        let Some(target) = target else {
            findings.error(&item.place, "the volume has no `target`", "name the path inside the container");
            return;
        };
        let Some(target) = target.filled_text(findings) else { return };
        if let Some(content) = content.and_then(|at| at.text(findings)) {
            let mode = mode.and_then(|at| at.file_mode(findings)).unwrap_or(CONTENT_MODE_DEFAULT);
            self.add_content(content, target, mode);
            return;
        }
        let place = source.as_ref().map_or(&item.place, |at| &at.place);
        let source = match kind {
            Kind::Tmpfs => Some(MountSource::Tmpfs { size_bytes: size }),
            Kind::Volume if source.is_none() => Some(MountSource::Anonymous),
            Kind::Volume => self.source(source_text, place, findings),
            Kind::Bind if source_text.is_empty() => {
                findings.error(&item.place, "the bind has no `source`", "name the folder of the machine");
                None
            }
            Kind::Bind if source_text.starts_with(['/', '.', '~']) => self.bind(source_text, place, findings),
            Kind::Bind => self.bind(&format!("./{source_text}"), place, findings),
        };
        if let Some(source) = source {
            self.add_mount(source, &Wanted { source: source_text, target, read_only }, &item.place, findings);
        }
    }

    /// Coolify's own `content:` of a bind: a file that is there from the start.
    fn add_content(&mut self, content: &str, target: &str, mode: u32) {
        self.spec.files.push(File {
            source: target.to_string(),
            kind: FileKind::Config,
            target: target.to_string(),
            mode,
            uid: None,
            gid: None,
            content: base64::engine::general_purpose::STANDARD.encode(content),
        });
    }

    /// `/run` or `/run:size=64m,mode=1777`.
    fn tmpfs(&mut self, item: &At<'_>, findings: &mut Findings) {
        let Some(text) = item.filled_text(findings) else { return };
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let mut size_bytes = None;
        let mut read_only = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", size)) => match crate::units::size_bytes(size) {
                    Ok(size) => size_bytes = Some(size),
                    Err((wrong, hint)) => findings.error(&item.place, format!("`{}` {wrong}", shortened(size)), hint),
                },
                None if option == "ro" => read_only = true,
                // Without set-uid programs and devices it is anyway, and the rest is the owner's to change.
                Some(("mode" | "uid" | "gid", _)) => {}
                None if matches!(option, "rw" | "noexec" | "exec" | "nosuid" | "nodev") => {}
                Some(_) | None => {
                    let message = format!("the option `{}` of a tmpfs is not honoured", shortened(option));
                    findings.warn(&item.place, message, "it is mounted without it");
                }
            }
        }
        let wanted = Wanted { source: "", target, read_only };
        self.add_mount(MountSource::Tmpfs { size_bytes }, &wanted, &item.place, findings);
    }

    fn volumes_from(&mut self, item: &At<'_>, findings: &mut Findings) {
        let Some(text) = item.filled_text(findings) else { return };
        if text.starts_with("container:") {
            let hint = "give the volume a name, declare it `external: true`, and mount it in both stacks";
            findings.error(&item.place, "volumes come from services of this stack only", hint);
            return;
        }
        let (service, mode) = text.split_once(':').unwrap_or((text, "rw"));
        self.mention(service, item.place.clone(), false);
        let (service, read_only) = (service.to_string(), mode == "ro");
        self.marks.volumes_from.push(VolumesFrom { service, read_only, place: item.place.clone() });
    }
}

fn tmpfs_size(at: &At<'_>, findings: &mut Findings) -> Option<u64> {
    let mut fields = at.fields(findings)?;
    let size = fields.take("size").and_then(|at| at.size_bytes(findings));
    fields.take("mode");
    fields.finish(&[], findings);
    size
}

fn read_volume_options(fields: &mut Fields<'_>, findings: &mut Findings) {
    if let Some(at) = fields.take("bind")
        && let Some(mut bind) = at.fields(findings)
    {
        bind.take("create_host_path");
        bind.take("selinux");
        let instead = &[
            ("propagation", "later mounts below the folder are not seen inside"),
            ("recursive", "mounts below the folder are seen inside"),
        ];
        bind.finish(instead, findings);
    }
    if let Some(at) = fields.take("volume")
        && let Some(volume) = at.fields(findings)
    {
        let instead = &[
            ("nocopy", "an empty volume is filled with what the image has there"),
            ("subpath", "the whole volume is mounted; declare a volume of its own"),
            ("labels", "labels of an unnamed volume are not kept"),
        ];
        volume.finish(instead, findings);
    }
    if let Some(at) = fields.take("image") {
        findings.warn(&at.place, "images cannot be mounted", "copy what is needed into the service's own image");
    }
}
