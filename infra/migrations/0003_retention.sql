-- needs server 20.8
-- How long what only grows is kept, counted from the time of writing. Histories (`events`) and
-- the newest slates stay: people are forgotten by `forget` events, not by age. To change a limit,
-- ALTER TABLE slates MODIFY TTL … as below (or REMOVE TTL); old servers know no TTL: delete there.
-- Rows written before 2001 have no real time of writing (tests, replays) and stay.
ALTER TABLE slates MODIFY TTL
    toDateTime(intDiv(written_ms, 1000), 'UTC') + INTERVAL 90 DAY
    DELETE WHERE written_ms > 1000000000000;
ALTER TABLE metrics MODIFY TTL
    toDateTime(intDiv(written_ms, 1000), 'UTC') + INTERVAL 365 DAY
    DELETE WHERE written_ms > 1000000000000;
ALTER TABLE dead_letters MODIFY TTL
    toDateTime(intDiv(written_ms, 1000), 'UTC') + INTERVAL 30 DAY
    DELETE WHERE written_ms > 1000000000000;
