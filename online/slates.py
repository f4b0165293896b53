"""Slates: lists for users as they are now, scored, chosen, and explained."""

from __future__ import annotations

import itertools

import numpy as np

from online.contest import Contest
from online.engine import add_list, new_lists
from online.features import NAMES, SOURCES
from online.history import newest
from online.memory import Memory
from online.pairs import strongest
from online.policy import choose
from online.reasons import contributions, did, sentence
from online.slots import hash64
from online.step import Recommendation

Asked = tuple[str, int, str]  # user (held or not), event time in epoch ms, session or ""
AT_ONCE = 16  # lists that are scored together: bounds the work space
_OWN = NAMES.index("own_count")


class SlateMaker:
    def __init__(self, memory: Memory, contest: Contest, k: int, exclude_seen: bool) -> None:
        self._memory = memory
        self._contest = contest
        self._k = k
        self._exclude_seen = exclude_seen
        self._lists = new_lists(AT_ONCE)

    def make(self, asked: list[Asked], k: int | None = None) -> list[tuple[Recommendation, ...]]:
        """One slate for each of the asked, in order."""
        found = []
        for part in _parts(asked, AT_ONCE):
            found.extend(self._make(part, k or self._k))
        return found

    def _make(self, asked: list[Asked], k: int) -> list[tuple[Recommendation, ...]]:
        t, lists = self._memory.tables, self._lists
        users = [self._memory.users.get(user_id) for user_id, _, _ in asked]
        for n, (user, (_, ts, session)) in enumerate(zip(users, asked, strict=True)):
            hashed = np.uint64(hash64(session) if session else 0)
            add_list(
                t, self._memory.scratch, lists, n, user, ts, hashed, -1, self._exclude_seen, n
            )  # fmt: skip
        start = lists.start[: len(asked) + 1]
        scores = self._contest.predict(lists.x[: start[-1]], start)
        return [
            self._explained(user, ts, lists.cand[lo:hi], lists.x[lo:hi], scores[lo:hi], k)
            for user, (_, ts, _), (lo, hi) in zip(
                users, asked, itertools.pairwise(start.tolist()), strict=True
            )
        ]

    def _explained(
        self, user: int, ts: int, cand: np.ndarray, raw: np.ndarray, scores: np.ndarray, k: int
    ) -> tuple[Recommendation, ...]:
        t = self._memory.tables
        showable = (t.hidden[cand] == 0) & (t.available[cand] <= ts)
        rows = choose(scores, showable, cand, k)
        if len(rows) == 0:
            return ()
        t.shown[cand[rows]] = 1
        start = np.array([0, len(rows) * (len(SOURCES) + 1)], np.int64)
        shares = contributions(raw[rows], lambda x: self._contest.predict(x, start))
        best = shares.argmax(axis=1)
        s = self._memory.scratch
        length = newest(t, user, s.items, s.kinds, s.ts, s.sessions)
        probability = np.exp(scores[rows])
        return tuple(
            self._recommendation(int(cand[row]), SOURCES[source], float(p), raw[row], length)
            for row, source, p in zip(rows.tolist(), best.tolist(), probability, strict=True)
        )

    def _recommendation(
        self, item: int, source: str, score: float, raw: np.ndarray, length: int
    ) -> Recommendation:
        memory, s = self._memory, self._memory.scratch
        item_id = memory.items.ids[item]
        at = strongest(memory.tables, s.items, length, item)
        reason = sentence(
            source,
            anchor=memory.title(memory.items.ids[s.items[at]]) if at >= 0 else "",
            verb=did(int(s.kinds[at])) if at >= 0 else "",
            count=int(memory.tables.count[item]),
            own=round(float(raw[_OWN])) - 1,
            category=memory.category(item_id),
        )
        return Recommendation(item_id, score, reason, source, 1.0)


def _parts(asked: list[Asked], size: int) -> list[list[Asked]]:
    return [asked[i : i + size] for i in range(0, len(asked), size)]
