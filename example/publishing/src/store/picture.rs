//! Which picture is whose. The bytes are files.

use rusqlite::{Transaction, params};

/// Pictures of one person; with the largest size this bounds what an account can fill.
const PICTURES_MAX: i64 = 200;

/// False when the owner has as many as one may have.
pub(crate) fn insert(
    tx: &Transaction<'_>,
    name: &str,
    owner_id: i64,
    size_bytes: i64,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let sql = "INSERT INTO pictures (name, owner_id, size_bytes, created_ms)
               SELECT ?1, ?2, ?3, ?4 WHERE (SELECT count(*) FROM pictures WHERE owner_id = ?2) < ?5";
    let rows = tx.prepare_cached(sql)?.execute(params![name, owner_id, size_bytes, now_ms, PICTURES_MAX])?;
    Ok(rows == 1)
}

/// The owner's pictures, newest first.
pub(crate) fn of_owner(tx: &Transaction<'_>, owner_id: i64) -> rusqlite::Result<Vec<String>> {
    tx.prepare_cached("SELECT name FROM pictures WHERE owner_id = ? ORDER BY created_ms DESC, name")?
        .query_map([owner_id], |row| row.get(0))?
        .collect()
}

/// Whether it was there and theirs.
pub(crate) fn delete(tx: &Transaction<'_>, name: &str, owner_id: i64) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM pictures WHERE name = ? AND owner_id = ?";
    Ok(tx.prepare_cached(sql)?.execute(params![name, owner_id])? == 1)
}
