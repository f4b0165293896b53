"""`freshrec bench vectors`: a million items' text vectors in the core's own arrays.

They are whole numbers of 8 bits with a scale; a search looks at all of them, so all that it can
lose is by rounding. Beside it: the products of the same vectors in float32. Vectors are made up, in
clusters, a portion at a time: nowhere are all of them as float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from infra.settings import Settings
from online.tables import Tables, new_tables
from online.texts import TextConfig, Texts, most_alike, new_texts, quantised
from streams.bench.index import unit
from streams.bench.machine import machine
from streams.core_config import config_of

LEAST_RECALL = 0.95
TOP = 10
PORTION = 10_000  # vectors that are made, and looked at exactly, at once
OF_CLUSTER = 60  # items
FEWEST_MB, MOST_MB = 2_048, 1 << 18  # between which the bound that is needed is looked for

Say = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class VectorsPlan:
    """What to measure; sizes: of catalogues, the smaller ones the first items of the largest."""

    sizes: tuple[int, ...] = (50_000, 1_000_000)
    width: int = 384
    queries: int = 200
    seed: int = 0


def run(plan: VectorsPlan, settings: Settings, say: Say) -> dict[str, Any]:
    """Fill the arrays, and search them at each size."""
    most = max(plan.sizes)
    x = new_texts(plan.width, most)
    t = new_tables(1, 1, 1, 8)._replace(known=np.ones(most, np.int8))
    queries = _queries(plan)
    best, rows, done = Best(len(queries)), [], 0
    with threadpool_limits(1, user_api="blas"):
        for vectors in _portions(plan):
            for row in vectors:
                x.vector[done], x.scale[done] = quantised(row)
                done += 1
            best.see(queries @ vectors.T, done - len(vectors))
            if done in plan.sizes:
                say("searching", done, most)
                rows.append(_searched(t, x, done, queries, best))
            say("filling", done, most)
    return _report(plan, settings, x, rows)


class Best:
    """The TOP best of each query so far: slots and products (Q, TOP), not in order."""

    def __init__(self, queries: int) -> None:
        self.slots = np.full((queries, TOP), -1)
        self._values = np.full((queries, TOP), -np.inf, np.float32)

    def see(self, products: np.ndarray, first: int) -> None:
        """products: (Q, N) with the vectors in the slots from `first` on."""
        slots = np.broadcast_to(np.arange(products.shape[1]) + first, products.shape)
        values = np.hstack([self._values, products])
        slots = np.hstack([self.slots, slots])
        top = np.argpartition(-values, TOP - 1, axis=1)[:, :TOP]
        self._values = np.take_along_axis(values, top, 1)
        self.slots = np.take_along_axis(slots, top, 1)


def _clusters(plan: VectorsPlan) -> np.ndarray:
    rng = np.random.default_rng([plan.seed, 0])
    return unit(rng.standard_normal((max(max(plan.sizes) // OF_CLUSTER, 8), plan.width)))


def _portions(plan: VectorsPlan) -> Iterator[np.ndarray]:
    """Vectors (N, D) of length 1, until there are enough; some near their cluster, some less."""
    centres, most, first = _clusters(plan), max(plan.sizes), 0
    while first < most:
        until = min(s for s in (*plan.sizes, first + PORTION) if s > first)
        rng = np.random.default_rng([plan.seed, 1, first])
        own = centres[rng.integers(0, len(centres), until - first)]
        near = rng.uniform(0.4, 0.8, (until - first, 1))
        noise = unit(rng.standard_normal(own.shape, np.float32))
        yield unit(near * own + np.sqrt(1 - near**2) * noise)
        first = until


def _queries(plan: VectorsPlan) -> np.ndarray:
    """(Q, D): each lies near a cluster, and off it."""
    centres, rng = _clusters(plan), np.random.default_rng([plan.seed, 2])
    noise = unit(rng.standard_normal((plan.queries, plan.width)))
    return unit(centres[rng.integers(0, len(centres), plan.queries)] + 0.75 * noise)


def _searched(t: Tables, x: Texts, items: int, queries: np.ndarray, best: Best) -> dict[str, Any]:
    """Recall and time of the core's search among so many items."""
    out, hits, took = np.empty(items, np.int32), 0, []
    slots, values = np.empty(TOP, np.int32), np.empty(TOP, np.float32)
    most_alike(t, x, items, *quantised(queries[0]), out, slots, values)  # compiles it
    for query, exact in zip(queries, best.slots, strict=True):
        began = time.perf_counter()
        n = most_alike(t, x, items, *quantised(query), out, slots, values)
        took.append(1000 * (time.perf_counter() - began))
        hits += len(np.intersect1d(slots[:n], exact))
    return {
        "items": items,
        "recall@10": round(hits / (TOP * len(queries)), 4),
        "scan_ms_p50": round(float(np.median(took)), 3),
        "scan_ms_p99": round(float(np.quantile(took, 0.99)), 3),
    }


def _report(
    plan: VectorsPlan, settings: Settings, x: Texts, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    mb = sum(array.nbytes for array in x) / 2**20
    return {
        "benchmark": "vectors",
        "width": plan.width,
        "queries": plan.queries,
        "seed": plan.seed,
        "sizes": rows,
        "least_recall": LEAST_RECALL,
        "vectors_mb": round((x.vector.nbytes + x.scale.nbytes) / 2**20, 1),
        "texts_mb": round(mb, 1),
        "bound_mb": settings.memory_mb,
        "ratio": round(mb / settings.memory_mb, 3),
        "items_within_bound": held(settings, settings.memory_mb, plan.width),
        "bound_for_all_mb": bound_for(settings, max(plan.sizes), plan.width),
        "machine": machine(),
    }


def held(settings: Settings, memory_mb: int, width: int) -> int:
    """Items that a worker holds, with all that is known of them, when FRESHREC_MEMORY_MB is so."""
    some = replace(settings, memory_mb=memory_mb)
    return config_of(some, text=TextConfig(width, "any")).memory.items


def bound_for(settings: Settings, items: int, width: int) -> int:
    """The least FRESHREC_MEMORY_MB with which so many items are held."""
    low, high = FEWEST_MB, MOST_MB
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if held(settings, middle, width) >= items else (middle + 1, high)
    return low
