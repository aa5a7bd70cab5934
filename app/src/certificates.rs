//! The certificates this node serves with: files that somebody put into a folder, and for all other names those that the
//! node's own authority issues.
//!
//! Owns both folders. Promises that a changed file is shown within a moment, that what is issued is replaced after two
//! thirds of its life, and that a bad file is said and the others go on.

use control::view::{Snapshot, View};
use pki::{Authority, Certificate};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use wire::api::CertificateState;

/// How often dates are looked at.
const LOOK: Duration = Duration::from_secs(3_600);
/// A certificate file with its chain is a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What is put there at once is read at once: writing a certificate and its key takes an editor a moment.
const SETTLE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("keep certificates in {path}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("open the certificate authority in {path}")]
    Authority { path: PathBuf, source: pki::AuthorityError },
}

/// What is shown, for the gateway and for people.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    pub certificates: Vec<Arc<Certificate>>,
    pub states: Vec<CertificateState>,
    pub authority_pem: Arc<str>,
}

/// Keeps [`Shown`] as files, names and dates say.
pub struct Keeper {
    folder: PathBuf,
    authority: Authority,
    /// Names of this machine itself.
    own: Vec<String>,
    issued: BTreeMap<Vec<String>, Arc<Certificate>>,
    /// Names that no certificate could be issued for: said once.
    refused: BTreeSet<Vec<String>>,
    changes: pipe::Receiver,
    shown: watch::Sender<Shown>,
}

impl Keeper {
    /// Opens both folders in `data`, making what is missing.
    pub fn open(data: &Path) -> Result<(Keeper, watch::Receiver<Shown>), OpenError> {
        let folder = data.join("certificates");
        let failed = |source: io::Error| OpenError::Folder { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(failed)?;
        let changes = watch_folder(&folder).map_err(failed)?;
        let hostname = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        let authority = authority(&data.join("authority"), &hostname)?;
        let mut own: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        if is_name(&hostname) {
            own.insert(0, hostname);
        }
        let authority_pem = authority.certificate_pem().into();
        let (shown, seen) = watch::channel(Shown { authority_pem, ..Shown::default() });
        let (issued, refused) = (BTreeMap::new(), BTreeSet::new());
        Ok((Keeper { folder, authority, own, issued, refused, changes, shown }, seen))
    }

    /// Runs until the view ends. Owner: the boot list.
    pub async fn run(mut self, mut view: View) {
        loop {
            let names = names(&view.borrow_and_update().clone());
            self.look(names);
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                () = folder_changed(&mut self.changes) => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn look(&mut self, names: BTreeSet<String>) {
        let mut shown = Shown { authority_pem: Arc::clone(&self.shown.borrow().authority_pem), ..Shown::default() };
        for (file, read) in self.files() {
            let state = match read {
                Ok(certificate) => {
                    let state = CertificateState { source: file, ..state(&certificate) };
                    shown.certificates.push(Arc::new(certificate));
                    state
                }
                Err(problem) => CertificateState { source: file, problem, ..CertificateState::default() },
            };
            shown.states.push(state);
        }
        let of_files = shown.certificates.clone();
        let covered = |name: &str| of_files.iter().flat_map(|one| &one.names).any(|known| pki::matches(known, name));
        let wanted: Vec<Vec<String>> = std::iter::once(self.own.clone())
            .chain(names.into_iter().filter(|name| !covered(name)).map(|name| vec![name]))
            .collect();
        self.issued.retain(|names, _| wanted.contains(names));
        for names in wanted {
            if let Some(certificate) = self.issue(names) {
                shown.states.push(CertificateState { source: "authority".to_owned(), ..state(&certificate) });
                shown.certificates.push(certificate);
            }
        }
        self.shown.send_if_modified(|before| {
            let changed = before.certificates != shown.certificates || before.states != shown.states;
            *before = shown;
            changed
        });
    }

    fn issue(&mut self, names: Vec<String>) -> Option<Arc<Certificate>> {
        let now_s = now_s();
        if let Some(known) = self.issued.get(&names)
            && now_s < known.renew_at_s()
        {
            return Some(Arc::clone(known));
        }
        match self.authority.issue(&names, now_s) {
            Ok(certificate) => {
                let certificate = Arc::new(certificate);
                self.issued.insert(names, Arc::clone(&certificate));
                Some(certificate)
            }
            Err(error) => {
                if self.refused.insert(names) {
                    tracing::warn!(error = wire::diagnostic::chain(&error), "no certificate for a route's host");
                }
                None
            }
        }
    }

    /// Every certificate in the folder by its file's name, or what is wrong with it.
    fn files(&self) -> Vec<(String, Result<Certificate, String>)> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "crt" || end == "pem"))
            .collect();
        files.sort();
        files
            .into_iter()
            .map(|path| {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let read = read(&path);
                if let Err(problem) = &read {
                    tracing::warn!(file = name, problem, "a certificate is not shown");
                }
                (name, read)
            })
            .collect()
    }
}

/// The chain, with the key from beside it or from the same file.
fn read(path: &Path) -> Result<Certificate, String> {
    let text = |path: &Path| -> io::Result<String> {
        if fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Err(io::Error::other("it is larger than any certificate"));
        }
        fs::read_to_string(path)
    };
    let chain = text(path).map_err(|error| error.to_string())?;
    let key = match text(&path.with_extension("key")) {
        Ok(key) => key,
        Err(error) if error.kind() == io::ErrorKind::NotFound => chain.clone(),
        Err(error) => return Err(format!("its key: {error}")),
    };
    let certificate = Certificate::from_pem(&chain, &key).map_err(|error| format!("{error}; {}", error.hint()))?;
    if certificate.not_after_s <= now_s() {
        return Err(format!("it is for {} and has expired", certificate.names.join(", ")));
    }
    Ok(certificate)
}

fn state(certificate: &Certificate) -> CertificateState {
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
    CertificateState {
        names: certificate.names.clone(),
        issuer: certificate.issuer.clone(),
        not_before_ms: ms(certificate.not_before_s),
        not_after_ms: ms(certificate.not_after_s),
        ..CertificateState::default()
    }
}

/// Every host that a route names, and the names services have without anybody's doing.
fn names(snapshot: &Snapshot) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (stack, name, service) in snapshot.services() {
        names.extend(service.routes.iter().flat_map(|route| route.hosts.iter().cloned()));
        if !service.ports.is_empty() {
            names.insert(format!("{name}.{stack}.localhost"));
        }
    }
    names.retain(|name| is_name(name.strip_prefix("*.").unwrap_or(name)));
    names
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// Opens the authority in `folder`, or makes one that lasts.
fn authority(folder: &Path, hostname: &str) -> Result<Authority, OpenError> {
    let failed = |source: io::Error| OpenError::Folder { path: folder.to_path_buf(), source };
    let broken = |source| OpenError::Authority { path: folder.to_path_buf(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let (certificate, key) = (folder.join("authority.crt"), folder.join("authority.key"));
    match (fs::read_to_string(&certificate), fs::read_to_string(&key)) {
        (Ok(certificate), Ok(key)) => return Authority::open(&certificate, &key).map_err(broken),
        (Err(error), _) | (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        (_, _) => {}
    }
    let authority = Authority::create(&format!("Bramble on {hostname}"), now_s()).map_err(broken)?;
    // The certificate last: with it the pair is complete.
    keep(&key, &authority.key_pem(), 0o600).map_err(failed)?;
    keep(&certificate, authority.certificate_pem(), 0o644).map_err(failed)?;
    Ok(authority)
}

fn keep(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

fn watch_folder(folder: &Path) -> io::Result<pipe::Receiver> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let changes = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
    inotify::add_watch(&events, folder, changes)?;
    // Read as a pipe is.
    pipe::Receiver::from_owned_fd_unchecked(events)
}

/// Ends when something in the folder has changed. May be dropped.
async fn folder_changed(changes: &mut pipe::Receiver) {
    let mut events = [0; 4 << 10];
    if changes.read(&mut events).await.is_err() {
        // Dates are looked at all the same.
        std::future::pending().await
    }
}

fn now_s() -> i64 {
    i64::try_from(world::clock::unix_ms() / 1_000).unwrap_or(i64::MAX)
}
