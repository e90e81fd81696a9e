"""The tables of channels in the local store."""

TABLES = """
-- Channels that the account follows. `last_seq`: all posts up to it were stored, or are gone.
CREATE TABLE channel (
    channel_id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    role INTEGER NOT NULL,
    subscribers INTEGER NOT NULL,
    key_version INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    read_up_to INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Their keys; earlier ones are kept for earlier posts.
CREATE TABLE channel_key (
    channel_id BLOB NOT NULL REFERENCES channel ON DELETE CASCADE,
    version INTEGER NOT NULL,
    key BLOB NOT NULL,
    PRIMARY KEY (channel_id, version)
) STRICT, WITHOUT ROWID;

-- Posts, each once; `content` is NULL while the key is not known, `ciphertext` empty afterwards.
CREATE TABLE channel_post (
    cursor INTEGER PRIMARY KEY AUTOINCREMENT,
    channel_id BLOB NOT NULL REFERENCES channel ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    post_id BLOB NOT NULL,
    posted_at INTEGER NOT NULL,
    key_version INTEGER NOT NULL,
    content BLOB,
    ciphertext BLOB NOT NULL,
    UNIQUE (channel_id, seq),
    UNIQUE (channel_id, post_id)
) STRICT;
"""
