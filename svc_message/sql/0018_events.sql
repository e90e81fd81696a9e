-- Domain events: what has happened, for the operator's own teams. Each is written in the transaction of the thing itself, by triggers that
-- cost a comparison unless the session says whimbrel.events = 'on', as the service's do when its setting says so. A row tells ids only.

CREATE TABLE domain_event (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slot smallint NOT NULL,
    kind smallint NOT NULL CHECK (kind BETWEEN 1 AND 5),  -- 1 accepted, 2 delivered, 3 read, 4 group changed, 5 device linked
    device_id smallint,  -- 1: the sender's; 5: the device
    happened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    after_seq bigint,  -- 2: nothing up to here is meant
    number bigint,  -- 1: the seq; 2, 3: the last seq; 4: the revision
    key_id bytea NOT NULL,  -- the conversation; 5: the account
    person_id bytea,  -- 1: the sender; 2, 3: who has received or read; 4: who made the change
    author_id bytea,  -- 2, 3: whose messages; NULL: a group's
    message_id bytea  -- 1
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- How far a consumer group is with the events of this shard. It belongs to the shard and moves with no slot: what moves is read again.
CREATE TABLE event_group (
    name text PRIMARY KEY,
    done_to bigint NOT NULL DEFAULT 0,  -- the group needs no event up to here any more
    safe_to bigint NOT NULL DEFAULT 0,  -- every event up to here has committed, or never will
    seen_to bigint NOT NULL DEFAULT 0,  -- the last event id given out when
    seen_in bigint NOT NULL DEFAULT 0,  -- this transaction looked
    holder text,  -- the consumer that reads, and
    held_until timestamptz NOT NULL DEFAULT '-infinity',
    heard_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

CREATE FUNCTION tell_accepted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO domain_event (slot, kind, happened_at, key_id, number, person_id, device_id, message_id)
    SELECT coalesce((SELECT c.slot FROM conversation c WHERE c.conversation_id = NEW.conversation_id), slot_of(NEW.conversation_id)),
        1, NEW.accepted_at, NEW.conversation_id, NEW.seq, NEW.sender_id, NEW.sender_device_id, NEW.message_id;
    RETURN NULL;
END $$;

DO $$
BEGIN
    FOR day IN 0..9 LOOP
        EXECUTE format('CREATE TRIGGER accepted AFTER INSERT ON dedup_%s FOR EACH ROW
            WHEN (current_setting(''whimbrel.events'', true) = ''on'') EXECUTE FUNCTION tell_accepted()', day);
    END LOOP;
END $$;

-- Of a receipt, what is new in it. A group's own row for a member is told; a sender's tally of a group delivers nothing of its own.
CREATE FUNCTION tell_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_author bytea := nullif(NEW.user_id, NEW.conversation_id);
BEGIN
    INSERT INTO domain_event (slot, kind, key_id, person_id, author_id, after_seq, number)
    SELECT slot_of(NEW.user_id), 2, NEW.conversation_id, NEW.peer_id, v_author, lower(r) - 1, upper(r) - 1
    FROM unnest(NEW.delivered - coalesce(OLD.delivered, '{}')) AS r;
    IF NEW.read_up_to > coalesce(OLD.read_up_to, 0) THEN
        INSERT INTO domain_event (slot, kind, key_id, person_id, author_id, number)
        VALUES (slot_of(NEW.user_id), 3, NEW.conversation_id, NEW.peer_id, v_author, NEW.read_up_to);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER receipted AFTER INSERT OR UPDATE OF delivered, read_up_to ON receipt FOR EACH ROW
    WHEN (current_setting('whimbrel.events', true) = 'on') EXECUTE FUNCTION tell_receipt();

CREATE FUNCTION tell_group_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO domain_event (slot, kind, happened_at, key_id, number, person_id)
    VALUES (slot_of(NEW.group_id), 4, NEW.changed_at, NEW.group_id, NEW.revision, NEW.actor_id);
    RETURN NULL;
END $$;
CREATE TRIGGER group_changed AFTER INSERT ON group_change FOR EACH ROW
    WHEN (current_setting('whimbrel.events', true) = 'on') EXECUTE FUNCTION tell_group_changed();

CREATE FUNCTION tell_linked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO domain_event (slot, kind, key_id, device_id) VALUES (slot_of(NEW.user_id), 5, NEW.user_id, NEW.device_id);
    RETURN NULL;
END $$;
CREATE TRIGGER linked_first AFTER INSERT ON device FOR EACH ROW
    WHEN (current_setting('whimbrel.events', true) = 'on' AND NEW.linked AND NEW.has_queue) EXECUTE FUNCTION tell_linked();
CREATE TRIGGER linked_again AFTER UPDATE OF linked ON device FOR EACH ROW
    WHEN (current_setting('whimbrel.events', true) = 'on' AND NEW.linked AND NOT OLD.linked) EXECUTE FUNCTION tell_linked();

-- The next events of a consumer group, for the one consumer that holds the shard for it; whoever asks when nobody holds it does from then on.
-- A group that is new begins with the oldest event that is kept. Rows: one with a NULL entry_id that tells whether the caller holds, then an
-- event each.
--
-- Ids are given out before their transactions commit, so that what is visible may have a hole that is filled later. An id is safe once every
-- transaction that was under way when it was given out is over: the id is looked up before this transaction takes a number of its own.
CREATE FUNCTION read_events(p_group text, p_holder text, p_lease interval, p_limit integer)
RETURNS TABLE (is_held boolean, entry_id bigint, kind smallint, device_id smallint, happened_at timestamptz, after_seq bigint,
    number bigint, key_id bytea, person_id bytea, author_id bytea, message_id bytea)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_seen bigint;
    g event_group%ROWTYPE;
BEGIN
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO v_seen FROM domain_event_entry_id_seq s;
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO event_group (name) VALUES (p_group) ON CONFLICT DO NOTHING;
    SELECT * INTO g FROM event_group t WHERE t.name = p_group FOR UPDATE;
    is_held := g.holder IS NULL OR g.holder = p_holder OR g.held_until < clock_timestamp();
    RETURN NEXT;
    IF NOT is_held THEN
        RETURN;
    END IF;
    IF g.seen_in < pg_snapshot_xmin(pg_current_snapshot())::text::bigint THEN
        g.safe_to := g.seen_to;
        g.seen_to := v_seen;
        g.seen_in := pg_current_xact_id()::text::bigint;
    END IF;
    UPDATE event_group t SET safe_to = g.safe_to, seen_to = g.seen_to, seen_in = g.seen_in, holder = p_holder,
        held_until = clock_timestamp() + p_lease, heard_at = clock_timestamp()
    WHERE t.name = p_group;
    RETURN QUERY SELECT true, e.entry_id, e.kind, e.device_id, e.happened_at, e.after_seq, e.number, e.key_id, e.person_id,
        e.author_id, e.message_id
    FROM domain_event e WHERE e.entry_id > g.done_to AND e.entry_id <= g.safe_to ORDER BY e.entry_id LIMIT p_limit;
END $$;

-- Notes that a group needs no event up to p_to any more. False if the consumer does not hold the shard for the group any more.
CREATE FUNCTION commit_events(p_group text, p_holder text, p_to bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE event_group g SET done_to = greatest(g.done_to, least(p_to, g.safe_to)), heard_at = clock_timestamp()
    WHERE g.name = p_group AND g.holder = p_holder;
    RETURN FOUND;
END $$;

-- Lets another consumer of the group read at once.
CREATE FUNCTION release_events(p_group text, p_holder text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE event_group g SET holder = NULL WHERE g.name = p_group AND g.holder = p_holder;
END $$;

-- Gives a group all events again that are kept. What its consumer has in hand it can commit no more.
CREATE FUNCTION rewind_events(p_group text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE event_group g SET done_to = 0, holder = NULL WHERE g.name = p_group;
END $$;

-- Removes the oldest events, at most p_limit: those that every group is done with and that are older than p_done_before; and, whoever still
-- needs them, those that are older than p_before or have p_most events behind them. Groups not heard of since p_before are forgotten. How many
-- went, and how many of those a group had yet to read.
CREATE FUNCTION forget_events(p_before timestamptz, p_done_before timestamptz, p_most bigint, p_limit integer,
    OUT removed bigint, OUT unread bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_done bigint;
    v_last bigint;
BEGIN
    PERFORM FROM slot LIMIT 1;
    DELETE FROM event_group g WHERE g.heard_at < p_before;
    SELECT min(g.done_to) INTO v_done FROM event_group g;  -- NULL: there is no group
    SELECT s.last_value INTO v_last FROM domain_event_entry_id_seq s;
    WITH gone AS (
        DELETE FROM domain_event e USING (
            SELECT o.entry_id FROM domain_event o ORDER BY o.entry_id LIMIT p_limit) AS n, slot s
        WHERE e.entry_id = n.entry_id AND s.slot = e.slot AND s.state IN (1, 4)
            AND ((e.entry_id <= v_done AND e.happened_at < p_done_before) OR e.happened_at < p_before OR e.entry_id <= v_last - p_most)
        RETURNING e.entry_id)
    SELECT count(*), count(*) FILTER (WHERE g.entry_id > v_done) INTO removed, unread FROM gone AS g;
END $$;
