-- create_upload for many at once: the uploads that there are now, in any order; of one that is over the quota, no row.
-- An item's p_parts are its digests, joined. What one owner asks comes in its order; owners are taken in theirs, so that two batches cannot
-- wait for each other.
CREATE FUNCTION create_uploads(p_owners bytea[], p_uploads bytea[], p_media bytea[], p_sizes bigint[], p_sha256 bytea[], p_parts bytea[],
    p_now timestamptz[], p_expires timestamptz[], p_quotas bigint[])
RETURNS SETOF media LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v record;
BEGIN
    FOR v IN
        SELECT * FROM unnest(p_owners, p_uploads, p_media, p_sizes, p_sha256, p_parts, p_now, p_expires, p_quotas) WITH ORDINALITY
            AS t (owner, upload_id, media_id, size, sha256, parts, at, expires_at, quota, place)
        ORDER BY owner, place
    LOOP
        RETURN QUERY SELECT * FROM create_upload(v.owner, v.upload_id, v.media_id, v.size, v.sha256,
            CASE v.parts WHEN '' THEN '{}' ELSE
                ARRAY(SELECT substr(v.parts, 32 * n + 1, 32) FROM generate_series(0, length(v.parts) / 32 - 1) n)
            END,
            v.at, v.expires_at, v.quota);
    END LOOP;
END $$;
