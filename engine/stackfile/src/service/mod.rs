//! One service: every key of the compose specification, read into `wire::spec::Service`.
//!
//! Owns the list of keys that are understood and not honoured. Never compares services: that is `relations`.

mod bramble;
mod deploy;
mod environment;
mod health;
mod mounts;
mod network;
mod ports;
mod program;
mod resources;
mod secrets;

use crate::findings::{Findings, Place};
use crate::read::{At, Elsewhere, Fields, Instead, shortened};
use crate::stack::Surroundings;
use crate::traefik;
use wire::spec::{Constraint, PullPolicy, Service};

/// A service, and what the checks across services need to know of the file.
pub(crate) struct ServiceRead {
    pub(crate) spec: Service,
    pub(crate) marks: Marks,
}

#[derive(Default)]
pub(crate) struct Marks {
    pub(crate) place: Place,
    /// Where each of `spec.ports` was written.
    pub(crate) ports: Vec<Place>,
    /// Other services that are named.
    pub(crate) mentions: Vec<Mention>,
    /// `links`: service and the name it is to answer to.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) volumes_from: Vec<VolumesFrom>,
    pub(crate) container_name: Option<Place>,
    pub(crate) mode_given: bool,
    pub(crate) restart_given: bool,
    /// None of its profiles is wanted.
    pub(crate) left_out: bool,
    /// Every label with its place, for routes.
    pub(crate) labels: Vec<(String, String, Place)>,
}

pub(crate) struct Mention {
    pub(crate) service: String,
    pub(crate) place: Place,
    /// It may be missing.
    pub(crate) optional: bool,
}

pub(crate) struct VolumesFrom {
    pub(crate) service: String,
    pub(crate) read_only: bool,
    pub(crate) place: Place,
}

/// What a group of keys is read with.
pub(crate) struct Reader<'r, 'i> {
    pub(crate) name: &'r str,
    pub(crate) stack: &'r str,
    pub(crate) around: &'r Surroundings<'i>,
    pub(crate) spec: Service,
    pub(crate) marks: Marks,
}

const INSTEAD: Instead = &[
    ("annotations", "nothing reads annotations here; use `labels`"),
    ("blkio_config", "disks are shared evenly"),
    ("cgroup", "each instance has a control group of its own"),
    ("cgroup_parent", "each instance has a control group of its own"),
    ("cpu_count", "use `deploy.resources.limits.cpus`"),
    ("cpu_percent", "use `deploy.resources.limits.cpus`"),
    ("cpu_period", "use `deploy.resources.limits.cpus`"),
    ("cpu_quota", "use `deploy.resources.limits.cpus`"),
    ("cpu_rt_period", "instances get no real-time share of the processor"),
    ("cpu_rt_runtime", "instances get no real-time share of the processor"),
    ("cpu_shares", "cores are shared evenly; reserve some with `deploy.resources.reservations.cpus`"),
    ("cpuset", "instances run on any core; use `deploy.resources.limits.cpus`"),
    ("credential_spec", "it is for Windows containers"),
    ("develop", "it is for `docker compose watch`; deploy again after a change"),
    ("device_cgroup_rules", "instances get no devices beyond /dev/null and its like"),
    ("devices", "instances get no devices beyond /dev/null and its like"),
    ("dns", "names are answered by the machine: services by their name, the rest by the machine's own resolver"),
    ("dns_opt", "names are answered by the machine"),
    ("exclude_from_hc", "it is Coolify's own; every service's health counts"),
    ("external_links", "name the other stack's network under `networks` with `external: true`"),
    ("gpus", "instances get no devices beyond /dev/null and its like"),
    ("ipc", "each instance has shared memory of its own; `shm_size` sets how much"),
    ("isolation", "it is for Windows containers"),
    ("mac_address", "instances have no network card, but sockets"),
    ("mem_swappiness", "the machine decides what it swaps"),
    ("memswap_limit", "the memory limit counts alone; the machine decides what it swaps"),
    ("models", "services reach a model as they reach any other service: run one as a service"),
    ("oom_kill_disable", "an instance beyond its memory limit is ended and started again"),
    ("oom_score_adj", "an instance beyond its memory limit is ended and started again"),
    ("pid", "each instance sees its own processes only"),
    ("post_start", "nothing is run after the start; let the entrypoint do it"),
    ("pre_stop", "nothing is run before the stop signal; let the program handle the signal"),
    ("privileged", "the instance runs without privileges; name what it needs in `cap_add`"),
    ("provider", "nothing outside containers is run; deploy it as a service with an image"),
    ("pull_refresh_after", "use `pull_policy: always`"),
    ("runtime", "instances run in Bramble's own sandbox"),
    ("storage_opt", "the root file system is bounded by the machine's disk"),
    ("use_api_socket", "instances get no socket of a container engine"),
    ("userns_mode", "each instance has user ids of its own, none of them the machine's root"),
    ("uts", "each instance has a host name of its own; set it with `hostname`"),
];

/// Keys that are often written in the wrong place, or by their name in an older format.
const ELSEWHERE: Elsewhere = &[
    ("replicas", "it belongs under `deploy`"),
    ("mode", "it belongs under `deploy`"),
    ("placement", "it belongs under `deploy`"),
    ("constraints", "it belongs under `deploy: placement:`"),
    ("resources", "it belongs under `deploy`"),
    ("limits", "it belongs under `deploy: resources:`"),
    ("reservations", "it belongs under `deploy: resources:`"),
    ("restart_policy", "it belongs under `deploy`, or write `restart:`"),
    ("update_config", "it belongs under `deploy`"),
    ("rollback_config", "it belongs under `deploy`"),
    ("aliases", "it belongs under `networks: <name>:`"),
    ("routes", "it belongs under `x-bramble`"),
    ("egress", "it belongs under `x-bramble`"),
    ("dockerfile", "it belongs under `build`, and nothing is built here: build and push the image"),
    ("net", "it is called `network_mode` now"),
    ("log_driver", "it is `logging: driver:` now"),
    ("log_opt", "it is `logging: options:` now"),
    ("volume_driver", "it is `driver:` of the volume now, at the top level"),
];

pub(crate) fn read(
    name: &str,
    stack: &str,
    place: Place,
    at: &At<'_>,
    around: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<ServiceRead> {
    let mut fields = at.fields(findings)?;
    let marks = Marks { place, ..Marks::default() };
    let mut reader = Reader { name, stack, around, spec: Service::default(), marks };
    reader.profiles(&mut fields, findings);
    reader.image(&mut fields, findings);
    reader.labels(&mut fields, findings);
    reader.program(&mut fields, findings);
    reader.environment(&mut fields, findings);
    reader.networks(&mut fields, findings);
    reader.ports(&mut fields, findings);
    reader.dependencies(&mut fields, findings);
    reader.mounts(&mut fields, findings);
    reader.secrets_and_configs(&mut fields, findings);
    reader.deploy(&mut fields, findings);
    reader.resources(&mut fields, findings);
    reader.healthcheck(&mut fields, findings);
    reader.bramble(&mut fields, findings);
    reader.routes_from_labels(findings);
    // For `docker compose up` in a terminal only.
    fields.take("attach");
    fields.finish_with(INSTEAD, ELSEWHERE, findings);
    Some(ServiceRead { spec: reader.spec, marks: reader.marks })
}

impl Reader<'_, '_> {
    fn profiles(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let Some(at) = fields.take("profiles") else { return };
        let profiles = at.text_or_texts(findings);
        let wanted = self.around.input.variables.get("COMPOSE_PROFILES").map(String::as_str).unwrap_or_default();
        let is_wanted = |profile: &String| wanted.split(',').any(|name| name.trim() == profile || name.trim() == "*");
        if !profiles.is_empty() && !profiles.iter().any(is_wanted) {
            self.marks.left_out = true;
            let message = format!("the service `{}` is left out: none of its profiles is wanted", shortened(self.name));
            findings.warn(&at.place, message, format!("set COMPOSE_PROFILES={} to have it", shortened(&profiles[0])));
        }
    }

    fn image(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        // What is left of `extends` could not be resolved, which was said: what is missing would have come from there.
        let unresolved = fields.take("extends").is_some();
        let image = fields.take("image");
        let build = fields.take("build");
        match (&image, &build) {
            (Some(image), build) => {
                if let Some(build) = build {
                    findings.warn(
                        &build.place,
                        "nothing is built here",
                        "build and push the image; it is pulled as `image:` says",
                    );
                }
                if let Some(text) = image.filled_text(findings) {
                    if let Err((wrong, hint)) = crate::image::checked(text) {
                        findings.error(&image.place, format!("`{}` {wrong}", shortened(text)), hint);
                    }
                    self.spec.image = text.to_string();
                }
            }
            (None, Some(build)) => {
                // The name `docker compose build` gives it, so that pushing what it built is enough.
                self.spec.image = format!("{}-{}", self.stack, self.name);
                let message = format!("nothing is built here: the image `{}` is expected", shortened(&self.spec.image));
                let hint = "build it, push it to a registry, and set `image:` to its name there";
                findings.warn(&build.place, message, hint);
            }
            (None, None) if unresolved => {}
            (None, None) => {
                let message = format!("the service `{}` has no image", shortened(self.name));
                findings.error(
                    &self.marks.place,
                    message,
                    "set `image:`, or `image: host` to run a program of the machine",
                );
            }
        }
        self.pull_policy(fields, findings);
        if let Some(platform) = fields.take_filled("platform") {
            self.platform(&platform, findings);
        }
    }

    fn pull_policy(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let Some(at) = fields.take_filled("pull_policy") else { return };
        let Some(text) = at.text(findings) else { return };
        self.spec.pull_policy = match text {
            "always" => PullPolicy::Always,
            "missing" | "if_not_present" => PullPolicy::Missing,
            "never" => PullPolicy::Never,
            "build" => {
                findings.warn(&at.place, "nothing is built here", "the image is pulled if it is missing");
                PullPolicy::Missing
            }
            text if text == "daily" || text == "weekly" || text.starts_with("every_") => {
                findings.warn(&at.place, "images are not pulled by the clock", "the image is asked for at every start");
                PullPolicy::Always
            }
            text => {
                let hint = "write `always`, `missing` or `never`";
                findings.error(&at.place, format!("`{}` is not a pull policy", shortened(text)), hint);
                PullPolicy::Missing
            }
        };
    }

    fn platform(&mut self, at: &At<'_>, findings: &mut Findings) {
        let Some(text) = at.filled_text(findings) else { return };
        let mut parts = text.split('/');
        let (os, arch) = (parts.next().unwrap_or_default(), parts.next());
        if os != "linux" {
            let hint = "machines run Linux programs; the image's own platform is tried";
            findings.warn(&at.place, format!("the platform `{}` is not honoured", shortened(text)), hint);
            return;
        }
        if let Some(arch) = arch {
            let value = deploy::machine_arch(arch).to_string();
            let field = deploy::ARCH_FIELD.to_string();
            self.spec.placement.constraints.push(Constraint { field, equal: true, value });
        }
    }

    fn labels(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        self.label_files(fields, findings);
        if let Some(at) = fields.take("labels") {
            self.add_labels(&at, findings);
        }
    }

    /// Labels of the container and of the service are one set here; later ones win.
    pub(crate) fn add_labels(&mut self, at: &At<'_>, findings: &mut Findings) {
        for pair in at.pairs(&['='], findings) {
            if pair.name.is_empty() {
                findings.error(&pair.at.place, "the label has no name", "");
                continue;
            }
            let value = pair.value.unwrap_or_default().to_string();
            self.spec.labels.insert(pair.name.to_string(), value.clone());
            self.marks.labels.push((pair.name.to_string(), value, pair.at.place));
        }
    }

    fn routes_from_labels(&mut self, findings: &mut Findings) {
        let ports: Vec<u16> = self.spec.ports.iter().map(|port| port.target).collect();
        let exposed: Vec<u16> = self.spec.expose.iter().map(|expose| expose.port).collect();
        let candidate = ports.first().or(exposed.first()).copied();
        let routes = traefik::routes(&self.marks.labels, candidate, &self.around.middlewares, findings);
        self.spec.routes.extend(routes);
    }

    /// A template that cannot be filled in is an error where the instance could not start with it.
    fn check_template(&self, text: &str, field: &str, place: &Place, findings: &mut Findings) {
        if let Err(error) = crate::template::check(text, field) {
            findings.error(place, error.to_string(), error.hint());
        }
    }
}
