-- Takes the messages of groups that somebody was told of, as take_runs takes those that are overdue. Those that are not here, or that all
-- have by now, are left out.
CREATE FUNCTION take_due_runs(p_group bytea[], p_seq bigint[], p_lease interval) RETURNS SETOF group_outbox
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
        WITH told AS (
            SELECT o.group_id, o.seq FROM unnest(p_group, p_seq) AS t (group_id, seq)
            JOIN group_outbox o ON o.group_id = t.group_id AND o.seq = t.seq
            JOIN slot s ON s.slot = o.slot AND s.state = 1
            ORDER BY o.group_id, o.seq FOR UPDATE OF o SKIP LOCKED)
        UPDATE group_outbox o SET due = clock_timestamp() + p_lease, attempts = least(o.attempts + 1, 30)
        FROM told WHERE o.group_id = told.group_id AND o.seq = told.seq RETURNING o.*;
END $$;
