-- What a language model made of texts: vectors by the content that they were made of, so that nothing
-- is read twice, and which of them is an item's now. Their product is how alike two texts are.
CREATE TABLE IF NOT EXISTS text_vectors (
    model String, text_key String, vector Array(Float32), written_ms Int64
) ENGINE = ReplacingMergeTree()
ORDER BY (model, text_key)
SETTINGS index_granularity = 256;

CREATE TABLE IF NOT EXISTS item_texts (
    item_id String, model String, text_key String, version UInt64, written_ms Int64
) ENGINE = ReplacingMergeTree(version)
ORDER BY item_id
SETTINGS index_granularity = 1024;

CREATE VIEW IF NOT EXISTS live_item_text_vectors AS
SELECT item_id, vector, model, written_ms
FROM (SELECT item_id, model, text_key, written_ms FROM item_texts FINAL) AS i
ANY INNER JOIN (SELECT model, text_key, vector FROM text_vectors) AS t USING (model, text_key);
