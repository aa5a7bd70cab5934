"""Makes OCI images of folders and puts them into a registry, without Docker.

Owns layers (what a folder has that the one below has not), configurations, manifests and the pushing half of the
distribution protocol. Never knows what is in a folder. Files are taken with their owners and times, so it runs as root.
"""

import gzip
import hashlib
import http.client
import json
import os
import stat
import tarfile
import urllib.parse

# Read and sent at a time: large enough that the loop costs nothing beside the hashing.
PIECE_BYTES = 1 << 20
# Images are pushed over loopback once; time spent on compressing better is lost.
GZIP_LEVEL = 1
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Hashing:
    """A file to write to that knows the digest of what was written."""

    def __init__(self, below):
        self.below, self.hash, self.size = below, hashlib.sha256(), 0

    def write(self, data):
        self.hash.update(data)
        self.size += len(data)
        return self.below.write(data)

    def flush(self):
        self.below.flush()

    def digest(self):
        return "sha256:" + self.hash.hexdigest()


def below(root):
    """Every path under a folder, parents first, with what `lstat` says."""
    found = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        for name in sorted(os.listdir(os.path.join(root, folder))):
            path = os.path.join(folder, name)
            found[path] = os.lstat(os.path.join(root, path))
            if stat.S_ISDIR(found[path].st_mode):
                pending.append(path)
    return found


def same(one, other):
    if (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid):
        return False
    # A folder's size and time change with its entries, and those are compared themselves.
    return stat.S_ISDIR(one.st_mode) or (one.st_size, int(one.st_mtime)) == (other.st_size, int(other.st_mtime))


def layer(root, lower, to):
    """Writes what `root` has beyond `lower` (or all of it) as a compressed layer; gives its two digests and its size."""
    here, there = below(root), below(lower) if lower else {}
    with open(to + ".part", "wb") as file:
        compressed = Hashing(file)
        with gzip.GzipFile(fileobj=compressed, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as squeezed:
            plain = Hashing(squeezed)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for path in sorted(set(there) - set(here)):
                    parent = os.path.dirname(path)
                    # The whiteout of a folder hides what is in it as well.
                    if not parent or parent in here:
                        tar.addfile(tarfile.TarInfo(os.path.join(parent, ".wh." + os.path.basename(path))))
                for path, found in sorted(here.items()):
                    if stat.S_ISSOCK(found.st_mode) or (path in there and same(found, there[path])):
                        continue
                    tar.add(os.path.join(root, path), arcname=path, recursive=False)
    os.rename(to + ".part", to)
    made = {"digest": compressed.digest(), "diff_id": plain.digest(), "size": compressed.size, "path": to}
    with open(to + ".json", "w") as file:
        json.dump(made, file)
    return made


def made_before(to):
    """What `layer` gave when it wrote this file; `None` if it never came to its end."""
    try:
        with open(to + ".json") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


class Registry:
    def __init__(self, address):
        self.address = address

    def ask(self, method, target, body=None, headers=None, expected=(200,)):
        """One request on a connection of its own; the answer's headers and body."""
        connection = http.client.HTTPConnection(self.address, timeout=300)
        try:
            connection.request(method, target, body=body, headers=headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status not in expected:
            raise RuntimeError(f"{method} {target} answered {answer.status}: {content[:300]!r}")
        return answer.status, dict(answer.getheaders()), content

    def put_blob(self, repository, digest, size, body):
        status, _, _ = self.ask("HEAD", f"/v2/{repository}/blobs/{digest}", expected=(200, 404))
        if status == 200:
            return
        _, headers, _ = self.ask("POST", f"/v2/{repository}/blobs/uploads/", expected=(202,))
        place = urllib.parse.urlsplit(headers["Location"])
        query = urllib.parse.urlencode(urllib.parse.parse_qsl(place.query) + [("digest", digest)])
        upload = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self.ask("PUT", f"{place.path}?{query}", body=body, headers=upload, expected=(201,))

    def push(self, repository, tag, config, layers):
        """Pushes layers, bottom first, with the configuration as Docker writes it; gives the manifest's digest."""
        for one in layers:
            with open(one["path"], "rb") as file:
                self.put_blob(repository, one["digest"], one["size"], file)
        whole = {
            "architecture": ARCHITECTURES.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [one["diff_id"] for one in layers]},
        }
        body = json.dumps(whole).encode()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        self.put_blob(repository, digest, len(body), body)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest, "size": len(body)},
            "layers": [
                {"mediaType": LAYER_TYPE, "digest": one["digest"], "size": one["size"]} for one in layers
            ],
        }
        kind = {"Content-Type": MANIFEST_TYPE}
        body = json.dumps(manifest).encode()
        _, headers, _ = self.ask("PUT", f"/v2/{repository}/manifests/{tag}", body, kind, expected=(201,))
        return headers["Docker-Content-Digest"]
