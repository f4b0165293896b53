-- Besides events, what a core was told, in order: announcements of items, and the encoder's turns.
-- Together with `events` it is what a worker goes on from after its last checkpoint. A batch's number
-- ends (10 bits) in that of the shard that learned it.
CREATE TABLE IF NOT EXISTS journal (
    shard Int32, batch Int64, kind String, pos Int32, body String,
    broker_id String, written_ms Int64
) ENGINE = ReplacingMergeTree()
ORDER BY (shard, batch, kind, pos)
SETTINGS index_granularity = 1024;
