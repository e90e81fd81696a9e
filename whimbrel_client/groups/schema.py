"""The tables of groups in the local store."""

TABLES = """
    -- Groups as they stand here. `revision` 0: nothing is known yet. `is_behind`: the mesh is
    -- known to be further. `group_key` opens the attributes; empty: it was not handed over yet.
    CREATE TABLE group_state (
        group_id BLOB PRIMARY KEY,
        revision INTEGER NOT NULL DEFAULT 0,
        device_epoch INTEGER NOT NULL DEFAULT 0,
        is_member INTEGER NOT NULL DEFAULT 1,
        is_behind INTEGER NOT NULL DEFAULT 1,
        attributes BLOB NOT NULL DEFAULT x'',
        group_key BLOB NOT NULL DEFAULT x'',
        send_role INTEGER NOT NULL DEFAULT 2,
        add_role INTEGER NOT NULL DEFAULT 3,
        edit_role INTEGER NOT NULL DEFAULT 3,
        disappear_after INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE group_member (
        group_id BLOB NOT NULL,
        user_id BLOB NOT NULL,
        role INTEGER NOT NULL,
        joined_revision INTEGER NOT NULL,
        PRIMARY KEY (group_id, user_id)
    ) STRICT, WITHOUT ROWID;

    -- What this device writes to the group with, and who may have it; `is_sure`: has it.
    CREATE TABLE sender_key (
        group_id BLOB PRIMARY KEY,
        key BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE key_holder (
        group_id BLOB NOT NULL,
        user_id BLOB NOT NULL,
        device_id INTEGER NOT NULL,
        registration_id INTEGER NOT NULL,
        is_sure INTEGER NOT NULL,
        PRIMARY KEY (group_id, user_id, device_id, registration_id)
    ) STRICT, WITHOUT ROWID;
    -- The message (`outgoing`) that hands the key to an account. `is_late`: nobody waits for it.
    CREATE TABLE hand_out (
        group_id BLOB NOT NULL,
        user_id BLOB NOT NULL,
        local_id INTEGER NOT NULL,
        is_late INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (group_id, user_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX hand_out_message ON hand_out (local_id);

    -- What other devices are read with.
    CREATE TABLE key_reader (
        group_id BLOB NOT NULL,
        user_id BLOB NOT NULL,
        device_id INTEGER NOT NULL,
        reader BLOB NOT NULL,
        PRIMARY KEY (group_id, user_id, device_id)
    ) STRICT;
    -- Messages that came before their key, and of which the sender was not asked yet.
    CREATE TABLE keyless (
        message_id BLOB PRIMARY KEY
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX message_unread ON message (conversation, sender) WHERE state = 1;

    -- How many members an own message was written to, and how many have it.
    ALTER TABLE outgoing ADD COLUMN audience INTEGER;
    CREATE TABLE tally (
        conversation BLOB NOT NULL,
        seq INTEGER NOT NULL,
        delivered_to INTEGER NOT NULL,
        read_by INTEGER NOT NULL,
        PRIMARY KEY (conversation, seq)
    ) STRICT, WITHOUT ROWID;
"""
