-- What belongs to an account beside its devices, and what identity asks of it. The rules and the outcomes are those of
-- 0002_functions.sql; more of them are named where they are given.

-- Whom an account has blocked; in the slot of the account.
CREATE TABLE block (
    user_id bytea NOT NULL,
    blocked_id bytea NOT NULL,
    PRIMARY KEY (user_id, blocked_id)
);

-- Whether a direct message of the sender is kept from the user. For where the copy is written: on the user's shard.
CREATE FUNCTION is_blocked(p_user bytea, p_sender bytea) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM block b WHERE b.user_id = p_user AND b.blocked_id = p_sender;
    RETURN FOUND;
END $$;
