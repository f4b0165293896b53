"""Features of a candidate: what the ranker sees, and which candidate source each belongs to.

The first LOGS columns are written as arguments of a logarithm, which `online.ranker` takes for the
whole list at once. Sums come from `online.walk`; the rest from the item's and user's counts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from online.compiled import compiled
from online.tables import DECAYS, TICK, TICK_HALF_LIVES, TIME_HALF_LIVES, Tables

SUMS = 14
(COVISIT, SHORT, SYMMETRIC, CONDITIONAL, COSINE, NEXT, NEXT2, BACK, HITS, BEST,
 NEIGHBOURS, FOLLOWS, TOGETHERS, NEWEST) = range(SUMS)  # fmt: skip
SHARES = SUMS - 1  # all but NEWEST also appear as a share of the list's largest

LOG_NAMES = (
    "covisit", "covisit_short", "covisit_symmetric", "covisit_conditional", "cosine",
    "transition", "transition_second", "covisit_back", "hits", "best_conditional",
    "neighbours", "neighbours_next", "same_session", "pair_age",
    "covisit_symmetric_damped", "covisit_damped",
    "popularity", "events_since_last", "seconds_since_last", "item_age",
    "own_count", "own_gap", "user_gap", "user_events", "session_events", "own_seconds",
)  # fmt: skip
LOGS = len(LOG_NAMES)
SHARE_NAMES = tuple(f"{name}_share" for name in LOG_NAMES[:SHARES])
DECAY_NAMES = tuple(f"trend_{int(h)}_events" for h in TICK_HALF_LIVES) + tuple(
    f"trend_{int(h / 3_600_000)}_hours" for h in TIME_HALF_LIVES
)
LAST_NAMES = ("own_recency", "own_in_session", "same_moment", "taste_popularity", "taste_trend")
# of the texts and the catalogue: see `online.likeness`
TEXT_NAMES = (
    "text_last", "text_best", "text_mean", "text_query", "text_rare", "text_share", "text_rank",
    "text_cold_rank", "text_covisited", "text_followed", "text_trend", "text_launch",
    "text_launch_now", "category_share", "brand_share", "price_fit",
)  # fmt: skip
# of the sequence encoder, in the last columns: log probability in the list, its share of the
# largest, minus the log of the rank, cosine with the newest item and with the newest few
SEQUENCE_NAMES = (
    "sequence_score", "sequence_share", "sequence_rank", "sequence_last", "sequence_recent",
)  # fmt: skip
_USUAL = LOG_NAMES + SHARE_NAMES + DECAY_NAMES + LAST_NAMES
NAMES = _USUAL + TEXT_NAMES + SEQUENCE_NAMES
TEXT_FIRST, TEXT_FEATURES = len(_USUAL), len(TEXT_NAMES)
SEQUENCE_FEATURES = len(SEQUENCE_NAMES)
FEATURES = len(NAMES)

# Columns by candidate source. What a source contributed to a score is measured by taking its
# columns away (`absent` values), so every column that depends on the item belongs to one source.
SOURCES = (
    "co-visitation", "transition", "neighbours", "popularity", "trending", "repeats", "sequence",
    "text", "category",
)  # fmt: skip
_SOURCE_OF = {
    "transition": "transition", "transition_second": "transition", "covisit_short": "transition",
    "neighbours": "neighbours", "neighbours_next": "neighbours",
    "popularity": "popularity", "item_age": "popularity",
    "events_since_last": "trending", "seconds_since_last": "trending",
    "own_count": "repeats", "own_gap": "repeats", "own_seconds": "repeats",
    "own_recency": "repeats", "own_in_session": "repeats",
    "user_gap": "", "user_events": "", "session_events": "", "same_moment": "",
    "taste_popularity": "", "taste_trend": "",
    "category_share": "category", "brand_share": "category", "price_fit": "category",
}  # fmt: skip


def source_of(name: str) -> str:
    """The candidate source that a feature belongs to; "" for the user's context.

    >>> source_of("transition_share"), source_of("cosine"), source_of("user_gap")
    ('transition', 'co-visitation', '')
    """
    for prefix, source in (("trend_", "trending"), ("sequence_", "sequence"), ("text_", "text")):
        if name.startswith(prefix):
            return source
    if name in _SOURCE_OF:
        return _SOURCE_OF[name]
    return _SOURCE_OF.get(name.removesuffix("_share"), "co-visitation")


def widened(weights: np.ndarray) -> np.ndarray:
    """Weights (FEATURES, …); those of a release without texts, with nothing for theirs.

    >>> len(widened(np.ones(FEATURES - TEXT_FEATURES))) == FEATURES
    True
    """
    if len(weights) != FEATURES - TEXT_FEATURES:
        return weights
    none = np.zeros((TEXT_FEATURES, *weights.shape[1:]), weights.dtype)
    return np.concatenate([weights[:TEXT_FIRST], none, weights[TEXT_FIRST:]])


HALF = np.array(TICK_HALF_LIVES + TIME_HALF_LIVES)
TICKS = len(TICK_HALF_LIVES)
LEAST = -16.0  # log probability of an item that the encoder does not know
LAST_RANK = -math.log(257.0)
NEWEST_TEXTS = 20  # items and queries of the user whose texts count
MOST_ROWS = 257  # rows that one list may take: `online.engine.ROWS`
WALK_USERS = 96  # similar users whose items are walked
FLOOR = -12.0  # log2 of the smallest decayed count that still differs from nothing


class Scratch(NamedTuple):
    """Work space of one `propose`; between calls only its zeros and -1s matter."""

    at: np.ndarray  # (I,) i4 place of an item among the touched, -1 none
    touched: np.ndarray  # (M,) i4 slots
    sums: np.ndarray  # (M, SUMS) f4; the last row stays zero
    rate: np.ndarray  # (M,) f4
    order: np.ndarray  # (M,) i4
    chosen: np.ndarray  # (I,) i1
    own: np.ndarray  # (I,) i4 how often the user had the item
    own_gap: np.ndarray  # (I,) i4 1 = the user's newest event
    own_session: np.ndarray  # (I,) i1 in this session
    user_weight: np.ndarray  # (U,) f4
    users: np.ndarray  # (WALK_USERS,) i4
    items: np.ndarray  # (H,) i4 the user's items, newest first
    kinds: np.ndarray  # (H,) i1
    prices: np.ndarray  # (H,) i1
    ts: np.ndarray  # (H,) i8
    sessions: np.ndarray  # (H,) u8
    query: np.ndarray  # (D,) f4 of the sequence encoder
    # texts of the user's newest items and queries, newest first
    text: np.ndarray  # (NEWEST_TEXTS, T) i1
    text_scale: np.ndarray  # (NEWEST_TEXTS,) f4
    text_item: np.ndarray  # (NEWEST_TEXTS,) i4 slot, -1 none
    text_kind: np.ndarray  # (NEWEST_TEXTS,) i1
    newest_text: np.ndarray  # (NEWEST_TEXTS, T) f4 the same, for products
    cand_text: np.ndarray  # (MOST_ROWS, T) f4


def new_scratch(items: int, users: int, history: int, width: int, text: int = 0) -> Scratch:
    """width: D of the sequence encoder; text: T of the texts' vectors."""
    touched = items + 1
    return Scratch(
        at=np.full(items, -1, np.int32),
        touched=np.zeros(touched, np.int32),
        sums=np.zeros((touched, SUMS), np.float32),
        rate=np.zeros(touched, np.float32),
        order=np.zeros(touched, np.int32),
        chosen=np.zeros(items, np.int8),
        own=np.zeros(items, np.int32),
        own_gap=np.zeros(items, np.int32),
        own_session=np.zeros(items, np.int8),
        user_weight=np.zeros(users, np.float32),
        users=np.zeros(WALK_USERS, np.int32),
        items=np.zeros(history, np.int32),
        kinds=np.zeros(history, np.int8),
        prices=np.zeros(history, np.int8),
        ts=np.zeros(history, np.int64),
        sessions=np.zeros(history, np.uint64),
        query=np.zeros(width, np.float32),
        text=np.zeros((NEWEST_TEXTS, text), np.int8),
        text_scale=np.zeros(NEWEST_TEXTS, np.float32),
        text_item=np.zeros(NEWEST_TEXTS, np.int32),
        text_kind=np.zeros(NEWEST_TEXTS, np.int8),
        newest_text=np.zeros((NEWEST_TEXTS, text), np.float32),
        cand_text=np.zeros((MOST_ROWS, text), np.float32),
    )


@compiled
def stream_time(tick: int, ts: int, d: int) -> float:
    """The clock of decay `d`, in half-lives."""
    return (tick if d < TICKS else ts) / HALF[d]


@compiled
def _decayed(t: Tables, item: int, tick: int, ts: int, d: int) -> float:
    # not before the item's last event: a late one would find more than there ever was
    return max(t.decayed[item, d] - stream_time(tick, max(ts, t.last_ts[item]), d), FLOOR)


@compiled
def write(
    t: Tables, s: Scratch, length: int, fresh: int, ts: int, cand: np.ndarray, rows: int,
    x: np.ndarray,
) -> None:  # fmt: skip
    """Fill x (rows, FEATURES) f4 for the candidates `cand[:rows]`.

    length: events of the user in `s.items`; fresh: how many of them belong to this session.
    """
    tick = t.clock[TICK]
    nothing = len(s.sums) - 1
    top = np.full(SUMS, 1e-9, np.float32)
    for c in range(rows):
        a = s.at[cand[c]]
        if a >= 0:
            for k in range(SUMS):
                top[k] = max(top[k], s.sums[a, k])
    for k in range(SUMS):
        top[k] = np.float32(1.0) / top[k]
    gap = max(ts - s.ts[0], 0) / 1000.0 if length > 0 else 1e9
    taste, trend = 0.0, 0.0
    m = min(length, 10)
    for p in range(m):
        taste += math.log1p(t.taken[s.items[p]]) / m
        trend += _decayed(t, s.items[p], tick, ts, 1) / m
    for c in range(rows):
        j = cand[c]
        a = s.at[j] if s.at[j] >= 0 else nothing
        _write_counts(t, s, a, j, tick, ts, x[c])
        x[c, 22] = 1.0 + gap
        x[c, 23] = 1.0 + length
        x[c, 24] = 1.0 + fresh
        for k in range(SHARES):
            x[c, LOGS + k] = math.sqrt(s.sums[a, k] * top[k])
        f = LOGS + SHARES
        for d in range(DECAYS):
            x[c, f + d] = _decayed(t, j, tick, ts, d)
        f += DECAYS
        own = s.own[j] > 0
        x[c, f] = 1.0 / s.own_gap[j] if own else 0.0
        x[c, f + 1] = s.own_session[j] if own else 0.0
        x[c, f + 2] = 1.0 if gap == 0.0 else 0.0
        x[c, f + 3] = taste
        x[c, f + 4] = trend


@compiled
def _write_counts(
    t: Tables, s: Scratch, a: int, j: int, tick: int, ts: int, row: np.ndarray
) -> None:
    """The columns under a logarithm that differ by item; each at least a small positive number."""
    sums = s.sums
    pop = t.taken[j]
    damp = pop**-0.3 if pop > 0.0 else 1.0
    row[0] = 1.0 + sums[a, COVISIT]
    row[1] = 1.0 + 4.0 * sums[a, SHORT]
    row[2] = 1.0 + sums[a, SYMMETRIC]
    row[3] = 0.003 + sums[a, CONDITIONAL]
    row[4] = 0.01 + sums[a, COSINE]
    row[5] = 0.003 + sums[a, NEXT]
    row[6] = 0.003 + sums[a, NEXT2]
    row[7] = 1.0 + sums[a, BACK]
    row[8] = 1.0 + sums[a, HITS]
    row[9] = 0.003 + sums[a, BEST]
    row[10] = 1.0 + 8.0 * sums[a, NEIGHBOURS]
    row[11] = 1.0 + 8.0 * sums[a, FOLLOWS]
    row[12] = 0.003 + sums[a, TOGETHERS]
    row[13] = max(tick - sums[a, NEWEST], 0.0) + 1.0 if sums[a, NEWEST] > 0.0 else 1e6
    row[14] = 0.03 + sums[a, SYMMETRIC] * damp
    row[15] = 0.03 + sums[a, COVISIT] * damp
    row[16] = 1.0 + pop
    row[17] = 1.0 + max(tick - t.last_tick[j], 0) if pop > 0.0 else 1e6
    row[18] = 1.0 + max(ts - t.last_ts[j], 0) / 1000.0 if pop > 0.0 else 1e9
    row[19] = 1.0 + max(tick - t.first_tick[j], 0)
    own = s.own[j]
    row[20] = 1.0 + own
    row[21] = s.own_gap[j] if own > 0 else 1.0
    row[25] = 1.0 + max(ts - s.ts[s.own_gap[j] - 1], 0) / 1000.0 if own > 0 else 1.0


_ABSENT = {
    "covisit_conditional": 0.003, "cosine": 0.01, "transition": 0.003, "transition_second": 0.003,
    "best_conditional": 0.003, "same_session": 0.003, "covisit_symmetric_damped": 0.03,
    "covisit_damped": 0.03, "events_since_last": 1e6, "seconds_since_last": 1e9, "pair_age": 1e6,
    "sequence_score": LEAST, "sequence_rank": LAST_RANK,
    "text_rank": LAST_RANK, "text_cold_rank": LAST_RANK, "text_covisited": math.log(0.01),
    "text_followed": math.log(0.003), "text_trend": FLOOR, "price_fit": -1.0,
}  # fmt: skip


def _unknown(column: int) -> float:
    """What a column holds, before logarithms, for an item that its source does not know."""
    name = NAMES[column]
    if name.startswith("trend_"):
        return FLOOR
    return _ABSENT.get(name, 1.0 if column < LOGS else 0.0)


# (FEATURES,) each: a row of which no source knows anything; and each column's source, by its place
# in SOURCES, -1 for what is the user's context
UNKNOWN = np.array([_unknown(column) for column in range(FEATURES)], np.float32)
SOURCE = np.array([SOURCES.index(s) if (s := source_of(name)) else -1 for name in NAMES])
