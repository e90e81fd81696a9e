-- Receipts of groups. A receipt goes to an owner: in a direct chat the sender, in a group the group itself, which keeps a row a member
-- (receipt: group, group, member) under its own counter. What of it concerns a sender is counted, and merged into that account's own row of
-- the group (receipt: sender, group, group), as three arrays with an element a message: so a wave of members is few versions.
ALTER TABLE receipt
    ADD COLUMN seqs bigint[],  -- ascending, the latest 100
    ADD COLUMN delivered_to integer[],
    ADD COLUMN read_by integer[];

-- As before, but what goes to a group always has an entry: it stays until the senders' tallies are written.
CREATE OR REPLACE FUNCTION emit_receipts(p_user bytea[], p_conversation bytea[], p_peer bytea[], p_after bigint[], p_to bigint[],
    p_read bigint[])
RETURNS TABLE (user_id bytea, conversation_id bytea, peer_id bytea, delivered_after bigint, delivered_to bigint,
    version bigint, delivered int8multirange, read_up_to bigint, entry_id bigint, slot smallint, user_slot smallint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_state smallint;
    v_merged record;
BEGIN
    FOR user_id, conversation_id, peer_id, delivered_after, delivered_to, read_up_to, user_slot, v_state IN
        SELECT e.u, e.c, e.p, e.a, e.t, e.r, s.slot, s.state
        FROM unnest(p_user, p_conversation, p_peer, p_after, p_to, p_read) AS e (u, c, p, a, t, r)
        JOIN slot s ON s.slot = slot_of(e.u) ORDER BY e.u, e.c, e.p
    LOOP
        IF v_state = 1 AND user_id <> conversation_id THEN
            v_merged := merge_receipt(user_id, conversation_id, peer_id, delivered_after, delivered_to, read_up_to);
            IF v_merged.version IS NOT NULL THEN
                version := v_merged.version;
                delivered := v_merged.delivered;
                read_up_to := v_merged.read_up_to;
                entry_id := NULL;
                RETURN NEXT;
            END IF;
        ELSE
            slot := slot_of(peer_id);
            INSERT INTO receipt_outbox AS o (slot, user_slot, due, user_id, conversation_id, peer_id, delivered_after,
                delivered_to, read_up_to)
            VALUES (slot, user_slot, clock_timestamp() + interval '2 seconds', user_id, conversation_id, peer_id,
                delivered_after, delivered_to, read_up_to)
            RETURNING o.entry_id INTO entry_id;
            version := NULL;
            delivered := NULL;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- As before, but what was received of a group goes to the group.
CREATE OR REPLACE FUNCTION ack(p_slots smallint[], p_slot smallint[], p_user bytea[], p_device smallint[], p_up_to bigint[])
RETURNS TABLE (item integer, outcome smallint, acked_pos bigint, user_id bytea, conversation_id bytea, peer_id bytea,
    delivered_after bigint, delivered_to bigint, version bigint, delivered int8multirange, read_up_to bigint,
    entry_id bigint, slot smallint, user_slot smallint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    v_from bigint;
    v_head bigint;
    q record;
    v_user bytea[] := '{}';
    v_conversation bytea[] := '{}';
    v_peer bytea[] := '{}';
    v_after bigint[] := '{}';
    v_to bigint[] := '{}';
    v_last integer := 0;
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        outcome := 1;
        acked_pos := p_up_to[i];
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            -- o is the row as it was before; should that be stale, the delete only walks over what is gone already.
            UPDATE device d SET acked_pos = p_up_to[i] FROM device o
            WHERE o.user_id = p_user[i] AND o.device_id = p_device[i] AND d.user_id = p_user[i]
                AND d.device_id = p_device[i] AND d.linked AND d.acked_pos < p_up_to[i] AND d.head_pos >= p_up_to[i]
            RETURNING o.acked_pos INTO v_from;
            IF FOUND THEN
                FOR q IN DELETE FROM device_queue t WHERE t.user_id = p_user[i] AND t.device_id = p_device[i]
                        AND t.pos > v_from AND t.pos <= p_up_to[i]
                        RETURNING t.conversation_id, t.sent_prev, t.seq,
                            CASE WHEN t.peer_id = t.conversation_id THEN t.peer_id ELSE t.sender_id END AS owner_id LOOP
                    IF v_last > 0 AND v_to[v_last] = q.sent_prev AND v_conversation[v_last] = q.conversation_id
                            AND v_user[v_last] = q.owner_id AND v_peer[v_last] = p_user[i] THEN
                        v_to[v_last] := q.seq;
                    ELSIF q.owner_id <> p_user[i] THEN
                        v_last := v_last + 1;
                        v_user[v_last] := q.owner_id;
                        v_conversation[v_last] := q.conversation_id;
                        v_peer[v_last] := p_user[i];
                        v_after[v_last] := q.sent_prev;
                        v_to[v_last] := q.seq;
                    END IF;
                END LOOP;
            ELSE
                SELECT d.acked_pos, d.head_pos INTO acked_pos, v_head FROM device d
                WHERE d.user_id = p_user[i] AND d.device_id = p_device[i] AND d.linked;
                outcome := CASE WHEN NOT FOUND THEN 31 WHEN v_head < p_up_to[i] THEN 30 ELSE 1 END;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF v_last > 0 THEN
        RETURN QUERY SELECT NULL::integer, 1::smallint, NULL::bigint, e.user_id, e.conversation_id, e.peer_id, e.delivered_after,
            e.delivered_to, e.version, e.delivered, e.read_up_to, e.entry_id, e.slot, e.user_slot
        FROM emit_receipts(v_user, v_conversation, v_peer, v_after, v_to, array_fill(0::bigint, ARRAY[v_last])) AS e;
    END IF;
END $$;

-- As before, and whether the conversation is a group.
DROP FUNCTION page(smallint[], smallint[], bytea[], smallint[], bigint[], integer[], integer[]);
CREATE FUNCTION page(p_slots smallint[], p_slot smallint[], p_user bytea[], p_device smallint[], p_after bigint[],
    p_rows integer[], p_bytes integer[])
RETURNS TABLE (item integer, outcome smallint, head_pos bigint, acked_pos bigint, pos bigint, seq bigint,
    accepted_at timestamptz, sender_device_id smallint, type smallint, peer_id bytea, sender_id bytea, message_id bytea,
    ciphertext bytea, is_group boolean)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        IF NOT p_slot[i] = ANY (v_owned) THEN
            item := i;
            outcome := slot_outcome(p_slot[i]);
            RETURN NEXT;
        ELSE
            RETURN QUERY
                SELECT i, 1::smallint, d.head_pos, d.acked_pos, q.pos, q.seq, q.accepted_at, q.sender_device_id, q.type, q.peer_id,
                    q.sender_id, q.message_id, q.ciphertext, q.peer_id = q.conversation_id
                FROM device d LEFT JOIN LATERAL (
                    SELECT t.*, sum(octet_length(t.ciphertext)) OVER (ORDER BY t.pos) - octet_length(t.ciphertext) AS before
                    FROM (SELECT * FROM device_queue n
                          WHERE n.user_id = p_user[i] AND n.device_id = p_device[i] AND n.pos > p_after[i]
                          ORDER BY n.pos LIMIT p_rows[i]) AS t
                ) AS q ON q.before < p_bytes[i]
                WHERE d.user_id = p_user[i] AND d.device_id = p_device[i] AND d.linked
                ORDER BY q.pos;
            IF NOT FOUND THEN
                item := i;
                outcome := 31;
                RETURN NEXT;
            END IF;
        END IF;
    END LOOP;
END $$;

-- As before, with the tallies of groups.
DROP FUNCTION receipts_after(smallint[], smallint[], bytea[], bigint[], integer[]);
CREATE FUNCTION receipts_after(p_slots smallint[], p_slot smallint[], p_user bytea[], p_after bigint[], p_rows integer[])
RETURNS TABLE (item integer, outcome smallint, newest bigint, peer_id bytea, version bigint, delivered int8multirange,
    read_up_to bigint, is_group boolean, seqs bigint[], delivered_to integer[], read_by integer[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        IF NOT p_slot[i] = ANY (v_owned) THEN
            item := i;
            outcome := slot_outcome(p_slot[i]);
            RETURN NEXT;
        ELSE
            RETURN QUERY
                SELECT i, 1::smallint, k.version, r.peer_id, r.version, r.delivered, r.read_up_to, r.peer_id = r.conversation_id,
                    r.seqs, r.delivered_to, r.read_by
                FROM receipt_counter k LEFT JOIN LATERAL (
                    SELECT * FROM receipt t WHERE t.user_id = p_user[i] AND t.version > p_after[i]
                    ORDER BY t.version LIMIT p_rows[i]) AS r ON true
                WHERE k.user_id = p_user[i]
                ORDER BY r.version;
            IF NOT FOUND THEN
                item := i;
                outcome := 31;
                RETURN NEXT;
            END IF;
        END IF;
    END LOOP;
END $$;

-- How far the members are with the messages p_after < seq <= p_to of a group, the latest p_limit of them; a sender does not count. Rows: one
-- a message, or one with a NULL sender_id where the slot is not served.
CREATE FUNCTION tally(p_slot smallint, p_group bytea, p_after bigint, p_to bigint, p_limit integer)
RETURNS TABLE (outcome smallint, sender_id bytea, seq bigint, delivered_to integer, read_by integer) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        outcome := slot_outcome(p_slot);
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT 1::smallint, t.sender_id, t.seq, count(*)::integer, (count(*) FILTER (WHERE r.read_up_to >= t.seq))::integer
        FROM (SELECT m.sender_id, m.seq FROM group_message m
              WHERE m.group_id = p_group AND m.seq > p_after AND m.seq <= p_to ORDER BY m.seq DESC LIMIT p_limit) AS t
        JOIN receipt r ON r.user_id = p_group AND r.conversation_id = p_group AND r.peer_id <> t.sender_id AND r.delivered @> t.seq
        GROUP BY t.sender_id, t.seq;
END $$;

-- Merges tallies into those of their senders: numbers only grow. An item is one sender and group, with the messages t_first to t_last. Items are
-- sorted by user. version is NULL if nothing changed.
CREATE FUNCTION put_tallies(p_slots smallint[], p_slot smallint[], p_user bytea[], p_group bytea[], t_first integer[],
    t_last integer[], t_seq bigint[], t_delivered integer[], t_read integer[])
RETURNS TABLE (item integer, outcome smallint, version bigint, seqs bigint[], delivered_to integer[], read_by integer[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    r receipt%ROWTYPE;
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        version := NULL;
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            outcome := 1;
            -- The account's counter is the lock of all its receipts.
            PERFORM FROM receipt_counter k WHERE k.user_id = p_user[i] FOR UPDATE;
            IF FOUND THEN
                SELECT * INTO r FROM receipt t
                WHERE t.user_id = p_user[i] AND t.conversation_id = p_group[i] AND t.peer_id = p_group[i];
                SELECT array_agg(n.seq), array_agg(n.delivered_to), array_agg(n.read_by) INTO seqs, delivered_to, read_by
                FROM (SELECT l.* FROM (
                        SELECT u.seq, max(u.delivered_to) AS delivered_to, max(u.read_by) AS read_by FROM (
                            SELECT * FROM unnest(r.seqs, r.delivered_to, r.read_by) AS o (seq, delivered_to, read_by)
                            UNION ALL SELECT * FROM unnest(t_seq[t_first[i]:t_last[i]], t_delivered[t_first[i]:t_last[i]],
                                t_read[t_first[i]:t_last[i]])) AS u
                        GROUP BY u.seq ORDER BY u.seq DESC LIMIT 100) AS l
                    ORDER BY l.seq) AS n;
                IF (seqs, delivered_to, read_by) IS DISTINCT FROM (r.seqs, r.delivered_to, r.read_by) THEN
                    UPDATE receipt_counter k SET version = k.version + 1 WHERE k.user_id = p_user[i]
                    RETURNING k.version INTO version;
                    INSERT INTO receipt AS t (user_id, conversation_id, peer_id, version, seqs, delivered_to, read_by)
                    VALUES (p_user[i], p_group[i], p_group[i], put_tallies.version, put_tallies.seqs, put_tallies.delivered_to,
                        put_tallies.read_by)
                    ON CONFLICT (user_id, conversation_id, peer_id) DO UPDATE SET version = excluded.version, seqs = excluded.seqs,
                        delivered_to = excluded.delivered_to, read_by = excluded.read_by;
                END IF;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Who has received a message of the caller's, and whether they have read it. Rows: one with the outcome 1, 70, or 75 if the caller has no
-- such message, then one a member.
CREATE FUNCTION message_receipts(p_slot smallint, p_group bytea, p_caller bytea, p_seq bigint)
RETURNS TABLE (outcome smallint, user_id bytea, is_read boolean) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    outcome := check_member(p_slot, p_group, p_caller);
    IF outcome = 1 THEN
        PERFORM FROM group_message m WHERE m.group_id = p_group AND m.seq = p_seq AND m.sender_id = p_caller;
        outcome := CASE WHEN FOUND THEN 1 ELSE 75 END;
    END IF;
    RETURN NEXT;
    IF outcome = 1 THEN
        RETURN QUERY SELECT 1::smallint, r.peer_id, r.read_up_to >= p_seq FROM receipt r
            WHERE r.user_id = p_group AND r.conversation_id = p_group AND r.peer_id <> p_caller AND r.delivered @> p_seq
            ORDER BY r.peer_id;
    END IF;
END $$;

-- Forgets whose messages were whose that are older than any receipt is kept for. How many.
CREATE FUNCTION forget_group_messages(p_before timestamptz, p_limit integer) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_gone bigint;
BEGIN
    PERFORM FROM slot LIMIT 1;
    DELETE FROM group_message m WHERE m.ctid = ANY (ARRAY(
        SELECT o.ctid FROM group_message o JOIN chat_group g ON g.group_id = o.group_id JOIN slot s ON s.slot = g.slot AND s.state = 1
        WHERE o.accepted_at < p_before LIMIT p_limit));
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    RETURN v_gone;
END $$;
