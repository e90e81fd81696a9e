-- Groups. All rows of a group are in the slot of its id; what its members have of it (threads, queues) is in theirs.

-- What every send to the group reads and changes; its lock orders the group's sends and changes.
CREATE TABLE chat_group (
    group_id bytea PRIMARY KEY CHECK (octet_length(group_id) = 16),
    slot smallint NOT NULL,
    revision bigint NOT NULL,
    device_epoch bigint NOT NULL DEFAULT 1,
    last_seq bigint NOT NULL DEFAULT 0,
    last_accepted_at timestamptz NOT NULL DEFAULT '-infinity',
    last_sender bytea,  -- who sent the last messages, and
    sender_prev bigint NOT NULL DEFAULT 0,  -- the seq before the first of them
    member_count integer NOT NULL,
    send_role smallint NOT NULL  -- the least role that sends; 1 muted, 2 member, 3 admin, 4 owner
) WITH (fillfactor = 50);
CREATE INDEX chat_group_slot ON chat_group (slot);

-- What only changes read.
CREATE TABLE group_profile (
    group_id bytea PRIMARY KEY,
    attributes bytea NOT NULL,
    add_role smallint NOT NULL,
    edit_role smallint NOT NULL,
    disappear_after interval NOT NULL,
    link_hash bytea,  -- NULL: there is no link
    link_has_password boolean NOT NULL DEFAULT false,
    link_expires_at timestamptz,
    link_uses_left integer NOT NULL DEFAULT 0,  -- 0: not counted
    link_needs_approval boolean NOT NULL DEFAULT false
);
ALTER TABLE group_profile ALTER COLUMN attributes SET STORAGE EXTERNAL;

-- One stay of one person. They get the messages n with joined_seq < n, and n <= left_seq once they have left.
CREATE TABLE member (
    group_id bytea NOT NULL,
    user_id bytea NOT NULL,
    joined_revision bigint NOT NULL,
    joined_seq bigint NOT NULL,
    left_seq bigint,  -- NULL: a member
    prev_seq bigint NOT NULL,  -- the last seq that was addressed to them in an earlier stay
    role smallint NOT NULL,
    PRIMARY KEY (group_id, user_id, joined_revision)
);
CREATE UNIQUE INDEX member_present ON member (user_id, group_id) WHERE left_seq IS NULL;

CREATE TABLE group_ban (
    group_id bytea NOT NULL,
    user_id bytea NOT NULL,
    PRIMARY KEY (group_id, user_id)
);

CREATE TABLE join_request (
    group_id bytea NOT NULL,
    user_id bytea NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (group_id, user_id)
);

-- The change that made a revision: a serialised whimbrel.group.v1.Change.
CREATE TABLE group_change (
    group_id bytea NOT NULL,
    revision bigint NOT NULL,
    actor_id bytea NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    change bytea NOT NULL,
    PRIMARY KEY (group_id, revision)
);

-- Whose devices made a device epoch.
CREATE TABLE group_device_change (
    group_id bytea NOT NULL,
    device_epoch bigint NOT NULL,
    user_id bytea NOT NULL,
    PRIMARY KEY (group_id, device_epoch)
);

-- Whose message a seq is, for its receipts.
CREATE TABLE group_message (
    group_id bytea NOT NULL,
    seq bigint NOT NULL,
    sender_id bytea NOT NULL,
    accepted_at timestamptz NOT NULL,
    PRIMARY KEY (group_id, seq)
);
CREATE INDEX group_message_accepted ON group_message USING brin (accepted_at);

-- Messages that members of slots rest_from to rest_to may not have yet.
CREATE TABLE group_outbox (
    group_id bytea NOT NULL,
    slot smallint NOT NULL,
    seq bigint NOT NULL,
    revision bigint NOT NULL,  -- it was accepted at: whoever was a member then gets it
    attempts smallint NOT NULL DEFAULT 0,
    rest_from smallint NOT NULL DEFAULT 0,
    rest_to smallint NOT NULL DEFAULT 16383,
    due timestamptz NOT NULL,
    accepted_at timestamptz NOT NULL,
    sender_id bytea NOT NULL,
    sender_device_id smallint NOT NULL,
    last_sender bytea,  -- as chat_group had it and sender_prev before this message
    sender_prev bigint NOT NULL,
    message_id bytea NOT NULL,
    type smallint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (group_id, seq)
);
CREATE INDEX group_outbox_due ON group_outbox (due);
ALTER TABLE group_outbox ALTER COLUMN body SET STORAGE EXTERNAL;

-- Accounts whose devices have changed and whose groups may not know yet; in the slot of the account.
CREATE TABLE device_change_outbox (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot smallint NOT NULL,
    user_id bytea NOT NULL,
    due timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Links, unlinks and new registrations set these columns; a device row that moves with its slot is inserted, and tells nobody.
CREATE FUNCTION tell_device_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO device_change_outbox (slot, user_id) VALUES (slot_of(NEW.user_id), NEW.user_id);
    RETURN NULL;
END $$;
CREATE TRIGGER device_changed AFTER UPDATE OF linked, registration_id ON device
    FOR EACH ROW WHEN (NEW.has_queue) EXECUTE FUNCTION tell_device_change();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['chat_group', 'group_outbox', 'device_change_outbox'] LOOP
        EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_scale_factor = 0.01,
            autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0)', name);
    END LOOP;
END $$;
