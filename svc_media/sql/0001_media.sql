-- What was granted, until when the store keeps it, and how much each account has uploaded on a day (UTC).
-- All times are given by the caller: its clock is the one that decides.

CREATE TABLE media (
    media_id bytea PRIMARY KEY,  -- 16 random bytes; in text the object's name in the bucket
    owner bytea NOT NULL,
    upload_id bytea NOT NULL,  -- made by the device, once a file
    size bigint NOT NULL,
    sha256 bytea NOT NULL,
    part_sha256 bytea[] NOT NULL,  -- empty: it goes up at once
    multipart_id text,  -- the store's name for an upload in parts
    is_complete boolean NOT NULL,  -- it can be fetched, as far as is known here
    is_ending boolean NOT NULL DEFAULT false,  -- being removed: nothing brings it back
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    UNIQUE (owner, upload_id)
);
CREATE INDEX media_expiry ON media (expires_at);

CREATE TABLE usage (
    owner bytea NOT NULL,
    day date NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (owner, day)
);
CREATE INDEX usage_day ON usage (day);

-- The upload of this id, made if it is new and within the quota; else no row.
CREATE FUNCTION create_upload(p_owner bytea, p_upload bytea, p_media bytea, p_size bigint, p_sha256 bytea, p_parts bytea[],
    p_now timestamptz, p_expires timestamptz, p_quota bigint)
RETURNS SETOF media LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_today date := (p_now AT TIME ZONE 'UTC')::date;
BEGIN
    RETURN QUERY SELECT * FROM media m WHERE m.owner = p_owner AND m.upload_id = p_upload;
    IF FOUND OR p_size > p_quota THEN
        RETURN;
    END IF;
    -- The row is a lock, too: of two calls with one id, the second finds the first one's upload.
    INSERT INTO usage AS u VALUES (p_owner, v_today, p_size)
    ON CONFLICT (owner, day) DO UPDATE SET bytes = u.bytes + p_size WHERE u.bytes + p_size <= p_quota;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY INSERT INTO media VALUES (p_media, p_owner, p_upload, p_size, p_sha256, p_parts, NULL,
        p_parts = '{}', false, p_now, p_expires)
    ON CONFLICT (owner, upload_id) DO NOTHING RETURNING *;
    IF NOT FOUND THEN
        UPDATE usage u SET bytes = u.bytes - p_size WHERE u.owner = p_owner AND u.day = v_today;
        RETURN QUERY SELECT * FROM media m WHERE m.owner = p_owner AND m.upload_id = p_upload;
    END IF;
END $$;
