//! Starting a program in the box: standard streams, session, limits, user, exec; and learning whether that worked.

use super::shortage::Shortage;
use crate::build::privileges;
use crate::failure::{During, Failure, Step};
use crate::names;
use crate::spec::{BoxSpec, Command, Trust};
use crate::sys::{self, Strings};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{Gid, Uid};
use std::ffi::CString;
use std::os::fd::BorrowedFd;

/// Where programs are looked for when the environment does not say.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What holds every program of the box.
#[derive(Clone, Copy)]
pub(super) struct Confines<'a> {
    pub(super) spec: &'a BoxSpec,
    pub(super) processes_max: Option<u64>,
    pub(super) shortage: Option<&'a Shortage>,
}

/// Starts `command` in a process group of its own and returns once it runs.
pub(super) fn launch(confines: Confines<'_>, command: &Command, stdio: [BorrowedFd<'_>; 3]) -> Result<Pid, Failure> {
    let prepared = Prepared::new(command)?;
    let mut failure = None;
    let mut start = || sys::borrow_to_child(|| failure = Some(become_program(confines, command, &prepared, stdio)));
    let started = match confines.shortage {
        Some(shortage) => shortage.start(start),
        None => start(),
    };
    let pid = started.during(Step::Program, || "a new process".to_owned())?;
    // A process that failed is reaped with all others.
    failure.map_or(Ok(pid), Err)
}

/// All strings of an exec, made before the fork.
struct Prepared {
    /// Where the program may be, in order.
    programs: Vec<CString>,
    argv: Strings,
    env: Strings,
    folder: CString,
}

impl Prepared {
    fn new(command: &Command) -> Result<Prepared, Failure> {
        let string = |text: &str| {
            CString::new(text)
                .map_err(|_nul| Failure::plain(Step::Invalid, format!("a zero byte in `{}`", text.escape_debug())))
        };
        let Some(program) = command.argv.first().filter(|program| !program.is_empty()) else {
            return Err(Failure::plain(Step::Invalid, "an empty command"));
        };
        let programs = if program.contains('/') {
            vec![string(program)?]
        } else {
            let path = command.env.iter().rev().find(|(name, _)| name == "PATH").map_or(PATH_DEFAULT, |(_, path)| path);
            let folders = path.split(':').map(|folder| if folder.is_empty() { "." } else { folder });
            folders.map(|folder| string(&format!("{folder}/{program}"))).collect::<Result<_, _>>()?
        };
        let argv: Result<Vec<_>, _> = command.argv.iter().map(|argument| string(argument)).collect();
        let env: Result<Vec<_>, _> =
            command.env.iter().map(|(name, value)| string(&format!("{name}={value}"))).collect();
        let (argv, env) = (Strings::new(argv?), Strings::new(env?));
        let folder = string(if command.cwd.is_empty() { "/" } else { &command.cwd })?;
        Ok(Prepared { programs, argv, env, folder })
    }

    /// Tries every place, as a shell does: a file that may not be run is remembered, but the search goes on.
    fn exec(&self, name: &str) -> Failure {
        let mut refused = None;
        for program in &self.programs {
            match sys::exec(program, &self.argv, &self.env) {
                Errno::NOENT if rustix::fs::stat(program.as_c_str()).is_ok() => {
                    let object = format!("{} (the interpreter or loader it names)", program.to_string_lossy());
                    return Failure::new(Step::Program, object, Errno::NOENT);
                }
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => refused = Some(Failure::new(Step::Program, program.to_string_lossy(), Errno::ACCESS)),
                errno => return Failure::new(Step::Program, program.to_string_lossy(), errno),
            }
        }
        refused.unwrap_or_else(|| Failure::new(Step::Program, name, Errno::NOENT))
    }
}

fn become_program(
    confines: Confines<'_>,
    command: &Command,
    prepared: &Prepared,
    stdio: [BorrowedFd<'_>; 3],
) -> Failure {
    match get_ready(confines, command, prepared, stdio) {
        Ok(()) => prepared.exec(command.argv.first().map_or("", String::as_str)),
        Err(failure) => failure,
    }
}

fn get_ready(
    confines: Confines<'_>,
    command: &Command,
    prepared: &Prepared,
    [stdin, stdout, stderr]: [BorrowedFd<'_>; 3],
) -> Result<(), Failure> {
    let streams = || "standard streams".to_owned();
    rustix::stdio::dup2_stdin(stdin).during(Step::Program, streams)?;
    rustix::stdio::dup2_stdout(stdout).during(Step::Program, streams)?;
    rustix::stdio::dup2_stderr(stderr).during(Step::Program, streams)?;
    if command.tty {
        rustix::process::setsid().during(Step::Program, || "a new session".to_owned())?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).during(Step::Program, || "its terminal".to_owned())?;
    } else {
        // A session of its own would cost a scheduler group; init's is nobody's terminal either.
        rustix::process::setpgid(None, None).during(Step::Program, || "a new process group".to_owned())?;
    }
    set_limits(confines)?;
    set_user(confines.spec, command)?;
    // As the user: a folder root may enter is no use to one who may not.
    rustix::process::chdir(prepared.folder.as_c_str()).during(Step::WorkingFolder, || command.cwd.clone())?;
    sys::close_on_exec_from(3).during(Step::Program, || "descriptors".to_owned())?;
    sys::unblock_signals();
    Ok(())
}

fn set_limits(Confines { spec, processes_max, .. }: Confines<'_>) -> Result<(), Failure> {
    if let Some(most) = processes_max {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(Resource::Nproc, limit).during(Step::Confine, || "limit nproc".to_owned())?;
    }
    if spec.trust == Trust::Untrusted {
        // The machine's handler of core files, if it has one, is not for strangers to feed.
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Core, none).during(Step::Confine, || "limit core".to_owned())?;
    }
    for (name, soft, hard) in &spec.limits.rlimits {
        let Some(resource) = names::resource(name) else { continue };
        // More than this machine gives is cut to what it gives: a stack file from a larger one still runs.
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Rlimit { current: Some((*soft).min(most)), maximum: Some((*hard).min(most)) };
        setrlimit(resource, limit).during(Step::Confine, || format!("limit {name}"))?;
    }
    Ok(())
}

fn set_user(spec: &BoxSpec, command: &Command) -> Result<(), Failure> {
    let user = &command.user;
    let name = || format!("{}:{}", user.uid, user.gid);
    let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    match rustix::thread::set_thread_groups(&groups) {
        // A box of a single user has no other groups to be in.
        Err(Errno::PERM) if matches!(spec.ids, crate::spec::Ids::Single) => {}
        other => other.during(Step::User, || format!("the groups of user {}", name()))?,
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid).during(Step::User, name)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).during(Step::User, name)?;
    if user.uid == 0 && spec.trust != Trust::Untrusted {
        privileges::keep(privileges::allowed(spec))
    } else {
        privileges::keep(0)
    }
}
