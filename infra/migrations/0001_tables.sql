-- Storage. People query the views of 0002; these tables may hold a row twice until parts merge.
-- Types are those that every server since 18.16 knows. Times are epoch milliseconds, UTC.
-- `version` orders rows by their place in the log: produced_ms * 4194304 + offset % 4194304.

-- The journal: every accepted event, with its place in the log and in the batch it was learned in.
-- The place is part of the key, so a redelivered event replaces itself and nothing else.
-- Small granules: histories are read by user, a few hundred users at a time.
CREATE TABLE IF NOT EXISTS events (
    event_id String, type String, user_id String, item_id String, ts Int64,
    session_id String, price Nullable(Float64), quantity Nullable(Float64),
    rating Nullable(Float64), query Nullable(String), text Nullable(String), slate_id String,
    position Nullable(Int32), context String,
    broker_id String, topic String, partition Int32, offset Int64, produced_ms Int64,
    batch Int64, batch_pos Int32, written_ms Int64
) ENGINE = ReplacingMergeTree()
PRIMARY KEY (user_id, ts)
ORDER BY (user_id, ts, event_id, broker_id, topic, partition, offset)
SETTINGS index_granularity = 256;

CREATE TABLE IF NOT EXISTS items (
    item_id String, title String, category String, brand String, price Nullable(Float64),
    description String, tags Array(String), stock Nullable(Float64),
    available_from Nullable(Int64), deleted UInt8,
    broker_id String, topic String, partition Int32, offset Int64, produced_ms Int64,
    version UInt64, written_ms Int64
) ENGINE = ReplacingMergeTree(version)
ORDER BY item_id
SETTINGS index_granularity = 512;

-- The newest slate of each user; positions are the places in the arrays, from 1.
CREATE TABLE IF NOT EXISTS recommendations (
    user_id String, slate_id String, item_ids Array(String), scores Array(Float64),
    reasons Array(String), sources Array(String), propensities Array(Float64),
    model_version String, ts Int64, broker_id String, topic String, partition Int32,
    offset Int64, produced_ms Int64, version UInt64, written_ms Int64
) ENGINE = ReplacingMergeTree(version)
ORDER BY user_id
SETTINGS index_granularity = 512;

-- Every slate ever made, for counterfactual evaluation.
CREATE TABLE IF NOT EXISTS slates (
    user_id String, slate_id String, item_ids Array(String), scores Array(Float64),
    reasons Array(String), sources Array(String), propensities Array(Float64),
    model_version String, ts Int64, broker_id String, topic String, partition Int32,
    offset Int64, produced_ms Int64, version UInt64, written_ms Int64
) ENGINE = ReplacingMergeTree()
PRIMARY KEY (user_id, ts)
ORDER BY (user_id, ts, slate_id, broker_id, topic, partition, offset)
SETTINGS index_granularity = 1024;

-- One row per measurement; topic, partition and offset are those of the batch's last event.
CREATE TABLE IF NOT EXISTS metrics (
    name String, value Float64, count Int64, ts Int64, broker_id String, topic String,
    partition Int32, offset Int64, batch Int64, produced_ms Int64, version UInt64,
    written_ms Int64
) ENGINE = ReplacingMergeTree()
ORDER BY (name, ts, broker_id, topic, partition, offset);

CREATE TABLE IF NOT EXISTS dead_letters (
    broker_id String, topic String, partition Int32, offset Int64, produced_ms Int64,
    reason String, raw String, written_ms Int64
) ENGINE = ReplacingMergeTree()
ORDER BY (broker_id, topic, partition, offset);
