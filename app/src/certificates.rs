//! The certificates this node serves with: files that somebody put into a folder, and for all other names those that the
//! node's own authority issues.
//!
//! Owns both folders; a third, for a public authority, is [`public`]'s. Promises that a changed file is shown within a moment, that what is issued is replaced after two
//! thirds of its life, and that a bad file is said and the others go on.

mod desk;
mod folder;
pub mod public;

use control::view::{Snapshot, View};
use pki::{Authority, Certificate};
use public::{Asking, Obtained, Problem};
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
    #[error("make a client for the webhook {url}")]
    Webhook { url: String, source: reqwest::Error },
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
    /// The public authority, if there is one to ask.
    public: Option<Asking>,
    shown: watch::Sender<Shown>,
}

impl Keeper {
    /// Opens both folders in `data`, making what is missing.
    pub fn open(data: &Path, public: Option<Asking>) -> Result<(Keeper, watch::Receiver<Shown>), OpenError> {
        let folder = data.join("certificates");
        let failed = |source: io::Error| OpenError::Folder { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(failed)?;
        let changes = watch_folder(&folder).map_err(failed)?;
        let hostname = crate::cluster::hostname().to_ascii_lowercase();
        let authority = authority(&data.join("authority"), &hostname)?;
        let mut own: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        if is_name(&hostname) {
            own.insert(0, hostname);
        }
        let authority_pem = authority.certificate_pem().into();
        let (shown, seen) = watch::channel(Shown { authority_pem, ..Shown::default() });
        let (issued, refused) = (BTreeMap::new(), BTreeSet::new());
        Ok((Keeper { folder, authority, own, issued, refused, changes, public, shown }, seen))
    }

    /// Shows what there is for `snapshot`: before the first client is served, who would find nothing otherwise.
    pub fn begin(&mut self, snapshot: &Snapshot) {
        self.look(names(snapshot));
    }

    /// Runs until the view ends. Owner: the boot list.
    pub async fn run(mut self, mut view: View) {
        loop {
            let names = names(&view.borrow_and_update().clone());
            self.look(names);
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                () = obtained_changed(&mut self.public) => {}
                () = folder_changed(&mut self.changes) => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn look(&mut self, names: Names) {
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
        let obtained = self.obtained(&names.public, &shown.certificates);
        for (name, certificate) in &obtained.certificates {
            let told = CertificateState { source: "acme".to_owned(), ..state(certificate) };
            shown.states.push(with_problem(told, obtained.problems.get(name)));
            shown.certificates.push(Arc::clone(certificate));
        }
        let of_others = shown.certificates.clone();
        let covered = |name: &str| of_others.iter().flat_map(|one| &one.names).any(|known| pki::matches(known, name));
        let wanted: Vec<Vec<String>> = std::iter::once(self.own.clone())
            .chain(names.all.into_iter().filter(|name| !covered(name)).map(|name| vec![name]))
            .collect();
        self.issued.retain(|names, _| wanted.contains(names));
        for names in wanted {
            let problem = names.first().and_then(|name| obtained.problems.get(name));
            if let Some(certificate) = self.issue(names.clone()) {
                let told = CertificateState { source: "authority".to_owned(), ..state(&certificate) };
                shown.states.push(with_problem(told, problem));
                shown.certificates.push(certificate);
            }
        }
        self.shown.send_if_modified(|before| {
            let changed = before.certificates != shown.certificates || before.states != shown.states;
            *before = shown;
            changed
        });
    }

    /// What the public authority gave for `names`, those left out that a file is for.
    fn obtained(&self, names: &BTreeSet<String>, of_files: &[Arc<Certificate>]) -> Obtained {
        let Some(public) = &self.public else { return Obtained::default() };
        let covered = |name: &str| of_files.iter().flat_map(|one| &one.names).any(|known| pki::matches(known, name));
        let asked: BTreeSet<String> = names.iter().filter(|name| !covered(name)).cloned().collect();
        public.ask(&asked);
        let mut obtained = public.obtained.borrow().clone();
        obtained.certificates.retain(|name, _| asked.contains(name));
        obtained.problems.retain(|name, _| asked.contains(name));
        obtained
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
    let mut certificate = Certificate::from_pem(&chain, &key).map_err(|error| format!("{error}; {}", error.hint()))?;
    if certificate.not_after_s <= now_s() {
        return Err(format!("it is for {} and has expired", certificate.names.join(", ")));
    }
    certificate.ocsp = staple(&path.with_extension("ocsp"))?;
    Ok(certificate)
}

/// The authority's answer that lies beside a certificate, as `openssl ocsp -respout` writes it.
fn staple(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let bytes = match fs::metadata(path).and_then(|about| match about.len() {
        0..=FILE_BYTES_MAX => fs::read(path),
        _ => Err(io::Error::other("it is larger than any answer")),
    }) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("its OCSP answer: {error}")),
    };
    // An OCSPResponse that is successful (RFC 6960, section 4.2.1) begins so; browsers refuse a connection with any other.
    let is_good = bytes.first() == Some(&0x30) && bytes.windows(3).take(8).any(|part| part == [0x0a, 0x01, 0x00]);
    if !is_good {
        return Err("its OCSP answer is none, or says that the authority refused: fetch it again".to_owned());
    }
    Ok(Some(bytes))
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

fn with_problem(told: CertificateState, problem: Option<&Problem>) -> CertificateState {
    match problem {
        Some(Problem { why, retry_ms }) => CertificateState { last_error: why.clone(), retry_ms: *retry_ms, ..told },
        None => told,
    }
}

/// Hosts that something is served for.
struct Names {
    all: BTreeSet<String>,
    /// Those that a route serves with TLS only: the ones to have certificates that everybody trusts.
    public: BTreeSet<String>,
}

/// Every host that a route names, and the names services have without anybody's doing.
fn names(snapshot: &Snapshot) -> Names {
    let (mut all, mut public) = (BTreeSet::new(), BTreeSet::new());
    for (stack, name, service) in snapshot.services() {
        // Whoever carries TLS on unopened has the certificates.
        for route in service.routes.iter().filter(|route| !route.passthrough) {
            let hosts = route.hosts.iter().filter(|name| is_name(name.strip_prefix("*.").unwrap_or(name)));
            all.extend(hosts.clone().cloned());
            public.extend(hosts.filter(|_| route.tls).cloned());
        }
        let own = format!("{name}.{stack}.localhost");
        if !service.ports.is_empty() && is_name(&own) {
            all.insert(own);
        }
    }
    Names { all, public }
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

/// Ends when the public authority has given something, or said why not. May be dropped.
async fn obtained_changed(public: &mut Option<Asking>) {
    let changed = match public {
        Some(public) => public.obtained.changed().await,
        None => return std::future::pending().await,
    };
    if changed.is_err() {
        // Nobody asks any more; the node is stopping.
        std::future::pending().await
    }
}

fn now_s() -> i64 {
    i64::try_from(world::clock::unix_ms() / 1_000).unwrap_or(i64::MAX)
}
