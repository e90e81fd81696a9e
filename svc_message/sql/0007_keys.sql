-- What KeyService asks of a shard. The rules and the outcomes are those of 0002_functions.sql and 0005_devices.sql.

-- Whether a caller may act. Outcome 1 or 31.
CREATE FUNCTION check_caller(p_slot smallint, p_user bytea, p_device smallint, p_credential integer) RETURNS smallint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    RETURN CASE WHEN is_caller(p_user, p_device, p_credential) THEN 1 ELSE 31 END;
END $$;

-- What is stored of the caller's own device. Outcome 1 or 31; the keys are NULL if it has none.
CREATE FUNCTION own_keys(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, OUT outcome smallint,
    OUT identity_key bytea, OUT signed_id integer, OUT signed_key bytea, OUT last_resort_id integer, OUT last_resort_key bytea,
    OUT ec_left integer, OUT kem_left integer)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    outcome := check_caller(p_slot, p_user, p_device, p_credential);
    IF outcome = 1 THEN
        SELECT a.identity_key, k.signed_id, k.signed_key, k.last_resort_id, k.last_resort_key
        INTO identity_key, signed_id, signed_key, last_resort_id, last_resort_key
        FROM account a JOIN device_keys k USING (user_id) WHERE a.user_id = p_user AND k.device_id = p_device;
        SELECT count(*) INTO ec_left FROM one_time_prekey t WHERE t.user_id = p_user AND t.device_id = p_device;
        SELECT count(*) INTO kem_left FROM one_time_kem_prekey t WHERE t.user_id = p_user AND t.device_id = p_device;
    END IF;
END $$;

-- Replaces keys of the caller's device, whose signatures were checked against p_identity: those that are not NULL, and the pools
-- that are not empty. Outcome 1; 31; 62 if the device has no keys yet, or the identity key is another by now.
CREATE FUNCTION upload_keys(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_identity bytea,
    p_signed_id integer, p_signed bytea, p_signed_sig bytea, p_last_id integer, p_last bytea, p_last_sig bytea,
    p_ec_id integer[], p_ec bytea[], p_kem_id integer[], p_kem bytea[], p_kem_sig bytea[])
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    -- Two uploads come one after the other, and an unlinking before or after both statements that look.
    PERFORM FROM device_keys k WHERE k.user_id = p_user AND k.device_id = p_device FOR UPDATE;
    IF NOT is_caller(p_user, p_device, p_credential) THEN
        RETURN 31;
    END IF;
    UPDATE device_keys k SET
        signed_id = coalesce(p_signed_id, k.signed_id), signed_key = coalesce(p_signed, k.signed_key),
        signed_signature = coalesce(p_signed_sig, k.signed_signature),
        last_resort_id = coalesce(p_last_id, k.last_resort_id), last_resort_key = coalesce(p_last, k.last_resort_key),
        last_resort_signature = coalesce(p_last_sig, k.last_resort_signature)
    FROM account a
    WHERE k.user_id = p_user AND k.device_id = p_device AND a.user_id = p_user AND a.identity_key = p_identity;
    IF NOT FOUND THEN
        RETURN 62;
    END IF;
    IF cardinality(p_ec) > 0 THEN
        DELETE FROM one_time_prekey t WHERE t.user_id = p_user AND t.device_id = p_device;
        INSERT INTO one_time_prekey SELECT p_user, p_device, e.place, e.id, e.key
        FROM unnest(p_ec_id, p_ec) WITH ORDINALITY AS e (id, key, place);
    END IF;
    IF cardinality(p_kem) > 0 THEN
        DELETE FROM one_time_kem_prekey t WHERE t.user_id = p_user AND t.device_id = p_device;
        INSERT INTO one_time_kem_prekey SELECT p_user, p_device, e.place, e.id, e.key, e.sig
        FROM unnest(p_kem_id, p_kem, p_kem_sig) WITH ORDINALITY AS e (id, key, sig, place);
    END IF;
    RETURN 1;
END $$;

-- The devices to which sessions can be opened, ascending: one, or all if p_device is 0. Rows: one a device, or one with a NULL
-- device_id and the outcome 10 or 11.
CREATE FUNCTION keyed_devices(p_slot smallint, p_user bytea, p_device smallint)
RETURNS TABLE (outcome smallint, device_id smallint, registration_id integer) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT 1::smallint, d.device_id, d.registration_id FROM device d JOIN device_keys k USING (user_id, device_id)
        WHERE d.user_id = p_user AND d.linked AND (p_device = 0 OR d.device_id = p_device)
        ORDER BY d.device_id;
END $$;

-- Takes what opens a session to each of these devices; of its one-time keys only if p_pools, the oldest that nobody else is taking.
-- A one-time key that is returned is deleted: it goes out once, or is lost. Rows as above.
CREATE FUNCTION take_keys(p_slot smallint, p_user bytea, p_device smallint[], p_pools boolean)
RETURNS TABLE (outcome smallint, device_id smallint, registration_id integer, identity_key bytea,
    signed_id integer, signed_key bytea, signed_signature bytea, ec_id integer, ec_key bytea,
    kem_id integer, kem_key bytea, kem_signature bytea, kem_once boolean, ec_left integer, kem_left integer)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN NEXT;
        RETURN;
    END IF;
    outcome := 1;
    FOREACH device_id IN ARRAY p_device LOOP
        SELECT d.registration_id, a.identity_key, k.signed_id, k.signed_key, k.signed_signature,
            k.last_resort_id, k.last_resort_key, k.last_resort_signature
        INTO registration_id, identity_key, signed_id, signed_key, signed_signature, kem_id, kem_key, kem_signature
        FROM device d JOIN device_keys k USING (user_id, device_id) JOIN account a USING (user_id)
        WHERE d.user_id = p_user AND d.device_id = take_keys.device_id AND d.linked;
        CONTINUE WHEN NOT FOUND;
        ec_id := NULL;
        ec_key := NULL;
        kem_once := false;
        IF p_pools THEN
            DELETE FROM one_time_prekey t WHERE t.user_id = p_user AND t.device_id = take_keys.device_id AND t.place = (
                SELECT o.place FROM one_time_prekey o WHERE o.user_id = p_user AND o.device_id = take_keys.device_id
                ORDER BY o.place LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING t.key_id, t.public_key INTO ec_id, ec_key;
            DELETE FROM one_time_kem_prekey t WHERE t.user_id = p_user AND t.device_id = take_keys.device_id AND t.place = (
                SELECT o.place FROM one_time_kem_prekey o WHERE o.user_id = p_user AND o.device_id = take_keys.device_id
                ORDER BY o.place LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING t.key_id, t.public_key, t.signature, true INTO kem_id, kem_key, kem_signature, kem_once;
            IF kem_once IS NULL THEN
                SELECT k.last_resort_id, k.last_resort_key, k.last_resort_signature, false
                INTO kem_id, kem_key, kem_signature, kem_once
                FROM device_keys k WHERE k.user_id = p_user AND k.device_id = take_keys.device_id;
                CONTINUE WHEN NOT FOUND;
            END IF;
        END IF;
        SELECT count(*) INTO ec_left FROM one_time_prekey t
        WHERE t.user_id = p_user AND t.device_id = take_keys.device_id;
        SELECT count(*) INTO kem_left FROM one_time_kem_prekey t
        WHERE t.user_id = p_user AND t.device_id = take_keys.device_id;
        RETURN NEXT;
    END LOOP;
END $$;

-- The identity keys of these accounts; NULL if there is none. Outcome 1, 10 or 11.
CREATE FUNCTION identity_keys(p_slots smallint[], p_slot smallint[], p_user bytea[])
RETURNS TABLE (item integer, outcome smallint, identity_key bytea) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            outcome := 1;
            SELECT a.identity_key INTO identity_key FROM account a WHERE a.user_id = p_user[i];
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
