//! Builds images for tests: layers from a list of entries, manifests, indexes.

use crate::registry::{Registry, digest};
use std::io::Write;
use tar::{EntryType, Header};

pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

pub(crate) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A tar archive being written, with names exactly as given, also those that no tool would write.
#[derive(Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub(crate) fn entry(mut self, kind: EntryType, path: &str, link: &str, mode: u32, content: &[u8]) -> Tar {
        self.push(kind, path, link, mode, (0, 0), content);
        self
    }

    pub(crate) fn owned(mut self, kind: EntryType, path: &str, mode: u32, owner: (u64, u64), content: &[u8]) -> Tar {
        self.push(kind, path, "", mode, owner, content);
        self
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Tar {
        self.entry(EntryType::Regular, path, "", 0o644, content.as_bytes())
    }

    pub(crate) fn folder(self, path: &str) -> Tar {
        self.entry(EntryType::Directory, path, "", 0o755, b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Tar {
        self.entry(EntryType::Symlink, path, target, 0o777, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Tar {
        self.entry(EntryType::Link, path, target, 0o644, b"")
    }

    /// A PAX record for the next entry.
    pub(crate) fn attribute(self, key: &str, value: &[u8]) -> Tar {
        let rest = key.len() + value.len() + 3;
        // The length counts its own digits.
        let length = (1..).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
        let mut record = format!("{} {key}=", length.unwrap()).into_bytes();
        record.extend_from_slice(value);
        record.push(b'\n');
        self.entry(EntryType::XHeader, "pax", "", 0o644, &record)
    }

    /// A GNU long name for the next entry.
    pub(crate) fn long_name(self, name: &str) -> Tar {
        self.entry(EntryType::GNULongName, "././@LongLink", "", 0o644, format!("{name}\0").as_bytes())
    }

    /// Says more than it holds.
    pub(crate) fn lying_file(mut self, path: &str, size: u64) -> Tar {
        let mut header = header(EntryType::Regular, path, "", 0o644, (0, 0));
        header.set_size(size);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self
    }

    fn push(&mut self, kind: EntryType, path: &str, link: &str, mode: u32, owner: (u64, u64), content: &[u8]) {
        let mut header = header(kind, path, link, mode, owner);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    pub(crate) fn done(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

fn header(kind: EntryType, path: &str, link: &str, mode: u32, owner: (u64, u64)) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.0);
    header.set_gid(owner.1);
    header.set_mtime(1_600_000_000);
    header
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Bytes that do not compress and are the same every time.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A layer as it is pushed.
pub(crate) struct Layer {
    pub(crate) media_type: &'static str,
    pub(crate) diff_id: String,
    pub(crate) blob: Vec<u8>,
}

pub(crate) fn layer(media_type: &'static str, tar: Tar) -> Layer {
    let plain = tar.done();
    let blob = match media_type {
        GZIP => gzip(&plain),
        ZSTD => zstd(&plain),
        _ => plain.clone(),
    };
    Layer { media_type, diff_id: digest(&plain), blob }
}

/// Pushes an image and returns its manifest's digest.
pub(crate) fn push(registry: &Registry, repository: &str, tag: Option<&str>, config: &str, layers: &[Layer]) -> String {
    push_for(registry, repository, tag, arch(), config, layers)
}

pub(crate) fn configuration(arch: &str, config: &str, layers: &[Layer]) -> String {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("{:?}", layer.diff_id)).collect();
    format!(
        r#"{{"os":"linux","architecture":"{arch}","config":{config},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
}

pub(crate) fn manifest(configuration: &str, layers: &[Layer]) -> String {
    let descriptors: Vec<String> = layers
        .iter()
        .map(|layer| descriptor(layer.media_type, &digest(&layer.blob), layer.blob.len()))
        .map(|descriptor| format!("{{{descriptor}}}"))
        .collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{{}}},"layers":[{}]}}"#,
        descriptor(CONFIG, &digest(configuration.as_bytes()), configuration.len()),
        descriptors.join(",")
    )
}

pub(crate) fn push_for(
    registry: &Registry,
    repository: &str,
    tag: Option<&str>,
    arch: &str,
    config: &str,
    layers: &[Layer],
) -> String {
    for layer in layers {
        registry.put_blob(layer.blob.clone());
    }
    let configuration = configuration(arch, config, layers);
    let manifest = manifest(&configuration, layers);
    registry.put_blob(configuration);
    registry.put_manifest(repository, tag, MANIFEST, manifest)
}

pub(crate) fn descriptor(media_type: &str, digest: &str, size: usize) -> String {
    format!(r#""mediaType":"{media_type}","digest":"{digest}","size":{size}"#)
}
