-- What belongs to an account beside its devices: number, profile, privacy, registration lock, blocks, silence; and how it ends. The rules
-- and the outcomes are those of 0002_functions.sql; an account's row is locked before its devices.
--
-- Outcomes beside those: 50 not yet, 51 code wrong, used or too old, 52 too many tries, 53 as many as there may be.

-- A number is known by its SHA-256 alone, which is also what contacts are asked for by; the slot of both is the same.
ALTER TABLE account
    ADD COLUMN number_hash bytea,
    ADD COLUMN findable_by_handle smallint NOT NULL DEFAULT 1 CHECK (findable_by_handle BETWEEN 1 AND 3),
    ADD COLUMN findable_by_number smallint NOT NULL DEFAULT 1 CHECK (findable_by_number BETWEEN 1 AND 3),
    ADD COLUMN encrypted_profile bytea,
    ADD COLUMN lock_salt bytea,
    ADD COLUMN lock_hash bytea,
    ADD COLUMN lock_tries smallint NOT NULL DEFAULT 0,
    ADD COLUMN lock_tried_at timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN deleted_at timestamptz;  -- then nobody finds it, nobody acts for it, and a sweep removes the rest
ALTER TABLE account ALTER COLUMN encrypted_profile SET STORAGE EXTERNAL;
CREATE INDEX account_deleted ON account (deleted_at) WHERE deleted_at IS NOT NULL;

-- Whose a number is; in the slot of the number. Not confirmed: the account may not say the same.
CREATE TABLE phone_number (
    number_hash bytea PRIMARY KEY,
    slot smallint NOT NULL,
    user_id bytea NOT NULL,
    confirmed boolean NOT NULL DEFAULT false,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX phone_number_slot ON phone_number (slot);
CREATE INDEX phone_number_unconfirmed ON phone_number (changed_at) WHERE NOT confirmed;

-- The one code of a number that counts; in the slot of the number.
CREATE TABLE registration_code (
    number_hash bytea PRIMARY KEY,
    slot smallint NOT NULL,
    salt bytea NOT NULL,
    code_hash bytea NOT NULL,
    tries smallint NOT NULL DEFAULT 0,
    used_by bytea,  -- the device key it was used for, which may use it again
    expires_at timestamptz NOT NULL,
    next_at timestamptz NOT NULL,  -- when another may be asked for
    counted_from timestamptz NOT NULL,
    count smallint NOT NULL  -- of codes since then
);
CREATE INDEX registration_code_slot ON registration_code (slot);
CREATE INDEX registration_code_counted ON registration_code (counted_from);

-- Whom an account has blocked; in the slot of the account.
CREATE TABLE block (
    user_id bytea NOT NULL,
    blocked_id bytea NOT NULL,
    PRIMARY KEY (user_id, blocked_id)
);
CREATE INDEX block_blocked ON block (blocked_id);

-- Until when a conversation does not notify; in the slot of the account.
CREATE TABLE mute (
    user_id bytea NOT NULL,
    conversation_id bytea NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (user_id, conversation_id)
);

-- For the end of an account: its chats are on the shards of their home users.
CREATE INDEX conversation_lower ON conversation (lower_user);
CREATE INDEX conversation_higher ON conversation (higher_user);

-- Whether a direct message of the sender is kept from the user. For where the copy is written: on the user's shard.
CREATE FUNCTION is_blocked(p_user bytea, p_sender bytea) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM block b WHERE b.user_id = p_user AND b.blocked_id = p_sender;
    RETURN FOUND;
END $$;

----------------------------------------------------------------------------------------------------------------------------------
-- Registration

-- As make_account, with the device's keys. Outcome 1 or 31.
CREATE FUNCTION make_account_with_keys(p_slot smallint, p_user bytea, p_handle text, p_public_key bytea, p_identity bytea,
    p_registration integer, p_signed_id bigint, p_signed bytea, p_signed_sig bytea, p_last_id bigint, p_last bytea, p_last_sig bytea)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_outcome smallint := make_account(p_slot, p_user, p_handle, p_registration, p_public_key, true);
BEGIN
    IF v_outcome <> 1 THEN
        RETURN v_outcome;
    END IF;
    RETURN put_device_keys(p_user, 1::smallint, p_identity, p_registration, p_signed_id, p_signed, p_signed_sig, p_last_id, p_last,
        p_last_sig);
END $$;

-- What registering an account again depends on. Outcome 1; 6 if it is gone or was never a person's.
CREATE FUNCTION registered(p_slot smallint, p_user bytea, OUT outcome smallint, OUT handle text, OUT number_hash bytea,
    OUT public_key bytea)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    SELECT 1, a.handle, a.number_hash, d.public_key INTO outcome, handle, number_hash, public_key
    FROM account a JOIN device d ON d.user_id = a.user_id AND d.device_id = 1 AND d.linked AND d.has_queue
    WHERE a.user_id = p_user AND a.deleted_at IS NULL;
    outcome := coalesce(outcome, 6);
END $$;

-- Gives an account another primary device, or its primary other keys. What was encrypted for the old ones goes with them, and so do
-- linked devices, whose keys are signed by the old identity. The same again changes nothing. Outcome 1, 6 or 31, and the devices whose
-- sessions end, those below an epoch.
CREATE FUNCTION register_again(p_slot smallint, p_user bytea, p_public_key bytea, p_registration integer, p_identity bytea,
    p_signed_id bigint, p_signed bytea, p_signed_sig bytea, p_last_id bigint, p_last bytea, p_last_sig bytea,
    OUT outcome smallint, OUT devices smallint[], OUT epochs bigint[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_identity bytea;
    v_same_device boolean;
    v_device smallint;
BEGIN
    devices := '{}';
    epochs := '{}';
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    SELECT a.identity_key INTO v_identity FROM account a WHERE a.user_id = p_user AND a.deleted_at IS NULL FOR UPDATE;
    SELECT d.public_key = p_public_key INTO v_same_device FROM device d WHERE d.user_id = p_user AND d.device_id = 1 FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 6;
        RETURN;
    END IF;
    IF NOT v_same_device OR v_identity <> p_identity THEN
        FOR v_device IN SELECT d.device_id FROM device d WHERE d.user_id = p_user AND d.linked
                AND (d.device_id > 1 OR NOT v_same_device) ORDER BY d.device_id LOOP
            devices := devices || v_device;
            epochs := epochs || remove_device(p_user, v_device);
        END LOOP;
        DELETE FROM link_token t WHERE t.user_id = p_user;
    END IF;
    outcome := 1;
    IF NOT v_same_device THEN
        UPDATE device d SET linked = true, public_key = p_public_key, registration_id = p_registration, linked_at = clock_timestamp()
        WHERE d.user_id = p_user AND d.device_id = 1;
        IF p_identity IS NULL THEN
            UPDATE account a SET identity_key = NULL WHERE a.user_id = p_user;
        END IF;
    END IF;
    IF p_identity IS NOT NULL THEN
        outcome := put_device_keys(p_user, 1::smallint, p_identity, p_registration, p_signed_id, p_signed, p_signed_sig, p_last_id,
            p_last, p_last_sig);
    END IF;
END $$;

----------------------------------------------------------------------------------------------------------------------------------
-- Codes

-- Stores the number's next code. Outcome 1, or 50 with next_at.
CREATE FUNCTION new_code(p_slot smallint, p_hash bytea, p_salt bytea, p_code bytea, p_lifetime interval, p_pause interval,
    p_most_a_day integer, OUT outcome smallint, OUT expires_at timestamptz, OUT next_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_day_ago timestamptz := v_now - interval '1 day';
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    outcome := 1;
    INSERT INTO registration_code AS c (number_hash, slot, salt, code_hash, expires_at, next_at, counted_from, count)
    VALUES (p_hash, p_slot, p_salt, p_code, v_now + p_lifetime, v_now + p_pause, v_now, 1)
    ON CONFLICT (number_hash) DO UPDATE SET salt = excluded.salt, code_hash = excluded.code_hash, tries = 0, used_by = NULL,
        expires_at = excluded.expires_at, next_at = excluded.next_at,
        counted_from = CASE WHEN c.counted_from <= v_day_ago THEN v_now ELSE c.counted_from END,
        count = CASE WHEN c.counted_from <= v_day_ago THEN 1 ELSE c.count + 1 END
    WHERE c.next_at <= v_now AND (c.count < p_most_a_day OR c.counted_from <= v_day_ago)
    RETURNING c.expires_at, c.next_at INTO expires_at, next_at;
    IF NOT FOUND THEN
        outcome := 50;
        SELECT CASE WHEN c.count < p_most_a_day THEN c.next_at ELSE c.counted_from + interval '1 day' END INTO next_at
        FROM registration_code c WHERE c.number_hash = p_hash;
    END IF;
END $$;

-- Lets another code be asked for at once, because this one could not be sent. Outcome 1.
CREATE FUNCTION forget_code(p_slot smallint, p_hash bytea, p_code bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    UPDATE registration_code c SET next_at = clock_timestamp(), expires_at = clock_timestamp(), count = c.count - 1
    WHERE c.number_hash = p_hash AND c.code_hash = p_code;
    RETURN 1;
END $$;

-- What a code is compared with; it costs a try, before anybody knows the result. Outcome 1 or 51.
CREATE FUNCTION try_code(p_slot smallint, p_hash bytea, p_tries integer, OUT outcome smallint, OUT salt bytea, OUT code_hash bytea)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    UPDATE registration_code c SET tries = c.tries + 1
    WHERE c.number_hash = p_hash AND c.tries < p_tries AND c.expires_at > clock_timestamp()
    RETURNING 1, c.salt, c.code_hash INTO outcome, salt, code_hash;
    outcome := coalesce(outcome, 51);
END $$;

-- Uses the code up for a device's key, which gets its try back. Outcome 1 or 51.
CREATE FUNCTION use_code(p_slot smallint, p_hash bytea, p_code bytea, p_key bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    UPDATE registration_code c SET used_by = p_key, tries = c.tries - 1
    WHERE c.number_hash = p_hash AND c.code_hash = p_code AND c.expires_at > clock_timestamp()
        AND (c.used_by IS NULL OR c.used_by = p_key);
    RETURN CASE WHEN FOUND THEN 1 ELSE 51 END;
END $$;

-- Removes codes that neither count nor are counted any more.
CREATE FUNCTION remove_old_codes() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    DELETE FROM registration_code c USING slot s
    WHERE c.counted_from < clock_timestamp() - interval '1 day' AND c.expires_at < clock_timestamp() AND s.slot = c.slot AND s.state = 1;
END $$;

----------------------------------------------------------------------------------------------------------------------------------
-- Numbers

-- Gives a number to the account that asks first. Outcome 1 and the account that has it.
CREATE FUNCTION claim_number(p_slot smallint, p_hash bytea, p_user bytea, OUT outcome smallint, OUT user_id bytea)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    INSERT INTO phone_number (number_hash, slot, user_id) VALUES (p_hash, p_slot, p_user) ON CONFLICT DO NOTHING;
    outcome := 1;
    SELECT n.user_id INTO user_id FROM phone_number n WHERE n.number_hash = p_hash;
END $$;

-- Notes whether the account is known to say that the number is its own. Outcome 1.
CREATE FUNCTION mark_number(p_slot smallint, p_hash bytea, p_user bytea, p_confirmed boolean) RETURNS smallint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    UPDATE phone_number n SET confirmed = p_confirmed, changed_at = clock_timestamp()
    WHERE n.number_hash = p_hash AND n.user_id = p_user;
    RETURN 1;
END $$;

-- Frees the number if it is this account's. Outcome 1.
CREATE FUNCTION release_number(p_slot smallint, p_hash bytea, p_user bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    DELETE FROM phone_number n WHERE n.number_hash = p_hash AND n.user_id = p_user;
    RETURN 1;
END $$;

-- The account says that the number is its own. Outcome 1 and the number before, or 6. After a change nothing is opened by the one-time
-- keys that were there before it.
CREATE FUNCTION set_number(p_slot smallint, p_user bytea, p_hash bytea, OUT outcome smallint, OUT before bytea)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    SELECT 1, a.number_hash INTO outcome, before FROM account a WHERE a.user_id = p_user AND a.deleted_at IS NULL FOR UPDATE;
    UPDATE account a SET number_hash = p_hash WHERE outcome = 1 AND a.user_id = p_user;
    IF before <> p_hash THEN
        PERFORM clear_prekeys(p_user, d.device_id) FROM device d WHERE d.user_id = p_user;
    END IF;
    outcome := coalesce(outcome, 6);
END $$;

-- Numbers whose accounts are not known to say the same although some time has passed, oldest first.
CREATE FUNCTION unconfirmed_numbers(p_age interval, p_limit integer) RETURNS TABLE (number_hash bytea, user_id bytea)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
        SELECT n.number_hash, n.user_id FROM phone_number n JOIN slot s ON s.slot = n.slot AND s.state = 1
        WHERE NOT n.confirmed AND n.changed_at < clock_timestamp() - p_age ORDER BY n.changed_at LIMIT p_limit;
END $$;

----------------------------------------------------------------------------------------------------------------------------------
-- The registration lock

-- Sets the PIN's hash, or removes it (NULL). Outcome 1 or 31.
CREATE FUNCTION set_lock(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_salt bytea, p_lock bytea)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    ELSIF NOT is_caller(p_user, p_device, p_credential) THEN
        RETURN 31;
    END IF;
    UPDATE account a SET lock_salt = p_salt, lock_hash = p_lock, lock_tries = 0 WHERE a.user_id = p_user;
    RETURN 1;
END $$;

-- What a PIN is compared with, NULL if there is no lock. With p_costs it costs a try, before anybody knows the result; after p_tries
-- there is none for a day. Outcome 1, 6, or 52 with retry_at.
CREATE FUNCTION try_lock(p_slot smallint, p_user bytea, p_costs boolean, p_tries integer,
    OUT outcome smallint, OUT salt bytea, OUT lock_hash bytea, OUT retry_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_tries smallint;
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    SELECT 1, a.lock_salt, a.lock_hash, CASE WHEN a.lock_tried_at > v_now - interval '1 day' THEN a.lock_tries ELSE 0 END,
        a.lock_tried_at + interval '1 day'
    INTO outcome, salt, lock_hash, v_tries, retry_at FROM account a WHERE a.user_id = p_user AND a.deleted_at IS NULL FOR UPDATE;
    outcome := coalesce(outcome, 6);
    IF lock_hash IS NOT NULL AND p_costs THEN
        IF v_tries >= p_tries THEN
            outcome := 52;
        ELSE
            UPDATE account a SET lock_tries = v_tries + 1, lock_tried_at = v_now WHERE a.user_id = p_user;
        END IF;
    END IF;
END $$;

-- The PIN was right: gives all tries back. Outcome 1.
CREATE FUNCTION pass_lock(p_slot smallint, p_user bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    UPDATE account a SET lock_tries = 0 WHERE a.user_id = p_user;
    RETURN 1;
END $$;

----------------------------------------------------------------------------------------------------------------------------------
-- Who finds whom

-- Whose these numbers are; NULL where nobody's.
CREATE FUNCTION find_numbers(p_slots smallint[], p_slot smallint[], p_hash bytea[])
RETURNS TABLE (item integer, outcome smallint, user_id bytea) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        user_id := NULL;
        IF p_slot[i] = ANY (v_owned) THEN
            outcome := 1;
            SELECT n.user_id INTO user_id FROM phone_number n WHERE n.number_hash = p_hash[i];
        ELSE
            outcome := slot_outcome(p_slot[i]);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Who may find these accounts by their handles (p_hash is NULL) or by these numbers: 1 everyone, 2 contacts, 3 nobody. 3 also for whoever is
-- blocked, and where there is no such account.
CREATE FUNCTION audiences(p_slots smallint[], p_slot smallint[], p_user bytea[], p_hash bytea[], p_caller bytea)
RETURNS TABLE (item integer, outcome smallint, audience smallint) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    v_blocked boolean;
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        audience := NULL;
        IF p_slot[i] = ANY (v_owned) THEN
            outcome := 1;
            v_blocked := is_blocked(p_user[i], p_caller);
            SELECT CASE WHEN v_blocked OR a.deleted_at IS NOT NULL THEN 3 WHEN p_hash[i] IS NULL THEN a.findable_by_handle
                WHEN a.number_hash = p_hash[i] THEN a.findable_by_number ELSE 3 END
            INTO audience FROM account a WHERE a.user_id = p_user[i];
            audience := coalesce(audience, 3);
        ELSE
            outcome := slot_outcome(p_slot[i]);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Whether these users have ever sent to these conversations.
CREATE FUNCTION have_sent(p_slots smallint[], p_slot smallint[], p_conversation bytea[], p_user bytea[])
RETURNS TABLE (item integer, outcome smallint, sent boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        IF p_slot[i] = ANY (v_owned) THEN
            outcome := 1;
            PERFORM FROM conversation c WHERE c.conversation_id = p_conversation[i]
                AND CASE WHEN c.lower_user = p_user[i] THEN c.lower_sent ELSE c.higher_sent END > 0;
            sent := FOUND;
        ELSE
            outcome := slot_outcome(p_slot[i]);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

----------------------------------------------------------------------------------------------------------------------------------
-- What a person decides. Each: outcome 1, or 31 if the caller's credential is worth nothing any more.

CREATE FUNCTION set_profile(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_profile bytea)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    ELSIF NOT is_caller(p_user, p_device, p_credential) THEN
        RETURN 31;
    END IF;
    UPDATE account a SET encrypted_profile = p_profile WHERE a.user_id = p_user;
    RETURN 1;
END $$;

-- The profile, or NULL if the reader is blocked or there is none.
CREATE FUNCTION get_profile(p_slot smallint, p_user bytea, p_reader bytea, OUT outcome smallint, OUT profile bytea)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    outcome := 1;
    SELECT a.encrypted_profile INTO profile FROM account a
    WHERE a.user_id = p_user AND a.deleted_at IS NULL AND NOT is_blocked(p_user, p_reader);
END $$;

-- NULL leaves a choice as it is.
CREATE FUNCTION set_privacy(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_by_handle smallint,
    p_by_number smallint)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    ELSIF NOT is_caller(p_user, p_device, p_credential) THEN
        RETURN 31;
    END IF;
    UPDATE account a SET findable_by_handle = coalesce(p_by_handle, a.findable_by_handle),
        findable_by_number = coalesce(p_by_number, a.findable_by_number)
    WHERE a.user_id = p_user;
    RETURN 1;
END $$;

-- Blocks or unblocks. Outcome 53 if p_most are blocked.
CREATE FUNCTION set_block(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_other bytea, p_blocked boolean,
    p_most integer)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    ELSIF NOT is_caller(p_user, p_device, p_credential) THEN
        RETURN 31;
    ELSIF NOT p_blocked THEN
        DELETE FROM block b WHERE b.user_id = p_user AND b.blocked_id = p_other;
    ELSIF (SELECT count(*) FROM block b WHERE b.user_id = p_user AND b.blocked_id <> p_other) >= p_most THEN
        RETURN 53;
    ELSE
        INSERT INTO block (user_id, blocked_id) VALUES (p_user, p_other) ON CONFLICT DO NOTHING;
    END IF;
    RETURN 1;
END $$;

CREATE FUNCTION list_blocked(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, OUT outcome smallint,
    OUT blocked bytea[])
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
    ELSIF NOT is_caller(p_user, p_device, p_credential) THEN
        outcome := 31;
    ELSE
        outcome := 1;
        SELECT array_agg(b.blocked_id ORDER BY b.blocked_id) INTO blocked FROM block b WHERE b.user_id = p_user;
    END IF;
END $$;

-- p_until NULL ends the silence. Outcome 53 if p_most conversations are silent.
CREATE FUNCTION set_mute(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_conversation bytea,
    p_until timestamptz, p_most integer)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    ELSIF NOT is_caller(p_user, p_device, p_credential) THEN
        RETURN 31;
    END IF;
    DELETE FROM mute m WHERE m.user_id = p_user AND (m.conversation_id = p_conversation OR m.until < clock_timestamp());
    IF p_until IS NULL THEN
        RETURN 1;
    ELSIF (SELECT count(*) FROM mute m WHERE m.user_id = p_user) >= p_most THEN
        RETURN 53;
    END IF;
    INSERT INTO mute (user_id, conversation_id, until) VALUES (p_user, p_conversation, p_until)
    ON CONFLICT (user_id, conversation_id) DO UPDATE SET until = excluded.until;
    RETURN 1;
END $$;

----------------------------------------------------------------------------------------------------------------------------------
-- The end of an account

-- From now on it is gone for everybody. Outcome 1 or 31, and the devices whose sessions end, those below an epoch.
CREATE FUNCTION begin_deletion(p_slot smallint, p_user bytea, p_device smallint, p_credential integer,
    OUT outcome smallint, OUT devices smallint[], OUT epochs bigint[])
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    ELSIF NOT is_caller(p_user, p_device, p_credential) THEN
        outcome := 31;
        RETURN;
    END IF;
    UPDATE account a SET deleted_at = clock_timestamp() WHERE a.user_id = p_user;
    WITH ended AS (
        UPDATE device d SET linked = false, credential_version = d.credential_version + 1, epoch = d.epoch + 1
        WHERE d.user_id = p_user AND d.linked RETURNING d.device_id, d.epoch)
    SELECT 1, array_agg(e.device_id), array_agg(e.epoch) INTO outcome, devices, epochs FROM ended e;
END $$;

-- Accounts on this shard whose end has begun, oldest first; but not while receipts of theirs are on their way.
CREATE FUNCTION deleted_accounts(p_age interval, p_limit integer) RETURNS TABLE (user_id bytea, handle text, number_hash bytea)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
        SELECT a.user_id, a.handle, a.number_hash FROM account a JOIN slot s ON s.slot = a.slot AND s.state = 1
        WHERE a.deleted_at <= clock_timestamp() - p_age
            AND NOT EXISTS (SELECT FROM receipt_outbox o WHERE o.peer_id = a.user_id)
        ORDER BY a.deleted_at LIMIT p_limit;
END $$;

-- Removes the code of a number. Outcome 1.
CREATE FUNCTION remove_code(p_slot smallint, p_hash bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    DELETE FROM registration_code c WHERE c.number_hash = p_hash;
    RETURN 1;
END $$;

-- The chats of a user that have their home on this shard. is_pending: a copy that was promised is still on its way to the peer.
CREATE FUNCTION conversations_of(p_user bytea, p_limit integer)
RETURNS TABLE (conversation_id bytea, slot smallint, peer_id bytea, is_pending boolean) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
        SELECT c.conversation_id, c.slot, CASE WHEN c.lower_user = p_user THEN c.higher_user ELSE c.lower_user END,
            EXISTS (SELECT FROM copy_outbox o WHERE o.conversation_id = c.conversation_id AND o.user_id <> p_user)
        FROM conversation c JOIN slot s ON s.slot = c.slot AND s.state = 1
        WHERE c.lower_user = p_user OR c.higher_user = p_user
        ORDER BY 4 LIMIT p_limit;
END $$;

-- What a peer has because of the chat. Outcome 1.
CREATE FUNCTION forget_thread(p_slot smallint, p_peer bytea, p_conversation bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    DELETE FROM thread t WHERE t.user_id = p_peer AND t.conversation_id = p_conversation;
    DELETE FROM receipt r WHERE r.user_id = p_peer AND r.conversation_id = p_conversation;
    DELETE FROM mute m WHERE m.user_id = p_peer AND m.conversation_id = p_conversation;
    RETURN 1;
END $$;

-- The chat itself and what is known of its sends. Outcome 1.
CREATE FUNCTION forget_conversation(p_slot smallint, p_conversation bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    PERFORM FROM conversation c WHERE c.conversation_id = p_conversation FOR UPDATE;
    FOR day IN 0..9 LOOP
        EXECUTE format('DELETE FROM dedup_%s WHERE conversation_id = $1', day) USING p_conversation;
    END LOOP;
    DELETE FROM copy_outbox o WHERE o.conversation_id = p_conversation;
    DELETE FROM conversation c WHERE c.conversation_id = p_conversation;
    RETURN 1;
END $$;

-- Ends all blocks of a user by others on this shard.
CREATE FUNCTION forget_blocks(p_user bytea) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    DELETE FROM block b USING account a, slot s
    WHERE b.blocked_id = p_user AND a.user_id = b.user_id AND s.slot = a.slot AND s.state = 1;
END $$;

-- As in 0002_functions.sql, but an account whose end has begun is gone, and one that is being removed lets nobody in.
CREATE OR REPLACE FUNCTION advance_thread(p_user bytea, p_conversation bytea, p_prev bigint, p_seq bigint)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_fanned bigint;
BEGIN
    SELECT t.fanned_seq INTO v_fanned FROM thread t
    WHERE t.user_id = p_user AND t.conversation_id = p_conversation FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM FROM account a WHERE a.user_id = p_user AND a.deleted_at IS NULL FOR KEY SHARE;
        IF NOT FOUND THEN
            RETURN 6;
        END IF;
        INSERT INTO thread (user_id, conversation_id) VALUES (p_user, p_conversation) ON CONFLICT DO NOTHING;
        RETURN advance_thread(p_user, p_conversation, p_prev, p_seq);
    END IF;
    IF v_fanned >= p_seq THEN
        RETURN 3;
    ELSIF v_fanned <> p_prev THEN
        RETURN 4;
    ELSIF queue_full(p_user) THEN
        RETURN 5;
    END IF;
    UPDATE thread t SET fanned_seq = p_seq WHERE t.user_id = p_user AND t.conversation_id = p_conversation;
    RETURN 1;
END $$;

-- As in 0002_functions.sql, but an account whose end has begun does not exist.
CREATE OR REPLACE FUNCTION accounts_exist(p_slots smallint[], p_slot smallint[], p_user bytea[])
RETURNS TABLE (item integer, outcome smallint) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            PERFORM FROM account a WHERE a.user_id = p_user[i] AND a.deleted_at IS NULL;
            outcome := CASE WHEN FOUND THEN 1 ELSE 6 END;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
