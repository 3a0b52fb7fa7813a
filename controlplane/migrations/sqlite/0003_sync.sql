-- What `sync` needs to bring a copy of the database up to date without reading all of it: which rows have arrived since
-- the last time. SQLite has one writer at a time, so plain numbers are taken in the order of the commits.

-- Which database this is; up to which number arrivals have been removed: a copy that was brought up to date before that
-- is to be made anew; and the number of the last report.
CREATE TABLE sync_state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    identity TEXT NOT NULL,
    pruned INTEGER NOT NULL,
    reports INTEGER NOT NULL
) STRICT;
INSERT INTO sync_state (one, identity, pruned, reports) VALUES (1, lower(hex(randomblob(16))), 0, 0);

-- Which usage rows came together: places of one segment, `from_place` to `to_place`, with the times of their windows.
-- Rows that were there before may lie among them, and none that came is left out.
CREATE TABLE usage_arrivals (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    change INTEGER NOT NULL GENERATED ALWAYS AS (number) VIRTUAL,
    segment INTEGER NOT NULL,
    from_place INTEGER NOT NULL,
    to_place INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    records INTEGER NOT NULL,
    arrived_ms INTEGER NOT NULL,
    node TEXT NOT NULL
) STRICT;
CREATE INDEX usage_arrivals_by_time ON usage_arrivals (arrived_ms);

-- The same of reports, each by itself, whoever writes them.
ALTER TABLE report_usage_logs ADD COLUMN change INTEGER NOT NULL DEFAULT 0;
CREATE INDEX report_usage_logs_by_change ON report_usage_logs (change, id);
CREATE TRIGGER report_usage_logs_inserted AFTER INSERT ON report_usage_logs
BEGIN
    UPDATE sync_state SET reports = reports + 1;
    UPDATE report_usage_logs SET change = (SELECT reports FROM sync_state) WHERE id = NEW.id;
END;
