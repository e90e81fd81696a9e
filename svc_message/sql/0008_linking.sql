-- What DeviceService asks of a shard. The rules and the outcomes are those of 0002_functions.sql and 0005_devices.sql.

-- Leaves something for a device that is not linked yet; the same again changes nothing. Outcome 1 or 64.
CREATE FUNCTION leave_provisioning(p_slot smallint, p_address bytea, p_digest bytea, p_ciphertext bytea, p_lifetime interval)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    INSERT INTO provisioning AS p (address, slot, digest, ciphertext, expires_at)
    VALUES (p_address, p_slot, p_digest, p_ciphertext, v_now + p_lifetime)
    ON CONFLICT (address) DO UPDATE SET
        digest = excluded.digest, ciphertext = excluded.ciphertext, expires_at = excluded.expires_at
    WHERE p.expires_at <= v_now;
    IF NOT FOUND THEN
        PERFORM FROM provisioning p WHERE p.address = p_address AND p.digest = p_digest;
    END IF;
    RETURN CASE WHEN FOUND THEN 1 ELSE 64 END;
END $$;

-- Takes what was left, once. Outcome 1 or 63.
CREATE FUNCTION take_provisioning(p_slot smallint, p_address bytea, OUT outcome smallint, OUT ciphertext bytea)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    SELECT p.ciphertext INTO ciphertext FROM provisioning p
    WHERE p.address = p_address AND p.ciphertext IS NOT NULL AND p.expires_at > clock_timestamp() FOR UPDATE;
    outcome := CASE WHEN FOUND THEN 1 ELSE 63 END;
    IF outcome = 1 THEN
        UPDATE provisioning p SET ciphertext = NULL WHERE p.address = p_address;
    END IF;
END $$;

-- Gives the account a link token in place of an older one. Outcome 1, 31 or 61.
CREATE FUNCTION create_link_token(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_hash bytea,
    p_lifetime interval, p_most integer, OUT outcome smallint, OUT expires_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    outcome := check_caller(p_slot, p_user, p_device, p_credential);
    IF outcome <> 1 THEN
        RETURN;
    END IF;
    IF (SELECT count(*) FROM device d WHERE d.user_id = p_user AND d.linked) >= p_most THEN
        outcome := 61;
        RETURN;
    END IF;
    expires_at := clock_timestamp() + p_lifetime;
    INSERT INTO link_token VALUES (p_user, p_hash, expires_at)
    ON CONFLICT (user_id) DO UPDATE SET
        token_hash = excluded.token_hash, expires_at = excluded.expires_at, used_by = NULL;
END $$;

-- Links a device under the account's lowest free id, and uses up the link token. Repeated by the same device it answers the same.
-- Outcome 1, 60, 61 or 62.
CREATE FUNCTION link_device(p_slot smallint, p_user bytea, p_hash bytea, p_public_key bytea, p_name bytea, p_most integer,
    p_identity bytea, p_registration integer, p_signed_id integer, p_signed bytea, p_signed_sig bytea,
    p_last_id integer, p_last bytea, p_last_sig bytea,
    OUT outcome smallint, OUT device_id smallint, OUT credential_version integer)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_identity bytea;
    v_used_by smallint;
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    -- The account's row makes its links and unlinks come one after the other.
    SELECT a.identity_key INTO v_identity FROM account a WHERE a.user_id = p_user FOR UPDATE;
    SELECT t.used_by INTO v_used_by FROM link_token t
    WHERE t.user_id = p_user AND t.token_hash = p_hash AND t.expires_at > clock_timestamp();
    IF NOT FOUND THEN
        outcome := 60;
        RETURN;
    END IF;
    IF v_used_by IS NOT NULL THEN
        SELECT 1, d.device_id, d.credential_version INTO outcome, device_id, credential_version FROM device d
        WHERE d.user_id = p_user AND d.device_id = v_used_by AND d.linked AND d.public_key = p_public_key;
        outcome := coalesce(outcome, 60);
        RETURN;
    END IF;
    IF v_identity IS DISTINCT FROM p_identity THEN
        outcome := 62;
        RETURN;
    END IF;
    SELECT min(n) INTO device_id FROM generate_series(2, p_most) AS n
    WHERE NOT EXISTS (SELECT FROM device d WHERE d.user_id = p_user AND d.device_id = n AND d.linked);
    IF device_id IS NULL THEN
        outcome := 61;
        RETURN;
    END IF;
    INSERT INTO device AS d (user_id, device_id, registration_id, public_key, encrypted_name)
    VALUES (p_user, device_id, p_registration, p_public_key, p_name)
    ON CONFLICT ON CONSTRAINT device_pkey DO UPDATE SET linked = true, registration_id = excluded.registration_id,
        public_key = excluded.public_key, encrypted_name = excluded.encrypted_name, linked_at = excluded.linked_at,
        last_seen_on = NULL, acked_pos = d.head_pos
    RETURNING d.credential_version INTO credential_version;
    UPDATE link_token t SET used_by = link_device.device_id WHERE t.user_id = p_user;
    outcome := put_device_keys(p_user, device_id, p_identity, p_registration, p_signed_id, p_signed, p_signed_sig,
        p_last_id, p_last, p_last_sig);
END $$;

-- The caller's devices, ascending. Rows: one a device, or one with a NULL device_id and the outcome 10, 11 or 31.
CREATE FUNCTION list_devices(p_slot smallint, p_user bytea, p_device smallint, p_credential integer)
RETURNS TABLE (outcome smallint, device_id smallint, registration_id integer, encrypted_name bytea, linked_at timestamptz,
    last_seen_on date)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    outcome := check_caller(p_slot, p_user, p_device, p_credential);
    IF outcome <> 1 THEN
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT 1::smallint, d.device_id, d.registration_id, d.encrypted_name, d.linked_at, d.last_seen_on
        FROM device d WHERE d.user_id = p_user AND d.linked ORDER BY d.device_id;
END $$;

-- Names a device of the caller's account. Outcome 1, 31 or 63.
CREATE FUNCTION rename_device(p_slot smallint, p_user bytea, p_caller smallint, p_credential integer, p_device smallint,
    p_name bytea)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_outcome smallint := check_caller(p_slot, p_user, p_caller, p_credential);
BEGIN
    IF v_outcome <> 1 THEN
        RETURN v_outcome;
    END IF;
    UPDATE device d SET encrypted_name = p_name WHERE d.user_id = p_user AND d.device_id = p_device AND d.linked;
    RETURN CASE WHEN FOUND THEN 1 ELSE 63 END;
END $$;

-- Unlinks a device of the caller's account. One that is unlinked already is told again, also to itself. Outcome 1 and the epoch below
-- which its sessions are over; 31; 63.
CREATE FUNCTION revoke_device(p_slot smallint, p_user bytea, p_caller smallint, p_credential integer, p_device smallint,
    OUT outcome smallint, OUT below_epoch bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    PERFORM FROM account a WHERE a.user_id = p_user FOR UPDATE;
    IF is_caller(p_user, p_caller, p_credential) THEN
        PERFORM remove_device(p_user, p_device);
    ELSIF p_caller <> p_device THEN
        outcome := 31;
        RETURN;
    END IF;
    SELECT 1, d.epoch INTO outcome, below_epoch FROM device d
    WHERE d.user_id = p_user AND d.device_id = p_device AND NOT d.linked;
    outcome := coalesce(outcome, CASE WHEN p_caller = p_device THEN 31 ELSE 63 END);
END $$;

-- Unlinks devices, never a primary, that were not seen since p_before. A row a device.
CREATE FUNCTION unlink_idle(p_before date, p_limit integer)
RETURNS TABLE (user_id bytea, device_id smallint, below_epoch bigint) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    FOR user_id, device_id IN
        SELECT d.user_id, d.device_id FROM device d
        JOIN account a ON a.user_id = d.user_id JOIN slot s ON s.slot = a.slot AND s.state = 1
        WHERE d.linked AND d.device_id > 1 AND d.has_queue
            AND coalesce(d.last_seen_on, (d.linked_at AT TIME ZONE 'UTC')::date) < p_before
        ORDER BY d.user_id, d.device_id LIMIT p_limit
    LOOP
        PERFORM FROM account a WHERE a.user_id = unlink_idle.user_id FOR UPDATE;
        -- It may have come back while we waited.
        PERFORM FROM device d WHERE d.user_id = unlink_idle.user_id AND d.device_id = unlink_idle.device_id
            AND coalesce(d.last_seen_on, (d.linked_at AT TIME ZONE 'UTC')::date) < p_before FOR UPDATE;
        IF FOUND THEN
            below_epoch := remove_device(user_id, device_id);
            IF below_epoch IS NOT NULL THEN
                RETURN NEXT;
            END IF;
        END IF;
    END LOOP;
END $$;

-- Removes link tokens and provisioning that are over. How many.
CREATE FUNCTION forget_linking(p_limit integer) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_tokens bigint;
    v_left bigint;
BEGIN
    PERFORM FROM slot LIMIT 1;
    DELETE FROM link_token t WHERE t.user_id IN (
        SELECT o.user_id FROM link_token o JOIN account a ON a.user_id = o.user_id JOIN slot s ON s.slot = a.slot AND s.state = 1
        WHERE o.expires_at < clock_timestamp() LIMIT p_limit) AND t.expires_at < clock_timestamp();
    GET DIAGNOSTICS v_tokens = ROW_COUNT;
    DELETE FROM provisioning t WHERE t.address IN (
        SELECT o.address FROM provisioning o JOIN slot s ON s.slot = o.slot AND s.state = 1
        WHERE o.expires_at < clock_timestamp() LIMIT p_limit) AND t.expires_at < clock_timestamp();
    GET DIAGNOSTICS v_left = ROW_COUNT;
    RETURN v_tokens + v_left;
END $$;

-- As before, and the day on which it happened is kept.
CREATE OR REPLACE FUNCTION open(p_slots smallint[], p_slot smallint[], p_user bytea[], p_device smallint[], p_credential integer[])
RETURNS TABLE (item integer, outcome smallint, epoch bigint, head_pos bigint, acked_pos bigint, receipt_version bigint,
    now timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    v_today date;
BEGIN
    now := clock_timestamp();
    v_today := (now AT TIME ZONE 'UTC')::date;
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            UPDATE device d SET epoch = d.epoch + 1, last_seen_on = v_today
            WHERE d.user_id = p_user[i] AND d.device_id = p_device[i] AND d.linked AND d.has_queue
                AND d.credential_version <= p_credential[i]
            RETURNING d.epoch, d.head_pos, d.acked_pos INTO epoch, head_pos, acked_pos;
            outcome := CASE WHEN FOUND THEN 1 ELSE 31 END;
            SELECT k.version INTO receipt_version FROM receipt_counter k WHERE k.user_id = p_user[i];
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
