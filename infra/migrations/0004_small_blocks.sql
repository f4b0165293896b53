-- needs server 22.3
-- Histories are read for a few hundred users at a time, whose rows lie far apart. With blocks of 64 KB
-- each of them decompresses 64 KB a column; with these a read takes half of the time (25 and 13 ms
-- for 400 users, 800,000 events), and the table takes 6 % more room.
-- Parts below 1 GB are one file instead of two a column, which saves another fifth of a read.
ALTER TABLE events MODIFY SETTING
    min_compress_block_size = 8192, max_compress_block_size = 16384,
    min_bytes_for_wide_part = 1000000000;
