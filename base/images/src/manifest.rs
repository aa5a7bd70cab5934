//! Manifests, indexes and image configurations: what the registry's JSON says, checked and reduced to what is needed.
//!
//! Pure: bytes in, plain data or an error out. Never knows where the bytes came from.

use crate::digest::Digest;
use crate::error::PullError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The distribution specification asks registries to take manifests of this size; nobody makes larger ones.
pub(crate) const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Overlayfs takes more, but Docker makes no image with more: its own bound.
pub(crate) const LAYERS_MAX: usize = 127;
/// The largest public images (machine learning) have layers of about 10 GiB.
pub(crate) const LAYER_BYTES_MAX: u64 = 32 << 30;
/// Indexes in indexes: allowed by the specification, two deep is already unheard of.
pub(crate) const INDEX_DEPTH_MAX: usize = 3;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_KINDS: [&str; 9] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];
/// Docker writes zstd layers under a name of its own.
const DOCKER_ZSTD_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// What a manifest request offers to take.
pub(crate) fn accepted() -> String {
    [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST].join(", ")
}

/// Where a blob is and how it is checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

/// One image: its configuration and its layers, bottom first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What stands behind a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Image(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
struct RawDocument {
    #[serde(rename = "schemaVersion", default)]
    schema_version: u32,
    #[serde(rename = "mediaType", default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// Reads a manifest or an index. `content_type` is what the server said, used when the document itself is silent.
pub(crate) fn parse(what: &str, content_type: Option<&str>, bytes: &[u8]) -> Result<Document, PullError> {
    let malformed = |why: String| PullError::Malformed { what: what.to_owned(), why };
    let raw: RawDocument = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let media_type = raw.media_type.as_deref().or(content_type).unwrap_or_default();
    let unsupported = || PullError::UnsupportedMediaType {
        what: what.to_owned(),
        media_type: media_type.chars().take(128).collect(),
    };
    if raw.schema_version != 2 {
        return Err(unsupported());
    }
    // Some registries answer `application/json`, so the shape decides when the kind is none of the known ones.
    let index = match media_type {
        OCI_INDEX | DOCKER_LIST => true,
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        "" | "application/json" | "text/plain" => raw.manifests.is_some(),
        _ => return Err(unsupported()),
    };
    if index {
        return Ok(Document::Index(raw.manifests.ok_or_else(|| malformed("it lists no manifests".to_owned()))?));
    }
    let config = raw.config.ok_or_else(|| malformed("it names no configuration".to_owned()))?;
    let layers = raw.layers.ok_or_else(|| malformed("it names no layers".to_owned()))?;
    let manifest = Manifest { config, layers };
    check_manifest(what, &manifest)?;
    Ok(Document::Image(manifest))
}

fn check_manifest(what: &str, manifest: &Manifest) -> Result<(), PullError> {
    let too_large = |what: String, bound: String| Err(PullError::TooLarge { what, bound });
    if manifest.layers.len() > LAYERS_MAX {
        return too_large(what.to_owned(), format!("{LAYERS_MAX} layers"));
    }
    let kind = manifest.config.media_type.as_str();
    if ![OCI_CONFIG, DOCKER_CONFIG, "", "application/octet-stream"].contains(&kind) {
        // Helm charts, signatures and other artefacts live in registries too.
        return Err(PullError::UnsupportedMediaType { what: what.to_owned(), media_type: kind.to_owned() });
    }
    if manifest.config.size > MANIFEST_BYTES_MAX as u64 {
        return too_large(format!("the configuration of {what}"), format!("{} MiB", MANIFEST_BYTES_MAX >> 20));
    }
    for layer in &manifest.layers {
        let kind = layer.media_type.as_str();
        if !LAYER_KINDS.contains(&kind) && kind != DOCKER_ZSTD_LAYER {
            let media_type = kind.chars().take(128).collect();
            return Err(PullError::UnsupportedMediaType { what: format!("a layer of {what}"), media_type });
        }
        if layer.size > LAYER_BYTES_MAX {
            return too_large(format!("layer {}", layer.digest), format!("{} GiB", LAYER_BYTES_MAX >> 30));
        }
    }
    Ok(())
}

impl Platform {
    /// This machine's, in the words of Go, which images use.
    pub(crate) fn here() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    pub(crate) fn name(&self) -> String {
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => format!("{}/{}/{variant}", self.os, self.architecture),
            Some(_) | None => format!("{}/{}", self.os, self.architecture),
        }
    }

    /// How well an image for `offered` runs here: higher is better, `None` is not at all. A machine runs its own
    /// variant and those below it: ARMv7 runs v6 and v5.
    fn fitness(&self, offered: &Platform) -> Option<u32> {
        if offered.os != self.os || offered.architecture != self.architecture {
            return None;
        }
        let level = |variant: &str| variant.trim_start_matches('v').parse::<u32>().ok();
        match (self.variant.as_deref().and_then(level), offered.variant.as_deref().filter(|text| !text.is_empty())) {
            (_, None) => Some(1),
            (Some(own), Some(variant)) => level(variant).filter(|offered| *offered <= own).map(|offered| 1 + offered),
            // amd64/v2 and above need instructions this machine may lack.
            (None, Some(variant)) => (variant == "v1").then_some(2),
        }
    }
}

/// Chooses the entry of an index for `platform`; the first of equally good ones, as other tools do.
pub(crate) fn choose(what: &str, entries: &[Descriptor], platform: &Platform) -> Result<Descriptor, PullError> {
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in entries {
        let fitness = match &entry.platform {
            Some(offered) => platform.fitness(offered),
            // An index of one image without a platform: take it, its configuration is checked later.
            None => Some(0),
        };
        if let Some(fitness) = fitness
            && best.is_none_or(|(found, _)| fitness > found)
        {
            best = Some((fitness, entry));
        }
    }
    if let Some((_, entry)) = best {
        return Ok(entry.clone());
    }
    // Attestations are listed as unknown/unknown; they say nothing to a reader.
    let mut present: Vec<String> =
        entries.iter().filter_map(|entry| entry.platform.as_ref()).map(Platform::name).collect();
    present.retain(|name| !name.starts_with("unknown"));
    present.sort();
    present.dedup();
    Err(PullError::PlatformMissing { reference: what.to_owned(), wanted: platform.name(), present })
}

/// How an image wants to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<(String, String)>,
    /// `user`, `uid`, `user:group` or empty, for [`crate::Image::resolve_user`].
    pub user: String,
    pub working_dir: String,
    /// Port, and whether it is UDP.
    pub exposed: Vec<(u16, bool)>,
    pub volumes: Vec<String>,
    pub healthcheck: Option<Healthcheck>,
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// Zero means that the image leaves the choice to whoever runs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", program, …]` or `["CMD-SHELL", line]`.
    pub test: Vec<String>,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    pub start_period_ms: u64,
    pub retries: u32,
}

/// An image's configuration blob, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
    /// Digests of the layers' uncompressed content, bottom first.
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfiguration {
    #[serde(flatten)]
    platform: Platform,
    #[serde(default)]
    config: Option<RawConfig>,
    #[serde(default)]
    rootfs: Option<RawRootfs>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    healthcheck: Option<RawHealthcheck>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealthcheck {
    test: Option<Vec<String>>,
    /// Nanoseconds, as Go writes durations.
    interval: i64,
    timeout: i64,
    start_period: i64,
    retries: i64,
}

/// Reads an image configuration.
pub(crate) fn parse_configuration(what: &str, bytes: &[u8]) -> Result<Configuration, PullError> {
    let malformed = |why: String| PullError::Malformed { what: format!("the configuration of {what}"), why };
    let raw: RawConfiguration = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let diff_ids = raw.rootfs.and_then(|rootfs| rootfs.diff_ids);
    let diff_ids = diff_ids.ok_or_else(|| malformed("it names no layers".to_owned()))?;
    if diff_ids.len() > LAYERS_MAX {
        return Err(PullError::TooLarge { what: what.to_owned(), bound: format!("{LAYERS_MAX} layers") });
    }
    Ok(Configuration { config: raw.config.unwrap_or_default().plain(), platform: raw.platform, diff_ids })
}

impl Configuration {
    /// Old images do not say what they are for; they pass.
    pub(crate) fn check_platform(&self, what: &str, here: &Platform) -> Result<(), PullError> {
        let silent = self.platform.os.is_empty() && self.platform.architecture.is_empty();
        // The variant is left out: Docker runs arm/v6 images declared as anything.
        if silent || (self.platform.os == here.os && self.platform.architecture == here.architecture) {
            return Ok(());
        }
        let present = vec![self.platform.name()];
        Err(PullError::PlatformMissing { reference: what.to_owned(), wanted: here.name(), present })
    }
}

impl RawConfig {
    fn plain(self) -> ImageConfig {
        let pair = |line: String| match line.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (line, String::new()),
        };
        ImageConfig {
            entrypoint: self.entrypoint.unwrap_or_default(),
            cmd: self.cmd.unwrap_or_default(),
            env: self.env.unwrap_or_default().into_iter().map(pair).collect(),
            user: self.user.unwrap_or_default(),
            working_dir: self.working_dir.unwrap_or_default(),
            exposed: self.exposed_ports.unwrap_or_default().keys().filter_map(|text| exposed(text)).collect(),
            volumes: self.volumes.unwrap_or_default().into_keys().collect(),
            healthcheck: self.healthcheck.and_then(RawHealthcheck::plain),
            stop_signal: self.stop_signal.filter(|signal| !signal.is_empty()),
            labels: self.labels.unwrap_or_default(),
        }
    }
}

impl RawHealthcheck {
    fn plain(self) -> Option<Healthcheck> {
        // Without a test, Docker inherits the base image's check; the configuration we read is already the outcome.
        let test = self.test.filter(|test| !test.is_empty())?;
        let ms = |nanoseconds: i64| u64::try_from(nanoseconds).unwrap_or(0) / 1_000_000;
        Some(Healthcheck {
            test,
            interval_ms: ms(self.interval),
            timeout_ms: ms(self.timeout),
            start_period_ms: ms(self.start_period),
            retries: u32::try_from(self.retries).unwrap_or(0),
        })
    }
}

/// `8080`, `8080/tcp` or `53/udp`; anything else is left out, since it only informs.
fn exposed(text: &str) -> Option<(u16, bool)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let udp = match protocol {
        "tcp" => false,
        "udp" => true,
        _ => return None,
    };
    Some((port.parse().ok()?, udp))
}
