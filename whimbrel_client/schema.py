"""The tables of the local store; forward only: a migration that was released is never changed."""

MIGRATIONS: tuple[str, ...] = (
    """
    -- What was received, each message once, in the order in which it was stored here.
    CREATE TABLE message (
        cursor INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation BLOB NOT NULL,
        seq INTEGER NOT NULL,
        message_id BLOB NOT NULL,
        sender BLOB NOT NULL,
        sender_device INTEGER NOT NULL,
        accepted_at INTEGER NOT NULL,
        type INTEGER NOT NULL,
        ciphertext BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX message_place ON message (conversation, seq);

    -- The seqs that were ever received here, or given to own sends. They outlive the messages.
    CREATE TABLE held (
        conversation BLOB NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (conversation, first)
    ) STRICT, WITHOUT ROWID;

    -- Own messages. `send` has the bytes that every try repeats; `state` is a SendState.
    CREATE TABLE outgoing (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation BLOB NOT NULL,
        client_message_id BLOB NOT NULL UNIQUE,
        send BLOB NOT NULL,
        first_tried_at INTEGER,
        state INTEGER NOT NULL DEFAULT 0,
        message_id BLOB,
        seq INTEGER,
        accepted_at INTEGER,
        reason TEXT
    ) STRICT;
    CREATE INDEX outgoing_waiting ON outgoing (conversation, id) WHERE state = 0;
    CREATE INDEX outgoing_place ON outgoing (conversation, seq) WHERE seq IS NOT NULL;

    -- `delivered` has pairs of unsigned 64-bit little-endian numbers, ascending.
    CREATE TABLE receipt (
        conversation BLOB NOT NULL,
        peer BLOB NOT NULL,
        version INTEGER NOT NULL,
        delivered BLOB NOT NULL,
        read_up_to INTEGER NOT NULL,
        PRIMARY KEY (conversation, peer)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX receipt_version ON receipt (version);

    -- How far this account has read, and how far the mesh has recorded that.
    CREATE TABLE reading (
        conversation BLOB PRIMARY KEY,
        up_to_seq INTEGER NOT NULL,
        recorded_up_to INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE contact (
        user_id BLOB PRIMARY KEY,
        handle TEXT NOT NULL UNIQUE
    ) STRICT, WITHOUT ROWID;

    -- Two messages claimed one place.
    CREATE TABLE alarm (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation BLOB NOT NULL,
        seq INTEGER NOT NULL,
        kept_message_id BLOB NOT NULL,
        other_message_id BLOB NOT NULL,
        UNIQUE (conversation, seq, other_message_id)
    ) STRICT;
    """,
)
