-- The sequence encoder's vectors, the newest of each user and item. Their product is the encoder's
-- score of the item for the user (the last number stands for the item's bias); `encoder` names the
-- weights: products of vectors of nearby versions can be compared.
CREATE TABLE IF NOT EXISTS user_vectors (
    user_id String, vector Array(Float32), encoder Int64, ts Int64,
    broker_id String, topic String, partition Int32, offset Int64, produced_ms Int64,
    version UInt64, written_ms Int64
) ENGINE = ReplacingMergeTree(version)
ORDER BY user_id
SETTINGS index_granularity = 1024;

CREATE TABLE IF NOT EXISTS item_vectors (
    item_id String, vector Array(Float32), encoder Int64, ts Int64,
    broker_id String, topic String, partition Int32, offset Int64, produced_ms Int64,
    version UInt64, written_ms Int64
) ENGINE = ReplacingMergeTree(version)
ORDER BY item_id
SETTINGS index_granularity = 1024;

CREATE VIEW IF NOT EXISTS live_user_vectors AS
SELECT user_id, vector, encoder, ts, produced_ms, written_ms FROM user_vectors FINAL;

CREATE VIEW IF NOT EXISTS live_item_vectors AS
SELECT item_id, vector, encoder, ts, produced_ms, written_ms FROM item_vectors FINAL;
