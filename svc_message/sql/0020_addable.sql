-- Who may add an account to groups.

ALTER TABLE account ADD COLUMN addable_to_groups smallint NOT NULL DEFAULT 1 CHECK (addable_to_groups BETWEEN 1 AND 3);

-- As in 0004_accounts.sql, with one choice more. NULL leaves a choice as it is.
DROP FUNCTION set_privacy(smallint, bytea, smallint, integer, smallint, smallint);
CREATE FUNCTION set_privacy(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_by_handle smallint,
    p_by_number smallint, p_to_groups smallint)
RETURNS smallint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT p_slot = ANY (owned_slots(ARRAY[p_slot])) THEN
        RETURN slot_outcome(p_slot);
    ELSIF NOT is_caller(p_user, p_device, p_credential) THEN
        RETURN 31;
    END IF;
    UPDATE account a SET findable_by_handle = coalesce(p_by_handle, a.findable_by_handle),
        findable_by_number = coalesce(p_by_number, a.findable_by_number),
        addable_to_groups = coalesce(p_to_groups, a.addable_to_groups)
    WHERE a.user_id = p_user;
    RETURN 1;
END $$;

-- Who may add these accounts to groups: 1 everyone, 2 contacts, 3 nobody; 3 also for whoever is blocked.
CREATE FUNCTION group_audiences(p_slots smallint[], p_slot smallint[], p_user bytea[], p_caller bytea)
RETURNS TABLE (item integer, outcome smallint, audience smallint) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_owned smallint[] := owned_slots(p_slots);
BEGIN
    FOR i IN 1..cardinality(p_slot) LOOP
        item := i;
        audience := 3;
        IF NOT p_slot[i] = ANY (v_owned) THEN
            outcome := slot_outcome(p_slot[i]);
        ELSE
            outcome := 1;
            IF NOT is_blocked(p_user[i], p_caller) THEN
                SELECT a.addable_to_groups INTO audience FROM account a WHERE a.user_id = p_user[i];
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
