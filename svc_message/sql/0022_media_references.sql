-- Objects that messages refer to, and that the media service is still to hear of. A row is noted before its message is accepted: what is
-- accepted is never without it, and one whose message was refused after all only keeps an object longer. It belongs to the shard and moves
-- with no slot: whoever reads it tells the same service.
CREATE TABLE media_reference (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    due timestamptz NOT NULL,  -- when an instance may take it
    expires_at timestamptz NOT NULL,  -- the message does
    media_id bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX media_reference_due ON media_reference (due);
