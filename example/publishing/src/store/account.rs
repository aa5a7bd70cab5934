//! Users, their sessions, and how often something was tried.

use rusqlite::{OptionalExtension, Transaction, params};

/// Who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) user_id: i64,
    pub(crate) name: String,
    /// Every form of the session carries it, so that no other site can send one.
    pub(crate) csrf: String,
}

#[derive(Debug)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) password: String,
}

/// Something that may be tried `count_max` times in `window_ms`.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    pub(crate) what: String,
    pub(crate) count_max: i64,
    pub(crate) window_ms: i64,
}

/// The new user's id, or `None` when the name is taken.
pub(crate) fn create(tx: &Transaction<'_>, name: &str, password: &str, now_ms: i64) -> rusqlite::Result<Option<i64>> {
    let sql = "INSERT INTO users (name, password, created_ms) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING";
    let rows = tx.prepare_cached(sql)?.execute(params![name, password, now_ms])?;
    Ok((rows == 1).then(|| tx.last_insert_rowid()))
}

pub(crate) fn find(tx: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<User>> {
    tx.prepare_cached("SELECT id, password FROM users WHERE name = ?")?
        .query_row([name], |row| Ok(User { id: row.get(0)?, password: row.get(1)? }))
        .optional()
}

pub(crate) fn open_session(
    tx: &Transaction<'_>,
    user_id: i64,
    token_hash: &[u8],
    csrf: &str,
    now_ms: i64,
    expires_ms: i64,
) -> rusqlite::Result<()> {
    // Those that have ended go when the next begins, so that no clock has to drive it.
    tx.prepare_cached("DELETE FROM sessions WHERE expires_ms < ?")?.execute([now_ms])?;
    let sql = "INSERT INTO sessions (token_hash, user_id, csrf, expires_ms) VALUES (?, ?, ?, ?)";
    tx.prepare_cached(sql)?.execute(params![token_hash, user_id, csrf, expires_ms])?;
    Ok(())
}

pub(crate) fn session(tx: &Transaction<'_>, token_hash: &[u8], now_ms: i64) -> rusqlite::Result<Option<Session>> {
    let sql = "SELECT u.id, u.name, s.csrf FROM sessions s JOIN users u ON u.id = s.user_id
               WHERE s.token_hash = ? AND s.expires_ms >= ?";
    tx.prepare_cached(sql)?
        .query_row(params![token_hash, now_ms], |row| {
            Ok(Session { user_id: row.get(0)?, name: row.get(1)?, csrf: row.get(2)? })
        })
        .optional()
}

pub(crate) fn close_session(tx: &Transaction<'_>, token_hash: &[u8]) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM sessions WHERE token_hash = ?")?.execute([token_hash])?;
    Ok(())
}

/// Counts one attempt under each limit; false when one of them is used up.
pub(crate) fn attempt(tx: &Transaction<'_>, limits: &[Limit], now_ms: i64) -> rusqlite::Result<bool> {
    let longest_ms = limits.iter().map(|limit| limit.window_ms).max().unwrap_or(0);
    tx.prepare_cached("DELETE FROM attempts WHERE since_ms < ?")?.execute([now_ms - longest_ms.max(3_600_000)])?;
    let mut allowed = true;
    for limit in limits {
        let sql = "INSERT INTO attempts (what, since_ms, count) VALUES (?1, ?2, 1)
                   ON CONFLICT (what) DO UPDATE SET
                       count = CASE WHEN since_ms < ?3 THEN 1 ELSE count + 1 END,
                       since_ms = CASE WHEN since_ms < ?3 THEN ?2 ELSE since_ms END
                   RETURNING count";
        let count: i64 = tx
            .prepare_cached(sql)?
            .query_row(params![limit.what, now_ms, now_ms - limit.window_ms], |row| row.get(0))?;
        allowed &= count <= limit.count_max;
    }
    Ok(allowed)
}

/// Takes attempts back, as after one that succeeded.
pub(crate) fn forgive(tx: &Transaction<'_>, what: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM attempts WHERE what = ?")?.execute([what])?;
    Ok(())
}
