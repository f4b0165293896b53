-- What people query: always the newest row of each key, correct before parts merge.

CREATE VIEW IF NOT EXISTS live_recommendations AS
SELECT
    user_id, position, item_id, score, reason, source, propensity, slate_id, model_version,
    ts, produced_ms, written_ms, written_ms - produced_ms AS freshness_ms,
    toDateTime(intDiv(ts, 1000), 'UTC') AS event_time,
    toDateTime(intDiv(written_ms, 1000), 'UTC') AS written_time
FROM recommendations FINAL
ARRAY JOIN
    arrayEnumerate(item_ids) AS position, item_ids AS item_id, scores AS score,
    reasons AS reason, sources AS source, propensities AS propensity;

CREATE VIEW IF NOT EXISTS live_slates AS
SELECT
    user_id, position, item_id, score, reason, source, propensity, slate_id, model_version,
    ts, produced_ms, written_ms, written_ms - produced_ms AS freshness_ms,
    toDateTime(intDiv(ts, 1000), 'UTC') AS event_time,
    toDateTime(intDiv(written_ms, 1000), 'UTC') AS written_time
FROM slates FINAL
ARRAY JOIN
    arrayEnumerate(item_ids) AS position, item_ids AS item_id, scores AS score,
    reasons AS reason, sources AS source, propensities AS propensity;

CREATE VIEW IF NOT EXISTS live_metrics AS
SELECT
    name, last_value AS value, last_count AS count, last_ts AS ts, last_written AS written_ms,
    toDateTime(intDiv(last_ts, 1000), 'UTC') AS event_time
FROM (
    SELECT
        name, argMax(value, version) AS last_value, argMax(count, version) AS last_count,
        argMax(ts, version) AS last_ts, argMax(written_ms, version) AS last_written
    FROM metrics
    GROUP BY name
);

CREATE VIEW IF NOT EXISTS live_events AS
SELECT *, toDateTime(intDiv(ts, 1000), 'UTC') AS event_time FROM events FINAL;

CREATE VIEW IF NOT EXISTS live_items AS
SELECT
    item_id, title, category, brand, price, description, tags, stock, available_from,
    produced_ms, written_ms
FROM items FINAL
WHERE deleted = 0;

CREATE VIEW IF NOT EXISTS live_dead_letters AS
SELECT *, toDateTime(intDiv(written_ms, 1000), 'UTC') AS written_time FROM dead_letters FINAL;
