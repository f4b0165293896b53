"""Search: what fits a query, in the order in which this shopper would probably take it.

What is found comes from two sides: words (a lexical index outside says how much of the query each
item's text contains) and meaning (nearest by text vector). How well an item fits is the better part
of both; among those that fit about as well, the ranker decides, which sees the shopper's sequence
with the query as its newest part. Searching changes nothing: the event `search` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from online.candidates import CANDIDATES, describe
from online.contest import Contest
from online.engine import ROWS
from online.features import FEATURES
from online.history import moments
from online.memory import Memory
from online.reasons import shared_words
from online.slots import hashes
from online.step import Recommendation
from online.texts import TextVector, most_alike, quantised

NEAREST = 160  # candidates by meaning; the others by words
FIT = 12.0  # what fitting counts, in units of the ranker's log-probability
WORDS = 0.6  # of FIT for containing all of the query's words; the rest for meaning


class Found(NamedTuple):
    slots: np.ndarray  # (N,) i4
    words: np.ndarray  # (N,) f4 share of the query that the item contains
    meaning: np.ndarray  # (N,) f4 cosine


class Search:
    def __init__(self, memory: Memory, contest: Contest) -> None:
        self._memory = memory
        self._contest = contest
        self._x = np.zeros((ROWS, FEATURES), np.float32)

    def search(
        self, query: TextVector, text: str, lexical: Mapping[str, float], user_id: str,
        now_ms: int, k: int, personal: bool = True,
    ) -> tuple[Recommendation, ...]:  # fmt: skip
        """The k that fit best, with reasons.

        query: its vector; text: as it was typed; lexical: by item, which share (0 to 1) of the
        query's words it contains; personal: False, and everybody is shown the same.
        """
        memory = self._memory
        vector, scale = quantised(np.frombuffer(query.values, np.float32))
        if not len(vector):
            vector = np.zeros(memory.texts.vector.shape[1], np.int8)
        found = self._shown(self._find(vector, scale, lexical), now_ms)
        if not len(found.slots):
            return ()
        fit = WORDS * found.words + (1.0 - WORDS) * np.maximum(found.meaning, 0.0)
        score = FIT * fit + self._ranked(found, vector, scale, user_id if personal else "", now_ms)
        order = np.lexsort((found.slots, -score))[:k]
        return tuple(self._row(found, int(n), float(score[n]), text) for n in order)

    def _find(self, vector: np.ndarray, scale: np.float32, lexical: Mapping[str, float]) -> Found:
        memory, rows = self._memory, self._memory.items.rows
        products = np.empty(rows, np.int32)
        slots, values = np.empty(NEAREST, np.int32), np.empty(NEAREST, np.float32)
        n = most_alike(
            memory.tables, memory.texts, rows, vector, scale, products, slots, values
        ) if scale > 0 else 0  # fmt: skip
        share = {memory.items.get(item): value for item, value in lexical.items()}
        share.pop(-1, None)
        best = sorted(share, key=lambda slot: (-share[slot], slot))[: CANDIDATES - n]
        every = np.unique(np.concatenate([slots[:n], np.array(best, np.int32)])).astype(np.int32)
        every = every[memory.tables.known[every] == 1]
        x = memory.texts
        cosine = products[every] * (scale * x.scale[every]) if scale > 0 else np.zeros(len(every))
        words = np.array([share.get(slot, 0.0) for slot in every.tolist()], np.float32)
        return Found(every, words, cosine.astype(np.float32))

    def _shown(self, found: Found, now_ms: int) -> Found:
        t = self._memory.tables
        showable = (t.hidden[found.slots] == 0) & (t.available[found.slots] <= now_ms)
        return Found(*(column[showable] for column in found))

    def _ranked(
        self, found: Found, vector: np.ndarray, scale: np.float32, user_id: str, now_ms: int
    ) -> np.ndarray:
        """Log-probabilities (N,) among those found."""
        memory, n = self._memory, len(found.slots)
        user, ts = np.array([memory.users.get(user_id)], np.int32), np.array([now_ms], np.int64)
        moments(memory.tables, user, ts)
        cand = np.zeros(ROWS, np.int32)
        cand[:n] = found.slots
        (session,) = hashes([""])
        describe(
            memory.tables, memory.scratch, memory.sequences, memory.texts, user[0], ts[0], session,
            vector, scale, cand, n, self._x,
        )  # fmt: skip
        return self._contest.predict(self._x[:n], np.array([0, n]))

    def _row(self, found: Found, n: int, score: float, text: str) -> Recommendation:
        memory = self._memory
        item = memory.items.ids[found.slots[n]]
        words = shared_words(text, memory.wording(item))
        if words:
            reason, source = f"contains {', '.join(words)}", "words"
        else:
            reason, source = f"in meaning near “{text}”", "text"
        return Recommendation(item, score, reason, source, 1.0)
