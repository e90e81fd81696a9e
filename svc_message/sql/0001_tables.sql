-- Everything durable about messaging on one shard. Ids are 16 bytes; a slot is 0..16383, see mesh.ids.slot_of.
-- Rows of an account live in the slot of its user id, rows of a conversation in the slot of its home user.

-- The truth about who owns a slot. Every function that writes, or reads to decide, reads its row first.
CREATE TABLE slot (
    slot smallint PRIMARY KEY CHECK (slot BETWEEN 0 AND 16383),
    state smallint NOT NULL CHECK (state BETWEEN 1 AND 4),  -- 1 OWNED, 2 FROZEN, 3 INCOMING, 4 MOVED
    moved_to text CHECK ((state = 4) = (moved_to IS NOT NULL)),
    version bigint NOT NULL  -- of the map: grows with each move of the slot
);

CREATE TABLE account (
    user_id bytea PRIMARY KEY CHECK (octet_length(user_id) = 16),
    slot smallint NOT NULL,
    handle text,  -- NULL for a service account
    handle_claimed boolean NOT NULL DEFAULT false,  -- false: the claim on the handle's shard is not known to have won
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX account_slot ON account (slot);
CREATE INDEX account_unclaimed ON account (created_at) WHERE NOT handle_claimed AND handle IS NOT NULL;

CREATE TABLE handle (
    handle text PRIMARY KEY,
    slot smallint NOT NULL,  -- of the handle
    user_id bytea NOT NULL
);

-- A device and its queue's counters. (acked_pos, head_pos] is what waits in device_queue, without a hole.
-- The row outlives the device, so that a new link under the same id goes on from its counters.
CREATE TABLE device (
    user_id bytea NOT NULL,
    device_id smallint NOT NULL CHECK (device_id BETWEEN 1 AND 127),
    linked boolean NOT NULL DEFAULT true,
    has_queue boolean NOT NULL DEFAULT true,  -- false for service accounts
    registration_id integer NOT NULL,
    credential_version integer NOT NULL DEFAULT 1,
    epoch bigint NOT NULL DEFAULT 0,
    head_pos bigint NOT NULL DEFAULT 0,
    acked_pos bigint NOT NULL DEFAULT 0,
    public_key bytea NOT NULL,
    PRIMARY KEY (user_id, device_id)
) WITH (fillfactor = 50);

-- A direct chat. `*_prev` is the last seq addressed to that user, `*_sent` the last seq that user sent, `*_last` the
-- client_message_id of that one, `*_held` until when sends to that user are refused because a queue was full.
CREATE TABLE conversation (
    conversation_id bytea PRIMARY KEY,
    slot smallint NOT NULL,
    lower_user bytea NOT NULL,
    higher_user bytea NOT NULL,
    last_seq bigint NOT NULL DEFAULT 0,
    last_accepted_at timestamptz NOT NULL DEFAULT '-infinity',
    lower_prev bigint NOT NULL DEFAULT 0,
    higher_prev bigint NOT NULL DEFAULT 0,
    lower_sent bigint NOT NULL DEFAULT 0,
    higher_sent bigint NOT NULL DEFAULT 0,
    lower_last bytea,
    higher_last bytea,
    lower_held timestamptz NOT NULL DEFAULT '-infinity',
    higher_held timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
CREATE INDEX conversation_slot ON conversation (slot);

-- Where one user stands in one conversation: the last seq written to the user's queues, the last seq read.
CREATE TABLE thread (
    user_id bytea NOT NULL,
    conversation_id bytea NOT NULL,
    fanned_seq bigint NOT NULL DEFAULT 0,
    read_up_to bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, conversation_id)
) WITH (fillfactor = 50);

CREATE TABLE device_queue (
    user_id bytea NOT NULL,
    device_id smallint NOT NULL,
    pos bigint NOT NULL,
    seq bigint NOT NULL,
    sent_prev bigint NOT NULL,  -- the sender's seq before this one in the conversation: a receipt covers (sent_prev, seq]
    accepted_at timestamptz NOT NULL,
    sender_device_id smallint NOT NULL,
    type smallint NOT NULL,
    conversation_id bytea NOT NULL,
    peer_id bytea NOT NULL,  -- the conversation as this user names it
    sender_id bytea NOT NULL,
    message_id bytea NOT NULL,
    ciphertext bytea NOT NULL,
    PRIMARY KEY (user_id, device_id, pos)
);
ALTER TABLE device_queue ALTER COLUMN ciphertext SET STORAGE EXTERNAL;  -- ciphertext does not compress

-- Copies that accept could not write itself. entry_id ascends with seq within a conversation.
CREATE TABLE copy_outbox (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot smallint NOT NULL,  -- the conversation's
    user_slot smallint NOT NULL,  -- the recipient's: where the copy goes
    attempts smallint NOT NULL DEFAULT 0,
    due timestamptz NOT NULL,
    user_id bytea NOT NULL,
    prev bigint NOT NULL,
    seq bigint NOT NULL,
    sent_prev bigint NOT NULL,
    accepted_at timestamptz NOT NULL,
    sender_device_id smallint NOT NULL,
    conversation_id bytea NOT NULL,
    peer_id bytea NOT NULL,
    sender_id bytea NOT NULL,
    message_id bytea NOT NULL,
    -- The bodies, an element each: for one device in one registration, or for every linked one (device 0).
    devices smallint[] NOT NULL,
    registrations integer[] NOT NULL,
    types smallint[] NOT NULL,
    bodies bytea[] NOT NULL
);
ALTER TABLE copy_outbox ALTER COLUMN bodies SET STORAGE EXTERNAL;

-- Receipts on their way to the shard of the account whose messages they are about.
CREATE TABLE receipt_outbox (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot smallint NOT NULL,  -- the peer's, who received or read
    user_slot smallint NOT NULL,  -- the account's: where the receipt goes
    attempts smallint NOT NULL DEFAULT 0,
    due timestamptz NOT NULL,
    user_id bytea NOT NULL,
    conversation_id bytea NOT NULL,
    peer_id bytea NOT NULL,
    delivered_after bigint NOT NULL,  -- delivered: (delivered_after, delivered_to]; equal: nothing
    delivered_to bigint NOT NULL,
    read_up_to bigint NOT NULL  -- 0: nothing
);

CREATE TABLE receipt_counter (
    user_id bytea PRIMARY KEY,
    version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- No index on version: it changes with every row, and would cost each receipt its cheap (HOT) update.
CREATE TABLE receipt (
    user_id bytea NOT NULL,
    conversation_id bytea NOT NULL,
    peer_id bytea NOT NULL,
    version bigint NOT NULL,
    delivered int8multirange NOT NULL DEFAULT '{}',
    read_up_to bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, conversation_id, peer_id)
) WITH (fillfactor = 50);

-- What was accepted, by day of first_tried_at modulo 10; a table is emptied when its day is 8 days old.
DO $$
BEGIN
    FOR day IN 0..9 LOOP
        EXECUTE format(
            'CREATE TABLE dedup_%s (
                conversation_id bytea NOT NULL,
                sender_id bytea NOT NULL,
                sender_device_id smallint NOT NULL,
                client_message_id bytea NOT NULL,
                seq bigint NOT NULL,
                accepted_at timestamptz NOT NULL,
                message_id bytea NOT NULL,
                digest bytea NOT NULL,
                PRIMARY KEY (conversation_id, sender_id, sender_device_id, client_message_id)
            )', day);
    END LOOP;
END $$;

-- A queue's rows die young: vacuum early, without pause.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['device_queue', 'device', 'conversation', 'thread', 'copy_outbox', 'receipt_outbox',
                                'receipt', 'receipt_counter'] LOOP
        EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_scale_factor = 0.01,
            autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0)', name);
    END LOOP;
END $$;
