-- A device is seen when it opens a stream and when it renews its token: a stream may outlive many days.

DROP FUNCTION signing_device(smallint, bytea, smallint);

-- The device that signs requests, and whether it was seen today. Outcome 1; 6 if the account is gone; 31 if the device is unknown,
-- unlinked or a service's.
CREATE FUNCTION signing_device(p_slot smallint, p_user bytea, p_device smallint,
    OUT outcome smallint, OUT public_key bytea, OUT credential_version integer, OUT is_seen boolean)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    SELECT 1, d.public_key, d.credential_version,
        coalesce(d.last_seen_on >= (clock_timestamp() AT TIME ZONE 'UTC')::date, false)
    INTO outcome, public_key, credential_version, is_seen
    FROM device d JOIN account a ON a.user_id = d.user_id
    WHERE d.user_id = p_user AND d.device_id = p_device AND d.linked AND d.has_queue;
    IF NOT FOUND THEN
        PERFORM FROM account a WHERE a.user_id = p_user;
        outcome := CASE WHEN FOUND THEN 31 ELSE 6 END;
    END IF;
END $$;

-- Notes that a device has proved itself today. Outcome 1.
CREATE FUNCTION mark_seen(p_slot smallint, p_user bytea, p_device smallint) RETURNS smallint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    UPDATE device d SET last_seen_on = (clock_timestamp() AT TIME ZONE 'UTC')::date
    WHERE d.user_id = p_user AND d.device_id = p_device AND d.linked;
    RETURN 1;
END $$;
