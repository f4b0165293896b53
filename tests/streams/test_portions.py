"""A catalogue is read in portions of so many letters, between which queries are answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from streams import text_process
from streams.text_process import ASKED_S, LETTERS, PORTION, SMALL_PORTION, TextProcess, Turns


class Noting(TextProcess):
    """Its model says how long a text is; there is no child."""

    def __init__(self) -> None:
        self.width = 1
        self.portions: list[Sequence[str]] = []
        self._asked = -ASKED_S

    def _encode(self, texts: Sequence[str], hurry: bool) -> np.ndarray:
        self.portions.append(texts)
        return np.array([[len(text)] for text in texts], np.float32)


def letters(portion: Sequence[str]) -> int:
    """What it costs: texts are filled up to the longest."""
    return len(portion) * (min(max(map(len, portion)), LETTERS) + 1)


TEXTS = ["x" * n for n in (3, 40, 0, 10_000, 41, 300, 7, 90, 90, 12) * 20]


@pytest.mark.parametrize("asked", [False, True])
def test_a_portion_costs_no_more_than_those_who_ask_should_wait(
    monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    now = 1_000.0
    monkeypatch.setattr(text_process.time, "monotonic", lambda: now)
    model = Noting()
    if asked:
        model.encode_now(["warm gift"])
        model.portions.clear()
        now += ASKED_S - 1
    found = model.encode(TEXTS)
    assert found[:, 0].tolist() == [len(text) for text in TEXTS]
    most = SMALL_PORTION if asked else PORTION
    assert all(len(portion) == 1 or letters(portion) <= most for portion in model.portions)
    assert len(model.portions) < len(TEXTS) / 1.5


def test_portions_are_large_again_when_nobody_asked_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_000.0
    monkeypatch.setattr(text_process.time, "monotonic", lambda: now)
    model = Noting()
    model.encode_now(["warm gift"])
    counts = []
    for _ in range(2):
        model.portions.clear()
        model.encode(TEXTS)
        counts.append(len(model.portions))
        now += ASKED_S
    assert counts[1] < counts[0] / 2


def test_queries_go_first_and_in_the_order_in_which_they_came() -> None:
    turns, order = Turns(), []
    turns.take(hurry=False)

    def wait(name: str, hurry: bool) -> None:
        turns.take(hurry)
        order.append(name)
        turns.give()

    threads = []
    for name in ("catalogue", "query 1", "query 2", "query 3"):
        thread = threading.Thread(target=wait, args=(name, name != "catalogue"))
        thread.start()
        threads.append(thread)
        deadline = time.monotonic() + 10
        while len(turns._waiting) < len(threads) and time.monotonic() < deadline:
            time.sleep(0.001)
    turns.give()
    for thread in threads:
        thread.join(10)
    assert order == ["query 1", "query 2", "query 3", "catalogue"]
