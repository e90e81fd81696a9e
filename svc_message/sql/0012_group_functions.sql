-- What svc_message asks of a group's shard, and how a group's messages get into its members' queues. The rules and the outcomes are
-- those of 0002_functions.sql; a group's row is locked before threads.
--
-- Outcomes beside those: 70 no such group, or no member of it; 71 the role is too low; 72 the revision or the device epoch is behind;
-- 73 it is ahead; 74 decided on another revision.

----------------------------------------------------------------------------------------------------------------------------------
-- Changes

-- A group, and what some people are in it: the role, NULL if they are no members, and whether they are banned. Outcome 1 or 70.
CREATE FUNCTION read_group(p_slot smallint, p_group bytea, p_users bytea[],
    OUT outcome smallint, OUT revision bigint, OUT device_epoch bigint, OUT last_seq bigint, OUT member_count integer,
    OUT send_role smallint, OUT add_role smallint, OUT edit_role smallint, OUT attributes bytea, OUT disappear_after interval,
    OUT link_hash bytea, OUT link_has_password boolean, OUT link_expires_at timestamptz, OUT link_uses_left integer,
    OUT link_needs_approval boolean, OUT roles smallint[], OUT banned boolean[], OUT now timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN;
    END IF;
    SELECT 1, g.revision, g.device_epoch, g.last_seq, g.member_count, g.send_role, p.add_role, p.edit_role, p.attributes,
        p.disappear_after, p.link_hash, p.link_has_password, p.link_expires_at, p.link_uses_left, p.link_needs_approval,
        (SELECT array_agg(m.role ORDER BY u.n) FROM unnest(p_users) WITH ORDINALITY AS u (id, n)
            LEFT JOIN member m ON m.group_id = p_group AND m.user_id = u.id AND m.left_seq IS NULL),
        (SELECT array_agg(b.user_id IS NOT NULL ORDER BY u.n) FROM unnest(p_users) WITH ORDINALITY AS u (id, n)
            LEFT JOIN group_ban b ON b.group_id = p_group AND b.user_id = u.id),
        clock_timestamp()
    INTO outcome, revision, device_epoch, last_seq, member_count, send_role, add_role, edit_role, attributes, disappear_after,
        link_hash, link_has_password, link_expires_at, link_uses_left, link_needs_approval, roles, banned, now
    FROM chat_group g JOIN group_profile p ON p.group_id = g.group_id WHERE g.group_id = p_group;
    outcome := coalesce(outcome, 70);
END $$;

-- Makes a revision that was decided on the one before it; revision 1 makes the group. Whoever leaves and whoever comes does so behind
-- the last message. Outcome 1, or 74 if the group is at another revision by now.
CREATE FUNCTION commit_group(p_slot smallint, p_group bytea, p_revision bigint, p_actor bytea, p_change bytea,
    p_send_role smallint, p_add_role smallint, p_edit_role smallint, p_attributes bytea, p_disappear_after interval,
    p_link_hash bytea, p_has_password boolean, p_expires_at timestamptz, p_uses_left integer, p_needs_approval boolean,
    p_leaving bytea[], p_joining bytea[], p_joining_role smallint[], p_changing bytea[], p_role smallint[], p_banning bytea[],
    p_unbanning bytea[])
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_revision bigint;
    v_last bigint;
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    IF p_revision = 1 THEN
        INSERT INTO chat_group (group_id, slot, revision, member_count, send_role) VALUES (p_group, p_slot, 0, 0, p_send_role)
        ON CONFLICT DO NOTHING;
        INSERT INTO receipt_counter (user_id) VALUES (p_group) ON CONFLICT DO NOTHING;
    END IF;
    SELECT g.revision, g.last_seq INTO v_revision, v_last FROM chat_group g WHERE g.group_id = p_group FOR UPDATE;
    IF v_revision IS DISTINCT FROM p_revision - 1 THEN
        RETURN 74;
    END IF;
    UPDATE member m SET left_seq = v_last
    WHERE m.group_id = p_group AND m.user_id = ANY (p_leaving) AND m.left_seq IS NULL;
    INSERT INTO member (group_id, user_id, joined_revision, joined_seq, prev_seq, role)
    SELECT p_group, j.user_id, p_revision, v_last, coalesce((
            SELECT max(CASE WHEN m.left_seq > m.joined_seq THEN m.left_seq ELSE m.prev_seq END) FROM member m
            WHERE m.group_id = p_group AND m.user_id = j.user_id), 0), j.role
    FROM unnest(p_joining, p_joining_role) AS j (user_id, role);
    UPDATE member m SET role = c.role FROM unnest(p_changing, p_role) AS c (user_id, role)
    WHERE m.group_id = p_group AND m.user_id = c.user_id AND m.left_seq IS NULL;
    INSERT INTO group_ban SELECT p_group, b FROM unnest(p_banning) AS b ON CONFLICT DO NOTHING;
    DELETE FROM group_ban b WHERE b.group_id = p_group AND b.user_id = ANY (p_unbanning);
    DELETE FROM join_request r WHERE r.group_id = p_group AND r.user_id = ANY (p_joining || p_banning);
    INSERT INTO group_profile VALUES (p_group, p_attributes, p_add_role, p_edit_role, p_disappear_after, p_link_hash, p_has_password,
        p_expires_at, p_uses_left, p_needs_approval)
    ON CONFLICT (group_id) DO UPDATE SET attributes = excluded.attributes, add_role = excluded.add_role,
        edit_role = excluded.edit_role, disappear_after = excluded.disappear_after, link_hash = excluded.link_hash,
        link_has_password = excluded.link_has_password, link_expires_at = excluded.link_expires_at,
        link_uses_left = excluded.link_uses_left, link_needs_approval = excluded.link_needs_approval;
    INSERT INTO group_change (group_id, revision, actor_id, change) VALUES (p_group, p_revision, p_actor, p_change);
    UPDATE chat_group g SET revision = p_revision, send_role = p_send_role,
        member_count = g.member_count + cardinality(p_joining) - cardinality(p_leaving)
    WHERE g.group_id = p_group;
    RETURN 1;
END $$;

-- The members of a group, by account, for one of them. Rows: one a member, or one with a NULL user_id and the outcome 10, 11 or 70.
CREATE FUNCTION list_members(p_slot smallint, p_group bytea, p_caller bytea)
RETURNS TABLE (outcome smallint, user_id bytea, role smallint, joined_revision bigint) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    outcome := check_member(p_slot, p_group, p_caller);
    IF outcome <> 1 THEN
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY SELECT 1::smallint, m.user_id, m.role, m.joined_revision FROM member m
        WHERE m.group_id = p_group AND m.left_seq IS NULL ORDER BY m.user_id;
END $$;

-- Whether somebody is a member. Outcome 1 or 70.
CREATE FUNCTION check_member(p_slot smallint, p_group bytea, p_user bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    PERFORM FROM member m WHERE m.group_id = p_group AND m.user_id = p_user AND m.left_seq IS NULL;
    RETURN CASE WHEN FOUND THEN 1 ELSE 70 END;
END $$;

-- What has changed since, for a member, who hears of nothing from before they came. Rows: one with the revision and the device epoch
-- now, then a change each: of the group (change is set) or of a member's devices. Outcome 1 or 70.
CREATE FUNCTION list_changes(p_slot smallint, p_group bytea, p_caller bytea, p_revision bigint, p_epoch bigint, p_limit integer)
RETURNS TABLE (outcome smallint, revision bigint, device_epoch bigint, user_id bytea, changed_at timestamptz, change bytea)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_joined bigint;
BEGIN
    outcome := check_member(p_slot, p_group, p_caller);
    IF outcome <> 1 THEN
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT m.joined_revision INTO v_joined FROM member m
    WHERE m.group_id = p_group AND m.user_id = p_caller AND m.left_seq IS NULL;
    RETURN QUERY SELECT 1::smallint, g.revision, g.device_epoch, NULL::bytea, NULL::timestamptz, NULL::bytea
        FROM chat_group g WHERE g.group_id = p_group;
    RETURN QUERY SELECT 1::smallint, c.revision, NULL::bigint, c.actor_id, c.changed_at, c.change FROM group_change c
        WHERE c.group_id = p_group AND c.revision > greatest(p_revision, v_joined - 1) ORDER BY c.revision LIMIT p_limit;
    RETURN QUERY SELECT 1::smallint, NULL::bigint, d.device_epoch, d.user_id, NULL::timestamptz, NULL::bytea
        FROM group_device_change d WHERE d.group_id = p_group AND d.device_epoch > p_epoch ORDER BY d.device_epoch LIMIT p_limit;
END $$;

-- The groups on this shard of which somebody is a member.
CREATE FUNCTION groups_of(p_user bytea)
RETURNS TABLE (group_id bytea, revision bigint, device_epoch bigint, member_count integer, send_role smallint, add_role smallint,
    edit_role smallint, attributes bytea, disappear_after interval) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
        SELECT g.group_id, g.revision, g.device_epoch, g.member_count, g.send_role, p.add_role, p.edit_role, p.attributes,
            p.disappear_after
        FROM member m JOIN chat_group g ON g.group_id = m.group_id JOIN group_profile p ON p.group_id = g.group_id
        JOIN slot s ON s.slot = g.slot AND s.state = 1
        WHERE m.user_id = p_user AND m.left_seq IS NULL;
END $$;

-- Notes that somebody asks to join. Outcome 1.
CREATE FUNCTION request_join(p_slot smallint, p_group bytea, p_user bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    INSERT INTO join_request (group_id, user_id) VALUES (p_group, p_user) ON CONFLICT DO NOTHING;
    RETURN 1;
END $$;

-- Forgets it. Outcome 1.
CREATE FUNCTION decline_join(p_slot smallint, p_group bytea, p_user bytea) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    END IF;
    DELETE FROM join_request r WHERE r.group_id = p_group AND r.user_id = p_user;
    RETURN 1;
END $$;

-- Who asks to join, the oldest first. Rows: one a request; one with a NULL user_id where the slot is not served.
CREATE FUNCTION join_requests(p_slot smallint, p_group bytea, p_limit integer)
RETURNS TABLE (outcome smallint, user_id bytea, requested_at timestamptz) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY SELECT 1::smallint, r.user_id, r.requested_at FROM join_request r
        WHERE r.group_id = p_group ORDER BY r.requested_at LIMIT p_limit;
END $$;

-- Makes the next device epoch of every group here that the account is a member of; again is harmless. False while one of the shard's slots
-- is on its way: then it is to be called again, since a group of the account may be in it.
CREATE FUNCTION next_device_epochs(p_user bytea) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_group bytea;
    v_epoch bigint;
BEGIN
    PERFORM FROM slot s WHERE s.state IN (2, 3);
    IF FOUND THEN
        RETURN false;
    END IF;
    FOR v_group IN SELECT g.group_id FROM member m JOIN chat_group g ON g.group_id = m.group_id
            JOIN slot s ON s.slot = g.slot AND s.state = 1
            WHERE m.user_id = p_user AND m.left_seq IS NULL ORDER BY g.group_id LOOP
        UPDATE chat_group g SET device_epoch = g.device_epoch + 1 WHERE g.group_id = v_group RETURNING g.device_epoch INTO v_epoch;
        INSERT INTO group_device_change VALUES (v_group, v_epoch, p_user);
    END LOOP;
    RETURN true;
END $$;

CREATE FUNCTION take_device_changes(p_limit integer, p_lease interval)
RETURNS TABLE (entry_id bigint, user_id bytea) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
        WITH taken AS (
            SELECT o.entry_id FROM device_change_outbox o JOIN slot s ON s.slot = o.slot AND s.state = 1
            WHERE o.due <= clock_timestamp() ORDER BY o.entry_id LIMIT p_limit FOR UPDATE OF o SKIP LOCKED)
        UPDATE device_change_outbox o SET due = clock_timestamp() + p_lease
        FROM taken WHERE o.entry_id = taken.entry_id RETURNING o.entry_id, o.user_id;
END $$;

CREATE FUNCTION settle_device_changes(p_done bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    DELETE FROM device_change_outbox o USING slot s WHERE o.entry_id = ANY (p_done) AND s.slot = o.slot AND s.state = 1;
END $$;

----------------------------------------------------------------------------------------------------------------------------------
-- Messages

-- Accepts sends to groups, as accept does to people. Items are sorted by group, in the order of arrival within one. One row an item:
-- with the revision and device epoch of the group, and with what the message's entry has.
CREATE FUNCTION accept_group(p_slots smallint[], p_slot smallint[], p_group bytea[], p_sender bytea[], p_device smallint[],
    p_client_id bytea[], p_after bytea[], p_day smallint[], p_digest bytea[], p_message bytea[], p_revision bigint[],
    p_epoch bigint[], p_refusal smallint[], p_type smallint[], p_body bytea[])
RETURNS TABLE (item integer, outcome smallint, seq bigint, accepted_at timestamptz, message_id bytea, revision bigint,
    last_sender bytea, sender_prev bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    v_now timestamptz := clock_timestamp();
    v_total integer := cardinality(p_slot);
    g chat_group%ROWTYPE;
    v_row record;
    v_group smallint;  -- 1, or why nothing can be accepted in this group
    v_role smallint;
    v_refusal smallint;
BEGIN
    FOR i IN 1..v_total LOOP
        item := i;
        IF i = 1 OR p_group[i] <> p_group[i - 1] THEN
            v_group := 1;
            IF NOT p_slot[i] = ANY (v_owned) THEN
                v_group := slot_outcome(p_slot[i]);
            ELSE
                SELECT * INTO g FROM chat_group t WHERE t.group_id = p_group[i] FOR UPDATE;
                IF NOT FOUND THEN
                    v_group := 70;
                END IF;
            END IF;
        END IF;
        seq := NULL;
        outcome := v_group;
        IF v_group = 1 THEN
            v_role := NULL;
            SELECT m.role INTO v_role FROM member m
            WHERE m.user_id = p_sender[i] AND m.group_id = p_group[i] AND m.left_seq IS NULL;
            v_refusal := CASE
                WHEN p_after[i] <> ''
                    AND NOT was_accepted(p_day[i], p_group[i], p_sender[i], p_device[i], p_after[i]) THEN 21
                WHEN v_role IS NULL THEN 70
                WHEN v_role < g.send_role THEN 71
                WHEN p_revision[i] > g.revision OR p_epoch[i] > g.device_epoch THEN 73
                WHEN p_revision[i] < g.revision OR p_epoch[i] < g.device_epoch THEN 72
                ELSE p_refusal[i] END;
            seq := g.last_seq + 1;
            accepted_at := greatest(v_now, g.last_accepted_at);
            -- The dedup row decides, under the group's lock: what was accepted is answered, whatever refuses now.
            IF v_refusal = 0 AND dedup_insert(p_day[i], p_group[i], p_sender[i], p_device[i], p_client_id[i], seq, accepted_at,
                    p_message[i], p_digest[i]) THEN
                message_id := p_message[i];
                revision := g.revision;
                last_sender := g.last_sender;
                sender_prev := g.sender_prev;
                INSERT INTO group_message VALUES (p_group[i], seq, p_sender[i], accepted_at);
                INSERT INTO group_outbox (group_id, slot, seq, revision, due, accepted_at, sender_id, sender_device_id, last_sender,
                    sender_prev, message_id, type, body)
                VALUES (p_group[i], p_slot[i], seq, revision, v_now + interval '2 seconds', accepted_at, p_sender[i], p_device[i],
                    last_sender, sender_prev, message_id, p_type[i], p_body[i]);
                IF g.last_sender IS DISTINCT FROM p_sender[i] THEN
                    g.last_sender := p_sender[i];
                    g.sender_prev := g.last_seq;
                END IF;
                g.last_seq := seq;
                g.last_accepted_at := accepted_at;
            ELSE
                v_row := dedup_find(p_day[i], p_group[i], p_sender[i], p_device[i], p_client_id[i]);
                outcome := CASE WHEN v_row.seq IS NULL THEN v_refusal WHEN v_row.digest = p_digest[i] THEN 2 ELSE 20 END;
                seq := v_row.seq;
                accepted_at := v_row.accepted_at;
                message_id := v_row.message_id;
            END IF;
            IF i = v_total OR p_group[i] <> p_group[i + 1] THEN
                UPDATE chat_group t SET last_seq = g.last_seq, last_accepted_at = g.last_accepted_at, last_sender = g.last_sender,
                    sender_prev = g.sender_prev
                WHERE t.group_id = g.group_id AND t.last_seq <> g.last_seq;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Who gets a message, and which seq was addressed to them before it: the one before it, unless it is the first of their stay. Rows: one a
-- member, or one with a NULL user_id where the slot is not served.
CREATE FUNCTION recipients(p_slot smallint, p_group bytea, p_seq bigint)
RETURNS TABLE (outcome smallint, user_id bytea, joined_seq bigint, prev_seq bigint) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY SELECT 1::smallint, m.user_id, m.joined_seq, m.prev_seq FROM member m
        WHERE m.group_id = p_group AND m.joined_seq < p_seq AND (m.left_seq IS NULL OR m.left_seq >= p_seq);
END $$;

-- Puts a run, the seqs p_first to p_last of a group, behind what a member has of it; the thread's row stays locked. Outcome 1 with the
-- first seq that the member does not have; 3, 4 or 6.
CREATE FUNCTION advance_run(p_user bytea, p_group bytea, p_prev bigint, p_first bigint, p_last bigint,
    OUT outcome smallint, OUT first_seq bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_fanned bigint;
BEGIN
    SELECT t.fanned_seq INTO v_fanned FROM thread t WHERE t.user_id = p_user AND t.conversation_id = p_group FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM FROM account a WHERE a.user_id = p_user AND a.deleted_at IS NULL FOR KEY SHARE;
        IF NOT FOUND THEN
            outcome := 6;
            RETURN;
        END IF;
        INSERT INTO thread (user_id, conversation_id) VALUES (p_user, p_group) ON CONFLICT DO NOTHING;
        SELECT t.fanned_seq INTO v_fanned FROM thread t WHERE t.user_id = p_user AND t.conversation_id = p_group FOR UPDATE;
    END IF;
    IF v_fanned >= p_last THEN
        outcome := 3;
    ELSIF v_fanned < p_prev THEN
        outcome := 4;
    ELSE
        UPDATE thread t SET fanned_seq = p_last WHERE t.user_id = p_user AND t.conversation_id = p_group;
        outcome := 1;
        first_seq := greatest(p_first, v_fanned + 1);
    END IF;
END $$;

-- How many messages of a run a device has sent itself.
CREATE FUNCTION sent_of_run(p_user bytea, p_device smallint, p_senders bytea[], p_devices smallint[]) RETURNS integer
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_count integer := 0;
BEGIN
    FOR i IN 1..cardinality(p_senders) LOOP
        IF p_senders[i] = p_user AND p_devices[i] = p_device THEN
            v_count := v_count + 1;
        END IF;
    END LOOP;
    RETURN v_count;
END $$;

-- Puts each member's run behind what they have, one by one. What write_runs finds out for all members at once, if it is what nearly
-- always is so. Sets v_outcome and, where that is 1, the first message that the member does not have.
CREATE FUNCTION advance_runs(v_owned smallint[], m_group bytea[], m_seq bigint[], u_slot smallint[], u_user bytea[], u_prev bigint[],
    u_first integer[], u_last integer[], OUT v_outcome smallint[], OUT v_first integer[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_advanced record;
BEGIN
    v_outcome := array_fill(1::smallint, ARRAY[cardinality(u_user)]);
    v_first := u_first;
    FOR i IN 1..cardinality(u_user) LOOP
        IF NOT u_slot[i] = ANY (v_owned) THEN
            v_outcome[i] := slot_outcome(u_slot[i]);
        ELSE
            v_advanced := advance_run(u_user[i], m_group[u_first[i]], u_prev[i], m_seq[u_first[i]], m_seq[u_last[i]]);
            v_outcome[i] := v_advanced.outcome;
            v_first[i] := u_first[i] + (v_advanced.first_seq - m_seq[u_first[i]])::integer;
        END IF;
    END LOOP;
END $$;

-- Writes runs of groups' messages into the queues of members who are here. A run is messages of one group (m_*), consecutive in seq. An
-- item is one member's run: the messages u_first to u_last, behind u_prev. Items are sorted by user, and no user comes twice. Rows: one a
-- device that got something, with the first seq that it did not have (perhaps one it has sent itself) and its first new pos; then one a
-- member who did not, with a NULL device_id. No queue is full for a group: what waits too long expires. A row covers, for receipts, what
-- the member sent before it: those seqs are in no queue of the sending device.
--
-- Statements for all members at once, which is a third of what a statement a member costs. None of them is a join, so that the planner
-- has no choice that grows wrong with the tables: rows are found, and locked, by their keys in key order, and their items by a binary search.
CREATE FUNCTION write_runs(p_slots smallint[], m_group bytea[], m_seq bigint[], m_at timestamptz[], m_sender bytea[],
    m_device smallint[], m_last_sender bytea[], m_sender_prev bigint[], m_message bytea[], m_type smallint[], m_body bytea[],
    u_slot smallint[], u_user bytea[], u_prev bigint[], u_first integer[], u_last integer[])
RETURNS TABLE (item integer, outcome smallint, device_id smallint, first_seq bigint, first_pos bigint)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    v_groups bytea[] := ARRAY(SELECT DISTINCT g FROM unnest(m_group) AS g);
    v_outcome smallint[] := array_fill(1::smallint, ARRAY[cardinality(u_user)]);
    v_first integer[] := u_first;
    v_users bytea[] := u_user;
    v_moved integer;
BEGIN
    BEGIN
        UPDATE thread t SET fanned_seq = m_seq[u_last[width_bucket(t.user_id, u_user)]]
        WHERE t.user_id = ANY (u_user) AND t.conversation_id = ANY (v_groups)
            AND t.fanned_seq = u_prev[width_bucket(t.user_id, u_user)]
            AND t.conversation_id = m_group[u_first[width_bucket(t.user_id, u_user)]];
        GET DIAGNOSTICS v_moved = ROW_COUNT;
        IF v_moved < cardinality(u_user) OR cardinality(v_owned) < cardinality(p_slots) THEN
            RAISE EXCEPTION SQLSTATE 'WB001';
        END IF;
    EXCEPTION WHEN SQLSTATE 'WB001' THEN
        -- What was locked is free again, so that it is locked in order.
        SELECT a.v_outcome, a.v_first INTO v_outcome, v_first
        FROM advance_runs(v_owned, m_group, m_seq, u_slot, u_user, u_prev, u_first, u_last) AS a;
        v_users := ARRAY(SELECT u FROM unnest(u_user, v_outcome) AS o (u, outcome) WHERE o.outcome = 1);
    END;
    RETURN QUERY
        WITH moved AS (
            UPDATE device d SET head_pos = d.head_pos + u_last[width_bucket(d.user_id, u_user)] - v_first[width_bucket(d.user_id, u_user)] + 1
                - CASE WHEN d.user_id = ANY (m_sender) THEN sent_of_run(d.user_id, d.device_id,
                    m_sender[v_first[width_bucket(d.user_id, u_user)]:u_last[width_bucket(d.user_id, u_user)]],
                    m_device[v_first[width_bucket(d.user_id, u_user)]:u_last[width_bucket(d.user_id, u_user)]]) ELSE 0 END
            WHERE d.user_id = ANY (v_users) AND d.linked AND d.has_queue
            RETURNING d.user_id, d.device_id, d.head_pos, width_bucket(d.user_id, u_user) AS item),
        placed AS (
            SELECT p.*, p.head_pos - (p.last - p.first + 1 - p.sent) AS before FROM (
                SELECT o.*, v_first[o.item] AS first, u_last[o.item] AS last, CASE WHEN o.user_id = ANY (m_sender) THEN
                    sent_of_run(o.user_id, o.device_id, m_sender[v_first[o.item]:u_last[o.item]], m_device[v_first[o.item]:u_last[o.item]])
                    ELSE 0 END AS sent
                FROM moved AS o) AS p),
        written AS (
            INSERT INTO device_queue
            SELECT p.user_id, p.device_id, p.before + 1 + m - p.first - CASE WHEN p.sent = 0 THEN 0 ELSE
                    sent_of_run(p.user_id, p.device_id, m_sender[p.first:m], m_device[p.first:m]) END, m_seq[m],
                CASE WHEN m_last_sender[m] = p.user_id THEN m_sender_prev[m] ELSE m_seq[m] - 1 END, m_at[m], m_device[m], m_type[m],
                m_group[m], m_group[m], m_sender[m], m_message[m], m_body[m]
            FROM placed AS p, generate_series(p.first, p.last) AS m
            WHERE p.sent = 0 OR m_sender[m] <> p.user_id OR m_device[m] <> p.device_id)
        SELECT p.item, 1::smallint, p.device_id, m_seq[p.first], p.before + 1 FROM placed AS p WHERE p.sent < p.last - p.first + 1;
    RETURN QUERY SELECT o.n::integer, o.outcome, NULL::smallint, NULL::bigint, NULL::bigint
        FROM unnest(v_outcome) WITH ORDINALITY AS o (outcome, n) WHERE o.outcome <> 1;
END $$;

-- Takes overdue messages, and keeps others from them for the lease. Leaves out those whose rest is on shards that are down.
CREATE FUNCTION take_runs(p_limit integer, p_lease interval, p_down smallint[]) RETURNS SETOF group_outbox
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_down int4multirange := coalesce((SELECT range_agg(int4range(d, d + 1)) FROM unnest(p_down) AS d), '{}');
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
        WITH taken AS (
            SELECT o.group_id, o.seq FROM group_outbox o JOIN slot s ON s.slot = o.slot AND s.state = 1
            WHERE o.due <= clock_timestamp() AND NOT int4range(o.rest_from, o.rest_to + 1) <@ v_down
            ORDER BY o.due LIMIT p_limit FOR UPDATE OF o SKIP LOCKED)
        UPDATE group_outbox o SET due = clock_timestamp() + p_lease, attempts = least(o.attempts + 1, 30)
        FROM taken WHERE o.group_id = taken.group_id AND o.seq = taken.seq RETURNING o.*;
END $$;

-- Removes messages that every member has, and postpones others, with the slots of those who may not have them.
-- What a crash takes back comes up as overdue, and is done again without harm.
CREATE FUNCTION settle_runs(p_group bytea[], p_seq bigint[], f_group bytea[], f_seq bigint[], f_from smallint[], f_to smallint[],
    f_again timestamptz[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    PERFORM set_config('synchronous_commit', 'off', true);
    FOR i IN 1..cardinality(p_group) LOOP
        DELETE FROM group_outbox o USING slot s
        WHERE o.group_id = p_group[i] AND o.seq = p_seq[i] AND s.slot = o.slot AND s.state = 1;
    END LOOP;
    FOR i IN 1..cardinality(f_group) LOOP
        UPDATE group_outbox o SET due = f_again[i], rest_from = f_from[i], rest_to = f_to[i] FROM slot s
        WHERE o.group_id = f_group[i] AND o.seq = f_seq[i] AND s.slot = o.slot AND s.state = 1;
    END LOOP;
END $$;
