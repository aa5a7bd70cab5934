"""Makes the root file systems of the run's two images: MariaDB from Debian, Ghost from npm, both on one Debian.

Owns folders under target/ghost and makes each once: a folder has its name only when it is whole. Needs root (debootstrap
does), Debian's mirror and the npm registry. Never knows of images or registries.
"""

import json
import os
import shutil
import subprocess

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
# The last release of the line that takes any MySQL; the file's tag says 4, which wants a Node.js of 2021.
GHOST = "5.130.6"
YARN = "1.22.22"
HERE = os.path.dirname(os.path.abspath(__file__))
# Read by people only; half of what Debian's packages weigh.
UNREAD = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt/lists", "var/cache/apt"]


def run(*command, **options):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, **options)


def once(path, make):
    """Makes a folder with `make(path)` unless it is there."""
    if not os.path.isdir(path):
        part = path + ".part"
        shutil.rmtree(part, ignore_errors=True)
        make(part)
        os.rename(part, path)
    return path


def write(root, path, text, mode=0o644):
    path = os.path.join(root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def entry_point(folder, name):
    """A root with the entry point alone: a layer of its own, so that a change of it makes nothing else anew."""
    root = os.path.join(folder, f"{name}-entry-point")
    with open(os.path.join(HERE, name, "docker-entrypoint.sh")) as file:
        write(root, "usr/local/bin/docker-entrypoint.sh", file.read(), 0o755)
    return root


def debian(folder):
    """Debian at its smallest, with what Node.js links to."""

    def make(root):
        run("debootstrap", "--variant=minbase", "--include=libstdc++6,zlib1g", SUITE, root, MIRROR)
        for path in UNREAD:
            shutil.rmtree(os.path.join(root, path), ignore_errors=True)

    return once(os.path.join(folder, "debian"), make)


def mysql(folder):
    """Debian's MariaDB under the entry point and the folders of the official image."""
    base = debian(folder)

    def make(root):
        run("cp", "-a", base, root)
        shutil.copyfile("/etc/resolv.conf", os.path.join(root, "etc/resolv.conf"))
        os.makedirs(os.path.join(root, "var/lib/apt/lists/partial"), exist_ok=True)
        os.makedirs(os.path.join(root, "var/cache/apt/archives/partial"), exist_ok=True)
        # Nothing is started in a folder that becomes an image.
        write(root, "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
        quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        run("chroot", root, "apt-get", "update", "-qq", env=quiet)
        run("chroot", root, "apt-get", "install", "-y", "-qq", "--no-install-recommends", "mariadb-server", env=quiet)
        for path in [*UNREAD, "var/lib/mysql"]:
            shutil.rmtree(os.path.join(root, path), ignore_errors=True)
        shutil.copyfile(os.path.join(HERE, "mysql/server.cnf"), os.path.join(root, "etc/mysql/mariadb.conf.d/99-image.cnf"))
        # The server logs to its container, not to a file.
        run("chroot", root, "install", "-d", "-o", "mysql", "-g", "mysql", "/var/lib/mysql", "/run/mysqld")

    return once(os.path.join(folder, "mysql"), make)


def ghost_package(folder):
    """Ghost with what it needs, from npm."""

    def make(root):
        os.makedirs(root)
        run("npm", "pack", "--silent", "--pack-destination", root, f"ghost@{GHOST}", stdout=subprocess.DEVNULL)
        run("tar", "-C", root, "--strip-components=1", "-xzf", os.path.join(root, f"ghost-{GHOST}.tgz"))
        os.remove(os.path.join(root, f"ghost-{GHOST}.tgz"))
        manifest = os.path.join(root, "package.json")
        with open(manifest) as file:
            package = json.load(file)
        # Some of what only its developers need is on GitHub; yarn fetches it even for production.
        package.pop("devDependencies", None)
        with open(manifest, "w") as file:
            json.dump(package, file, indent=2)
        tools = os.path.join(folder, "tools")
        run("npm", "install", "--silent", "--no-save", "--prefix", tools, f"yarn@{YARN}")
        # Scripts would fetch the SQLite that a blog on MySQL never opens.
        quiet = ["--production", "--ignore-scripts", "--non-interactive", "--no-progress", "--silent"]
        run("node", os.path.join(tools, "node_modules/yarn/bin/yarn.js"), "install", *quiet, cwd=root)

    return once(os.path.join(folder, "package"), make)


def node(root):
    """This machine's Node.js with the libraries Debian's smallest has not."""
    program = os.path.realpath(shutil.which("node"))
    shutil.copy2(program, os.path.join(root, "usr/local/bin/node"))
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        path = next((word for word in line.split() if word.startswith("/")), None)
        inside = os.path.join(root, path.lstrip("/")) if path else None
        if inside and not os.path.exists(inside):
            os.makedirs(os.path.dirname(inside), exist_ok=True)
            shutil.copy2(os.path.realpath(path), inside)


def ghost(folder):
    """Ghost under the entry point, the user and the folders of the official image."""
    base, package = debian(folder), ghost_package(folder)

    def make(root):
        run("cp", "-a", base, root)
        node(root)
        run("chroot", root, "useradd", "--uid", "1000", "--user-group", "--create-home", "node")
        version = os.path.join(root, "var/lib/ghost/versions", GHOST)
        os.makedirs(os.path.dirname(version))
        run("cp", "-a", package, version)
        home = os.path.join(root, "var/lib/ghost")
        os.symlink(f"versions/{GHOST}", os.path.join(home, "current"))
        run("cp", "-a", os.path.join(version, "content"), os.path.join(home, "content.orig"))
        os.makedirs(os.path.join(home, "content"))
        settings = {
            "url": "http://localhost:2368",
            "server": {"port": 2368, "host": "::"},
            "mail": {"transport": "Direct"},
            "logging": {"transports": ["stdout"]},
            # A sign-in from a new place would be confirmed by a mail that nobody here delivers.
            "security": {"staffDeviceVerification": False},
            "paths": {"contentPath": "/var/lib/ghost/content"},
            # Asks the Internet, which a blog may do only where its file says so.
            "privacy": {"useUpdateCheck": False},
        }
        write(home, "config.production.json", json.dumps(settings, indent=2) + "\n")
        run("chroot", root, "chown", "-R", "node:node", "/var/lib/ghost")

    return once(os.path.join(folder, "ghost"), make)
