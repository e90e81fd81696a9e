"""The tables of the local store; forward only: a migration that was released is never changed."""

from whimbrel_client.channels.schema import TABLES as CHANNELS
from whimbrel_client.groups.schema import TABLES as GROUPS

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
    """
    -- `content` is what was inside the ciphertext, which is then not kept: its key is gone.
    -- `state`: 0 shown; 1 could not be read; 2 not shown. `mark`: 0; 1 edited; 2 taken back.
    ALTER TABLE message ADD COLUMN content BLOB;
    ALTER TABLE message ADD COLUMN state INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE message ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE message ADD COLUMN content_id BLOB;
    UPDATE message SET content = ciphertext WHERE type = 1;
    CREATE INDEX message_content ON message (conversation, content_id)
        WHERE content_id IS NOT NULL;
    CREATE INDEX message_id ON message (message_id) WHERE state = 1;

    -- `content` is what is said; `send` is empty until it is encrypted for the devices of then.
    -- A row that is not shown is the client's own business with another one.
    ALTER TABLE outgoing ADD COLUMN content BLOB;
    ALTER TABLE outgoing ADD COLUMN is_shown INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE outgoing ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE outgoing ADD COLUMN resends INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX outgoing_message ON outgoing (message_id) WHERE message_id IS NOT NULL;

    -- The account's identity and this device's registration.
    CREATE TABLE own_identity (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        identity BLOB NOT NULL,
        registration_id INTEGER NOT NULL,
        next_key_id INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE signed_prekey (
        id INTEGER PRIMARY KEY,
        private BLOB NOT NULL,
        signature BLOB NOT NULL
    ) STRICT;
    CREATE TABLE kem_prekey (
        id INTEGER PRIMARY KEY,
        public BLOB NOT NULL,
        seed BLOB NOT NULL,
        signature BLOB NOT NULL,
        is_last_resort INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE one_time_prekey (
        id INTEGER PRIMARY KEY,
        private BLOB NOT NULL
    ) STRICT;
    -- First messages that were read with a key that outlives them: a second one is a replay.
    CREATE TABLE last_resort_use (
        kem_id INTEGER NOT NULL,
        signed_id INTEGER NOT NULL,
        base_key BLOB NOT NULL,
        PRIMARY KEY (kem_id, signed_id, base_key)
    ) STRICT, WITHOUT ROWID;

    -- Other devices; `record` holds the sessions with each.
    CREATE TABLE device (
        user_id BLOB NOT NULL,
        device_id INTEGER NOT NULL,
        registration_id INTEGER NOT NULL,
        is_linked INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (user_id, device_id)
    ) STRICT;
    CREATE TABLE identity (
        user_id BLOB PRIMARY KEY,
        public_key BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE identity_change (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user_id BLOB NOT NULL,
        old_key BLOB NOT NULL,
        new_key BLOB NOT NULL
    ) STRICT;
    """,
    """
    -- The key that signs for this device: Ed25519, 32 bytes.
    CREATE TABLE device_key (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        private BLOB NOT NULL
    ) STRICT;
    """,
    """
    -- Files on their way to the store, until a message tells of them. `size` is the
    -- plaintext's; the lists are joined.
    CREATE TABLE upload (
        path TEXT PRIMARY KEY,
        size INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        upload_id BLOB NOT NULL,
        key BLOB NOT NULL,
        digest BLOB NOT NULL,
        iv BLOB NOT NULL,
        tag BLOB NOT NULL,
        part_size INTEGER NOT NULL,
        part_digests BLOB NOT NULL,
        chains BLOB NOT NULL
    ) STRICT;
    """,
    """
    -- Set: the content is for this own device alone, and deleted once it has it.
    ALTER TABLE outgoing ADD COLUMN only_device INTEGER;
    CREATE INDEX outgoing_device ON outgoing (only_device) WHERE only_device IS NOT NULL;

    -- History that this device, the primary, offers to new ones: what was accepted from `since` on.
    -- `device_id` is the one that asked first, and gets it; times are in ms.
    CREATE TABLE history_offer (
        token BLOB PRIMARY KEY,
        since INTEGER NOT NULL,
        made_at INTEGER NOT NULL,
        device_id INTEGER,
        total INTEGER
    ) STRICT, WITHOUT ROWID;

    -- History that this device gets: where its last part ended. Its messages have cursors below 1.
    CREATE TABLE history (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        token BLOB NOT NULL,
        linked_at INTEGER NOT NULL,
        conversation BLOB NOT NULL DEFAULT x'',
        seq INTEGER NOT NULL DEFAULT 0,
        moved INTEGER NOT NULL DEFAULT 0,
        total INTEGER NOT NULL DEFAULT 0,
        is_complete INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    -- Conversations that make no sound until then; 0: not any more. Times are in ms.
    CREATE TABLE mute (
        conversation BLOB PRIMARY KEY,
        until INTEGER NOT NULL,
        decided_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- The person was shown the change.
    ALTER TABLE identity_change ADD COLUMN is_seen INTEGER NOT NULL DEFAULT 0;
    """,
    GROUPS,
    CHANNELS,
    """
    -- What proves parts of a file; an upload that began before has nothing of it.
    ALTER TABLE upload ADD COLUMN chunk_size INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE upload ADD COLUMN chunk_digests BLOB NOT NULL DEFAULT x'';
    """,
)
