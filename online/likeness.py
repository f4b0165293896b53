"""Candidates by what their texts say, and how well each fits what the user had and asked for.

The nearest items by text of the user's newest items and queries are candidates, those that hardly
anybody took yet before the others. For every candidate: how alike it is to what the user had last;
what is known of the items that resemble it, in place of what is not known of itself (for items that
nobody took; cf. Gantner et al. 2010, "Learning attribute-to-feature mappings for cold-start
recommendations"); and whether its category, brand and price are those that the user takes.
"""

from __future__ import annotations

import math

import numpy as np

from online.compiled import compiled
from online.features import (
    CONDITIONAL,
    COSINE,
    FLOOR,
    LAST_RANK,
    NAMES,
    NEWEST_TEXTS,
    TEXT_FIRST,
    Scratch,
    stream_time,
)
from online.sequence import SEARCH
from online.tables import SLOT_MASK, TICK, Tables
from online.texts import Texts

CATALOGUE = 10  # newest items of the user that count for category, brand and price
COLD = 5.0  # events below which an item is cold
SHARES = (24, 16, 16)  # candidates by text: that nobody took yet, that are cold, others
RARE = 0.3  # what an item that everybody has leads to counts, against one that few have
FADE = np.array([0.95**p for p in range(NEWEST_TEXTS)], np.float32)
FEW = 5  # newest whose mean counts
PROXIES = 16  # of the items most alike that speak for one
(LAST, BEST, MEAN, QUERY, RARELY, SHARE, RANK, COLD_RANK, COVISITED, FOLLOWED, TREND, LAUNCH,
 NOW, CATEGORY, BRAND, PRICE) = range(TEXT_FIRST, TEXT_FIRST + 16)  # fmt: skip
LAUNCHED, LAUNCHED_NOW = 3_000.0, 300.0  # events after which an item's first one counts half
assert NAMES[LAST] == "text_last" and NAMES[PRICE] == "price_fit"


@compiled
def take_alike(
    t: Tables, x: Texts, s: Scratch, length: int, exclude_seen: bool, cand: np.ndarray, n: int,
    most: int,
) -> int:  # fmt: skip
    """Append items that resemble the user's newest (`s.items`); how many candidates there are.

    most: candidates that there may be.
    """
    best = np.empty((len(SHARES), max(SHARES)), np.int32)
    value = np.empty((len(SHARES), max(SHARES)), np.float32)
    held = np.zeros(len(SHARES), np.int64)
    near, alike, keys, known, taken = x.near, x.alike, t.key, t.known, t.taken
    for p in range(min(length, NEWEST_TEXTS)):
        i = s.items[p]
        rare = RARE + t.rarity[i]
        for k in range(near.shape[1]):
            key = near[i, k]
            if key < 0:
                break
            j = key & SLOT_MASK
            if keys[j] != key or not known[j] or s.chosen[j] or (exclude_seen and s.own[j] > 0):
                continue
            kind = 0 if taken[j] == 0.0 else 1 if taken[j] < COLD else 2
            much = np.float32(alike[i, k] * (rare if kind < 2 else FADE[p]))
            held[kind] = _held(j, much, best[kind], value[kind], held[kind], SHARES[kind])
    for kind in range(len(SHARES)):
        for a in range(min(held[kind], most - n)):
            s.chosen[best[kind, a]] = 1
            cand[n] = best[kind, a]
            n += 1
    return n


@compiled
def _held(
    j: int, much: np.float32, best: np.ndarray, value: np.ndarray, n: int, most: int
) -> int:  # fmt: skip
    """Put an item among the n best, the first n of `best`; how many there are then.

    Each is held once, with its highest value; of equal ones who came first stays before.
    """
    if n == most and much <= value[n - 1]:
        return n
    for a in range(n):
        if best[a] == j:
            if much <= value[a]:
                return n
            for later in range(a, n - 1):
                best[later], value[later] = best[later + 1], value[later + 1]
            n -= 1
            break
    a = min(n, most - 1)
    while a > 0 and value[a - 1] < much:
        best[a], value[a] = best[a - 1], value[a - 1]
        a -= 1
    best[a], value[a] = j, much
    return min(n + 1, most)


@compiled
def gather(x: Texts, s: Scratch, length: int) -> int:
    """Put the texts of the user's newest (`s.items`) where `write` looks for them; how many."""
    m = min(length, NEWEST_TEXTS)
    for p in range(m):
        i = s.items[p]
        s.text[p], s.text_scale[p] = x.vector[i], x.scale[i]
        s.text_item[p], s.text_kind[p] = i, s.kinds[p]
    return m


@compiled
def put_first(s: Scratch, m: int, vector: np.ndarray, scale: np.float32) -> int:
    """As if the user had searched for this just now; how many texts there are."""
    for p in range(min(m, NEWEST_TEXTS - 1), 0, -1):
        s.text[p], s.text_scale[p] = s.text[p - 1], s.text_scale[p - 1]
        s.text_item[p], s.text_kind[p] = s.text_item[p - 1], s.text_kind[p - 1]
    s.text[0], s.text_scale[0] = vector, scale
    s.text_item[0], s.text_kind[0] = -1, SEARCH
    return min(m + 1, NEWEST_TEXTS)


@compiled
def _copied(vector: np.ndarray, which: np.ndarray, n: int, out: np.ndarray) -> None:
    """Rows (n, T) of whole numbers, as floats."""
    for c in range(n):
        j = which[c]
        for k in range(vector.shape[1]):
            out[c, k] = vector[j, k]


@compiled
def _cosines(
    s: Scratch, vector: np.ndarray, scale: np.ndarray, m: int, cand: np.ndarray, rows: int,
    out: np.ndarray,
) -> None:  # fmt: skip
    """out (rows, m): how alike each candidate is to each of the m newest; 2 where it is the same.

    0 where one of them has no text (its scale is 0). Products of whole numbers of 8 bits are exact
    in single precision, whatever the order that BLAS adds them in (up to 1,040 of them), and BLAS
    takes less than half the time of a loop over bytes.
    """
    if m == 0:
        return
    _copied(vector, cand, rows, s.cand_text)
    _copied(s.text, np.arange(m), m, s.newest_text)
    product = np.dot(s.cand_text[:rows], s.newest_text[:m].T)
    for c in range(rows):
        j = cand[c]
        for p in range(m):
            same = s.text_item[p] == j
            out[c, p] = 2.0 if same else product[c, p] * (s.text_scale[p] * scale[j])


@compiled
def _write_alike(
    x: np.ndarray, cosine: np.ndarray, rows: int, m: int, kinds: np.ndarray, rare: np.ndarray
) -> None:
    """The columns that compare a candidate's text with that of the user's newest."""
    for c in range(rows):
        best, total, n, query = np.float32(0.0), np.float32(0.0), 0, np.float32(0.0)
        rarely = np.float32(0.0)
        for p in range(m):
            value = cosine[c, p]
            if value > 1.5:  # the very same item: `repeats` speaks for that
                continue
            if n == 0:
                x[c, LAST] = value
            best = max(best, value * FADE[p])
            rarely = max(rarely, value * rare[p])
            if n < FEW:
                total += value
            n += 1
            if query == 0.0 and kinds[p] == SEARCH:
                query = value
        x[c, BEST], x[c, QUERY], x[c, RARELY] = best, query, rarely
        x[c, MEAN] = total / np.float32(max(min(n, FEW), 1))


@compiled
def _rank(x: np.ndarray, rows: int, cold: np.ndarray) -> None:
    """Places among the candidates by BEST, and among the cold ones by RARELY."""
    best = np.empty(rows, np.float32)
    for c in range(rows):
        best[c] = -x[c, BEST]
    order = np.argsort(best)
    top = -best[order[0]] if rows > 0 else np.float32(0.0)
    for rank in range(rows):
        c = order[rank]
        if best[c] == 0.0:
            break
        x[c, RANK] = -math.log(1.0 + rank)
        x[c, SHARE] = math.exp(8.0 * (-best[c] - top))
    which, n = np.empty(rows, np.int64), 0
    for c in range(rows):
        if cold[c] and x[c, RARELY] > 0.0:
            which[n], best[n] = c, -x[c, RARELY]
            n += 1
    for rank, a in enumerate(np.argsort(best[:n])):
        x[which[a], COLD_RANK] = -math.log(1.0 + rank)


@compiled
def _write_proxies(
    t: Tables, texts: Texts, s: Scratch, ts: int, cand: np.ndarray, rows: int, x: np.ndarray
) -> None:
    """What is known of the items that resemble a candidate, weighted by how much they do."""
    near, alike, keys, at, sums = texts.near, texts.alike, t.key, s.at, s.sums
    decayed, now, first = t.decayed, stream_time(t.clock[TICK], ts, 1), t.first_taken
    tick = t.clock[TICK]
    for c in range(rows):
        j = cand[c]
        total, covisited, followed, trend = 1e-6, 0.0, 0.0, 0.0
        launch, just = 0.0, 0.0
        for k in range(min(PROXIES, near.shape[1])):
            key = near[j, k]
            if key < 0:
                break
            other = key & SLOT_MASK
            if keys[other] != key:
                continue
            weight = alike[j, k] * alike[j, k] * alike[j, k]
            total += weight
            trend += weight * max(decayed[other, 1] - now, FLOOR)
            if first[other] >= 0:
                launch += weight / (1.0 + (tick - first[other]) / LAUNCHED)
                just += weight / (1.0 + (tick - first[other]) / LAUNCHED_NOW)
            a = at[other]
            if a >= 0:
                covisited += weight * sums[a, COSINE]
                followed += weight * sums[a, CONDITIONAL]
        x[c, COVISITED] = math.log(0.01 + covisited / total)
        x[c, FOLLOWED] = math.log(0.003 + followed / total)
        x[c, TREND] = trend / total if total > 1e-5 else FLOOR
        x[c, LAUNCH], x[c, NOW] = launch / total, just / total


@compiled
def _write_catalogue(
    texts: Texts, s: Scratch, length: int, cand: np.ndarray, rows: int, x: np.ndarray
) -> None:
    """How often the user's newest were of the candidate's category and brand, and its price."""
    category, brand, price = texts.category, texts.brand, texts.price
    m, mean, priced = min(length, CATALOGUE), 0.0, 0
    for p in range(m):
        value = price[s.items[p]]
        if value == value:
            mean, priced = mean + value, priced + 1
    mean /= max(priced, 1)
    for c in range(rows):
        j = cand[c]
        same, brands = 0, 0
        for p in range(m):
            i = s.items[p]
            same += 1 if category[j] > 0 and category[i] == category[j] else 0
            brands += 1 if brand[j] > 0 and brand[i] == brand[j] else 0
        x[c, CATEGORY], x[c, BRAND] = same / max(m, 1), brands / max(m, 1)
        known = priced > 0 and price[j] == price[j]
        x[c, PRICE] = -min(abs(price[j] - mean), 3.0) if known else -1.0


@compiled
def write(
    t: Tables, texts: Texts, s: Scratch, length: int, m: int, ts: int, cand: np.ndarray,
    rows: int, x: np.ndarray,
) -> None:  # fmt: skip
    """Fill the text's columns of x (rows, FEATURES) for the candidates `cand[:rows]`.

    length: events of the user in `s.items`, whose walk lies in `s.sums`; m: texts in `s.text`.
    """
    for c in range(rows):
        for f in range(LAST, PRICE + 1):
            x[c, f] = 0.0
    if texts.vector.shape[1] == 0:
        return
    cold, cosine = np.empty(rows, np.bool_), np.empty((rows, NEWEST_TEXTS), np.float32)
    for c in range(rows):
        x[c, RANK] = x[c, COLD_RANK] = LAST_RANK
        cold[c] = t.taken[cand[c]] < COLD
    _cosines(s, texts.vector, texts.scale, m, cand, rows, cosine)
    rare = np.empty(NEWEST_TEXTS, np.float32)
    for p in range(m):
        rare[p] = RARE + t.rarity[s.text_item[p]] if s.text_item[p] >= 0 else np.float32(1.0)
    _write_alike(x, cosine, rows, m, s.text_kind, rare)
    _rank(x, rows, cold)
    _write_proxies(t, texts, s, ts, cand, rows, x)
    _write_catalogue(texts, s, length, cand, rows, x)
