-- One token a device, sealed. All times are given by the caller: its clock is the one that decides.

CREATE TABLE push_token (
    user_id bytea NOT NULL,
    device_id smallint NOT NULL,
    provider smallint NOT NULL,  -- 1 APNs, 2 FCM, 3 Web Push
    digest bytea NOT NULL UNIQUE,  -- SHA-256 of provider and token: finds a token that another device had
    key_id text NOT NULL,  -- of the key that it is sealed with
    sealed bytea NOT NULL,
    registered_at timestamptz NOT NULL,  -- when the device last said that it is its token
    PRIMARY KEY (user_id, device_id)
);
CREATE INDEX push_token_age ON push_token (registered_at);
CREATE INDEX push_token_key ON push_token (key_id);

-- Binds a token to a device, in place of the one it had; another device that had the token has none any more.
CREATE FUNCTION set_token(p_user bytea, p_device smallint, p_provider smallint, p_digest bytea, p_key text, p_sealed bytea,
    p_now timestamptz)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- One token at a time: two devices that bring the same one wait for each other here.
    PERFORM pg_advisory_xact_lock(hashtextextended(encode(p_digest, 'hex'), 0));
    DELETE FROM push_token t WHERE t.digest = p_digest AND (t.user_id, t.device_id) <> (p_user, p_device);
    INSERT INTO push_token AS t VALUES (p_user, p_device, p_provider, p_digest, p_key, p_sealed, p_now)
    ON CONFLICT (user_id, device_id) DO UPDATE SET provider = p_provider, digest = p_digest, key_id = p_key,
        sealed = p_sealed, registered_at = greatest(t.registered_at, p_now);
END $$;
