-- What groups do not keep for ever: device epochs long past, and everything of a group that has no members.

-- As in 0012_group_functions.sql, and of a group's device epochs the last thousand stay.
CREATE OR REPLACE FUNCTION next_device_epochs(p_user bytea) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
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
        DELETE FROM group_device_change c WHERE c.group_id = v_group AND c.device_epoch = v_epoch - 1000;
    END LOOP;
    RETURN true;
END $$;

CREATE INDEX chat_group_empty ON chat_group (group_id) WHERE member_count = 0;

-- Forgets up to p_limit groups whose last member left before p_before; how many. Their rows in chat_group stay, so that nobody makes such a
-- group anew, whose seqs would begin again where threads of former members stand further.
CREATE FUNCTION forget_empty_groups(p_before timestamptz, p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_group bytea;
    v_count integer := 0;
BEGIN
    FOR v_group IN SELECT g.group_id FROM chat_group g JOIN slot s ON s.slot = g.slot AND s.state = 1
            JOIN group_profile p ON p.group_id = g.group_id
            JOIN group_change c ON c.group_id = g.group_id AND c.revision = g.revision
            WHERE g.member_count = 0 AND c.changed_at < p_before
                AND NOT EXISTS (SELECT FROM group_outbox o WHERE o.group_id = g.group_id)
            ORDER BY g.group_id LIMIT p_limit FOR UPDATE OF g LOOP
        DELETE FROM group_profile t WHERE t.group_id = v_group;
        DELETE FROM member t WHERE t.group_id = v_group;
        DELETE FROM group_ban t WHERE t.group_id = v_group;
        DELETE FROM join_request t WHERE t.group_id = v_group;
        DELETE FROM group_change t WHERE t.group_id = v_group;
        DELETE FROM group_device_change t WHERE t.group_id = v_group;
        DELETE FROM group_message t WHERE t.group_id = v_group;
        DELETE FROM receipt t WHERE t.user_id = v_group;
        DELETE FROM receipt_counter t WHERE t.user_id = v_group;
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;
