-- To whom an account has written first of late: of how many people it may become known in a day.
CREATE TABLE first_contact (
    user_id bytea NOT NULL,  -- who wrote
    recipient_id bytea NOT NULL,
    contacted_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, recipient_id)
);
CREATE INDEX first_contact_age ON first_contact (contacted_at);

-- Counts first contacts, p_user ascending, unless the sender has had p_most others in the last day: then 26, and in how long one more
-- may be. Counting the same again within the day changes nothing.
CREATE FUNCTION count_first_contacts(p_slots smallint[], p_slot smallint[], p_user bytea[], p_recipient bytea[], p_most integer)
RETURNS TABLE (item integer, outcome smallint, wait interval) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
    v_oldest timestamptz;
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        wait := NULL;
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            -- One at a time counts for an account.
            PERFORM FROM account a WHERE a.user_id = p_user[i] FOR NO KEY UPDATE;
            outcome := CASE WHEN FOUND THEN 1 ELSE 6 END;
            PERFORM FROM first_contact t WHERE t.user_id = p_user[i] AND t.recipient_id = p_recipient[i]
                AND t.contacted_at > clock_timestamp() - interval '1 day';
            IF NOT FOUND AND outcome = 1 THEN
                SELECT t.contacted_at INTO v_oldest FROM first_contact t
                WHERE t.user_id = p_user[i] AND t.contacted_at > clock_timestamp() - interval '1 day'
                ORDER BY t.contacted_at DESC OFFSET p_most - 1 LIMIT 1;
                IF FOUND THEN
                    outcome := 26;
                    wait := v_oldest + interval '1 day' - clock_timestamp();
                ELSE
                    INSERT INTO first_contact VALUES (p_user[i], p_recipient[i], clock_timestamp())
                    ON CONFLICT (user_id, recipient_id) DO UPDATE SET contacted_at = EXCLUDED.contacted_at;
                END IF;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Which of these pairs are in a group together, of the groups that are here.
CREATE FUNCTION share_groups(p_user bytea[], p_other bytea[]) RETURNS SETOF integer LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
    SELECT p.item::integer FROM unnest(p_user, p_other) WITH ORDINALITY AS p (user_id, other_id, item)
    WHERE EXISTS (
        SELECT FROM member a JOIN member b ON b.group_id = a.group_id AND b.user_id = p.other_id AND b.left_seq IS NULL
        JOIN chat_group g ON g.group_id = a.group_id JOIN slot s ON s.slot = g.slot AND s.state = 1
        WHERE a.user_id = p.user_id AND a.left_seq IS NULL);
END $$;
