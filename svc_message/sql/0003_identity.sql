-- What identity asks of a shard, one account or handle a call. The rules and the outcomes are those of 0002_functions.sql.
-- Each may be repeated: a call whose answer was lost does no harm the second time.

-- Makes an account with its primary device. Outcome 1.
CREATE FUNCTION make_account(p_slot smallint, p_user bytea, p_handle text, p_registration_id integer,
    p_public_key bytea, p_has_queue boolean)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    INSERT INTO account (user_id, slot, handle) VALUES (p_user, p_slot, p_handle) ON CONFLICT DO NOTHING;
    INSERT INTO device (user_id, device_id, has_queue, registration_id, public_key)
    VALUES (p_user, 1, p_has_queue, p_registration_id, p_public_key) ON CONFLICT DO NOTHING;
    INSERT INTO receipt_counter (user_id) VALUES (p_user) ON CONFLICT DO NOTHING;
    RETURN 1;
END $$;

-- Gives a handle to the account that asks first. Outcome 1 and the account that has it.
CREATE FUNCTION claim_handle(p_slot smallint, p_handle text, p_user bytea, OUT outcome smallint, OUT user_id bytea)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    INSERT INTO handle (handle, slot, user_id) VALUES (p_handle, p_slot, p_user) ON CONFLICT DO NOTHING;
    outcome := 1;
    SELECT h.user_id INTO user_id FROM handle h WHERE h.handle = p_handle;
END $$;

-- The account that has a handle; NULL if none has. Outcome 1.
CREATE FUNCTION find_handle(p_slot smallint, p_handle text, OUT outcome smallint, OUT user_id bytea)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    outcome := 1;
    SELECT h.user_id INTO user_id FROM handle h WHERE h.handle = p_handle;
END $$;

-- Frees a handle of an account that is gone. Outcome 1.
CREATE FUNCTION release_handle(p_slot smallint, p_handle text, p_user bytea) RETURNS smallint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    DELETE FROM handle h WHERE h.handle = p_handle AND h.user_id = p_user;
    RETURN 1;
END $$;

-- Notes that the account's claim to its handle has won. Outcome 1, or 6 if the account is gone.
CREATE FUNCTION confirm_handle(p_slot smallint, p_user bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    UPDATE account a SET handle_claimed = true WHERE a.user_id = p_user AND NOT a.handle_claimed;
    IF NOT FOUND THEN
        PERFORM FROM account a WHERE a.user_id = p_user;
    END IF;
    RETURN CASE WHEN FOUND THEN 1 ELSE 6 END;
END $$;

-- Removes an account whose claim did not win. Nobody ever learned its id, so it has no conversations. Outcome 1.
CREATE FUNCTION remove_unclaimed(p_slot smallint, p_user bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    DELETE FROM account a WHERE a.user_id = p_user AND NOT a.handle_claimed AND a.handle IS NOT NULL;
    IF FOUND THEN
        DELETE FROM device d WHERE d.user_id = p_user;
        DELETE FROM receipt_counter k WHERE k.user_id = p_user;
    END IF;
    RETURN 1;
END $$;

-- The device that signs requests. Outcome 1; 6 if the account is gone; 31 if the device is unknown, unlinked or a service's.
CREATE FUNCTION signing_device(p_slot smallint, p_user bytea, p_device smallint,
    OUT outcome smallint, OUT public_key bytea, OUT credential_version integer)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    SELECT 1, d.public_key, d.credential_version INTO outcome, public_key, credential_version
    FROM device d JOIN account a ON a.user_id = d.user_id
    WHERE d.user_id = p_user AND d.device_id = p_device AND d.linked AND d.has_queue;
    IF NOT FOUND THEN
        PERFORM FROM account a WHERE a.user_id = p_user;
        outcome := CASE WHEN FOUND THEN 31 ELSE 6 END;
    END IF;
END $$;

-- Accounts whose claim is not known to have won although they are older than p_age, oldest first.
CREATE FUNCTION unclaimed_accounts(p_age interval, p_limit integer) RETURNS TABLE (user_id bytea, handle text)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
        SELECT a.user_id, a.handle FROM account a JOIN slot s ON s.slot = a.slot AND s.state = 1
        WHERE NOT a.handle_claimed AND a.handle IS NOT NULL AND a.created_at < clock_timestamp() - p_age
        ORDER BY a.created_at LIMIT p_limit;
END $$;

-- For moving a slot.
CREATE INDEX handle_slot ON handle (slot);
