-- What svc_message asks of a shard: one call a batch, a result per item, never an error for one.
--
-- Rules that every function here keeps:
--   * VOLATILE, and the first statement reads the slots: a freeze (LOCK TABLE slot) waits for all who have read, and
--     whoever waits for the freeze sees the slot's new state.
--   * Locks are taken by class, each class in key order before the next: conversations, threads, devices, receipt
--     counters. Items arrive sorted for it.
--
-- Outcomes: 1 done, 2 repeated (the first answer), 3 written before, 4 not yet (an earlier one is missing), 5 queue full,
-- 6 gone, 10 slot is moving, 11 slot has moved, 20 client id conflict, 21 previous not accepted, 22 recipient full,
-- 23 recipient not known to exist, 24 refused by the caller's bound, 25 device mismatch, 30 ack above head, 31 device unknown or unlinked.

-- Without a FROM, so that it is inlined: a call of an SQL function is parsed and planned each time, some 40 µs.
CREATE FUNCTION slot_of(p_key bytea) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (((get_byte(sha256(p_key), 6) & 63) << 8) | get_byte(sha256(p_key), 7))::smallint
$$;

-- Of these slots, the ones that this shard may serve now.
CREATE FUNCTION owned_slots(p_slots smallint[]) RETURNS smallint[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    owned smallint[];
BEGIN
    SELECT array_agg(s.slot) INTO owned FROM slot s WHERE s.slot = ANY (p_slots) AND s.state = 1;
    RETURN coalesce(owned, '{}');
END $$;

-- Why a slot is not served: 10 or 11.
CREATE FUNCTION slot_outcome(p_slot smallint) RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_state smallint;
BEGIN
    SELECT s.state INTO v_state FROM slot s WHERE s.slot = p_slot;
    RETURN CASE WHEN v_state = 4 THEN 11 ELSE 10 END;
END $$;

-- The ten dedup tables are named directly, by branches: partitions would cost every message 35 to 45 µs.
DO $outer$
DECLARE
    v_insert text := '';
    v_find text := '';
BEGIN
    FOR d IN 0..9 LOOP
        v_insert := v_insert || format($b$
        %s p_day = %s THEN
            INSERT INTO dedup_%s VALUES (p_conversation, p_sender, p_device, p_client_id, p_seq, p_at, p_message, p_digest)
            ON CONFLICT DO NOTHING;$b$, CASE d WHEN 0 THEN 'IF' ELSE 'ELSIF' END, d, d);
        v_find := v_find || format($b$
        %s p_day = %s THEN
            SELECT t.seq, t.accepted_at, t.message_id, t.digest INTO seq, accepted_at, message_id, digest
            FROM dedup_%s t WHERE t.conversation_id = p_conversation AND t.sender_id = p_sender
                AND t.sender_device_id = p_device AND t.client_message_id = p_client_id;$b$,
            CASE d WHEN 0 THEN 'IF' ELSE 'ELSIF' END, d, d);
    END LOOP;
    -- True if the message is new, and now written down.
    EXECUTE format($f$
    CREATE FUNCTION dedup_insert(p_day smallint, p_conversation bytea, p_sender bytea, p_device smallint,
        p_client_id bytea, p_seq bigint, p_at timestamptz, p_message bytea, p_digest bytea)
    RETURNS boolean LANGUAGE plpgsql VOLATILE AS $body$
    BEGIN%s
        END IF;
        RETURN FOUND;
    END $body$ $f$, v_insert);
    -- The first answer; seq is NULL if there is none.
    EXECUTE format($f$
    CREATE FUNCTION dedup_find(p_day smallint, p_conversation bytea, p_sender bytea, p_device smallint,
        p_client_id bytea, OUT seq bigint, OUT accepted_at timestamptz, OUT message_id bytea, OUT digest bytea)
    LANGUAGE plpgsql VOLATILE AS $body$
    BEGIN%s
        END IF;
    END $body$ $f$, v_find);
END $outer$;

-- Whether a send was accepted, if it was first tried on this day or on one of the 8 before.
CREATE FUNCTION was_accepted(p_day smallint, p_conversation bytea, p_sender bytea, p_device smallint, p_client_id bytea)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    FOR back IN 0..8 LOOP
        IF (dedup_find(((p_day + 10 - back) % 10)::smallint, p_conversation, p_sender, p_device, p_client_id)).seq
                IS NOT NULL THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $$;

CREATE FUNCTION queue_full(p_user bytea) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM device d WHERE d.user_id = p_user AND d.linked AND d.head_pos - d.acked_pos >= 100000;
    RETURN FOUND;
END $$;

-- Puts a copy into its place, by the prev test; the thread's row stays locked. Outcome 1, 3, 4, 5 or 6.
CREATE FUNCTION advance_thread(p_user bytea, p_conversation bytea, p_prev bigint, p_seq bigint)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_fanned bigint;
BEGIN
    SELECT t.fanned_seq INTO v_fanned FROM thread t
    WHERE t.user_id = p_user AND t.conversation_id = p_conversation FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM FROM account a WHERE a.user_id = p_user;
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

-- Writes the copies that p_order names, which is sorted by (user, conversation, seq). A copy k is of the message c_item[k]; its
-- bodies are c_first[k] to c_last[k], each for one device in one registration, or one for every linked device (device 0). What a
-- block keeps out counts as written. A row per device written, or one with a NULL device_id; `item` is the copy.
CREATE FUNCTION write_copies(
    p_order integer[], c_item integer[], c_user bytea[], c_prev bigint[], c_peer bytea[], c_first integer[],
    c_last integer[], p_seq bigint[], p_sent_prev bigint[], p_at timestamptz[], p_device smallint[],
    p_conversation bytea[], p_sender bytea[], p_message bytea[], b_device smallint[], b_registration integer[],
    b_type smallint[], b_body bytea[])
RETURNS TABLE (item integer, outcome smallint, device_id smallint, pos bigint) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    m integer;
    v_outcome smallint[] := '{}';
    v_written boolean;
BEGIN
    FOREACH item IN ARRAY p_order LOOP
        m := c_item[item];
        -- The common case in one statement; advance_thread tells the others apart.
        UPDATE thread t SET fanned_seq = p_seq[m]
        WHERE t.user_id = c_user[item] AND t.conversation_id = p_conversation[m] AND t.fanned_seq = c_prev[item]
            AND NOT EXISTS (SELECT FROM device d WHERE d.user_id = c_user[item] AND d.linked
                AND d.head_pos - d.acked_pos >= 100000);
        v_outcome[item] := CASE WHEN FOUND THEN 1 ELSE
            advance_thread(c_user[item], p_conversation[m], c_prev[item], p_seq[m]) END;
    END LOOP;
    FOREACH item IN ARRAY p_order LOOP
        m := c_item[item];
        outcome := v_outcome[item];
        v_written := false;
        IF outcome = 1 THEN
            FOR b IN c_first[item]..c_last[item] LOOP
                FOR device_id, pos IN
                    UPDATE device d SET head_pos = d.head_pos + 1
                    WHERE d.user_id = c_user[item] AND d.linked AND d.has_queue
                        AND (b_device[b] = 0 OR (d.device_id = b_device[b] AND d.registration_id = b_registration[b]))
                        AND (d.user_id <> p_sender[m] OR d.device_id <> p_device[m])
                        AND NOT EXISTS (SELECT FROM block k
                            WHERE k.user_id = c_user[item] AND k.blocked_id = p_sender[m])
                    RETURNING d.device_id, d.head_pos
                LOOP
                    INSERT INTO device_queue VALUES (c_user[item], device_id, pos, p_seq[m], p_sent_prev[m], p_at[m],
                        p_device[m], b_type[b], p_conversation[m], c_peer[item], p_sender[m], p_message[m], b_body[b]);
                    v_written := true;
                    RETURN NEXT;
                END LOOP;
            END LOOP;
        END IF;
        IF NOT v_written THEN
            device_id := NULL;
            pos := NULL;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- Accepts sends. Items are sorted by conversation, in the order of arrival within one. Their copies (c_*, b_*: see write_copies)
-- are sorted by (user, conversation, arrival): one for the recipient, and one for the sender's other devices if p_own says
-- so. p_slots: each slot once, of conversations and of users believed to be here. p_refusal: 0, or what a new send is refused
-- with. Rows: of an accepted one as many as devices got it here, and one with entry_id for each copy that is still to be written;
-- of any other, one. `copy` is the copy that the row is about.
CREATE FUNCTION accept(
    p_slots smallint[], p_slot smallint[], p_conversation bytea[], p_sender bytea[], p_device smallint[],
    p_recipient bytea[], p_client_id bytea[], p_after bytea[], p_day smallint[], p_digest bytea[], p_message bytea[],
    p_own boolean[], p_recipient_known boolean[], p_refusal smallint[],
    c_item integer[], c_user bytea[], c_slot smallint[], c_peer bytea[], c_first integer[], c_last integer[],
    b_device smallint[], b_registration integer[], b_type smallint[], b_body bytea[])
RETURNS TABLE (item integer, outcome smallint, seq bigint, accepted_at timestamptz, message_id bytea, copy integer,
    prev bigint, sent_prev bigint, device_id smallint, pos bigint, entry_id bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    v_now timestamptz := clock_timestamp();
    v_total integer := cardinality(p_slot);
    c conversation%ROWTYPE;
    v_row record;
    v_group smallint;  -- 1, or why nothing can be accepted in this conversation
    v_lower boolean;
    v_recipient_lower boolean;
    v_refusal smallint;
    v_seq bigint[] := array_fill(NULL::bigint, ARRAY[v_total]);
    v_sent_prev bigint[] := v_seq;
    v_prev bigint[] := v_seq;
    v_own_prev bigint[] := v_seq;
    v_at timestamptz[] := array_fill(NULL::timestamptz, ARRAY[v_total]);
    v_copy_prev bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(c_item)]);
    v_here integer[] := '{}';
    v_elsewhere integer[] := '{}';
BEGIN
    FOR i IN 1..v_total LOOP
        item := i;
        IF i = 1 OR p_conversation[i] <> p_conversation[i - 1] THEN
            v_group := 1;
            IF NOT p_slot[i] = ANY (v_owned) THEN
                v_group := slot_outcome(p_slot[i]);
            ELSE
                SELECT * INTO c FROM conversation t WHERE t.conversation_id = p_conversation[i] FOR UPDATE;
                IF NOT FOUND AND p_recipient_known[i] THEN
                    INSERT INTO conversation (conversation_id, slot, lower_user, higher_user)
                    VALUES (p_conversation[i], p_slot[i], least(p_sender[i], p_recipient[i]),
                        greatest(p_sender[i], p_recipient[i])) ON CONFLICT DO NOTHING;
                    SELECT * INTO c FROM conversation t WHERE t.conversation_id = p_conversation[i] FOR UPDATE;
                ELSIF NOT FOUND THEN
                    v_group := 23;
                END IF;
            END IF;
        END IF;

        IF v_group <> 1 THEN
            outcome := v_group;
            RETURN NEXT;
        ELSE
            v_lower := p_sender[i] = c.lower_user;
            v_recipient_lower := p_recipient[i] = c.lower_user;
            v_refusal := CASE
                WHEN p_after[i] <> '' AND p_after[i] IS DISTINCT FROM
                    CASE WHEN v_lower THEN c.lower_last ELSE c.higher_last END
                    AND NOT was_accepted(p_day[i], p_conversation[i], p_sender[i], p_device[i], p_after[i]) THEN 21
                WHEN v_now < CASE WHEN v_recipient_lower THEN c.lower_held ELSE c.higher_held END THEN 22
                ELSE p_refusal[i] END;
            v_seq[i] := c.last_seq + 1;
            v_at[i] := greatest(v_now, c.last_accepted_at);

            -- The dedup row decides, under the conversation's lock: what was accepted is answered, whatever refuses now.
            IF v_refusal = 0 AND dedup_insert(p_day[i], p_conversation[i], p_sender[i], p_device[i], p_client_id[i],
                    v_seq[i], v_at[i], p_message[i], p_digest[i]) THEN
                v_sent_prev[i] := CASE WHEN v_lower THEN c.lower_sent ELSE c.higher_sent END;
                v_prev[i] := CASE WHEN v_recipient_lower THEN c.lower_prev ELSE c.higher_prev END;
                v_own_prev[i] := CASE WHEN v_lower THEN c.lower_prev ELSE c.higher_prev END;
                IF v_lower THEN
                    c.lower_sent := v_seq[i];
                    c.lower_last := p_client_id[i];
                ELSE
                    c.higher_sent := v_seq[i];
                    c.higher_last := p_client_id[i];
                END IF;
                IF v_recipient_lower OR (v_lower AND p_own[i]) THEN
                    c.lower_prev := v_seq[i];
                END IF;
                IF NOT v_recipient_lower OR (NOT v_lower AND p_own[i]) THEN
                    c.higher_prev := v_seq[i];
                END IF;
                c.last_seq := v_seq[i];
                c.last_accepted_at := v_at[i];
            ELSE
                v_seq[i] := NULL;
                v_row := dedup_find(p_day[i], p_conversation[i], p_sender[i], p_device[i], p_client_id[i]);
                outcome := CASE WHEN v_row.seq IS NULL THEN v_refusal
                    WHEN v_row.digest = p_digest[i] THEN 2 ELSE 20 END;
                seq := v_row.seq;
                accepted_at := v_row.accepted_at;
                message_id := v_row.message_id;
                RETURN NEXT;
            END IF;

            IF i = v_total OR p_conversation[i] <> p_conversation[i + 1] THEN
                UPDATE conversation t SET last_seq = c.last_seq, last_accepted_at = c.last_accepted_at,
                    lower_prev = c.lower_prev, higher_prev = c.higher_prev, lower_sent = c.lower_sent,
                    higher_sent = c.higher_sent, lower_last = c.lower_last, higher_last = c.higher_last
                WHERE t.conversation_id = c.conversation_id AND t.last_seq <> c.last_seq;
            END IF;
        END IF;
    END LOOP;

    outcome := 1;
    FOR k IN 1..cardinality(c_item) LOOP
        item := c_item[k];
        IF v_seq[item] IS NOT NULL THEN
            v_copy_prev[k] := CASE WHEN c_user[k] = p_recipient[item] THEN v_prev[item] ELSE v_own_prev[item] END;
            IF c_slot[k] = ANY (v_owned) THEN
                v_here := v_here || k;
            ELSE
                v_elsewhere := v_elsewhere || k;
            END IF;
        END IF;
    END LOOP;
    IF cardinality(v_here) > 0 THEN
        FOR v_row IN SELECT w.item, w.outcome, w.device_id, w.pos FROM write_copies(v_here, c_item, c_user, v_copy_prev, c_peer,
                c_first, c_last, v_seq, v_sent_prev, v_at, p_device, p_conversation, p_sender, p_message, b_device,
                b_registration, b_type, b_body) AS w LOOP
            IF v_row.outcome IN (4, 5) THEN
                v_elsewhere := v_elsewhere || v_row.item;
            ELSE
                copy := v_row.item;
                item := c_item[copy];
                device_id := v_row.device_id;
                pos := v_row.pos;
                seq := v_seq[item];
                accepted_at := v_at[item];
                message_id := p_message[item];
                sent_prev := v_sent_prev[item];
                RETURN NEXT;
            END IF;
        END LOOP;
    END IF;
    device_id := NULL;
    pos := NULL;
    FOREACH copy IN ARRAY v_elsewhere LOOP
        item := c_item[copy];
        seq := v_seq[item];
        accepted_at := v_at[item];
        message_id := p_message[item];
        prev := v_copy_prev[copy];
        sent_prev := v_sent_prev[item];
        INSERT INTO copy_outbox AS o (slot, user_slot, due, user_id, prev, seq, sent_prev, accepted_at, sender_device_id,
            conversation_id, peer_id, sender_id, message_id, devices, registrations, types, bodies)
        VALUES (p_slot[item], c_slot[copy], v_now + interval '2 seconds', c_user[copy], prev, seq, sent_prev, accepted_at,
            p_device[item], p_conversation[item], c_peer[copy], p_sender[item], p_message[item],
            b_device[c_first[copy]:c_last[copy]], b_registration[c_first[copy]:c_last[copy]],
            b_type[c_first[copy]:c_last[copy]], b_body[c_first[copy]:c_last[copy]])
        RETURNING o.entry_id INTO entry_id;
        RETURN NEXT;
    END LOOP;
END $$;

-- Writes copies that another shard accepted; see write_copies. Items are sorted by (user, conversation, seq).
CREATE FUNCTION copy(
    p_slots smallint[], p_slot smallint[], p_user bytea[], p_prev bigint[], p_seq bigint[], p_sent_prev bigint[],
    p_at timestamptz[], p_device smallint[], p_conversation bytea[], p_peer bytea[], p_sender bytea[],
    p_message bytea[], p_first integer[], p_last integer[], b_device smallint[], b_registration integer[],
    b_type smallint[], b_body bytea[])
RETURNS TABLE (item integer, outcome smallint, device_id smallint, pos bigint) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    v_order integer[] := '{}';
    v_all integer[] := '{}';
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        v_all := v_all || i;
        IF p_slot[i] = ANY (v_owned) THEN
            v_order := v_order || i;
        ELSE
            item := i;
            outcome := slot_outcome(p_slot[i]);
            RETURN NEXT;
        END IF;
    END LOOP;
    RETURN QUERY SELECT * FROM write_copies(v_order, v_all, p_user, p_prev, p_peer, p_first, p_last, p_seq, p_sent_prev,
        p_at, p_device, p_conversation, p_sender, p_message, b_device, b_registration, b_type, b_body);
END $$;

-- The linked devices of accounts and their registrations. Rows: one a device, or one with a NULL device_id.
CREATE FUNCTION linked_devices(p_slots smallint[], p_slot smallint[], p_user bytea[])
RETURNS TABLE (item integer, outcome smallint, device_id smallint, registration_id integer)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        IF p_slot[i] = ANY (v_owned) THEN
            RETURN QUERY SELECT i, 1::smallint, d.device_id, d.registration_id
                FROM (SELECT) AS always LEFT JOIN device d
                    ON d.user_id = p_user[i] AND d.linked AND d.has_queue ORDER BY d.device_id;
        ELSE
            item := i;
            outcome := slot_outcome(p_slot[i]);
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- Merges a receipt into that of its account; version is NULL if it changes nothing. Callers come in the order of
-- (user, conversation, peer): the account's counter is the lock of all its receipts.
CREATE FUNCTION merge_receipt(p_user bytea, p_conversation bytea, p_peer bytea, p_after bigint, p_to bigint, p_read bigint,
    OUT version bigint, OUT delivered int8multirange, OUT read_up_to bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_range int8multirange := int8multirange(int8range(p_after + 1, greatest(p_to, p_after) + 1));
BEGIN
    UPDATE receipt_counter k SET version = k.version + 1
    WHERE k.user_id = p_user AND NOT EXISTS (
        SELECT FROM receipt r WHERE r.user_id = p_user AND r.conversation_id = p_conversation
            AND r.peer_id = p_peer AND r.delivered @> v_range AND r.read_up_to >= p_read)
    RETURNING k.version INTO version;
    IF FOUND THEN
        UPDATE receipt r SET version = merge_receipt.version, delivered = r.delivered + v_range,
            read_up_to = greatest(r.read_up_to, p_read)
        WHERE r.user_id = p_user AND r.conversation_id = p_conversation AND r.peer_id = p_peer
        RETURNING r.delivered, r.read_up_to INTO delivered, read_up_to;
        IF NOT FOUND THEN
            delivered := v_range;
            read_up_to := p_read;
            INSERT INTO receipt VALUES (p_user, p_conversation, p_peer, version, delivered, read_up_to);
        END IF;
    END IF;
END $$;

-- Sends receipts on their way: merged at once for accounts that are here, into the outbox for the others.
CREATE FUNCTION emit_receipts(p_user bytea[], p_conversation bytea[], p_peer bytea[], p_after bigint[], p_to bigint[],
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
        IF v_state = 1 THEN
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

-- Acknowledges queues, one item a device, sorted by (user, device). Rows: one an item (item is set), then one a receipt (item is
-- NULL): with version if it changed an account's receipts here, with entry_id if it went into the outbox.
CREATE FUNCTION ack(p_slots smallint[], p_slot smallint[], p_user bytea[], p_device smallint[], p_up_to bigint[])
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
                        RETURNING t.conversation_id, t.sender_id, t.sent_prev, t.seq LOOP
                    IF v_last > 0 AND v_to[v_last] = q.sent_prev AND v_conversation[v_last] = q.conversation_id
                            AND v_user[v_last] = q.sender_id AND v_peer[v_last] = p_user[i] THEN
                        v_to[v_last] := q.seq;
                    ELSIF q.sender_id <> p_user[i] THEN
                        v_last := v_last + 1;
                        v_user[v_last] := q.sender_id;
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

-- Marks conversations read up to a seq, at most to what was ever written to the reader. Items are sorted by (user, conversation).
-- p_author is whose messages were read. Rows as those of ack.
CREATE FUNCTION mark_read(p_slots smallint[], p_slot smallint[], p_user bytea[], p_conversation bytea[],
    p_author bytea[], p_up_to bigint[])
RETURNS TABLE (item integer, outcome smallint, user_id bytea, conversation_id bytea, peer_id bytea,
    delivered_after bigint, delivered_to bigint, version bigint, delivered int8multirange, read_up_to bigint,
    entry_id bigint, slot smallint, user_slot smallint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    v_read bigint;
    v_items integer[] := '{}';
    v_reads bigint[] := '{}';
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        outcome := 1;
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            UPDATE thread t SET read_up_to = least(p_up_to[i], t.fanned_seq)
            WHERE t.user_id = p_user[i] AND t.conversation_id = p_conversation[i]
                AND t.read_up_to < least(p_up_to[i], t.fanned_seq)
            RETURNING t.read_up_to INTO v_read;
            IF FOUND AND p_author[i] <> p_user[i] THEN
                v_items := v_items || i;
                v_reads := v_reads || v_read;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
    IF cardinality(v_items) > 0 THEN
        RETURN QUERY SELECT NULL::integer, 1::smallint, e.user_id, e.conversation_id, e.peer_id, e.delivered_after, e.delivered_to,
            e.version, e.delivered, e.read_up_to, e.entry_id, e.slot, e.user_slot
        FROM (SELECT array_agg(p_author[k.i]) AS author, array_agg(p_conversation[k.i]) AS conversation,
                array_agg(p_user[k.i]) AS reader, array_agg(0::bigint) AS nothing
              FROM unnest(v_items) AS k (i)) AS a,
            emit_receipts(a.author, a.conversation, a.reader, a.nothing, a.nothing, v_reads) AS e;
    END IF;
END $$;

-- Merges receipts that another shard sent. Items are sorted by (user, conversation, peer). version is NULL if nothing changed.
CREATE FUNCTION merge(p_slots smallint[], p_slot smallint[], p_user bytea[], p_conversation bytea[], p_peer bytea[],
    p_after bigint[], p_to bigint[], p_read bigint[])
RETURNS TABLE (item integer, outcome smallint, version bigint, delivered int8multirange, read_up_to bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    v_merged record;
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        IF p_slot[i] = ANY (v_owned) THEN
            outcome := 1;
            v_merged := merge_receipt(p_user[i], p_conversation[i], p_peer[i], p_after[i], p_to[i], p_read[i]);
            version := v_merged.version;
            delivered := v_merged.delivered;
            read_up_to := v_merged.read_up_to;
        ELSE
            outcome := slot_outcome(p_slot[i]);
            version := NULL;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Opens sessions: each gets the device's next epoch. Items are sorted by (user, device). Outcome 31 also for an old credential.
CREATE FUNCTION open(p_slots smallint[], p_slot smallint[], p_user bytea[], p_device smallint[], p_credential integer[])
RETURNS TABLE (item integer, outcome smallint, epoch bigint, head_pos bigint, acked_pos bigint, receipt_version bigint,
    now timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    now := clock_timestamp();
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            UPDATE device d SET epoch = d.epoch + 1
            WHERE d.user_id = p_user[i] AND d.device_id = p_device[i] AND d.linked AND d.has_queue
                AND d.credential_version <= p_credential[i]
            RETURNING d.epoch, d.head_pos, d.acked_pos INTO epoch, head_pos, acked_pos;
            outcome := CASE WHEN FOUND THEN 1 ELSE 31 END;
            SELECT k.version INTO receipt_version FROM receipt_counter k WHERE k.user_id = p_user[i];
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Reads pages of queues. Rows: one an envelope, or one with a NULL pos for an empty page. The counters and the rows of one item are of
-- one snapshot. `before` is the bytes of ciphertext that come before the row in its page.
CREATE FUNCTION page(p_slots smallint[], p_slot smallint[], p_user bytea[], p_device smallint[], p_after bigint[],
    p_rows integer[], p_bytes integer[])
RETURNS TABLE (item integer, outcome smallint, head_pos bigint, acked_pos bigint, pos bigint, seq bigint,
    accepted_at timestamptz, sender_device_id smallint, type smallint, peer_id bytea, sender_id bytea, message_id bytea,
    ciphertext bytea)
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
                    q.sender_id, q.message_id, q.ciphertext
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

-- Where queues stand. A device that does not exist comes as not linked.
CREATE FUNCTION heads(p_slots smallint[], p_slot smallint[], p_user bytea[], p_device smallint[])
RETURNS TABLE (item integer, outcome smallint, head_pos bigint, acked_pos bigint, epoch bigint, receipt_version bigint, linked boolean)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            outcome := 1;
            SELECT d.head_pos, d.acked_pos, d.epoch, d.linked, k.version
            INTO head_pos, acked_pos, epoch, linked, receipt_version
            FROM device d LEFT JOIN receipt_counter k ON k.user_id = d.user_id
            WHERE d.user_id = p_user[i] AND d.device_id = p_device[i];
            linked := coalesce(linked, false);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- The receipts of accounts above a version, lowest first. Rows: one a receipt, or one with a NULL version.
CREATE FUNCTION receipts_after(p_slots smallint[], p_slot smallint[], p_user bytea[], p_after bigint[], p_rows integer[])
RETURNS TABLE (item integer, outcome smallint, newest bigint, peer_id bytea, version bigint, delivered int8multirange,
    read_up_to bigint)
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
                SELECT i, 1::smallint, k.version, r.peer_id, r.version, r.delivered, r.read_up_to
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

-- Which of these accounts exist. Outcome 1, 6, 10 or 11.
CREATE FUNCTION accounts_exist(p_slots smallint[], p_slot smallint[], p_user bytea[])
RETURNS TABLE (item integer, outcome smallint) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            PERFORM FROM account a WHERE a.user_id = p_user[i];
            outcome := CASE WHEN FOUND THEN 1 ELSE 6 END;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Takes overdue copies, lowest first, and keeps others from them for the lease. Leaves out recipients in p_down.
CREATE FUNCTION take_copies(p_limit integer, p_lease interval, p_down smallint[]) RETURNS SETOF copy_outbox
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
        WITH taken AS (
            SELECT o.entry_id FROM copy_outbox o JOIN slot s ON s.slot = o.slot AND s.state = 1
            WHERE o.due <= clock_timestamp() AND NOT o.user_slot = ANY (p_down)
            ORDER BY o.entry_id LIMIT p_limit FOR UPDATE OF o SKIP LOCKED)
        UPDATE copy_outbox o SET due = clock_timestamp() + p_lease, attempts = least(o.attempts + 1, 30)
        FROM taken WHERE o.entry_id = taken.entry_id RETURNING o.*;
END $$;

-- The same for receipts.
CREATE FUNCTION take_receipts(p_limit integer, p_lease interval, p_down smallint[]) RETURNS SETOF receipt_outbox
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
        WITH taken AS (
            SELECT o.entry_id FROM receipt_outbox o JOIN slot s ON s.slot = o.slot AND s.state = 1
            WHERE o.due <= clock_timestamp() AND NOT o.user_slot = ANY (p_down)
            ORDER BY o.entry_id LIMIT p_limit FOR UPDATE OF o SKIP LOCKED)
        UPDATE receipt_outbox o SET due = clock_timestamp() + p_lease, attempts = least(o.attempts + 1, 30)
        FROM taken WHERE o.entry_id = taken.entry_id RETURNING o.*;
END $$;

-- Removes what is done, postpones what failed, and holds the conversations whose recipient's queue is full.
-- Entries of a slot that is no longer here stay as they are: their twin is on the slot's new shard.
-- The commit need not reach the disk: what a crash takes back comes up as overdue, and is done again without harm.
CREATE FUNCTION settle_copies(p_done bigint[], p_failed bigint[], p_again timestamptz[], p_full bigint[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v record;
BEGIN
    PERFORM FROM slot LIMIT 1;
    PERFORM set_config('synchronous_commit', 'off', true);
    IF cardinality(p_full) > 0 THEN
        FOR v IN SELECT o.conversation_id, o.user_id FROM copy_outbox o JOIN slot s ON s.slot = o.slot AND s.state = 1
                WHERE o.entry_id = ANY (p_full) GROUP BY 1, 2 ORDER BY 1 LOOP
            UPDATE conversation c SET
                lower_held = CASE WHEN c.lower_user = v.user_id THEN clock_timestamp() + interval '30 seconds'
                    ELSE c.lower_held END,
                higher_held = CASE WHEN c.higher_user = v.user_id THEN clock_timestamp() + interval '30 seconds'
                    ELSE c.higher_held END
            WHERE c.conversation_id = v.conversation_id;
        END LOOP;
    END IF;
    DELETE FROM copy_outbox o USING slot s WHERE o.entry_id = ANY (p_done) AND s.slot = o.slot AND s.state = 1;
    IF cardinality(p_failed) > 0 THEN
        UPDATE copy_outbox o SET due = f.again FROM unnest(p_failed, p_again) AS f (id, again), slot s
        WHERE o.entry_id = f.id AND s.slot = o.slot AND s.state = 1;
    END IF;
END $$;

CREATE FUNCTION settle_receipts(p_done bigint[], p_failed bigint[], p_again timestamptz[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    PERFORM set_config('synchronous_commit', 'off', true);
    DELETE FROM receipt_outbox o USING slot s WHERE o.entry_id = ANY (p_done) AND s.slot = o.slot AND s.state = 1;
    IF cardinality(p_failed) > 0 THEN
        UPDATE receipt_outbox o SET due = f.again FROM unnest(p_failed, p_again) AS f (id, again), slot s
        WHERE o.entry_id = f.id AND s.slot = o.slot AND s.state = 1;
    END IF;
END $$;

-- Acknowledges, for up to p_limit devices after (p_user, p_device), the prefix that is older than p_before; no receipts.
-- A row a device looked at: resume after the last.
CREATE FUNCTION expire(p_user bytea, p_device smallint, p_before timestamptz, p_limit integer)
RETURNS TABLE (user_id bytea, device_id smallint, expired bigint) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_acked bigint;
    v_head bigint;
    v_kept bigint;
BEGIN
    PERFORM FROM slot LIMIT 1;
    FOR user_id, device_id IN
        SELECT d.user_id, d.device_id FROM device d
        WHERE (d.user_id, d.device_id) > (p_user, p_device) AND d.acked_pos < d.head_pos
        ORDER BY d.user_id, d.device_id LIMIT p_limit
    LOOP
        expired := 0;
        PERFORM FROM account a JOIN slot s ON s.slot = a.slot AND s.state = 1 WHERE a.user_id = expire.user_id;
        IF FOUND THEN
            SELECT d.acked_pos, d.head_pos INTO v_acked, v_head FROM device d
            WHERE d.user_id = expire.user_id AND d.device_id = expire.device_id FOR UPDATE;
            SELECT q.pos INTO v_kept FROM device_queue q
            WHERE q.user_id = expire.user_id AND q.device_id = expire.device_id AND q.pos > v_acked
                AND q.accepted_at >= p_before
            ORDER BY q.pos LIMIT 1;
            v_kept := coalesce(v_kept, v_head + 1);
            expired := v_kept - 1 - v_acked;
            IF expired > 0 THEN
                DELETE FROM device_queue q WHERE q.user_id = expire.user_id AND q.device_id = expire.device_id
                    AND q.pos > v_acked AND q.pos < v_kept;
                UPDATE device d SET acked_pos = v_kept - 1
                WHERE d.user_id = expire.user_id AND d.device_id = expire.device_id;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
