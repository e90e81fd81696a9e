-- The devices of an account beside their queues, and the public keys by which sessions to them are opened. The rules are those
-- of 0002_functions.sql; an account's row is locked before its devices, a device's row before its keys.
--
-- Outcomes beside those: 60 link token unknown, used or too old, 61 too many devices, 62 another identity key than the account's,
-- 63 nothing is there, 64 something else is there.

-- One for all devices; only the primary's keys set it.
ALTER TABLE account ADD COLUMN identity_key bytea;

ALTER TABLE device
    ADD COLUMN linked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN last_seen_on date,  -- the day, UTC, of the last open
    ADD COLUMN encrypted_name bytea;
CREATE INDEX device_idle ON device (coalesce(last_seen_on, (linked_at AT TIME ZONE 'UTC')::date)) WHERE linked AND device_id > 1;

-- What every device with keys always has. Written with the device's row, deleted with its unlinking.
CREATE TABLE device_keys (
    user_id bytea NOT NULL,
    device_id smallint NOT NULL,
    signed_id integer NOT NULL,
    signed_key bytea NOT NULL,
    signed_signature bytea NOT NULL,
    last_resort_id integer NOT NULL,
    last_resort_key bytea NOT NULL,
    last_resort_signature bytea NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

-- The pools: each key goes out at most once, the lowest place first. They are EC keys, and signed KEM keys.
CREATE TABLE one_time_prekey (
    user_id bytea NOT NULL,
    device_id smallint NOT NULL,
    place smallint NOT NULL,
    key_id integer NOT NULL,
    public_key bytea NOT NULL,
    PRIMARY KEY (user_id, device_id, place)
);
CREATE TABLE one_time_kem_prekey (
    user_id bytea NOT NULL,
    device_id smallint NOT NULL,
    place smallint NOT NULL,
    key_id integer NOT NULL,
    public_key bytea NOT NULL,
    signature bytea NOT NULL,
    PRIMARY KEY (user_id, device_id, place)
);

-- Lets one device link itself; an account has one at a time. Once used it names the device, for a repetition.
CREATE TABLE link_token (
    user_id bytea PRIMARY KEY,
    token_hash bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    used_by smallint
);
CREATE INDEX link_token_expiry ON link_token (expires_at);

-- What a primary leaves for a device that is not linked yet; in the slot of the address. Once taken it has no ciphertext, but
-- the address stays used until it expires.
CREATE TABLE provisioning (
    address bytea PRIMARY KEY,
    slot smallint NOT NULL,
    digest bytea NOT NULL,
    ciphertext bytea,
    expires_at timestamptz NOT NULL
);
CREATE INDEX provisioning_slot ON provisioning (slot);
CREATE INDEX provisioning_expiry ON provisioning (expires_at);

-- Random bytes do not compress.
ALTER TABLE device_keys ALTER COLUMN last_resort_key SET STORAGE EXTERNAL;
ALTER TABLE one_time_kem_prekey ALTER COLUMN public_key SET STORAGE EXTERNAL;
ALTER TABLE provisioning ALTER COLUMN ciphertext SET STORAGE EXTERNAL;

CREATE FUNCTION clear_prekeys(p_user bytea, p_device smallint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM one_time_prekey t WHERE t.user_id = p_user AND t.device_id = p_device;
    DELETE FROM one_time_kem_prekey t WHERE t.user_id = p_user AND t.device_id = p_device;
END $$;

-- Gives a device that has just been written, or registered anew, its keys; the old ones and its pools go. The same keys again change
-- nothing. Outcome 1, 31 or 62.
CREATE FUNCTION put_device_keys(p_user bytea, p_device smallint, p_identity bytea, p_registration integer,
    p_signed_id bigint, p_signed bytea, p_signed_sig bytea, p_last_id bigint, p_last bytea, p_last_sig bytea)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_identity bytea;
BEGIN
    SELECT a.identity_key INTO v_identity FROM account a WHERE a.user_id = p_user FOR UPDATE;
    IF v_identity IS DISTINCT FROM p_identity THEN
        IF p_device <> 1 THEN
            RETURN 62;
        END IF;
        UPDATE account a SET identity_key = p_identity WHERE a.user_id = p_user;
    END IF;
    PERFORM FROM device d JOIN device_keys k USING (user_id, device_id)
    WHERE d.user_id = p_user AND d.device_id = p_device AND d.registration_id = p_registration
        AND v_identity = p_identity AND k.signed_id = p_signed_id AND k.signed_key = p_signed
        AND k.last_resort_id = p_last_id AND k.last_resort_key = p_last;
    IF FOUND THEN
        RETURN 1;
    END IF;
    UPDATE device d SET registration_id = p_registration WHERE d.user_id = p_user AND d.device_id = p_device AND d.linked;
    IF NOT FOUND THEN
        RETURN 31;
    END IF;
    INSERT INTO device_keys VALUES (p_user, p_device, p_signed_id, p_signed, p_signed_sig, p_last_id, p_last, p_last_sig)
    ON CONFLICT (user_id, device_id) DO UPDATE SET
        signed_id = excluded.signed_id, signed_key = excluded.signed_key, signed_signature = excluded.signed_signature,
        last_resort_id = excluded.last_resort_id, last_resort_key = excluded.last_resort_key,
        last_resort_signature = excluded.last_resort_signature;
    PERFORM clear_prekeys(p_user, p_device);
    RETURN 1;
END $$;

-- Unlinks a device: its queue, its keys and its name go, older tokens are worth nothing. The row stays, so that a new link
-- under its id goes on from its counters. Sessions below the epoch that is returned are over; NULL if it was not linked.
CREATE FUNCTION remove_device(p_user bytea, p_device smallint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_acked bigint;
    v_epoch bigint;
BEGIN
    SELECT d.acked_pos INTO v_acked FROM device d
    WHERE d.user_id = p_user AND d.device_id = p_device AND d.linked FOR UPDATE;
    IF FOUND THEN
        UPDATE device d SET linked = false, credential_version = d.credential_version + 1, epoch = d.epoch + 1,
            acked_pos = d.head_pos, encrypted_name = NULL, last_seen_on = NULL
        WHERE d.user_id = p_user AND d.device_id = p_device RETURNING d.epoch INTO v_epoch;
        DELETE FROM device_queue q WHERE q.user_id = p_user AND q.device_id = p_device AND q.pos > v_acked;
        DELETE FROM device_keys k WHERE k.user_id = p_user AND k.device_id = p_device;
        PERFORM clear_prekeys(p_user, p_device);
    END IF;
    RETURN v_epoch;
END $$;

-- Whether a caller's token is still worth something: its device is linked, and has not been linked anew since.
CREATE FUNCTION is_caller(p_user bytea, p_device smallint, p_credential integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM device d WHERE d.user_id = p_user AND d.device_id = p_device AND d.linked
        AND d.credential_version <= p_credential;
    RETURN FOUND;
END $$;
