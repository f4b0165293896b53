"""Slates: lists for users as they are now, scored, chosen, and explained.

The reason for an item is the candidate source that contributed most to its score: what the score
loses when the features of that source are set to what they are for an item that it never heard of
(an ablation; cf. Zeiler and Fergus 2014, "occlusion").
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from online.anchors import find_anchors
from online.contest import Contest
from online.engine import add_lists, new_lists
from online.features import NAMES, SOURCE, SOURCES, UNKNOWN
from online.history import moments
from online.memory import Memory
from online.nearest import Nearest
from online.policy import choose
from online.reasons import ANCHORED, did, sentence, shared_words
from online.sequence import known
from online.slots import hashes
from online.step import Recommendation

Asked = tuple[str, int, str]  # user (held or not), event time in epoch ms, session or ""
SLATES = 8  # that are made together: bounds the work space, and how long a question waits
_OWN = NAMES.index("own_count")


class SlateMaker:
    def __init__(
        self, memory: Memory, contest: Contest, nearest: Nearest, k: int, exclude_seen: bool
    ) -> None:
        self._nearest = nearest
        self._memory = memory
        self._contest = contest
        self._k = k
        self._exclude_seen = exclude_seen
        self._lists = new_lists(SLATES)
        self.queries: list[bytes] = []  # vectors of those last asked for, in order; b"" none

    def make(
        self, asked: list[Asked], k: int | None = None, pause: Callable[[], None] = lambda: None
    ) -> list[tuple[Recommendation, ...]]:
        """One slate of at most k for each of the asked, in order; pause: called after a few."""
        found = []
        self.queries = []
        for at in range(0, len(asked), SLATES):
            found += self._make(asked[at : at + SLATES], k or self._k)
            pause()
        return found

    def _make(self, asked: list[Asked], k: int) -> list[tuple[Recommendation, ...]]:
        users = np.array([self._memory.users.get(user_id) for user_id, _, _ in asked], np.int32)
        ts = np.array([ts for _, ts, _ in asked], np.int64)
        moments(self._memory.tables, users, ts)
        start, scores, showable = self._score(users, ts, [session for _, _, session in asked])
        t, cand = self._memory.tables, self._lists.cand[: start[-1]]
        chosen = np.empty((len(asked), k), np.int64)
        choose(scores, start, cand, showable, chosen)
        t.shown[cand[chosen[chosen >= 0]]] = 1
        each = iter(self._explained(users, chosen, scores))
        return [tuple(itertools.islice(each, n)) for n in (chosen >= 0).sum(axis=1).tolist()]

    def _score(
        self, users: np.ndarray, ts: np.ndarray, sessions: list[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bounds (L + 1,), scores (N,) and what may be shown (N,) of the users' lists, which lie
        in `self._lists`."""
        memory, lists = self._memory, self._lists
        if known(memory.sequences):
            query, rows = self._nearest.look(
                memory.tables, memory.scratch, memory.sequences, memory.items.rows, users, ts,
                self._exclude_seen,
            )  # fmt: skip
            self._note(query, rows)
        add_lists(
            memory.tables, memory.scratch, memory.sequences, memory.texts, lists, users, ts,
            hashes(sessions), self._exclude_seen,
        )  # fmt: skip
        start = lists.start[: len(users) + 1]
        t, cand = memory.tables, lists.cand[: start[-1]]
        showable = (t.hidden[cand] == 0) & (t.available[cand] <= np.repeat(ts, np.diff(start)))
        scores = self._contest.predict(lists.x[: start[-1]], start, showable)
        return start, scores, showable

    def _note(self, query: np.ndarray, rows: np.ndarray) -> None:
        """Keep the queries as vectors: the 1 at the end meets the items' biases."""
        with_one = np.concatenate([query, np.ones((len(query), 1), np.float32)], axis=1)
        self.queries += [
            vector.tobytes() if row >= 0 else b""
            for vector, row in zip(with_one, rows, strict=True)
        ]

    def _sources(self, rows: np.ndarray) -> np.ndarray:
        """The source that adds most to the score of each row, (R,); popularity if none adds."""
        added = self._contest.contributions(self._lists.x[rows], UNKNOWN, SOURCE)
        most = added.argmax(axis=1)
        most[added.max(axis=1, initial=0.0) <= 0.0] = SOURCES.index("popularity")
        return most

    def _explained(
        self, users: np.ndarray, chosen: np.ndarray, scores: np.ndarray
    ) -> list[Recommendation]:
        """The recommendations of all slates, one after another; chosen: (L, k) rows, -1 none."""
        memory, lists, some = self._memory, self._lists, chosen >= 0
        rows, ids, reason = chosen[some], memory.items.ids, self._reason
        source, anchor = np.zeros(chosen.shape, np.int64), np.empty(chosen.shape, np.int32)
        kind, direct = np.empty(chosen.shape, np.int8), np.empty(chosen.shape, np.bool_)
        source[some] = self._sources(rows)
        find_anchors(
            memory.tables,
            memory.scratch,
            memory.texts,
            users,
            chosen,
            lists.cand,
            source,
            anchor,
            kind,
            direct,
        )
        columns = (
            lists.cand[rows],
            np.exp(scores[rows]),
            source[some],
            anchor[some],
            kind[some],
            direct[some],
            memory.tables.taken[lists.cand[rows]].astype(np.int64),
            np.rint(lists.x[rows, _OWN]).astype(np.int64) - 1,
        )
        return [
            Recommendation(
                ids[item], score, reason(SOURCES[source], item, *rest), SOURCES[source], 1.0
            )
            for item, score, source, *rest in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def _reason(
        self, source: str, item: int, anchor: int, kind: int, direct: bool, count: int, own: int
    ) -> str:
        memory = self._memory
        if anchor >= 0 and source in ANCHORED:
            name = memory.items.ids[anchor]
            title = memory.title(name)
            if source == "transition" and not direct:  # it is in the newest items' short window
                source = "co-visitation"
            kind_of, words = "", []
            if source == "text":
                words = shared_words(memory.title(memory.items.ids[item]), title)
            elif source == "category":
                kind_of = memory.range_of(memory.items.ids[item], name)
            return sentence(source, title, did(kind), count, own, kind_of, words)
        category = memory.category(memory.items.ids[item]) if source == "trending" else ""
        return sentence(source, "", "", count, own, category)
