-- Who was forgotten, and when: by a keyed hash of the user's id, never by the id. `ts` is the newest
-- event time that is forgotten: whatever is not newer is refused when it is delivered again. A row
-- with done_ms = 0 is an erasure that is under way. The place is that of the `forget` event; the
-- counts are the rows that were deleted.
CREATE TABLE IF NOT EXISTS erasures (
    user_hash String, forget_hash String, key_id String, ts Int64, done_ms Int64,
    events Int64, slates Int64, recommendations Int64, user_vectors Int64, dead_letters Int64,
    broker_id String, topic String, partition Int32, offset Int64, produced_ms Int64,
    version UInt64, written_ms Int64
) ENGINE = ReplacingMergeTree(version)
ORDER BY (user_hash, broker_id, topic, partition, offset)
SETTINGS index_granularity = 512;

CREATE VIEW IF NOT EXISTS live_erasures AS
SELECT
    user_hash, ts, done_ms, events, slates, recommendations, user_vectors, dead_letters,
    broker_id, topic, partition, offset, produced_ms,
    toDateTime(intDiv(ts, 1000), 'UTC') AS event_time,
    toDateTime(intDiv(done_ms, 1000), 'UTC') AS done_time
FROM erasures FINAL;
