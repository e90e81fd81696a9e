-- Who may see whether an account is online, and how exactly when it last was.

ALTER TABLE account ADD COLUMN presence_visible_to smallint NOT NULL DEFAULT 1 CHECK (presence_visible_to BETWEEN 1 AND 3);
ALTER TABLE account ADD COLUMN last_seen smallint NOT NULL DEFAULT 1 CHECK (last_seen BETWEEN 1 AND 3);  -- to the minute, the hour, the day

-- As in 0020_addable.sql, with two choices more. NULL leaves a choice as it is.
DROP FUNCTION set_privacy(smallint, bytea, smallint, integer, smallint, smallint, smallint);
CREATE FUNCTION set_privacy(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_by_handle smallint,
    p_by_number smallint, p_to_groups smallint, p_presence smallint, p_last_seen smallint)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    ELSIF NOT is_caller(p_user, p_device, p_credential) THEN
        RETURN 31;
    END IF;
    UPDATE account a SET findable_by_handle = coalesce(p_by_handle, a.findable_by_handle),
        findable_by_number = coalesce(p_by_number, a.findable_by_number),
        addable_to_groups = coalesce(p_to_groups, a.addable_to_groups),
        presence_visible_to = coalesce(p_presence, a.presence_visible_to),
        last_seen = coalesce(p_last_seen, a.last_seen)
    WHERE a.user_id = p_user;
    RETURN 1;
END $$;

-- What each account lets the other of its pair see: the audience, how exactly, and whether it has blocked the other. An account that does not
-- exist has blocked everybody.
CREATE FUNCTION presence_choices(p_slots smallint[], p_slot smallint[], p_user bytea[], p_other bytea[])
RETURNS TABLE (item integer, outcome smallint, audience smallint, last_seen smallint, blocked boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        IF p_slot[i] = ANY (v_owned) THEN
            outcome := 1;
            SELECT a.presence_visible_to, a.last_seen INTO audience, last_seen
            FROM account a WHERE a.user_id = p_user[i] AND a.deleted_at IS NULL;
            blocked := NOT FOUND OR is_blocked(p_user[i], p_other[i]);
        ELSE
            outcome := slot_outcome(p_slot[i]);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Whether each user is a member of the group beside it now.
CREATE FUNCTION are_members(p_slots smallint[], p_slot smallint[], p_group bytea[], p_user bytea[])
RETURNS TABLE (item integer, outcome smallint, is_member boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        IF p_slot[i] = ANY (v_owned) THEN
            outcome := 1;
            PERFORM FROM member m WHERE m.group_id = p_group[i] AND m.user_id = p_user[i] AND m.left_seq IS NULL;
            is_member := FOUND;
        ELSE
            outcome := slot_outcome(p_slot[i]);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
