"""Which items are nearest to a query, found in a graph of items that change all the time.

The graph is a hierarchical navigable small world (Malkov and Yashunin 2018), usearch's. To take a
node out costs more than ten additions. So nothing is taken out: an item that moved gets a new node,
and its old one is dead and passed over in answers. Once many are dead, a second graph is made
beside the first, a few nodes at each call, and takes its place.

An item that has a vector is in one of two places. Either it is in the graph, near enough to where
it is now, and once found it is ranked by its vector of now. Or it waits to be added and is looked
at by itself meanwhile: some thousand products cost less than one search of the graph. So new
weights serve at once, however many items they move, and no call adds more than a few nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from usearch.index import Index as HNSW

from encoders.config import NOWHERE

LENGTH = 12.0  # about that of a query, in whose products a bias weighs 1
WIDEST = 4.0  # times the usual nodes looked at, when most are dead


@dataclass(frozen=True)
class IndexConfig:
    """Chosen so that .95 of the best 100 are found, by `streams.bench.index`."""

    links: int = 32  # of a node; twice as many on the lowest level
    adding: int = 128  # nodes in view while the neighbours of a new one are looked for
    looking: float = 0.9  # nodes in view in a search beside the k best, in √ of the living
    moved: float = 0.2  # of its length, how far a vector may be from its node: a cosine of .98
    dead: float = 0.5  # dead nodes for each living one, above which a new graph is begun
    at_once: int = 64  # nodes added at a call, at most
    for_each: int = 8  # and in a search at most this many for each query


class _Graph:
    """Nodes, each at the place that an item had when it was added."""

    def __init__(self, width: int, config: IndexConfig, slots: int) -> None:
        # bfloat16 takes half the memory, and as many are found: the ranking is not by these. Keys
        # are not looked up, but without a table for that usearch before 2.26.1 broke its memory.
        self._hnsw = HNSW(
            ndim=width, metric="ip", dtype="bf16", connectivity=config.links,
            expansion_add=config.adding,
        )  # fmt: skip
        self._node = np.full(slots, -1, np.int32)  # of the item in each slot, -1 none
        self._slot = np.full(1024, -1, np.int32)  # of the item of each node, -1 dead
        self.nodes = 0
        self.living = 0

    @property
    def dead(self) -> int:
        return self.nodes - self.living

    def reach(self, slots: int) -> None:
        self._node = _longer(self._node, slots, -1)

    def holds(self, slots: np.ndarray) -> np.ndarray:
        """Which of these (N,) have a node."""
        return self._node[slots] >= 0

    def held(self) -> np.ndarray:
        """The slots that have a node, in order."""
        return np.flatnonzero(self._node >= 0)

    def add(self, slots: np.ndarray, places: np.ndarray) -> None:
        """New nodes for items (N,), which have none, at places (N, D + 1)."""
        nodes = np.arange(self.nodes, self.nodes + len(slots))
        if self.nodes + len(slots) > len(self._slot):
            self._slot = _longer(self._slot, 2 * len(self._slot) + len(slots), -1)
        self._hnsw.add(nodes, places, threads=1)
        self._node[slots], self._slot[nodes] = nodes, slots
        self.nodes += len(slots)
        self.living += len(slots)

    def drop(self, slots: np.ndarray) -> None:
        """The nodes of these items (N,) are dead, if they have any."""
        nodes = self._node[slots]
        nodes = nodes[nodes >= 0]
        self._slot[nodes], self._node[slots] = -1, -1
        self.living -= len(nodes)

    def find(self, query: np.ndarray, nodes: int) -> np.ndarray:
        """The living (N,) among that many nodes that are about the best for a query (D + 1,)."""
        if self.living == 0:
            return np.zeros(0, np.int64)
        found = self._hnsw.search(query, min(nodes, self.nodes), threads=1).keys
        slots = self._slot[found.astype(np.int64)]
        return slots[slots >= 0].astype(np.int64)


class ApproximateIndex:
    """Items by slot; one caller at a time. The same calls give the same answers.

    >>> index = ApproximateIndex(2)
    >>> index.update(np.array([7, 3]), np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    >>> index.search(np.array([[1.0, 12.0]], np.float32), k=3).tolist()
    [[3, 7, -1]]
    """

    def __init__(self, width: int, config: IndexConfig = IndexConfig()) -> None:
        """width: D, of an item's vector."""
        self._width = width + 1  # with the bias in parts of LENGTH: distances weigh it as scores do
        self._config = config
        self._now = np.zeros((0, self._width), np.float32)
        self._then = np.zeros((0, self._width), np.float16)  # when the graph was told last
        self._waits = np.zeros(0, np.bool_)
        self._waiting = np.zeros(0, np.int64)  # slots to be added, the first ones first
        self._graph = _Graph(self._width, config, 0)
        self._next: _Graph | None = None
        self._cursor = 0  # slots below it have been taken over into the next graph
        self.added = 0  # nodes, ever
        self.rebuilt = 0  # graphs that took another's place

    @property
    def entries(self) -> int:
        """Nodes in memory, living and dead."""
        return self._graph.nodes + (self._next.nodes if self._next else 0)

    @property
    def waiting(self) -> int:
        """Items that are not in the graph yet."""
        return len(self._waiting)

    def update(self, slots: np.ndarray, vectors: np.ndarray, bias: np.ndarray) -> None:
        """New vectors (N, D), and biases (N,); NOWHERE: the item has none any more."""
        if len(slots):
            self._reach(int(slots.max()) + 1)
            self._now[slots, :-1] = vectors
            self._now[slots, -1] = bias / LENGTH
            self._sort_in(np.unique(slots))
        self._work(self._config.at_once)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Slots (n, k) of about the best for queries (n, D), best first, -1 none."""
        self._work(min(self._config.for_each * len(queries), self._config.at_once))
        weight = np.full((len(queries), 1), LENGTH, np.float32)
        asked = np.concatenate([queries, weight], axis=1, dtype=np.float32)
        late, nodes = self._now[self._waiting], self._nodes_to_see(k)
        found = np.full((len(queries), k), -1, np.int64)
        for one, best in zip(asked, found, strict=True):
            near = self._graph.find(one, nodes)
            slots = np.concatenate([near, self._waiting])
            products = np.concatenate([self._now[near] @ one, late @ one])
            order = _best(products, k)
            best[: len(order)] = slots[order]
        return found

    def _nodes_to_see(self, k: int) -> int:
        """More in a large graph; and as many times more as there are nodes for a living one."""
        living = max(self._graph.living, 1)
        usual = k + self._config.looking * math.sqrt(living)
        return int(usual * min(self._graph.nodes / living, WIDEST))

    # -- changes -----------------------------------------------------------------------------

    def _reach(self, slots: int) -> None:
        have = len(self._now)
        if slots > have:
            slots = max(slots, 2 * have)
            self._now, self._then = _longer(self._now, slots, 0), _longer(self._then, slots, 0)
            self._waits = _longer(self._waits, slots, 0)
            for graph in self._graphs():
                graph.reach(slots)

    def _graphs(self) -> list[_Graph]:
        return [self._graph, self._next] if self._next else [self._graph]

    def _sort_in(self, slots: np.ndarray) -> None:
        """These items (N,) are new, gone or elsewhere: have them wait, unless they hardly moved."""
        there = self._now[slots, -1] > NOWHERE / LENGTH / 2
        gone, slots = slots[~there], slots[there]
        now = self._now[slots]
        way = now - self._then[slots]
        far = _squared(way) > self._config.moved**2 * _squared(now)
        new = slots[(far | ~self._graph.holds(slots)) & ~self._waits[slots]]
        for graph in self._graphs():
            graph.drop(np.concatenate([gone, new]))
        if self._waits[gone].any():
            self._waits[gone] = False
            self._waiting = self._waiting[self._waits[self._waiting]]
        self._waits[new] = True
        self._waiting = np.concatenate([self._waiting, new])

    # -- work, a little at each call -----------------------------------------------------------

    def _work(self, left: int) -> None:
        """Add at most `left` nodes: of items that wait, and to a graph that is being made.

        The latter gets three quarters when there is both: items that wait go into both graphs, and
        neither must grow much before the new one is complete.
        """
        config = self._config
        too_many = config.dead * self._graph.living + config.at_once
        if self._next is None and self._graph.dead > too_many:
            self._next, self._cursor = _Graph(self._width, config, len(self._now)), 0
        if self._next is not None and left:
            left -= self._take_over(self._next, left - left // 4 if self.waiting else left)
        graphs = self._graphs()
        slots = self._waiting[: left // len(graphs)]
        self._waiting = self._waiting[len(slots) :]
        self._waits[slots] = False
        for graph in graphs:
            self._add(graph, slots)

    def _take_over(self, into: _Graph, most: int) -> int:
        """Add living items to the next graph; how many. Once it has all, it is the graph."""
        slots = self._graph.held()
        slots = slots[np.searchsorted(slots, self._cursor) :]
        slots = slots[~into.holds(slots)][:most]
        self._add(into, slots)
        if len(slots) < most:
            self._graph, self._next = into, None
            self.rebuilt += 1
        else:
            self._cursor = int(slots[-1]) + 1
        return len(slots)

    def _add(self, graph: _Graph, slots: np.ndarray) -> None:
        if len(slots):
            graph.add(slots, self._now[slots])
            self._then[slots] = self._now[slots]
            self.added += len(slots)


def _squared(vectors: np.ndarray) -> np.ndarray:
    """Squared lengths (N,) of vectors (N, D)."""
    return np.einsum("nd,nd->n", vectors, vectors)


def _longer(array: np.ndarray, n: int, empty: float) -> np.ndarray:
    """The same with room for n rows."""
    grown = np.full((n, *array.shape[1:]), empty, array.dtype)
    grown[: len(array)] = array
    return grown


def _best(products: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest of (N,), largest first; of equal ones in their order."""
    if len(products) > k:
        some = np.sort(np.argpartition(-products, k - 1)[:k])
        return some[np.argsort(-products[some], kind="stable")]
    return np.argsort(-products, kind="stable")
