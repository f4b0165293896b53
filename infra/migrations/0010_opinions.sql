-- What was read of reviews, by item and by the place of the event; without who wrote it.
CREATE TABLE IF NOT EXISTS opinions (
    item_id String, sentiment Float64, rating Nullable(Float64), ts Int64,
    broker_id String, topic String, partition Int32, offset Int64, produced_ms Int64,
    written_ms Int64
) ENGINE = ReplacingMergeTree()
ORDER BY (item_id, broker_id, topic, partition, offset)
SETTINGS index_granularity = 1024;

-- What shoppers say of each item, from -1 to 1.
CREATE VIEW IF NOT EXISTS live_item_opinions AS
SELECT
    item_id, avg(sentiment) AS opinion, count() AS reviews, countIf(sentiment <= -0.1) AS negative,
    max(ts) AS last_ts, toDateTime(intDiv(max(ts), 1000), 'UTC') AS last_time
FROM opinions FINAL
GROUP BY item_id;
