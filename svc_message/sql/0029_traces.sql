-- Where the traces of sampled messages stand: the id of the trace and of its latest span. A hint, lost without harm. It stands on the
-- recipient's slot, so that whoever reads the queue later, by then online, can link to it; a column of device_queue would cost every message.
CREATE TABLE message_trace (
    slot smallint NOT NULL,
    message_id bytea NOT NULL,
    trace bytea NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (message_id, slot)
);
