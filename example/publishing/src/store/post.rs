//! Posts: written by one author, read by all once published, searched.

use rusqlite::{OptionalExtension, Row, Transaction, params};

/// Posts on a page.
const PAGE_POSTS: u32 = 10;
/// Pages one can turn to. Further back, the search finds things sooner, and skipping a million rows costs.
const PAGES_MAX: u32 = 500;
/// Words of a search; each costs a look into the index.
const SEARCH_WORDS_MAX: usize = 12;
/// Signs around what was found, which no text contains: control characters are taken out on the way in.
pub(crate) const FOUND: [char; 2] = ['\u{2}', '\u{3}'];

#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) id: i64,
    pub(crate) author_id: i64,
    pub(crate) author: String,
    pub(crate) title: String,
    pub(crate) body: String,
    /// The day, or `None` for a draft.
    pub(crate) published: Option<String>,
    /// The day of the last change, when it came after the day of publication.
    pub(crate) changed: Option<String>,
}

/// A post in a list.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) id: i64,
    pub(crate) author: String,
    pub(crate) title: String,
    pub(crate) excerpt: String,
    pub(crate) published: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) posts: Vec<Summary>,
    /// From 1.
    pub(crate) number: u32,
    pub(crate) has_more: bool,
}

/// What became of changing a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Done,
    Missing,
    SomebodyElses,
}

const DAY: &str = "%Y-%m-%d";

pub(crate) fn insert(
    tx: &Transaction<'_>,
    author_id: i64,
    title: &str,
    body: &str,
    now_ms: i64,
    published_ms: Option<i64>,
) -> rusqlite::Result<i64> {
    let sql =
        "INSERT INTO posts (author_id, title, body, created_ms, changed_ms, published_ms) VALUES (?, ?, ?, ?, ?, ?)";
    tx.prepare_cached(sql)?.execute(params![author_id, title, body, now_ms, now_ms, published_ms])?;
    Ok(tx.last_insert_rowid())
}

pub(crate) fn update(
    tx: &Transaction<'_>,
    id: i64,
    author_id: i64,
    title: &str,
    body: &str,
    now_ms: i64,
) -> rusqlite::Result<Change> {
    let sql = "UPDATE posts SET title = ?, body = ?, changed_ms = ? WHERE id = ? AND author_id = ?";
    let rows = tx.prepare_cached(sql)?.execute(params![title, body, now_ms, id, author_id])?;
    changed(tx, rows, id)
}

/// Publishes (what is published keeps its time) or takes back.
pub(crate) fn publish(
    tx: &Transaction<'_>,
    id: i64,
    author_id: i64,
    published_ms: Option<i64>,
) -> rusqlite::Result<Change> {
    let sql = "UPDATE posts SET published_ms = CASE WHEN ?1 IS NULL THEN NULL ELSE coalesce(published_ms, ?1) END
               WHERE id = ?2 AND author_id = ?3";
    let rows = tx.prepare_cached(sql)?.execute(params![published_ms, id, author_id])?;
    changed(tx, rows, id)
}

pub(crate) fn delete(tx: &Transaction<'_>, id: i64, author_id: i64) -> rusqlite::Result<Change> {
    let rows =
        tx.prepare_cached("DELETE FROM posts WHERE id = ? AND author_id = ?")?.execute(params![id, author_id])?;
    changed(tx, rows, id)
}

fn changed(tx: &Transaction<'_>, rows: usize, id: i64) -> rusqlite::Result<Change> {
    if rows > 0 {
        return Ok(Change::Done);
    }
    // Whether a draft of somebody else exists is nobody's business.
    let sql = "SELECT EXISTS (SELECT 1 FROM posts WHERE id = ? AND published_ms IS NOT NULL)";
    let exists: bool = tx.prepare_cached(sql)?.query_row([id], |row| row.get(0))?;
    Ok(if exists { Change::SomebodyElses } else { Change::Missing })
}

pub(crate) fn find(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<Option<Post>> {
    let sql = "SELECT p.id, p.author_id, u.name, p.title, p.body,
                   strftime(?2, p.published_ms / 1000, 'unixepoch'), strftime(?2, p.changed_ms / 1000, 'unixepoch')
               FROM posts p JOIN users u ON u.id = p.author_id WHERE p.id = ?1";
    tx.prepare_cached(sql)?
        .query_row(params![id, DAY], |row| {
            let published: Option<String> = row.get(5)?;
            let changed: String = row.get(6)?;
            Ok(Post {
                id: row.get(0)?,
                author_id: row.get(1)?,
                author: row.get(2)?,
                title: row.get(3)?,
                body: row.get(4)?,
                changed: published.as_ref().is_some_and(|day| *day < changed).then_some(changed),
                published,
            })
        })
        .optional()
}

/// The newest published ones of everybody.
pub(crate) fn latest(tx: &Transaction<'_>, number: u32) -> rusqlite::Result<Page> {
    let sql = "SELECT p.id, u.name, p.title, substr(p.body, 1, 400), strftime(?1, p.published_ms / 1000, 'unixepoch')
               FROM posts p JOIN users u ON u.id = p.author_id WHERE p.published_ms IS NOT NULL
               ORDER BY p.published_ms DESC, p.id DESC LIMIT ?2 OFFSET ?3";
    let (number, skip) = place(number);
    let rows = tx
        .prepare_cached(sql)?
        .query_map(params![DAY, PAGE_POSTS + 1, skip], summary)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(page(rows, number))
}

/// One author's, newest change first; drafts only when asked for.
pub(crate) fn of_author(tx: &Transaction<'_>, author_id: i64, drafts: bool, number: u32) -> rusqlite::Result<Page> {
    let sql = "SELECT p.id, u.name, p.title, substr(p.body, 1, 400), strftime(?1, p.published_ms / 1000, 'unixepoch')
               FROM posts p JOIN users u ON u.id = p.author_id
               WHERE p.author_id = ?2 AND (?3 OR p.published_ms IS NOT NULL)
               ORDER BY coalesce(p.published_ms, p.changed_ms) DESC, p.id DESC LIMIT ?4 OFFSET ?5";
    let (number, skip) = place(number);
    let rows = tx
        .prepare_cached(sql)?
        .query_map(params![DAY, author_id, drafts, PAGE_POSTS + 1, skip], summary)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(page(rows, number))
}

/// How many posts of an author everybody can read.
pub(crate) fn count_published(tx: &Transaction<'_>, author_id: i64) -> rusqlite::Result<i64> {
    tx.prepare_cached("SELECT count(*) FROM posts WHERE author_id = ? AND published_ms IS NOT NULL")?
        .query_row([author_id], |row| row.get(0))
}

/// Published ones that hold every word of `text`, the best first. Words match by their beginnings.
pub(crate) fn search(tx: &Transaction<'_>, text: &str, number: u32) -> rusqlite::Result<Page> {
    let (number, skip) = place(number);
    let words = search_words(text);
    if words.is_empty() {
        return Ok(page(Vec::new(), number));
    }
    let sql = "SELECT p.id, u.name, p.title, snippet(posts_text, 1, char(2), char(3), '…', 30),
                   strftime(?1, p.published_ms / 1000, 'unixepoch')
               FROM posts_text JOIN posts p ON p.id = posts_text.rowid JOIN users u ON u.id = p.author_id
               WHERE posts_text MATCH ?2 AND p.published_ms IS NOT NULL
               ORDER BY bm25(posts_text, 4.0, 1.0), p.id DESC LIMIT ?3 OFFSET ?4";
    let rows = tx
        .prepare_cached(sql)?
        .query_map(params![DAY, words, PAGE_POSTS + 1, skip], summary)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(page(rows, number))
}

/// Each word quoted, so that nothing a reader types is taken for an operator.
fn search_words(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric));
    let quoted =
        words.take(SEARCH_WORDS_MAX).map(|word| format!("\"{}\"*", word.replace('"', "\"\"").replace('\0', "")));
    quoted.collect::<Vec<_>>().join(" ")
}

fn place(number: u32) -> (u32, u32) {
    let number = number.clamp(1, PAGES_MAX);
    (number, (number - 1) * PAGE_POSTS)
}

fn summary(row: &Row<'_>) -> rusqlite::Result<Summary> {
    Ok(Summary {
        id: row.get(0)?,
        author: row.get(1)?,
        title: row.get(2)?,
        excerpt: row.get(3)?,
        published: row.get(4)?,
    })
}

/// One row more than a page was asked for: it only says that there is more.
fn page(mut posts: Vec<Summary>, number: u32) -> Page {
    let has_more = posts.len() > PAGE_POSTS as usize && number < PAGES_MAX;
    posts.truncate(PAGE_POSTS as usize);
    Page { posts, number, has_more }
}

#[cfg(test)]
mod tests {
    use super::search_words;

    #[test]
    fn what_readers_type_is_never_an_operator() {
        assert_eq!(search_words("  two words "), "\"two\"* \"words\"*");
        assert_eq!(search_words("a\"b NEAR( -c"), "\"a\"\"b\"* \"NEAR(\"* \"-c\"*");
        assert_eq!(search_words("*** \" ()"), "");
    }
}
