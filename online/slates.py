"""Slates: lists for users as they are now, scored, chosen, and explained.

The reason for an item is the candidate source that contributed most to its score: what the score
loses when the features of that source are set to what they are for an item that it never heard of
(an ablation; cf. Zeiler and Fergus 2014, "occlusion").
"""

from __future__ import annotations

import itertools

import numpy as np

from online.contest import Contest
from online.engine import add_lists, new_lists
from online.features import FEATURES, NAMES, SOURCES, ablated
from online.history import newest
from online.memory import Memory
from online.pairs import WINDOW, strongest
from online.policy import choose
from online.reasons import did, sentence
from online.slots import hashes
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
        """One slate of at most k for each of the asked, in order."""
        found = []
        for at in range(0, len(asked), AT_ONCE):
            found += self._make(asked[at : at + AT_ONCE], k or self._k)
        return found

    def _make(self, asked: list[Asked], k: int) -> list[tuple[Recommendation, ...]]:
        users = [self._memory.users.get(user_id) for user_id, _, _ in asked]
        start, scores = self._score(users, asked)
        shown = self._memory.tables
        rows = []  # of each slate, best first
        for (_, ts, _), (lo, hi) in zip(asked, itertools.pairwise(start.tolist()), strict=True):
            cand = self._lists.cand[lo:hi]
            showable = (shown.hidden[cand] == 0) & (shown.available[cand] <= ts)
            rows.append(lo + choose(scores[lo:hi], showable, cand, k))
        chosen = np.concatenate(rows)
        shown.shown[self._lists.cand[chosen]] = 1
        sources = iter(self._contributions(chosen).argmax(axis=1).tolist())
        return [
            self._explained(user, r, np.exp(scores[r]), list(itertools.islice(sources, len(r))))
            for user, r in zip(users, rows, strict=True)
        ]

    def _score(self, users: list[int], asked: list[Asked]) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (L + 1,) and scores (N,) of the users' lists, which lie in `self._lists`."""
        memory, lists = self._memory, self._lists
        add_lists(
            memory.tables, memory.scratch, lists,
            np.array(users, np.int32),
            np.array([ts for _, ts, _ in asked], np.int64),
            hashes(session for _, _, session in asked),
            self._exclude_seen,
        )  # fmt: skip
        start = lists.start[: len(users) + 1]
        return start, self._contest.predict(lists.x[: start[-1]], start)

    def _contributions(self, rows: np.ndarray) -> np.ndarray:
        """What each source adds to the score of each row: (R, len(SOURCES))."""
        each = 1 + len(SOURCES)
        x = ablated(self._lists.x[rows]).reshape(-1, FEATURES)
        scores = self._contest.predict(x, np.array([0, len(x)], np.int64)).reshape(-1, each)
        difference: np.ndarray = scores[:, :1] - scores[:, 1:]
        return difference

    def _explained(
        self, user: int, rows: np.ndarray, scores: np.ndarray, sources: list[int]
    ) -> tuple[Recommendation, ...]:
        memory, s = self._memory, self._memory.scratch
        items = self._lists.cand[rows]
        had = [a[:WINDOW] for a in (s.items, s.kinds, s.ts, s.sessions)]
        length = newest(memory.tables, user, *had)
        anchors = np.zeros(len(items), np.int64)
        strongest(memory.tables, s.items, length, items, anchors)
        own = self._lists.x[rows, _OWN]
        return tuple(
            Recommendation(
                memory.items.ids[item],
                score,
                self._reason(SOURCES[source], item, anchor, round(count) - 1),
                SOURCES[source],
                1.0,
            )
            for item, score, source, anchor, count in zip(
                items.tolist(),
                scores.tolist(),
                sources,
                anchors.tolist(),
                own.tolist(),
                strict=True,
            )
        )

    def _reason(self, source: str, item: int, anchor: int, own: int) -> str:
        memory, s = self._memory, self._memory.scratch
        return sentence(
            source,
            anchor=memory.title(memory.items.ids[s.items[anchor]]) if anchor >= 0 else "",
            verb=did(int(s.kinds[anchor])) if anchor >= 0 else "",
            count=int(memory.tables.taken[item]),
            own=own,
            category=memory.category(memory.items.ids[item]),
        )
