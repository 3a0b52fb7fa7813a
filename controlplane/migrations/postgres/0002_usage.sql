-- Usage and reports. `usage_logs` of the first version was a plain table that nothing wrote to: here it becomes one that
-- is parted by day, with whatever it holds; beside it stand sums per minute and hour, kept by whoever adds rows in the
-- same transaction, so that a month's report reads a month's hours. Texts compare by their bytes everywhere, so that an
-- order is the same whatever the database's language.

DROP INDEX usage_logs_by_time;
DROP INDEX usage_logs_by_key;
ALTER TABLE usage_logs RENAME TO usage_logs_before;
ALTER INDEX usage_logs_pkey RENAME TO usage_logs_before_pkey;

-- Usage records, each once: a record's place in its node's journal is unique, and its time never changes. `time_ms` is
-- when the record's window began. `asset` is empty where no single asset was named.
CREATE TABLE usage_logs (
    time_ms BIGINT NOT NULL,
    segment BIGINT NOT NULL,
    record_offset BIGINT NOT NULL,
    key_id BIGINT NOT NULL,
    status BIGINT NOT NULL,
    requests BIGINT NOT NULL CHECK (requests >= 1),
    node TEXT COLLATE "C" NOT NULL,
    asset TEXT COLLATE "C" NOT NULL,
    protocol TEXT COLLATE "C" NOT NULL,
    endpoint TEXT COLLATE "C" NOT NULL,
    tier TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (time_ms, node, segment, record_offset)
) PARTITION BY RANGE (time_ms);
CREATE INDEX usage_logs_by_key ON usage_logs (key_id, time_ms);

-- Rows of days without a partition of their own: of clocks that are far off, and of days whose partition could not be
-- made in time.
CREATE TABLE usage_logs_rest PARTITION OF usage_logs DEFAULT;

-- Makes the partition of a day (days since 1970, UTC), and moves into it what the rest holds of that day. NULL when it
-- is there, otherwise why it is not: then its rows go to the rest, and nothing is lost but speed. Attaching a table of
-- its own, unlike making it as a partition, does not lock out who reads or writes other days. One process at a time;
-- none waits for a lock longer than half a second.
CREATE FUNCTION usage_logs_make_day(day BIGINT) RETURNS TEXT LANGUAGE plpgsql AS $$
DECLARE
    own TEXT := 'usage_logs_' || to_char(to_timestamp(day * 86400) AT TIME ZONE 'UTC', 'YYYYMMDD');
    from_ms BIGINT := day * 86400000;
    to_ms BIGINT := (day + 1) * 86400000;
BEGIN
    PERFORM set_config('lock_timeout', '500', true);
    PERFORM pg_advisory_xact_lock(7307184271001);
    IF EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
               WHERE inhparent = 'usage_logs'::regclass AND relname = own) THEN
        RETURN NULL;
    END IF;
    LOCK TABLE usage_logs IN SHARE UPDATE EXCLUSIVE MODE;
    LOCK TABLE usage_logs_rest IN ACCESS EXCLUSIVE MODE;
    -- So many are moved well within a statement's time.
    IF (SELECT count(*) FROM (SELECT FROM usage_logs_rest AS r WHERE r.time_ms >= from_ms AND r.time_ms < to_ms
                              LIMIT 50001) AS few) > 50000 THEN
        RETURN 'the rest holds more than 50000 rows of that day';
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE usage_logs INCLUDING ALL)', own);
    EXECUTE format('WITH moved AS (DELETE FROM usage_logs_rest WHERE time_ms >= %s AND time_ms < %s RETURNING *) '
                   'INSERT INTO %I SELECT * FROM moved', from_ms, to_ms, own);
    EXECUTE format('ALTER TABLE usage_logs ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', own, from_ms, to_ms);
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLERRM;
END $$;

-- Removes the oldest day that ends at `before_ms` or earlier, or else up to `rows_max` single rows older than that; how
-- many rows went, of a day as the server estimates them, at least 1. 0 when none is left, or another process is at it,
-- or a reader has the day in use for more than half a second: who asks again later finds it.
CREATE FUNCTION usage_logs_prune(before_ms BIGINT, rows_max BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    oldest RECORD;
    removed BIGINT;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7307184271002) THEN
        RETURN 0;
    END IF;
    PERFORM set_config('lock_timeout', '500', true);
    SELECT inhrelid::regclass::text AS own, greatest(reltuples, 1)::bigint AS rows INTO oldest
        FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'usage_logs'::regclass AND relname ~ '^usage_logs_[0-9]{8}$'
            AND (extract(epoch FROM to_date(right(relname, 8), 'YYYYMMDD')) + 86400) * 1000 <= before_ms
        ORDER BY relname LIMIT 1;
    IF FOUND THEN
        BEGIN
            EXECUTE format('DROP TABLE %s', oldest.own);
            RETURN oldest.rows;
        EXCEPTION WHEN lock_not_available THEN
            RETURN 0;
        END;
    END IF;
    DELETE FROM usage_logs AS l USING (
        SELECT time_ms, node, segment, record_offset FROM usage_logs WHERE time_ms < before_ms LIMIT rows_max
    ) AS o WHERE l.time_ms = o.time_ms AND l.node = o.node AND l.segment = o.segment
        AND l.record_offset = o.record_offset AND l.time_ms < before_ms;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

-- Sums of `requests` by everything a report can ask for. Kept after their rows are gone. Pages keep room for the
-- next version of a row, because those of the present minute and hour change with every batch.
CREATE TABLE usage_minutes (
    bucket_ms BIGINT NOT NULL,
    key_id BIGINT NOT NULL,
    status BIGINT NOT NULL,
    requests BIGINT NOT NULL CHECK (requests >= 1),
    asset TEXT COLLATE "C" NOT NULL,
    protocol TEXT COLLATE "C" NOT NULL,
    endpoint TEXT COLLATE "C" NOT NULL,
    tier TEXT COLLATE "C" NOT NULL,
    node TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (bucket_ms, key_id, asset, protocol, endpoint, status, tier, node)
) WITH (fillfactor = 70);
CREATE TABLE usage_hours (LIKE usage_minutes INCLUDING ALL) WITH (fillfactor = 70);
CREATE INDEX usage_hours_by_key ON usage_hours (key_id, bucket_ms);

-- How far each segment of each node's journal is committed: `position` is the place behind the last.
CREATE TABLE usage_cursors (
    node TEXT COLLATE "C" NOT NULL,
    segment BIGINT NOT NULL,
    position BIGINT NOT NULL CHECK (position >= 0),
    last_time_ms BIGINT NOT NULL,
    PRIMARY KEY (node, segment)
);
CREATE INDEX usage_cursors_by_time ON usage_cursors (last_time_ms);

-- What was there before, each row in its day's partition, and its sums.
SELECT usage_logs_make_day(day) FROM (SELECT DISTINCT time_ms / 86400000 AS day FROM usage_logs_before) AS days
    WHERE day BETWEEN 0 AND 47482;
INSERT INTO usage_logs (time_ms, node, segment, record_offset, key_id, asset, protocol, endpoint, status, tier,
        requests)
    SELECT time_ms, node, segment, record_offset, key_id, asset, protocol, endpoint, status, tier, requests
    FROM usage_logs_before;
INSERT INTO usage_minutes (bucket_ms, key_id, asset, protocol, endpoint, status, tier, node, requests)
    SELECT time_ms - time_ms % 60000, key_id, asset, protocol, endpoint, status, tier, node,
        least(sum(requests), 9223372036854775807)::bigint
    FROM usage_logs GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
INSERT INTO usage_hours (bucket_ms, key_id, asset, protocol, endpoint, status, tier, node, requests)
    SELECT bucket_ms - bucket_ms % 3600000, key_id, asset, protocol, endpoint, status, tier, node,
        least(sum(requests), 9223372036854775807)::bigint
    FROM usage_minutes GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
DROP TABLE usage_logs_before;

-- Reports that were asked for: who, what, and what became of it. `key_id` 0 is the administrator. `query` holds no key.
CREATE TABLE report_usage_logs (
    id TEXT PRIMARY KEY,
    time_ms BIGINT NOT NULL,
    key_id BIGINT NOT NULL,
    report TEXT NOT NULL,
    protocol TEXT NOT NULL,
    format TEXT NOT NULL,
    query TEXT NOT NULL,
    status BIGINT NOT NULL,
    lines BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    took_ms BIGINT NOT NULL,
    complete BOOLEAN NOT NULL,
    node TEXT NOT NULL
);
CREATE INDEX report_usage_logs_by_key ON report_usage_logs (key_id, time_ms);
CREATE INDEX report_usage_logs_by_time ON report_usage_logs (time_ms);

-- Reports of each key on each day (its first ms, UTC), with the lines and bytes they sent; counted with their log rows.
CREATE TABLE report_count (
    key_id BIGINT NOT NULL,
    day_ms BIGINT NOT NULL,
    reports BIGINT NOT NULL CHECK (reports >= 0),
    lines BIGINT NOT NULL CHECK (lines >= 0),
    bytes BIGINT NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (key_id, day_ms)
);

-- What an operator keeps about reports, by name, for programs of his own beside this one, which reads none of it.
CREATE TABLE report_parameters (
    name TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 128),
    value TEXT NOT NULL
);
