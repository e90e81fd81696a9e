-- What svc_message asks about channels. The rules and the outcomes are those of 0002_functions.sql and, for credentials, 0005_devices.sql.
--
-- Outcomes beside those: 80 no such channel, or not any more; 81 the role is too low; 82 another link key; 83 another key version;
-- 84 the post's name was given to another body; 85 as many as may be; 86 no such subscription.

----------------------------------------------------------------------------------------------------------------------------------
-- In the slot of the channel

-- What somebody is to a channel, whose row stays locked if p_locks: 3 its owner, 2 an admin, 1 anybody. Outcome 1, 10, 11 or 80.
CREATE FUNCTION channel_role(p_slot smallint, p_channel bytea, p_caller bytea, p_locks boolean, OUT outcome smallint, OUT role smallint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owner bytea;
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    IF p_locks THEN
        SELECT c.owner_id INTO v_owner FROM channel c WHERE c.channel_id = p_channel AND NOT c.is_deleted FOR UPDATE;
    ELSE
        SELECT c.owner_id INTO v_owner FROM channel c WHERE c.channel_id = p_channel AND NOT c.is_deleted;
    END IF;
    IF NOT FOUND THEN
        outcome := 80;
        RETURN;
    END IF;
    outcome := 1;
    role := CASE
        WHEN v_owner = p_caller THEN 3
        WHEN EXISTS (SELECT FROM channel_admin a WHERE a.channel_id = p_channel AND a.user_id = p_caller) THEN 2
        ELSE 1 END;
END $$;

-- Makes a channel, unless it was made before. Outcome 1, 10 or 11.
CREATE FUNCTION create_channel(p_slot smallint, p_channel bytea, p_owner bytea, p_attributes bytea, p_retention interval, p_link_hash bytea)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    INSERT INTO channel (channel_id, slot, owner_id, attributes, link_hash, retention)
    VALUES (p_channel, p_slot, p_owner, p_attributes, p_link_hash, p_retention) ON CONFLICT DO NOTHING;
    RETURN 1;
END $$;

-- The oldest seq of a channel that is kept and has not expired; one above the head if none is.
CREATE FUNCTION oldest_post(p_channel bytea, p_head bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT coalesce((SELECT p.seq FROM channel_post p WHERE p.channel_id = p_channel AND p.expires_at > clock_timestamp()
        ORDER BY p.seq LIMIT 1), p_head + 1)
$$;

-- A channel as it stands, and what the caller is to it. Outcome 1, 10, 11 or 80.
CREATE FUNCTION read_channel(p_slot smallint, p_channel bytea, p_caller bytea,
    OUT outcome smallint, OUT role smallint, OUT attributes bytea, OUT key_version integer, OUT link_hash bytea, OUT retention interval,
    OUT head_seq bigint, OUT oldest_seq bigint, OUT subscribers bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT r.outcome, r.role INTO outcome, role FROM channel_role(p_slot, p_channel, p_caller, false) AS r;
    IF outcome <> 1 THEN
        RETURN;
    END IF;
    SELECT c.attributes, c.key_version, c.link_hash, c.retention, c.head_seq, oldest_post(p_channel, c.head_seq), c.subscribers
    INTO attributes, key_version, link_hash, retention, head_seq, oldest_seq, subscribers
    FROM channel c WHERE c.channel_id = p_channel;
END $$;

-- Where a channel stands for its readers. Outcome 1, 10, 11 or 80.
CREATE FUNCTION channel_standing(p_slot smallint, p_channel bytea, OUT outcome smallint, OUT head_seq bigint, OUT oldest_seq bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    SELECT 1, c.head_seq, oldest_post(p_channel, c.head_seq) INTO outcome, head_seq, oldest_seq
    FROM channel c WHERE c.channel_id = p_channel AND NOT c.is_deleted;
    outcome := coalesce(outcome, 80);
END $$;

-- Posts from p_first to p_last, ascending; it stops after the one that reaches p_bytes. Outcome of each row 1, or one row with 10 or 11.
CREATE FUNCTION read_posts(p_slot smallint, p_channel bytea, p_first bigint, p_last bigint, p_bytes integer)
RETURNS TABLE (outcome smallint, seq bigint, post_id bytea, key_version integer, posted_at timestamptz, ciphertext bytea)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_bytes integer := 0;
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN NEXT;
        RETURN;
    END IF;
    outcome := 1;
    FOR seq, post_id, key_version, posted_at, ciphertext IN
            SELECT p.seq, p.post_id, p.key_version, p.posted_at, p.ciphertext FROM channel_post p
            WHERE p.channel_id = p_channel AND p.seq BETWEEN p_first AND p_last ORDER BY p.seq LOOP
        RETURN NEXT;
        v_bytes := v_bytes + octet_length(ciphertext);
        EXIT WHEN v_bytes >= p_bytes;
    END LOOP;
END $$;

-- Posts, once under a name; of a channel's posts the last p_most stay. Nothing here reads who subscribes. Outcome 1, 10, 11, 80, 81, 83 or
-- 84; with 83 key_version is the channel's.
CREATE FUNCTION create_post(p_slot smallint, p_channel bytea, p_caller bytea, p_post bytea, p_key_version integer, p_ciphertext bytea,
    p_most integer, OUT outcome smallint, OUT seq bigint, OUT posted_at timestamptz, OUT key_version integer)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_role smallint;
    v_ciphertext bytea;
    v_retention interval;
BEGIN
    SELECT r.outcome, r.role INTO outcome, v_role FROM channel_role(p_slot, p_channel, p_caller, true) AS r;
    IF outcome = 1 AND v_role < 2 THEN
        outcome := 81;
    END IF;
    IF outcome <> 1 THEN
        RETURN;
    END IF;
    SELECT p.seq, p.posted_at, p.ciphertext INTO seq, posted_at, v_ciphertext
    FROM channel_post p WHERE p.channel_id = p_channel AND p.post_id = p_post;
    IF FOUND THEN
        outcome := CASE WHEN v_ciphertext = p_ciphertext THEN 1 ELSE 84 END;
        RETURN;
    END IF;
    SELECT c.key_version, c.head_seq + 1, greatest(c.last_posted_at, clock_timestamp()), c.retention
    INTO key_version, seq, posted_at, v_retention FROM channel c WHERE c.channel_id = p_channel;
    IF key_version <> p_key_version THEN
        outcome := 83;
        RETURN;
    END IF;
    INSERT INTO channel_post VALUES (p_channel, seq, p_post, p_key_version, posted_at, posted_at + v_retention, p_ciphertext);
    DELETE FROM channel_post p WHERE p.channel_id = p_channel AND p.seq = create_post.seq - p_most;
    UPDATE channel c SET head_seq = create_post.seq, last_posted_at = create_post.posted_at WHERE c.channel_id = p_channel;
END $$;

-- Changes what is not NULL: the attributes, which takes an admin and the key version; for how long posts are kept; or, with another link
-- hash, the key. Outcome 1, 10, 11, 80, 81 or 83; with 83 key_version is the channel's.
CREATE FUNCTION change_channel(p_slot smallint, p_channel bytea, p_caller bytea, p_attributes bytea, p_key_version integer,
    p_retention interval, p_link_hash bytea, OUT outcome smallint, OUT key_version integer)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_role smallint;
    v_link_hash bytea;
BEGIN
    SELECT r.outcome, r.role INTO outcome, v_role FROM channel_role(p_slot, p_channel, p_caller, true) AS r;
    IF outcome = 1 AND v_role < (CASE WHEN p_retention IS NULL AND p_link_hash IS NULL THEN 2 ELSE 3 END) THEN
        outcome := 81;
    END IF;
    IF outcome <> 1 THEN
        RETURN;
    END IF;
    SELECT c.key_version, c.link_hash INTO key_version, v_link_hash FROM channel c WHERE c.channel_id = p_channel;
    IF p_link_hash = v_link_hash THEN
        RETURN;
    ELSIF p_link_hash IS NULL AND p_attributes IS NOT NULL AND p_key_version <> key_version THEN
        outcome := 83;
        RETURN;
    END IF;
    UPDATE channel c SET attributes = coalesce(p_attributes, c.attributes), retention = coalesce(p_retention, c.retention),
        link_hash = coalesce(p_link_hash, c.link_hash),
        key_version = c.key_version + CASE WHEN p_link_hash IS NULL THEN 0 ELSE 1 END
    WHERE c.channel_id = p_channel;
    UPDATE channel_post p SET expires_at = p.posted_at + p_retention WHERE p.channel_id = p_channel AND p_retention IS NOT NULL;
END $$;

-- Lets an account post, or not any more. Outcome 1, 10, 11, 80, 81 or 85.
CREATE FUNCTION set_channel_admin(p_slot smallint, p_channel bytea, p_caller bytea, p_user bytea, p_is_admin boolean, p_most integer)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_outcome smallint;
    v_role smallint;
BEGIN
    SELECT r.outcome, r.role INTO v_outcome, v_role FROM channel_role(p_slot, p_channel, p_caller, true) AS r;
    IF v_outcome <> 1 THEN
        RETURN v_outcome;
    ELSIF v_role < 3 THEN
        RETURN 81;
    ELSIF NOT p_is_admin THEN
        DELETE FROM channel_admin a WHERE a.channel_id = p_channel AND a.user_id = p_user;
    ELSIF p_user <> p_caller THEN
        INSERT INTO channel_admin VALUES (p_channel, p_user) ON CONFLICT DO NOTHING;
        IF (SELECT count(*) FROM channel_admin a WHERE a.channel_id = p_channel) > p_most THEN
            DELETE FROM channel_admin a WHERE a.channel_id = p_channel AND a.user_id = p_user;
            RETURN 85;
        END IF;
    END IF;
    RETURN 1;
END $$;

-- Ends a channel; the sweep removes its posts. Outcome 1, 10, 11, 80 or 81.
CREATE FUNCTION delete_channel(p_slot smallint, p_channel bytea, p_caller bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_outcome smallint;
    v_role smallint;
BEGIN
    SELECT r.outcome, r.role INTO v_outcome, v_role FROM channel_role(p_slot, p_channel, p_caller, true) AS r;
    IF v_outcome <> 1 THEN
        RETURN v_outcome;
    ELSIF v_role < 3 THEN
        RETURN 81;
    END IF;
    UPDATE channel c SET is_deleted = true, attributes = '', subscribers = 0 WHERE c.channel_id = p_channel;
    DELETE FROM channel_admin a WHERE a.channel_id = p_channel;
    UPDATE channel_post p SET expires_at = '-infinity' WHERE p.channel_id = p_channel;
    RETURN 1;
END $$;

-- Counts subscribers that came and went. Outcome 1, 10 or 11.
CREATE FUNCTION count_subscribers(p_slot smallint, p_channel bytea, p_change integer) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    UPDATE channel c SET subscribers = greatest(0, c.subscribers + p_change) WHERE c.channel_id = p_channel AND NOT c.is_deleted;
    RETURN 1;
END $$;

-- Forgets up to p_limit posts whose time is over; how many.
CREATE FUNCTION forget_posts(p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count integer;
BEGIN
    DELETE FROM channel_post t WHERE t.ctid = ANY (ARRAY(
        SELECT p.ctid FROM channel_post p JOIN channel c ON c.channel_id = p.channel_id JOIN slot s ON s.slot = c.slot AND s.state = 1
        WHERE p.expires_at <= clock_timestamp() LIMIT p_limit));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

----------------------------------------------------------------------------------------------------------------------------------
-- In the slot of the subscriber

-- Subscribes an account, or changes the sealed key of its subscription. Outcome 1, 10, 11 or 85; is_new if it did not subscribe before.
CREATE FUNCTION subscribe(p_slot smallint, p_user bytea, p_channel bytea, p_cursor bigint, p_sealed_key bytea, p_most integer,
    OUT outcome smallint, OUT is_new boolean)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    is_new := false;
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    outcome := 1;
    PERFORM FROM account a WHERE a.user_id = p_user FOR UPDATE;  -- one at a time, for the count's sake
    UPDATE subscription s SET sealed_key = p_sealed_key WHERE s.user_id = p_user AND s.channel_id = p_channel;
    IF FOUND THEN
        RETURN;
    END IF;
    IF (SELECT count(*) FROM subscription s WHERE s.user_id = p_user) >= p_most THEN
        outcome := 85;
        RETURN;
    END IF;
    INSERT INTO subscription VALUES (p_user, p_channel, p_cursor, p_sealed_key);
    is_new := true;
END $$;

-- Ends a subscription. Outcome 1, 10 or 11; was_there if there was one.
CREATE FUNCTION unsubscribe(p_slot smallint, p_user bytea, p_channel bytea, OUT outcome smallint, OUT was_there boolean)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    outcome := 1;
    DELETE FROM subscription s WHERE s.user_id = p_user AND s.channel_id = p_channel;
    was_there := FOUND;
END $$;

-- An account's subscriptions, by channel. Rows: one each, or one with the outcome 10, 11 or 31.
CREATE FUNCTION list_subscriptions(p_slot smallint, p_user bytea, p_device smallint, p_credential integer)
RETURNS TABLE (outcome smallint, channel_id bytea, cursor bigint, sealed_key bytea) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    outcome := check_caller(p_slot, p_user, p_device, p_credential);
    IF outcome <> 1 THEN
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY SELECT 1::smallint, s.channel_id, s.cursor, s.sealed_key FROM subscription s WHERE s.user_id = p_user ORDER BY s.channel_id;
END $$;

-- The cursor of a subscription, for a caller whose credential holds. Outcome 1, 10, 11, 31 or 86.
CREATE FUNCTION read_cursor(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_channel bytea,
    OUT outcome smallint, OUT cursor bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    outcome := check_caller(p_slot, p_user, p_device, p_credential);
    IF outcome <> 1 THEN
        RETURN;
    END IF;
    SELECT s.cursor INTO cursor FROM subscription s WHERE s.user_id = p_user AND s.channel_id = p_channel;
    IF NOT FOUND THEN
        outcome := 86;
    END IF;
END $$;

-- Moves a cursor on, never back; answers where it stands. Outcome 1, 10, 11 or 86.
CREATE FUNCTION move_cursor(p_slot smallint, p_user bytea, p_channel bytea, p_cursor bigint, OUT outcome smallint, OUT cursor bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    UPDATE subscription s SET cursor = greatest(s.cursor, p_cursor) WHERE s.user_id = p_user AND s.channel_id = p_channel
    RETURNING s.cursor INTO cursor;
    outcome := CASE WHEN FOUND THEN 1 ELSE 86 END;
END $$;
