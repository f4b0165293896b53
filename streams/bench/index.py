"""The index over item vectors beside the exact search: what it finds, and what both take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from encoders.index import ApproximateIndex
from online.across import Across, select
from online.nearest import Index
from online.sequence import NEAR, NOWHERE

WIDTH, LENGTH = 48, 12.0  # of vectors, and how long queries are
BEST = 100  # whose recall is measured
AT_ONCE = 16  # queries in a search: the core's
MOVED, ROUNDS, SEARCHES = 3_000, 60, 10  # items that new weights move; how often; between two
STEP = 0.1  # of its length, how far each moves


def unit(vectors: np.ndarray) -> np.ndarray:
    """The directions of vectors (..., D)."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / length, np.float32)


def clustered(items: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (I, D) in clusters of clusters, some larger than others, and biases (I,).

    Lengths as Beauty's after 150,000 events: four of five 1.3 to 3.3, a few up to 6.
    """
    clusters = max(items // 60, 8)
    above = unit(rng.normal(size=(max(clusters // 20, 4), WIDTH)))
    centres = unit(rng.normal(size=(clusters, WIDTH)))
    centres = unit(0.8 * centres + 0.6 * above[rng.integers(0, len(above), clusters)])
    share = np.arange(1, clusters + 1) ** -0.5
    own = rng.choice(clusters, items, p=share / share.sum())
    near = rng.uniform(0.4, 0.8, (items, 1))
    noise = unit(rng.normal(size=(items, WIDTH)))
    bias = 0.5 * rng.normal(size=items)
    length = np.exp(rng.normal(np.log(2.0), 0.4, (items, 1)))
    direction = unit(near * centres[own] + np.sqrt(1 - near**2) * noise)
    return np.float32(length) * direction, bias.astype(np.float32)


def wishes(vectors: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Queries (n, D): each lies near an item, less near to another, and off both."""
    one, other = unit(vectors)[rng.integers(0, len(vectors), (2, n))]
    noise = unit(rng.normal(size=(n, WIDTH)))
    mixed = unit(one + rng.uniform(0, 0.8, (n, 1)) * other + 0.6 * noise)
    return np.float32(LENGTH) * mixed


def moved(vectors: np.ndarray, step: float, rng: np.random.Generator) -> np.ndarray:
    """The vectors (N, D), each moved by `step` of its length."""
    way = unit(rng.normal(size=vectors.shape))
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors + step * length * way, np.float32)


def recall_at(
    index: Index, vectors: np.ndarray, bias: np.ndarray, queries: np.ndarray, k: int
) -> float:
    """Share of the k best items for queries (n, D) that the index finds.

    vectors: (I, D) of now, by slot; bias: (I,), NOWHERE for an item without a vector.
    """
    found = hits = 0
    for at in range(0, len(queries), AT_ONCE):
        some = queries[at : at + AT_ONCE]
        for query, slots in zip(some, index.search(some, k), strict=True):
            score = vectors @ query + bias
            best = np.argsort(-score)[:k]
            best = best[bias[best] != NOWHERE]
            found, hits = found + len(best), hits + len(np.intersect1d(best, slots))
    return hits / max(found, 1)


def bench_index(items: int, seed: int) -> dict[str, Any]:
    """Fill an index, move items again and again, and measure; BLAS has one thread as in the core.

    recall_at_100 is of the graph alone, after the last move; search_us and exact_us are the median
    of one query, update_us the mean of one changed item, longest_update_ms is of all updates.
    """
    rng = np.random.default_rng(seed)
    vectors, bias = clustered(items, rng)
    index, took = ApproximateIndex(WIDTH), []

    def update(slots: np.ndarray) -> None:
        took.append(_seconds(lambda: index.update(slots, vectors[slots], bias[slots])))

    def settle() -> None:
        while index.waiting:
            update(np.arange(0))

    with threadpool_limits(1, user_api="blas"):
        for first in range(0, items, MOVED):
            update(np.arange(first, min(first + MOVED, items)))
        settle()
        filled = len(took)
        for _ in range(ROUNDS):
            some = rng.choice(items, min(MOVED, items), replace=False)
            vectors[some] = moved(vectors[some], STEP, rng)
            update(some)
            for _ in range(SEARCHES):
                index.search(wishes(vectors, AT_ONCE, rng), BEST)
        turns = took[filled:]
        settle()
        queries = wishes(vectors, 16 * AT_ONCE, rng)
        batches = queries.reshape(-1, AT_ONCE, WIDTH)
        search = [_seconds(lambda some=some: index.search(some, BEST)) for some in batches]  # type: ignore[misc]
        return {
            "items": items,
            "recall_at_100": round(recall_at(index, vectors, bias, queries, BEST), 4),
            "search_us": round(float(np.median(search)) / AT_ONCE * 1e6, 1),
            "exact_us": round(_exact(vectors, bias, batches) * 1e6, 1),
            "update_us": round(float(np.mean(turns)) / min(MOVED, items) * 1e6, 2),
            "longest_update_ms": round(max(took) * 1e3, 1),
        }


def _exact(vectors: np.ndarray, bias: np.ndarray, batches: np.ndarray) -> float:
    """Median seconds of one query by the product with all items, as `online.nearest` does it."""
    n, asked = len(vectors), batches.shape[1]
    blocks, near = Across().blocks(vectors, n), np.zeros((asked, NEAR), np.int32)
    own, owned = np.zeros((asked, 0), np.int32), np.zeros(asked, np.int64)
    key = np.arange(n, dtype=np.int32)

    def look(queries: np.ndarray) -> None:
        select(blocks, bias, key, n, queries, own, owned, near)

    look(batches[0])  # compiles it
    return float(np.median([_seconds(lambda some=some: look(some)) for some in batches])) / asked  # type: ignore[misc]


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
