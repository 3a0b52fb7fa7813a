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

-- Both functions act with the rights of whoever migrated, because partitions are made and removed by their owner alone:
-- who may add rows may have days made, who may delete rows may have the old ones removed, and nobody else. Names in
-- them are found in this schema only (below).

-- Makes the partition of a day (days since 1970, UTC), and moves into it what the rest holds of that day. NULL when it
-- is there, otherwise why it is not, a statement's end of time included: then its rows go to the rest, and nothing is
-- lost but speed. Attaching a table of its own, unlike making it as a partition, does not lock out who reads or writes
-- other days; who reads or writes the rest waits meanwhile. One process at a time; none waits for another for longer
-- than half a second, and none has others wait behind it at the rest for longer than a fifth.
CREATE FUNCTION usage_logs_make_day(day BIGINT) RETURNS TEXT LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    own TEXT := 'usage_logs_' || to_char(to_timestamp(day * 86400) AT TIME ZONE 'UTC', 'YYYYMMDD');
    from_ms BIGINT := day * 86400000;
    to_ms BIGINT := (day + 1) * 86400000;
BEGIN
    IF NOT has_table_privilege(session_user, 'usage_logs', 'INSERT') THEN
        RETURN 'the user may not INSERT into usage_logs';
    END IF;
    PERFORM set_config('lock_timeout', '500', true);
    PERFORM pg_advisory_xact_lock(7307184271001);
    IF EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
               WHERE inhparent = 'usage_logs'::regclass AND relname = own) THEN
        RETURN NULL;
    END IF;
    -- Attaching looks through the whole rest, some 7 million rows here: within a second, from memory.
    IF pg_relation_size('usage_logs_rest') > 1073741824 THEN
        RETURN 'usage_logs_rest is larger than 1 GiB';
    END IF;
    LOCK TABLE usage_logs IN SHARE UPDATE EXCLUSIVE MODE;
    PERFORM set_config('lock_timeout', '200', true);
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
EXCEPTION WHEN OTHERS OR query_canceled THEN
    RETURN SQLERRM;
END $$;

-- What `before_ms`, made from an asker's clock of `now_ms`, means by the server's: where the asker's is ahead by more than
-- a minute, so is `before_ms`, and is set back by as much, to the beginning of a day.
CREATE FUNCTION usage_logs_before(before_ms BIGINT, now_ms BIGINT) RETURNS BIGINT LANGUAGE sql AS $$
    SELECT CASE WHEN ahead_ms > 60000 THEN greatest(before_ms - ahead_ms, 0) / 86400000 * 86400000 ELSE before_ms END
    FROM (SELECT now_ms - (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ahead_ms) AS clocks
$$;

-- Removes the oldest day that ends at `before_ms` or earlier, or else up to `rows_max` single rows older than that; how
-- many rows went, of a day as the server estimates them, at least 1. 0 when none is left, or another process is at it,
-- or a reader has the day in use for more than half a second: who asks again later finds it. NULL when the user may not.
CREATE FUNCTION usage_logs_prune(before_ms BIGINT, now_ms BIGINT, rows_max BIGINT) RETURNS BIGINT LANGUAGE plpgsql
    SECURITY DEFINER AS $$
DECLARE
    oldest RECORD;
    removed BIGINT;
BEGIN
    IF NOT has_table_privilege(session_user, 'usage_logs', 'DELETE') THEN
        RETURN NULL;
    END IF;
    IF NOT pg_try_advisory_xact_lock(7307184271002) THEN
        RETURN 0;
    END IF;
    before_ms := usage_logs_before(before_ms, now_ms);
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

DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION usage_logs_make_day(BIGINT) SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION usage_logs_prune(BIGINT, BIGINT, BIGINT) SET search_path = %I, pg_temp',
                   current_schema());
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

-- How far each segment of each node's journal is committed: `position` is the place behind the last; `last_time_ms` is
-- when it last moved, by the server's clock.
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
