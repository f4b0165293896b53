"""Limits: a core that learns nothing, and a Faust agent that does nothing.

`python -m streams.bench.nothing core` is the worker with the core replaced: in a process of its
own as well, so that batches and slates cross the same pipes. `… agent N` reads N events,
acknowledges them and prints how long that took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from infra.settings import Settings
from online.core import RecommenderConfig
from online.events import Delivery, Item
from online.state import State
from online.step import Metric, PastEvent, Recommendation, Slate, Step, Turn
from online.texts import TextVector
from online.told import Rankers, Told, Weights

PATIENCE_S = 60.0


class NullRecommender:
    """The core's interface without a model: accepts all, gives everybody the same slate.

    Its rows are as many and as wide as the core's, so what remains is what the pipeline costs.
    """

    history_limit = 0

    def __init__(self, config: RecommenderConfig | None = None) -> None:
        self.config = config or RecommenderConfig()
        self._slate = tuple(
            Recommendation(
                f"item-{n}", 1.0 / (n + 1), "because you bought nothing yet", "none", 1.0
            )
            for n in range(self.config.k)
        )

    def warm_up(self) -> None:
        """Nothing is compiled."""

    def announce(self, items: Iterable[Item]) -> None:
        """Nothing is kept."""

    def withdraw(self, item_ids: Iterable[str]) -> None:
        """Nothing is kept."""

    def put_texts(self, vectors: Iterable[TextVector]) -> None:
        pass

    def without_text(self) -> list[str]:
        return []

    def missing(self, batch: list[Delivery]) -> list[str]:
        return []

    def absent(self, users: Iterable[str]) -> list[str]:
        return []

    def held(self) -> list[str]:
        return []

    def release(self, users: Iterable[str]) -> None:
        """Nobody is held."""

    def restore(self, histories: Mapping[str, list[PastEvent]]) -> None:
        """Nothing is kept."""

    def step(self, batch: list[Delivery], now_ms: int) -> Step:
        step = Step(accepted=list(batch))
        for d in {d.event.user_id: d for d in batch}.values():
            step.slates.append(
                Slate(
                    slate_id=d.event.event_id, user_id=d.event.user_id, ts=d.event.ts,
                    produced_ms=d.produced_ms, topic=d.topic, partition=d.partition,
                    offset=d.offset, model_version="null", recommendations=self._slate,
                )
            )  # fmt: skip
        if batch:
            last = batch[-1].event.ts
            names = ("hr@10", "ndcg@10", "mrr@10", "popularity_hr@10", "popularity_ndcg@10")
            step.metrics = [Metric(name, 0.0, len(batch), last) for name in names]
        return step

    def state(self) -> State:
        return {}

    def save_trainer(self, place: str) -> bool:
        return False

    def resume(self, state: State, place: str) -> bool:
        return True

    def follow(self, turns: Iterable[Turn]) -> None:
        """There are none."""

    def close(self) -> None:
        """Nothing is held."""

    def hear(self, events: list[Told]) -> None:
        """Nothing is learned."""

    def heard_rankers(self, source: int, said: Rankers) -> None:
        """Nothing is learned."""

    def adopt(self, said: Weights) -> None:
        """Nothing is learned."""

    def drop_users(self) -> None:
        """Nothing is held."""

    def join(self) -> None:
        """Nothing is learned."""

    def recommend(
        self, user_id: str, now_ms: int, k: int | None = None
    ) -> tuple[Recommendation, ...]:
        return self._slate[:k]

    def quality(self) -> dict[str, Any]:
        return {"targets": 0, "hr@10": 0.0, "ndcg@10": 0.0, "mrr@10": 0.0, "coverage": 0.0}


async def read_nothing(settings: Settings, total: int) -> dict[str, float]:
    """Read `total` events with the worker's own Faust set-up, acknowledge, do nothing else."""
    from streams.app import make_app
    from streams.topics import EVENTS

    settings.state.mkdir(parents=True, exist_ok=True)  # Faust keeps a folder there
    app = make_app(settings, settings.broker)
    topic = app.topic(EVENTS, key_type=bytes, value_type=bytes)
    read: list[tuple[float, int]] = []  # when, how many so far: after each batch
    enough = asyncio.Event()

    @app.agent(topic, name="nothing")
    async def nothing(stream: Any) -> None:
        done = 0
        async for batch in stream.noack_take(settings.batch, within=settings.linger_ms / 1000):
            for event in batch:
                event.ack()
            done += len(batch)
            read.append((time.monotonic(), done))
            if done >= total:
                enough.set()

    app.finalize()
    await app.start()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(enough.wait(), PATIENCE_S + total / 1000)
    await app.stop()
    if len(read) < 2:
        return {"events": 0, "seconds": 0.0}
    (began, first), (ended, last) = read[0], read[-1]
    return {"events": last - first, "seconds": ended - began}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["agent"]:
        import uvloop

        settings = Settings.from_env(os.environ)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        print(json.dumps(asyncio.run(read_nothing(settings, int(arguments[1])))), flush=True)
        os._exit(0)  # Faust's threads have nothing to lose
    from streams import worker
    from streams.core_process import CoreProcess

    core = "streams.bench.nothing:NullRecommender"
    vars(worker)["CoreProcess"] = partial(CoreProcess, core=core)  # the same around another core
    worker.main()


if __name__ == "__main__":
    main(sys.argv[1:])
