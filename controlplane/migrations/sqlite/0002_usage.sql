-- Usage and reports. `usage_logs` of the first version was a table that nothing wrote to: here it is kept in the order of
-- time, with whatever it holds; beside it stand sums per minute and hour, kept by whoever adds rows in the same
-- transaction, so that a month's report reads a month's hours.

DROP INDEX usage_logs_by_time;
DROP INDEX usage_logs_by_key;
ALTER TABLE usage_logs RENAME TO usage_logs_before;

-- Usage records, each once: a record's place in its node's journal is unique, and its time never changes. `time_ms` is
-- when the record's window began. `asset` is empty where no single asset was named.
CREATE TABLE usage_logs (
    time_ms INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    record_offset INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    status INTEGER NOT NULL,
    requests INTEGER NOT NULL CHECK (requests >= 1),
    node TEXT NOT NULL,
    asset TEXT NOT NULL,
    protocol TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    tier TEXT NOT NULL,
    PRIMARY KEY (time_ms, node, segment, record_offset)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_logs_by_key ON usage_logs (key_id, time_ms);

-- Sums of `requests` by everything a report can ask for. Kept after their rows are gone.
CREATE TABLE usage_minutes (
    bucket_ms INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    status INTEGER NOT NULL,
    requests INTEGER NOT NULL CHECK (requests >= 1),
    asset TEXT NOT NULL,
    protocol TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    tier TEXT NOT NULL,
    node TEXT NOT NULL,
    PRIMARY KEY (bucket_ms, key_id, asset, protocol, endpoint, status, tier, node)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage_hours (
    bucket_ms INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    status INTEGER NOT NULL,
    requests INTEGER NOT NULL CHECK (requests >= 1),
    asset TEXT NOT NULL,
    protocol TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    tier TEXT NOT NULL,
    node TEXT NOT NULL,
    PRIMARY KEY (bucket_ms, key_id, asset, protocol, endpoint, status, tier, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_hours_by_key ON usage_hours (key_id, bucket_ms);

-- How far each segment of each node's journal is committed: `position` is the place behind the last; `last_time_ms` is
-- when it last moved.
CREATE TABLE usage_cursors (
    node TEXT NOT NULL,
    segment INTEGER NOT NULL,
    position INTEGER NOT NULL CHECK (position >= 0),
    last_time_ms INTEGER NOT NULL,
    PRIMARY KEY (node, segment)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_cursors_by_time ON usage_cursors (last_time_ms);

-- What was there before, and its sums.
INSERT INTO usage_logs (time_ms, node, segment, record_offset, key_id, asset, protocol, endpoint, status, tier,
        requests)
    SELECT time_ms, node, segment, record_offset, key_id, asset, protocol, endpoint, status, tier, requests
    FROM usage_logs_before;
INSERT INTO usage_minutes (bucket_ms, key_id, asset, protocol, endpoint, status, tier, node, requests)
    SELECT time_ms - time_ms % 60000, key_id, asset, protocol, endpoint, status, tier, node, sum(requests)
    FROM usage_logs GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
INSERT INTO usage_hours (bucket_ms, key_id, asset, protocol, endpoint, status, tier, node, requests)
    SELECT bucket_ms - bucket_ms % 3600000, key_id, asset, protocol, endpoint, status, tier, node, sum(requests)
    FROM usage_minutes GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
DROP TABLE usage_logs_before;

-- Reports that were asked for: who, what, and what became of it. `key_id` 0 is the administrator. `query` holds no key.
CREATE TABLE report_usage_logs (
    id TEXT PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    report TEXT NOT NULL,
    protocol TEXT NOT NULL,
    format TEXT NOT NULL,
    query TEXT NOT NULL,
    status INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    took_ms INTEGER NOT NULL,
    complete INTEGER NOT NULL CHECK (complete IN (0, 1)),
    node TEXT NOT NULL
) STRICT;
CREATE INDEX report_usage_logs_by_key ON report_usage_logs (key_id, time_ms);
CREATE INDEX report_usage_logs_by_time ON report_usage_logs (time_ms);

-- Reports of each key on each day (its first ms, UTC), with the lines and bytes they sent; counted with their log rows.
CREATE TABLE report_count (
    key_id INTEGER NOT NULL,
    day_ms INTEGER NOT NULL,
    reports INTEGER NOT NULL CHECK (reports >= 0),
    lines INTEGER NOT NULL CHECK (lines >= 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (key_id, day_ms)
) STRICT;

-- What an operator keeps about reports, by name, for programs of his own beside this one, which reads none of it.
CREATE TABLE report_parameters (
    name TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 128),
    value TEXT NOT NULL
) STRICT;
