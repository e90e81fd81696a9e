-- What people have told the operators about others. It stands on the reporter's slot and goes with the reporter's account.
CREATE TABLE report (
    user_id bytea NOT NULL,  -- who reports
    report_id bytea NOT NULL,
    reported_id bytea NOT NULL,
    reason smallint NOT NULL,
    reported_at timestamptz NOT NULL,
    content bytea NOT NULL,  -- the request, serialised
    PRIMARY KEY (user_id, report_id)
);
CREATE INDEX report_age ON report (reported_at, report_id);

-- Keeps a report unless the account has made p_most in the last day: then 26, and in how long one more may be. The same again is done.
CREATE FUNCTION make_report(p_slot smallint, p_user bytea, p_device smallint, p_credential integer, p_report bytea, p_reported bytea,
    p_reason smallint, p_content bytea, p_most integer, OUT outcome smallint, OUT wait interval)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_oldest timestamptz;
BEGIN
    outcome := check_caller(p_slot, p_user, p_device, p_credential);
    IF outcome <> 1 THEN
        RETURN;
    END IF;
    -- One report of an account at a time.
    PERFORM FROM account a WHERE a.user_id = p_user FOR NO KEY UPDATE;
    PERFORM FROM report r WHERE r.user_id = p_user AND r.report_id = p_report;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT r.reported_at INTO v_oldest FROM report r
    WHERE r.user_id = p_user AND r.reported_at > clock_timestamp() - interval '1 day'
    ORDER BY r.reported_at DESC OFFSET p_most - 1 LIMIT 1;
    IF FOUND THEN
        outcome := 26;
        wait := v_oldest + interval '1 day' - clock_timestamp();
    ELSE
        INSERT INTO report VALUES (p_user, p_report, p_reported, p_reason, clock_timestamp(), p_content);
    END IF;
END $$;

-- Reports on slots that are served here, below a place, newest first.
CREATE FUNCTION reports_before(p_at timestamptz, p_report bytea, p_limit integer)
RETURNS TABLE (user_id bytea, report_id bytea, reported_at timestamptz, content bytea) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM slot LIMIT 1;
    RETURN QUERY
    SELECT r.user_id, r.report_id, r.reported_at, r.content FROM report r
    JOIN account a ON a.user_id = r.user_id JOIN slot s ON s.slot = a.slot AND s.state IN (1, 2)
    WHERE p_at IS NULL OR (r.reported_at, r.report_id) < (p_at, p_report)
    ORDER BY r.reported_at DESC, r.report_id DESC LIMIT p_limit;
END $$;
