//! From an instance's spec and its image to the box and the program in it.
//!
//! The rules are Docker's where it has rules, so that images and files made for it mean the same here.

use crate::error::BuildError;
use crate::shared::{Shared, make_folder};
use base64::Engine;
use images::Image;
use sandbox::spec::SHM_SIZE_BYTES_DEFAULT;
use sandbox::{BoxSpec, Command, File, Ids, Limits, Mount, MountSource, Network, Root, Trust, User};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use wire::resource::Instance;
use wire::spec;

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Processes of one instance unless the file says otherwise: far above any service, far below the machine's own
/// bound, so that a fork bomb stays its own problem.
const PIDS_DEFAULT: u64 = 4096;
/// Size of a `tmpfs` that names none.
const TMPFS_SIZE_BYTES_DEFAULT: u64 = 256 << 20;

/// Everything needed to start an instance.
pub(crate) struct Blueprint {
    pub(crate) spec: BoxSpec,
    pub(crate) command: Command,
}

/// Draws the blueprint and makes the folders it names. `image` is `None` for the host's root file system.
pub(crate) fn draw(shared: &Shared, instance: &Instance, image: Option<&Image>) -> Result<Blueprint, BuildError> {
    let service = &instance.spec;
    let command = program(instance, image)?;
    let user = &command.user;
    let (trust, root) = match image {
        None => (Trust::Host, Root::Host),
        Some(image) => (Trust::Service, overlay(shared, instance, image)?),
    };
    let mut spec = BoxSpec::new(instance.id.clone(), trust, root);
    spec.read_only = service.read_only;
    spec.mounts = mounts(shared, instance, image, user)?;
    spec.files = files(service, &hostname(instance))?;
    spec.ids = if image.is_some() { ids(shared.ids, user) } else { Ids::Single };
    spec.limits = limits(service);
    spec.cap_add.clone_from(&service.cap_add);
    spec.cap_drop.clone_from(&service.cap_drop);
    spec.sysctls = service.sysctls.clone().into_iter().collect();
    spec.shm_size_bytes = service.shm_size_bytes.unwrap_or(SHM_SIZE_BYTES_DEFAULT);
    spec.network = Network::Door;
    spec.hostname = hostname(instance);
    Ok(Blueprint { spec, command })
}

/// As declared; otherwise the service's name and slot, cut to what a host name may be.
fn hostname(instance: &Instance) -> String {
    let declared = instance.spec.hostname.clone().or_else(|| instance.spec.container_name.clone());
    let name = declared.unwrap_or_else(|| format!("{}-{}", instance.service, instance.slot));
    name.chars().map(|letter| if letter == '_' || letter == '/' { '-' } else { letter }).take(63).collect()
}

/// The program an instance runs, with its environment, folder and user.
pub(crate) fn program(instance: &Instance, image: Option<&Image>) -> Result<Command, BuildError> {
    let service = &instance.spec;
    let user = user(service, image)?;
    let config = image.map(|image| &image.config);
    let mut argv = match (&service.entrypoint, config) {
        (Some(entrypoint), _) => entrypoint.clone(),
        (None, Some(config)) => config.entrypoint.clone(),
        (None, None) => Vec::new(),
    };
    match (&service.command, config) {
        (Some(command), _) => argv.extend(command.iter().cloned()),
        // An own entrypoint makes the image's arguments meaningless.
        (None, Some(config)) if service.entrypoint.is_none() => argv.extend(config.cmd.iter().cloned()),
        (None, Some(_) | None) => {}
    }
    if argv.is_empty() {
        return Err(BuildError::NoProgram);
    }
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    env.insert("PATH".to_owned(), PATH_DEFAULT.to_owned());
    env.insert("HOSTNAME".to_owned(), hostname(instance));
    env.insert("HOME".to_owned(), if user.uid == 0 { "/root".to_owned() } else { "/".to_owned() });
    if service.tty {
        env.insert("TERM".to_owned(), "xterm".to_owned());
    }
    env.extend(config.into_iter().flat_map(|config| config.env.iter().cloned()));
    env.extend(service.environment.clone());
    let cwd = service.working_dir.clone().or_else(|| config.map(|config| config.working_dir.clone()));
    let cwd = cwd.filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| "/".to_owned());
    Ok(Command { argv, env: env.into_iter().collect(), cwd, user, tty: service.tty })
}

/// The program's user, as numbers.
fn user(service: &spec::Service, image: Option<&Image>) -> Result<User, BuildError> {
    let wanted = service.user.clone().or_else(|| image.map(|image| image.config.user.clone())).unwrap_or_default();
    if wanted.is_empty() || wanted == "root" {
        return Ok(User::default());
    }
    let unknown = || BuildError::User { user: wanted.clone() };
    let mut user = match image {
        Some(image) => {
            let (uid, gid, groups) = image.resolve_user(&wanted).map_err(|_| unknown())?;
            User { uid, gid, groups }
        }
        None => {
            let (uid, gid) = wanted.split_once(':').unwrap_or((&wanted, &wanted));
            User {
                uid: uid.parse().map_err(|_| unknown())?,
                gid: gid.parse().map_err(|_| unknown())?,
                groups: Vec::new(),
            }
        }
    };
    for group in &service.group_add {
        let by_name = || image.and_then(|image| image.resolve_user(&format!("0:{group}")).ok()).map(|(_, gid, _)| gid);
        let gid = group.parse().ok().or_else(by_name).ok_or_else(|| BuildError::Group { group: group.clone() })?;
        user.groups.push(gid);
    }
    Ok(user)
}

fn overlay(shared: &Shared, instance: &Instance, image: &Image) -> Result<Root, BuildError> {
    let home = shared.box_dir(&instance.id);
    let (upper, work) = (home.join("upper"), home.join("work"));
    for folder in [&upper, &work] {
        // Ours is container root's: a box that root starts sees it through a translating mount.
        make_folder(folder).map_err(|source| BuildError::Folder { path: folder.clone(), source })?;
    }
    let lowers = image.layers.iter().rev().cloned().collect();
    Ok(Root::Overlay { lowers, upper, work })
}

/// Under an ordinary user all files of an image are that user's. A program that starts as root needs other users to
/// become; one that starts as somebody else needs the image's files to be its own, and becomes nobody.
fn ids(of_node: Ids, user: &User) -> Ids {
    let ordinary = !rustix::process::geteuid().is_root();
    if ordinary && user.uid != 0 { Ids::Single } else { of_node }
}

fn mounts(shared: &Shared, instance: &Instance, image: Option<&Image>, user: &User) -> Result<Vec<Mount>, BuildError> {
    let mut mounts = Vec::new();
    let home = shared.box_dir(&instance.id);
    for (number, mount) in instance.spec.mounts.iter().enumerate() {
        let source = match &mount.source {
            spec::MountSource::Bind { path } => {
                let path = PathBuf::from(path);
                if !path.exists() {
                    folder_for(&path, user)?;
                }
                MountSource::Bind(path)
            }
            spec::MountSource::Volume { name } => {
                MountSource::Bind(volume(shared.volume_dir(name), instance, image, &mount.target, user)?)
            }
            spec::MountSource::Anonymous => {
                let path = home.join(format!("anonymous-{number}"));
                MountSource::Bind(volume(path, instance, image, &mount.target, user)?)
            }
            spec::MountSource::Tmpfs { size_bytes } => {
                MountSource::Tmpfs { size_bytes: size_bytes.unwrap_or(TMPFS_SIZE_BYTES_DEFAULT) }
            }
        };
        mounts.push(Mount { source, target: PathBuf::from(&mount.target), read_only: mount.read_only });
    }
    Ok(mounts)
}

/// The folder of a volume, made when missing: with what the image has at its place, as under Docker, and otherwise
/// empty.
fn volume(
    path: PathBuf,
    instance: &Instance,
    image: Option<&Image>,
    target: &str,
    user: &User,
) -> Result<PathBuf, BuildError> {
    if path.exists() {
        return Ok(path);
    }
    // Beside it, since volumes may be on a disk of their own.
    let part = path.with_file_name(format!(".{}.part", instance.id));
    let failed = |source| BuildError::Folder { path: path.clone(), source };
    // Left by a start that was cut short.
    match std::fs::remove_dir_all(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    path.parent().map_or(Ok(()), make_folder).map_err(failed)?;
    if !image.map_or(Ok(false), |image| image.copy_folder(target, &part)).map_err(failed)? {
        folder_for(&part, user)?;
    }
    // Whole or not at all, and whoever comes first: another instance may be making the same volume.
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(rustix::fs::CWD, &part, rustix::fs::CWD, &path, flags) {
        Ok(()) => Ok(path),
        Err(rustix::io::Errno::EXIST) => std::fs::remove_dir_all(&part).map(|()| path.clone()).map_err(failed),
        Err(error) => Err(failed(error.into())),
    }
}

/// Made by real root, a folder is seen through a translating mount: the numbers inside and outside are the same, so
/// that the service's own user may write to what was made for it. Anybody else owns all they make.
fn folder_for(path: &Path, user: &User) -> Result<(), BuildError> {
    make_folder(path).map_err(|source| BuildError::Folder { path: path.to_owned(), source })?;
    if rustix::process::geteuid().is_root() {
        let owned = std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid));
        owned.map_err(|source| BuildError::Folder { path: path.to_owned(), source })?;
    }
    Ok(())
}

/// Name resolution, then what the stack file puts there.
fn files(service: &spec::Service, hostname: &str) -> Result<Vec<File>, BuildError> {
    let mut hosts = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in &service.extra_hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    let mut resolver = String::from("nameserver 127.0.0.53\noptions ndots:1 timeout:2\n");
    if !service.dns_search.is_empty() {
        resolver.push_str(&format!("search {}\n", service.dns_search.join(" ")));
    }
    let plain = |target: &str, content: String| File {
        target: PathBuf::from(target),
        content: content.into_bytes(),
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let mut files = vec![
        plain("/etc/hosts", hosts),
        plain("/etc/resolv.conf", resolver),
        plain("/etc/hostname", format!("{hostname}\n")),
    ];
    for file in &service.files {
        let content = base64::engine::general_purpose::STANDARD
            .decode(&file.content)
            .map_err(|_| BuildError::Content { source_name: file.source.clone() })?;
        files.push(File {
            target: PathBuf::from(&file.target),
            content,
            mode: file.mode,
            uid: file.uid.unwrap_or(0),
            gid: file.gid.unwrap_or(0),
        });
    }
    Ok(files)
}

fn limits(service: &spec::Service) -> Limits {
    Limits {
        memory_bytes: service.resources.memory_limit_bytes,
        pids: Some(service.resources.pids_limit.unwrap_or(PIDS_DEFAULT)),
        cpu_millis: service.resources.cpu_limit_millis,
        rlimits: service.ulimits.iter().map(|(name, limit)| (name.clone(), limit.soft, limit.hard)).collect(),
    }
}
