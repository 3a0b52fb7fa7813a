-- The first schema. Times are Unix milliseconds UTC, names of units stand last. Prices, where tables come to hold any,
-- are TEXT. Tables of parts that do not exist yet (reports, transactions, support tickets, leads, newsletter) are made
-- by the migration that brings the part: their columns are not known before.

-- Numbers that grow with changes, so that one small query tells a node whether to look further.
CREATE TABLE change_counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL CHECK (value >= 0)
) STRICT;
INSERT INTO change_counters (name, value) VALUES ('keys', 0), ('reloads', 0), ('parameters', 0), ('assets', 0);

-- Tiers. Rank 0 is shed first. Permission bits: 1 prices, 2 reports, 4 streams. A month's limit of 0 is no limit.
CREATE TABLE rate_limit_template (
    name TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64),
    rank INTEGER NOT NULL CHECK (rank BETWEEN 0 AND 3),
    limit_per_second INTEGER NOT NULL CHECK (limit_per_second BETWEEN 1 AND 4294967295),
    limit_per_second_performance INTEGER CHECK (limit_per_second_performance BETWEEN 1 AND 4294967295),
    limit_per_month INTEGER NOT NULL CHECK (limit_per_month >= 0),
    permissions INTEGER NOT NULL CHECK (permissions BETWEEN 0 AND 65535)
) STRICT;
INSERT INTO rate_limit_template VALUES
    ('demo', 0, 3, 1000, 0, 7),
    ('basic', 1, 100, NULL, 10000000, 5),
    ('pro', 2, 1000, NULL, 100000000, 5),
    ('enterprise', 3, 10000, NULL, 0, 7),
    ('stress', 1, 100000, NULL, 0, 7);

CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
    email TEXT NOT NULL UNIQUE,
    preferred_lang TEXT,
    created_time_ms INTEGER NOT NULL
) STRICT;

-- API keys: the SHA-256 of the text, never the text. `change` is given by the triggers below, whoever writes.
CREATE TABLE api_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    hint TEXT NOT NULL,
    name TEXT NOT NULL,
    tier TEXT NOT NULL REFERENCES rate_limit_template (name),
    limit_per_second INTEGER CHECK (limit_per_second BETWEEN 1 AND 4294967295),
    limit_per_month INTEGER CHECK (limit_per_month >= 0),
    permissions INTEGER CHECK (permissions BETWEEN 0 AND 65535),
    udp_secret BLOB NOT NULL CHECK (length(udp_secret) = 16),
    created_time_ms INTEGER NOT NULL CHECK (created_time_ms >= 0),
    expires_time_ms INTEGER CHECK (expires_time_ms >= 0),
    revoked_time_ms INTEGER CHECK (revoked_time_ms >= 0),
    rotated_to INTEGER REFERENCES api_keys (id),
    user_id INTEGER REFERENCES users (id),
    change INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX api_keys_by_change ON api_keys (change);

-- SQLite has one writer at a time, so numbers are taken in the order of the commits.
CREATE TRIGGER api_keys_inserted AFTER INSERT ON api_keys
BEGIN
    UPDATE change_counters SET value = value + 1 WHERE name = 'keys';
    UPDATE api_keys SET change = (SELECT value FROM change_counters WHERE name = 'keys') WHERE id = NEW.id;
END;
CREATE TRIGGER api_keys_changed AFTER UPDATE ON api_keys WHEN NEW.change = OLD.change
BEGIN
    UPDATE change_counters SET value = value + 1 WHERE name = 'keys';
    UPDATE api_keys SET change = (SELECT value FROM change_counters WHERE name = 'keys') WHERE id = NEW.id;
END;
CREATE TRIGGER api_keys_stay BEFORE DELETE ON api_keys
BEGIN
    SELECT RAISE(ABORT, 'keys are revoked, never deleted: running nodes would not learn of it');
END;
CREATE TRIGGER rate_limit_template_inserted AFTER INSERT ON rate_limit_template
BEGIN
    UPDATE change_counters SET value = value + 1 WHERE name = 'keys';
END;
CREATE TRIGGER rate_limit_template_changed AFTER UPDATE ON rate_limit_template
BEGIN
    UPDATE change_counters SET value = value + 1 WHERE name = 'keys';
END;
CREATE TRIGGER rate_limit_template_deleted AFTER DELETE ON rate_limit_template
BEGIN
    UPDATE change_counters SET value = value + 1 WHERE name = 'keys';
END;

CREATE TABLE application_parameters (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE exchange_asset_map (
    exchange TEXT NOT NULL,
    asset TEXT NOT NULL,
    enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    PRIMARY KEY (exchange, asset)
) STRICT;

-- The audit trail. The values are JSON texts, secrets masked.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    node TEXT NOT NULL,
    caller TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    value_before TEXT NOT NULL,
    value_after TEXT NOT NULL
) STRICT;

-- Requests of each key in each month (year × 12 + month − 1). Keys of the settings file are counted too, so there is no
-- reference to api_keys.
CREATE TABLE usage_months (
    key_id INTEGER NOT NULL,
    month INTEGER NOT NULL,
    requests INTEGER NOT NULL CHECK (requests >= 0),
    PRIMARY KEY (key_id, month)
) STRICT;

-- The last batch of each process that adds to usage_months, so that none is added twice.
CREATE TABLE usage_writers (
    writer TEXT PRIMARY KEY,
    batch INTEGER NOT NULL,
    last_time_ms INTEGER NOT NULL
) STRICT;

-- Usage records, each once: a record's place in its node's journal is unique.
CREATE TABLE usage_logs (
    node TEXT NOT NULL,
    segment INTEGER NOT NULL,
    record_offset INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    asset TEXT NOT NULL,
    protocol TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    status INTEGER NOT NULL,
    tier TEXT NOT NULL,
    requests INTEGER NOT NULL CHECK (requests >= 1),
    PRIMARY KEY (node, segment, record_offset)
) STRICT;
CREATE INDEX usage_logs_by_time ON usage_logs (time_ms);
CREATE INDEX usage_logs_by_key ON usage_logs (key_id, time_ms);

CREATE TABLE webhook_subscriptions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id INTEGER NOT NULL REFERENCES api_keys (id),
    channel TEXT NOT NULL CHECK (channel IN ('https', 'udp')),
    target TEXT NOT NULL,
    assets TEXT NOT NULL,
    interval_s INTEGER NOT NULL CHECK (interval_s BETWEEN 3 AND 60),
    secret BLOB NOT NULL,
    paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    created_time_ms INTEGER NOT NULL
) STRICT;
