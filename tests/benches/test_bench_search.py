"""The benchmarks of search and of text vectors: what they generate, how they count, small runs."""

from __future__ import annotations

import asyncio
import json
import random
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from infra.settings import Settings
from online.events import event_fault, item_fault
from online.texts import quantised
from streams import cli
from streams.bench.asking import Answers, at_rate, times
from streams.bench.catalogue import Catalogue, shopping
from streams.bench.search import LIMITS
from streams.bench.vectors import Best, VectorsPlan, bound_for, held
from streams.bench.vectors import run as run_vectors
from streams.search_report import search_tables, vectors_tables


def quiet(*_: object) -> None:
    """Nobody watches."""


def test_a_catalogue_is_distinct_seeded_and_valid() -> None:
    shop = Catalogue(seed=3)
    items = [shop.item(n) for n in range(3_000)]
    assert len({item.title for item in items}) == 3_000 == len(shop)
    assert not any(item_fault(item) for item in items)
    assert shop.item(2_999) == Catalogue(seed=3).item(2_999) != Catalogue(seed=4).item(2_999)
    words = {word for item in items for word in item.title.split()}
    assert 1_500 < len(words) and any(word[-4:].isdigit() for word in words)  # codes among them


def test_people_search_for_what_there_is() -> None:
    shop = Catalogue()
    shop.item(499)
    events = list(islice(shopping(shop, 500, 100, 0.2, 1_000, seed=1), 2_000))
    assert not any(event_fault(event, 10_000_000) for event in events)
    searches = [event for event in events if event.type == "search"]
    assert 300 < len(searches) < 500
    words = {word for n in range(500) for word in shop.item(n).title.lower().split()}
    known = [set((e.query or "").lower().split()) <= words for e in searches]
    assert 0.8 < np.mean(known) < 1.0  # the others are misspelt
    assert shop.query(random.Random(5)) == shop.query(random.Random(5))


def test_whoever_comes_in_a_stall_waits_for_its_end() -> None:
    """Questions keep coming while nobody answers, and what each waits counts from its due time."""
    answers = Answers()

    async def stalled() -> None:
        free = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, free.set)

        async def ask(_: int, due: float) -> None:
            await free.wait()
            answers.ms.append(1000 * (time.monotonic() - due))

        await at_rate(100, 0.2, ask)

    asyncio.run(stalled())
    found = times(answers.ms)
    assert found["count"] == 20 and found["max"] >= 290
    assert all(ms > 90 for ms in answers.ms)  # the last one came after 190 ms


def test_rounding_loses_hardly_anything() -> None:
    plan = VectorsPlan((600, 2_000), width=64, queries=20)
    report = run_vectors(plan, Settings(), quiet)
    assert [row["items"] for row in report["sizes"]] == [600, 2_000]
    assert all(row["recall@10"] >= 0.95 for row in report["sizes"])
    assert report["texts_mb"] == pytest.approx(2_000 * (64 + 4 + 256 + 12) / 2**20, abs=0.1)
    (table,) = vectors_tables(report)
    assert table.row_count == 2
    json.dumps(report, allow_nan=False)


def test_the_best_are_those_of_all_portions() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(300, 16)), rng.normal(size=(4, 16))
    best = Best(4)
    for first in range(0, 300, 75):
        best.see(queries @ vectors[first : first + 75].T, first)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    assert (np.sort(best.slots, 1) == np.sort(exact, 1)).all()
    assert quantised(vectors[0])[0].dtype == np.int8


def test_memory_for_a_catalogue() -> None:
    settings = Settings()
    needed = bound_for(settings, 200_000, 384)
    assert held(settings, needed, 384) >= 200_000 > held(settings, needed - 8, 384)


def test_searches_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real worker, without what takes long to start."""
    monkeypatch.setenv("FRESHREC_ENCODER", "off")
    out = tmp_path / "search.json"
    small = ["--items", "300", "--rate", "50", "--seconds", "2", "--history", "300"]
    assert cli.main(["bench", "search", *small, "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    asked, items = report["search_ms"], report["new_item_ms"]
    assert asked["count"] == 40 and asked["failed"] == asked["empty"] == 0
    assert 0 < asked["p50"] <= asked["p99"] <= asked["max"]
    assert items["rows"]["count"] == 40 and items["rows"]["unread"] == 0
    assert items["client: its title"]["count"] >= 1
    assert report["ratios"]["search_p50_ms"] == pytest.approx(
        asked["p50"] / LIMITS["search_p50_ms"], abs=0.001
    )
    assert {"worker", "core_child"} <= set(report["processors"]) and report["peak_rss_mb"] > 100
    assert [table.row_count for table in search_tables(report)] == [6, 3]
