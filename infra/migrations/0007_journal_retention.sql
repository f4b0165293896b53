-- needs server 20.8
-- No worker goes back further than its oldest state, which is an hour old at most while events come.
ALTER TABLE journal MODIFY TTL
    toDateTime(intDiv(written_ms, 1000), 'UTC') + INTERVAL 30 DAY
    DELETE WHERE written_ms > 1000000000000;
