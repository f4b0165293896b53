"""Questions go beside calls: they are answered while batches are under way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from online.core import RecommenderConfig
from online.events import Delivery, Event, Item
from online.memory import MemoryConfig
from online.state import differences
from online.teaching import EncoderConfig
from online.texts import TextConfig, TextVector
from streams.assembly import make_core
from streams.core_process import CoreLost, CoreProcess, CoreRaised

ITEMS = [Item(item_id=f"item-{n}", title=f"thing {n}") for n in range(8)]


def deliveries(first: int, count: int) -> list[Delivery]:
    return [
        Delivery(
            Event(
                event_id=f"e{n}", type="click", user_id=f"u{n % 3}", item_id=f"item-{n % 8}", ts=n
            ),
            "events", 0, n, n,
        )
        for n in range(first, first + count)
    ]  # fmt: skip


def test_questions_are_answered_while_batches_are_under_way() -> None:
    core = CoreProcess(RecommenderConfig())
    try:
        core.announce(ITEMS)
        core.step(deliveries(1, 64), 1_000)
        core.send(deliveries(100, 64), {}, 1_000)
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(core.similar, f"item-{n}", "behaviour", 1_000, 3)
                     for n in range(8)]  # fmt: skip
            found = [[one.item_id for one in each.result(30)] for each in asked]
        assert all(f"item-{n}" not in some and some for n, some in enumerate(found))
        step = core.receive()
        assert step is not None and len(step.accepted) == 64
    finally:
        core.close()


def test_who_asks_while_weights_come_changes_nothing() -> None:
    """Vectors from texts, and the index of the nearest, are brought up to date in parts."""
    config = RecommenderConfig(
        memory=MemoryConfig(users=10_000, items=5_000, pages=20_000, pairs=100_000, history=64),
        encoder=EncoderConfig(every=40, steps=0.1), text=TextConfig(4, "tests"),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((2_400, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = [Item(item_id=f"item-{n}", title="t") for n in range(len(vectors))]
    texts = [TextVector(f"item-{n}", row.tobytes()) for n, row in enumerate(vectors)]
    steps, states, answers = [], [], []
    for asks in (False, True):
        core = make_core(config)
        try:
            core.announce(items)
            core.put_texts(texts)
            if asks:
                core.pause = lambda core=core: answers.append(core.similar("item-1", "both", 500))
            steps.append([core.step(deliveries(at, 32), 1_000) for at in range(1, 400, 32)])
            states.append(core.state())
            assert core.quality()["encoder_version"] > 4
        finally:
            core.close()
    assert len(answers) > 100 and all(answers)
    assert steps[0] == steps[1]
    assert not list(differences(*states))


def test_a_question_that_cannot_be_answered_harms_nothing() -> None:
    core = CoreProcess(RecommenderConfig())
    try:
        core.step(deliveries(1, 8), 1_000)
        core.send(deliveries(10, 8), {}, 1_000)
        with pytest.raises(CoreRaised):
            core._question("similar", ("too", "few"))
        step = core.receive()
        assert step is not None and len(step.accepted) == 8
    finally:
        core.close()
    with pytest.raises(CoreLost):
        core.similar("item-1", "behaviour", 1_000, 3)
