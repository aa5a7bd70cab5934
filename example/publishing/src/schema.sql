-- Schema 1. Times are milliseconds since 1970.

CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    password TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

-- Only hashes of session tokens are kept: who reads the file cannot log in with it.
CREATE TABLE sessions (
    token_hash BLOB PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    csrf TEXT NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_end ON sessions (expires_ms);

CREATE TABLE posts (
    id INTEGER PRIMARY KEY,
    author_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL,
    -- NULL: a draft, for its author's eyes only.
    published_ms INTEGER
) STRICT;
CREATE INDEX posts_by_time ON posts (published_ms DESC, id DESC) WHERE published_ms IS NOT NULL;
CREATE INDEX posts_by_author ON posts (author_id, changed_ms DESC);

CREATE TABLE pictures (
    name TEXT PRIMARY KEY,
    owner_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    size_bytes INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX pictures_by_owner ON pictures (owner_id, created_ms DESC);

-- How often something was tried since the window began: limits hold over all instances.
CREATE TABLE attempts (
    what TEXT PRIMARY KEY,
    since_ms INTEGER NOT NULL,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_by_age ON attempts (since_ms);

CREATE VIRTUAL TABLE posts_text USING fts5 (title, body, content = 'posts', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2');
CREATE TRIGGER posts_text_insert AFTER INSERT ON posts BEGIN
    INSERT INTO posts_text (rowid, title, body) VALUES (new.id, new.title, new.body);
END;
CREATE TRIGGER posts_text_delete AFTER DELETE ON posts BEGIN
    INSERT INTO posts_text (posts_text, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
END;
CREATE TRIGGER posts_text_update AFTER UPDATE OF title, body ON posts BEGIN
    INSERT INTO posts_text (posts_text, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
    INSERT INTO posts_text (rowid, title, body) VALUES (new.id, new.title, new.body);
END;
