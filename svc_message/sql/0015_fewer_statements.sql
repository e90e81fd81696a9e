-- Fewer statements a batch. A statement inside a function costs some 10 µs to start whatever it does, so what needs no order among rows
-- (inserts) is one statement a batch, and what goes to one thread or one device is one update. Signatures and rows are as before.

-- Checked by the caller; a check is parsed and planned again by every statement that writes the table.
ALTER TABLE device DROP CONSTRAINT device_device_id_check;

-- The dedup rows of the items of one day, in one statement; returns how many of them are new.
DO $outer$
DECLARE
    v_branches text := '';
BEGIN
    FOR d IN 0..9 LOOP
        v_branches := v_branches || format($b$
        %s p_day = %s THEN
            INSERT INTO dedup_%s SELECT p_conversation[i], p_sender[i], p_device[i], p_client_id[i], p_seq[i], p_at[i],
                p_message[i], p_digest[i] FROM unnest(p_items) AS i
            ON CONFLICT DO NOTHING;$b$, CASE d WHEN 0 THEN 'IF' ELSE 'ELSIF' END, d, d);
    END LOOP;
    EXECUTE format($f$
    CREATE FUNCTION dedup_insert_all(p_items integer[], p_day smallint, p_conversation bytea[], p_sender bytea[],
        p_device smallint[], p_client_id bytea[], p_seq bigint[], p_at timestamptz[], p_message bytea[], p_digest bytea[])
    RETURNS integer LANGUAGE plpgsql VOLATILE AS $body$
    DECLARE
        v_count integer;
    BEGIN%s
        END IF;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        RETURN v_count;
    END $body$ $f$, v_branches);
END $outer$;

-- As in 0002_functions.sql. First the threads, a run of copies at a time: those of one thread that follow one another. Then the devices: copies
-- for the same devices of one user take their positions together.
CREATE OR REPLACE FUNCTION write_copies(
    p_order integer[], c_item integer[], c_user bytea[], c_prev bigint[], c_peer bytea[], c_first integer[],
    c_last integer[], p_seq bigint[], p_sent_prev bigint[], p_at timestamptz[], p_device smallint[],
    p_conversation bytea[], p_sender bytea[], p_message bytea[], b_device smallint[], b_registration integer[],
    b_type smallint[], b_body bytea[])
RETURNS TABLE (item integer, outcome smallint, device_id smallint, pos bigint) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    m integer;
    k integer;
    v_total integer := cardinality(p_order);
    v_begin integer := 1;  -- of a run, as a place in p_order
    v_next integer;
    v_written integer[] := '{}';  -- copies that are now in their place
    v_blocked integer[];
    v_bodies integer;
    v_count integer;
    v_pos bigint;
    v_places integer;
    -- What to insert: a body of a copy, for a device at a pos.
    r_copy integer[] := '{}';
    r_body integer[] := '{}';
    r_device smallint[] := '{}';
    r_pos bigint[] := '{}';
BEGIN
    FOR n IN 1..v_total LOOP
        item := p_order[n];
        IF n < v_total THEN
            v_next := p_order[n + 1];
            CONTINUE WHEN c_user[v_next] = c_user[item] AND c_prev[v_next] = p_seq[c_item[item]]
                AND p_conversation[c_item[v_next]] = p_conversation[c_item[item]];
        END IF;
        m := c_item[item];
        k := p_order[v_begin];
        -- The common case in one statement; advance_thread tells the others apart.
        UPDATE thread t SET fanned_seq = p_seq[m]
        WHERE t.user_id = c_user[item] AND t.conversation_id = p_conversation[m] AND t.fanned_seq = c_prev[k]
            AND NOT EXISTS (SELECT FROM device d WHERE d.user_id = c_user[item] AND d.linked
                AND d.head_pos - d.acked_pos >= 100000);
        IF FOUND THEN
            v_written := v_written || p_order[v_begin:n];
        ELSE
            FOREACH item IN ARRAY p_order[v_begin:n] LOOP
                outcome := advance_thread(c_user[item], p_conversation[c_item[item]], c_prev[item], p_seq[c_item[item]]);
                IF outcome = 1 THEN
                    v_written := v_written || item;
                ELSE
                    RETURN NEXT;
                END IF;
            END LOOP;
        END IF;
        v_begin := n + 1;
    END LOOP;

    outcome := 1;
    v_total := cardinality(v_written);
    v_begin := 1;
    SELECT array_agg(w.copy) INTO v_blocked FROM unnest(v_written) AS w (copy)
    WHERE EXISTS (SELECT FROM block b WHERE b.user_id = c_user[w.copy] AND b.blocked_id = p_sender[c_item[w.copy]] OFFSET 0);
    FOR n IN 1..v_total LOOP
        item := v_written[n];
        m := c_item[item];
        IF n < v_total AND v_blocked IS NULL THEN
            v_next := v_written[n + 1];
            CONTINUE WHEN c_user[v_next] = c_user[item] AND c_user[item] <> p_sender[m]
                AND c_user[v_next] <> p_sender[c_item[v_next]]
                AND b_device[c_first[v_next]:c_last[v_next]] = b_device[c_first[item]:c_last[item]]
                AND b_registration[c_first[v_next]:c_last[v_next]] = b_registration[c_first[item]:c_last[item]];
        END IF;
        -- The copies v_begin to n of v_written are for the same devices.
        v_count := n - v_begin + 1;
        v_places := cardinality(r_copy);
        IF v_blocked IS NULL OR NOT item = ANY (v_blocked) THEN
            v_bodies := c_last[item] - c_first[item];
            FOR b IN 0..v_bodies LOOP
                k := c_first[item] + b;
                FOR device_id, v_pos IN
                    UPDATE device d SET head_pos = d.head_pos + v_count
                    WHERE d.user_id = c_user[item] AND d.linked AND d.has_queue
                        AND (b_device[k] = 0 OR (d.device_id = b_device[k] AND d.registration_id = b_registration[k]))
                        AND (d.user_id <> p_sender[m] OR d.device_id <> p_device[m])
                    RETURNING d.device_id, d.head_pos - v_count
                LOOP
                    FOR w IN v_begin..n LOOP
                        v_pos := v_pos + 1;
                        r_copy := r_copy || v_written[w];
                        r_body := r_body || (c_first[v_written[w]] + b);
                        r_device := r_device || device_id;
                        r_pos := r_pos || v_pos;
                    END LOOP;
                END LOOP;
            END LOOP;
        END IF;
        IF cardinality(r_copy) = v_places THEN
            device_id := NULL;
            pos := NULL;
            FOREACH item IN ARRAY v_written[v_begin:n] LOOP
                RETURN NEXT;
            END LOOP;
        END IF;
        v_begin := n + 1;
    END LOOP;

    INSERT INTO device_queue
    SELECT c_user[r.copy], r.device, r.pos, p_seq[r.m], p_sent_prev[r.m], p_at[r.m], p_device[r.m], b_type[r.body],
        p_conversation[r.m], c_peer[r.copy], p_sender[r.m], p_message[r.m], b_body[r.body]
    FROM (SELECT u.*, c_item[u.copy] AS m FROM unnest(r_copy, r_body, r_device, r_pos) AS u (copy, body, device, pos)) AS r;
    FOR n IN 1..cardinality(r_copy) LOOP
        item := r_copy[n];
        device_id := r_device[n];
        pos := r_pos[n];
        RETURN NEXT;
    END LOOP;
END $$;

-- As in 0002_functions.sql. All sends are taken for new, and their dedup rows are inserted at once; only when one of them turns out to be a
-- repeat, which is rare, is all of that undone and done again one by one.
CREATE OR REPLACE FUNCTION accept(
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
    v_careful boolean := false;
    v_group smallint;  -- 1, or why nothing can be accepted in this conversation
    v_lower boolean;
    v_recipient_lower boolean;
    v_refusal smallint;
    v_new integer[];
    v_of_day integer[];
    v_day smallint;
    v_entries integer := 0;
    v_why smallint[] := array_fill(0::smallint, ARRAY[v_total]);  -- 0: accepted
    v_seq bigint[] := array_fill(NULL::bigint, ARRAY[v_total]);
    v_sent_prev bigint[] := v_seq;
    v_prev bigint[] := v_seq;
    v_own_prev bigint[] := v_seq;
    v_at timestamptz[] := array_fill(NULL::timestamptz, ARRAY[v_total]);
    v_copy_prev bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(c_item)]);
    v_here integer[] := '{}';
    v_elsewhere integer[] := '{}';
BEGIN
    LOOP
    BEGIN
        v_new := '{}';
        FOR i IN 1..v_total LOOP
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
                v_why[i] := v_group;
                v_seq[i] := NULL;
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
                IF v_refusal = 0 AND (NOT v_careful OR dedup_insert(p_day[i], p_conversation[i], p_sender[i], p_device[i],
                        p_client_id[i], v_seq[i], v_at[i], p_message[i], p_digest[i])) THEN
                    v_why[i] := 0;
                    v_new := v_new || i;
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
                    v_why[i] := CASE WHEN v_refusal = 0 THEN 2 ELSE v_refusal END;
                    v_seq[i] := NULL;
                END IF;

                IF i = v_total OR p_conversation[i] <> p_conversation[i + 1] THEN
                    UPDATE conversation t SET last_seq = c.last_seq, last_accepted_at = c.last_accepted_at,
                        lower_prev = c.lower_prev, higher_prev = c.higher_prev, lower_sent = c.lower_sent,
                        higher_sent = c.higher_sent, lower_last = c.lower_last, higher_last = c.higher_last
                    WHERE t.conversation_id = c.conversation_id AND t.last_seq <> c.last_seq;
                END IF;
            END IF;
        END LOOP;
        IF NOT v_careful THEN
            FOREACH v_day IN ARRAY ARRAY(SELECT DISTINCT p_day[i] FROM unnest(v_new) AS i) LOOP
                v_of_day := ARRAY(SELECT i FROM unnest(v_new) AS i WHERE p_day[i] = v_day);
                IF dedup_insert_all(v_of_day, v_day, p_conversation, p_sender, p_device, p_client_id, v_seq, v_at,
                        p_message, p_digest) < cardinality(v_of_day) THEN
                    RAISE SQLSTATE 'WH001';
                END IF;
            END LOOP;
        END IF;
        EXIT;
    EXCEPTION WHEN SQLSTATE 'WH001' THEN
        v_careful := true;
    END;
    END LOOP;

    FOR i IN 1..v_total LOOP
        IF v_why[i] <> 0 THEN
            item := i;
            outcome := v_why[i];
            seq := NULL;
            accepted_at := NULL;
            message_id := NULL;
            IF outcome NOT IN (10, 11, 23) THEN
                v_row := dedup_find(p_day[i], p_conversation[i], p_sender[i], p_device[i], p_client_id[i]);
                IF v_row.seq IS NOT NULL THEN
                    outcome := CASE WHEN v_row.digest = p_digest[i] THEN 2 ELSE 20 END;
                    seq := v_row.seq;
                    accepted_at := v_row.accepted_at;
                    message_id := v_row.message_id;
                END IF;
            END IF;
            RETURN NEXT;
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
    IF cardinality(v_elsewhere) > 0 THEN
        device_id := NULL;
        pos := NULL;
        FOR entry_id IN INSERT INTO copy_outbox AS o (slot, user_slot, due, user_id, prev, seq, sent_prev, accepted_at,
                sender_device_id, conversation_id, peer_id, sender_id, message_id, devices, registrations, types, bodies)
            SELECT p_slot[e.m], c_slot[e.k], v_now + interval '2 seconds', c_user[e.k], v_copy_prev[e.k], v_seq[e.m],
                v_sent_prev[e.m], v_at[e.m], p_device[e.m], p_conversation[e.m], c_peer[e.k], p_sender[e.m], p_message[e.m],
                b_device[c_first[e.k]:c_last[e.k]], b_registration[c_first[e.k]:c_last[e.k]],
                b_type[c_first[e.k]:c_last[e.k]], b_body[c_first[e.k]:c_last[e.k]]
            FROM (SELECT u.k, c_item[u.k] AS m FROM unnest(v_elsewhere) AS u (k)) AS e
            RETURNING o.entry_id
        LOOP
            v_entries := v_entries + 1;
            copy := v_elsewhere[v_entries];
            item := c_item[copy];
            seq := v_seq[item];
            accepted_at := v_at[item];
            message_id := p_message[item];
            prev := v_copy_prev[copy];
            sent_prev := v_sent_prev[item];
            RETURN NEXT;
        END LOOP;
    END IF;
END $$;
