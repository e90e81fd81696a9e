-- Channels. A channel, its admins and its posts are in the slot of its id; who subscribes to it is in the slots of those accounts, so that
-- nothing of a channel grows with its subscribers but their count.

CREATE TABLE channel (
    channel_id bytea PRIMARY KEY CHECK (octet_length(channel_id) = 16),
    slot smallint NOT NULL,
    owner_id bytea NOT NULL,
    attributes bytea NOT NULL,
    key_version integer NOT NULL DEFAULT 1,
    link_hash bytea NOT NULL,
    retention interval NOT NULL,
    head_seq bigint NOT NULL DEFAULT 0,
    last_posted_at timestamptz NOT NULL DEFAULT '-infinity',
    subscribers bigint NOT NULL DEFAULT 0,  -- about
    is_deleted boolean NOT NULL DEFAULT false  -- the row stays, so that nobody makes the channel anew with seqs that readers have
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX channel_slot ON channel (slot);
ALTER TABLE channel ALTER COLUMN attributes SET STORAGE EXTERNAL;

CREATE TABLE channel_admin (
    channel_id bytea NOT NULL,
    user_id bytea NOT NULL,
    PRIMARY KEY (channel_id, user_id)
);

CREATE TABLE channel_post (
    channel_id bytea NOT NULL,
    seq bigint NOT NULL,
    post_id bytea NOT NULL,
    key_version integer NOT NULL,
    posted_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ciphertext bytea NOT NULL,
    PRIMARY KEY (channel_id, seq),
    UNIQUE (channel_id, post_id)
);
CREATE INDEX channel_post_expires ON channel_post (expires_at);
ALTER TABLE channel_post ALTER COLUMN ciphertext SET STORAGE EXTERNAL;

CREATE TABLE subscription (
    user_id bytea NOT NULL,
    channel_id bytea NOT NULL,
    cursor bigint NOT NULL,
    sealed_key bytea NOT NULL,
    PRIMARY KEY (user_id, channel_id)
);
