"""The core's process: `python -m streams.core_child` answers calls from stdin until it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import msgspec

from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Item
from online.step import Histories, Recommendation
from streams.core_protocol import (
    Ahead,
    Answer,
    Call,
    Outcome,
    Stepped,
    decode,
    encode,
    receive,
    send,
)
from streams.process import spare_garbage_collection

BELOW_WORKER = 10  # niceness: what hands rows on must not wait behind what computes


class Refused(Exception):
    """A batch that was sent ahead and cannot be stepped; nothing of it was learned."""


class CoreServer:
    """One method for each call of `streams.core_protocol`."""

    def __init__(self) -> None:
        self._core = Recommender()
        self._refusing = False

    def answer(self, call: Call) -> Answer:
        try:
            method: Callable[[msgspec.Raw], Any] = getattr(self, f"on_{call.method}")
            if call.method != "ahead":
                self._refusing = False
            return Answer(Outcome.DONE, msgspec.Raw(encode(method(call.arguments))))
        except Refused:
            self._refusing = True
            return Answer(Outcome.REFUSED)
        except Exception as error:
            self._refusing = True
            said = f"{type(error).__name__}: {error}"
            return Answer(Outcome.RAISED, msgspec.Raw(encode(said)))

    def on_ahead(self, raw: msgspec.Raw) -> Stepped:
        if self._refusing:
            raise Refused
        batch, histories, now_ms = decode(raw, type=Ahead)
        self._core.restore(histories)
        if self._core.missing(batch):
            raise Refused
        return self._step(batch, now_ms)

    def on_step(self, raw: msgspec.Raw) -> Stepped:
        return self._step(*decode(raw, type=tuple[list[Delivery], int]))

    def _step(self, batch: list[Delivery], now_ms: int) -> Stepped:
        step = self._core.step(batch, now_ms)
        place = {id(d): n for n, d in enumerate(batch)}
        return Stepped(
            [place[id(d)] for d in step.accepted],
            [(place[id(r.delivery)], r.reason) for r in step.rejects],
            step.duplicates,
            step.slates,
            step.metrics,
            self._core.quality(),
        )

    def on_configure(self, raw: msgspec.Raw) -> None:
        self._core = Recommender(decode(raw, type=RecommenderConfig))

    def on_warm_up(self, _: msgspec.Raw) -> None:
        self._core.warm_up()

    def on_announce(self, raw: msgspec.Raw) -> None:
        self._core.announce(decode(raw, type=list[Item]))

    def on_withdraw(self, raw: msgspec.Raw) -> None:
        self._core.withdraw(decode(raw, type=list[str]))

    def on_absent(self, raw: msgspec.Raw) -> list[str]:
        return self._core.absent(decode(raw, type=list[str]))

    def on_restore(self, raw: msgspec.Raw) -> None:
        self._core.restore(decode(raw, type=Histories))

    def on_recommend(self, raw: msgspec.Raw) -> tuple[Recommendation, ...]:
        user_id, now_ms, k = decode(raw, type=tuple[str, int, int | None])
        return self._core.recommend(user_id, now_ms, k)

    def on_quality(self, _: msgspec.Raw) -> dict[str, Any]:
        return self._core.quality()


def serve() -> None:
    """Answer calls until the pipe ends. Whatever prints goes to stderr."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the worker decides when we end
        signal.signal(number, signal.SIG_IGN)
    os.nice(BELOW_WORKER)
    into = os.fdopen(os.dup(0), "rb")
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    server = CoreServer()
    spare_garbage_collection()
    while (call := receive(into, Call)) is not None:
        send(out, server.answer(call))


if __name__ == "__main__":
    serve()
