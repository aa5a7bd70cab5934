//! Turns `user[:group]` into numbers, by the image's own /etc/passwd and /etc/group, as Docker does.

use crate::Image;
use crate::error::UserError;
use crate::merged;
use std::io::Read;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";
/// Larger ones are made to be read for long.
const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;
/// The kernel keeps -1 for "unchanged", and old interfaces are signed.
const ID_MAX: u32 = i32::MAX as u32;

/// A line of /etc/passwd.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

/// A line of /etc/group.
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Image {
    /// Numbers for `user`, `uid`, `user:group` or `uid:gid`; empty is root. Supplementary groups come only without an
    /// explicit group.
    pub fn resolve_user(&self, spec: &str) -> Result<(u32, u32, Vec<u32>), UserError> {
        let malformed = || UserError::Malformed { spec: spec.to_owned() };
        let (user, group) = match spec.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (spec, None),
        };
        if group.is_some_and(|group| group.contains(':')) {
            return Err(malformed());
        }
        let user = if user.is_empty() { "0" } else { user };
        let accounts: Vec<Account> = self.lines(PASSWD)?.iter().filter_map(|line| account(line)).collect();
        // Docker's order: a name that looks like a number is a name first.
        let known = accounts.iter().find(|account| account.name == user);
        let (uid, account) = match (known, user.parse::<u32>()) {
            (Some(account), _) => (account.uid, Some(account)),
            (None, Ok(uid)) if uid <= ID_MAX => (uid, accounts.iter().find(|account| account.uid == uid)),
            (None, Ok(_)) => return Err(malformed()),
            (None, Err(_)) => return Err(UserError::UnknownUser { name: user.to_owned() }),
        };
        let groups: Vec<Group> = self.lines(GROUP)?.iter().filter_map(|line| self::group(line)).collect();
        if let Some(name) = group {
            let gid = match (groups.iter().find(|group| group.name == name), name.parse::<u32>()) {
                (Some(group), _) => group.gid,
                (None, Ok(gid)) if gid <= ID_MAX => gid,
                (None, Ok(_)) => return Err(malformed()),
                (None, Err(_)) => return Err(UserError::UnknownGroup { name: name.to_owned() }),
            };
            return Ok((uid, gid, Vec::new()));
        }
        let Some(account) = account else { return Ok((uid, 0, Vec::new())) };
        let is_member = |group: &&Group| group.members.contains(&account.name);
        let mut supplementary: Vec<u32> = groups.iter().filter(is_member).map(|group| group.gid).collect();
        supplementary.sort_unstable();
        supplementary.dedup();
        Ok((uid, account.gid, supplementary))
    }

    fn lines(&self, path: &'static str) -> Result<Vec<String>, UserError> {
        let failed = |source| UserError::Read { path, source };
        let Some(file) = merged::open(&self.layers, path.as_bytes()).map_err(failed)? else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        file.take(ACCOUNTS_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > ACCOUNTS_BYTES_MAX {
            return Err(failed(std::io::Error::other("it is larger than 4 MiB")));
        }
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }
}

fn id(text: Option<&str>) -> Option<u32> {
    text?.parse().ok().filter(|id| *id <= ID_MAX)
}

fn account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?.to_owned();
    let _password = fields.next()?;
    Some(Account { name, uid: id(fields.next())?, gid: id(fields.next())? })
}

fn group(line: &str) -> Option<Group> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?.to_owned();
    let _password = fields.next()?;
    let gid = id(fields.next())?;
    let members = fields.next().unwrap_or_default();
    Some(Group { name, gid, members: members.split(',').map(|name| name.trim().to_owned()).collect() })
}
