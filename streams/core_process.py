"""The core in a process of its own, so that learning and Faust do not share an interpreter lock.

In one process, with two busy threads, the core reached little more than half of the speed that the
same code has in a backtest; the rest was waiting for the lock. `CoreProcess` has the methods of
`online.core.Recommender` and asks a child for each, over a pair of pipes, one call at a time:

    call    length, [method, arguments]         answer    length, [error or "", value]

as MessagePack (msgspec). The child ends with its pipe, or with its parent.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, TypeVar

import msgspec

from infra.children import end_with_parent
from online.core import Recommender, RecommenderConfig
from online.events import Delivery, Item
from online.step import Metric, PastEvent, Recommendation, Reject, Slate, Step

ITEMS_AT_ONCE = 5_000
LONGEST = 1 << 30  # bytes of one message
BELOW_WORKER = 10  # niceness: what hands rows on must not wait behind what computes
LAST_S = 5.0  # how long an end is waited for

T = TypeVar("T")
Histories = dict[str, list[PastEvent]]


class CoreRaised(Exception):
    """The core raised on a call; it is there for the next one."""


class CoreLost(Exception):
    """The core's process is gone, and what it had learned with it: start the worker again."""


class Stepped(msgspec.Struct, array_like=True):
    """A Step whose deliveries are their positions in the batch."""

    accepted: list[int]
    rejects: list[tuple[int, str]]
    duplicates: int
    slates: list[Slate]
    metrics: list[Metric]


class Call(msgspec.Struct, array_like=True):
    method: str
    arguments: msgspec.Raw = msgspec.Raw(b"\xc0")


class Answer(msgspec.Struct, array_like=True):
    error: str
    value: msgspec.Raw = msgspec.Raw(b"\xc0")


_encode = msgspec.msgpack.encode
_LENGTH = struct.Struct(">I")


def _send(pipe: IO[bytes], message: msgspec.Struct) -> None:
    body = _encode(message)
    pipe.write(_LENGTH.pack(len(body)))
    pipe.write(body)
    pipe.flush()


def _receive(pipe: IO[bytes], kind: type[T]) -> T | None:
    """The next message; None at the end of the pipe."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = pipe.read(length) if length <= LONGEST else b""
    return msgspec.msgpack.decode(body, type=kind) if len(body) == length else None


class CoreProcess:
    """`Recommender` in a child process. Raises CoreRaised when the core does, else CoreLost."""

    def __init__(self, config: RecommenderConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "streams.core_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=end_with_parent(signal.SIGKILL),
        )  # fmt: skip
        self._ask("configure", type(None), config)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def history_limit(self) -> int:
        return self.config.memory.history

    def warm_up(self) -> None:
        self._ask("warm_up", type(None))

    def announce(self, items: Iterable[Item]) -> None:
        every = list(items)
        for at in range(0, len(every), ITEMS_AT_ONCE):
            self._ask("announce", type(None), every[at : at + ITEMS_AT_ONCE])

    def withdraw(self, item_ids: Iterable[str]) -> None:
        self._ask("withdraw", type(None), list(item_ids))

    def missing(self, batch: list[Delivery]) -> list[str]:
        return self._ask("absent", list[str], list(dict.fromkeys(d.event.user_id for d in batch)))

    def restore(self, histories: Mapping[str, list[PastEvent]]) -> None:
        self._ask("restore", type(None), dict(histories))

    def step(self, batch: list[Delivery], now_ms: int) -> Step:
        done = self._ask("step", Stepped, (batch, now_ms))
        return Step(
            accepted=[batch[n] for n in done.accepted],
            slates=done.slates,
            rejects=[Reject(batch[n], reason) for n, reason in done.rejects],
            duplicates=done.duplicates,
            metrics=done.metrics,
        )

    def recommend(
        self, user_id: str, now_ms: int, k: int | None = None
    ) -> tuple[Recommendation, ...]:
        return self._ask("recommend", tuple[Recommendation, ...], (user_id, now_ms, k))

    def quality(self) -> dict[str, Any]:
        return self._ask("quality", dict[str, Any])

    def close(self) -> None:
        """End the child; it is given LAST_S seconds."""
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe:
                pipe.close()
        try:
            self._child.wait(LAST_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _ask(self, method: str, kind: type[T], arguments: Any = None) -> T:
        with self._lock:
            into, out = self._child.stdin, self._child.stdout
            assert into is not None and out is not None
            try:
                _send(into, Call(method, msgspec.Raw(_encode(arguments))))
                answer = _receive(out, Answer)
            except (OSError, ValueError):  # ValueError: closed by us
                answer = None
        if answer is None:
            code = self._child.poll()
            raise CoreLost(f"the core's process {self.pid} ended (exit {code}) at {method!r}")
        if answer.error:
            raise CoreRaised(answer.error)
        return msgspec.msgpack.decode(answer.value, type=kind)


class _Server:
    """The child's side: one method for each call."""

    def __init__(self) -> None:
        self._core = Recommender()

    def answer(self, call: Call) -> Answer:
        try:
            method: Callable[[msgspec.Raw], Any] = getattr(self, f"on_{call.method}")
            return Answer("", msgspec.Raw(_encode(method(call.arguments))))
        except Exception as error:
            return Answer(f"{type(error).__name__}: {error}")

    def on_configure(self, raw: msgspec.Raw) -> None:
        self._core = Recommender(msgspec.msgpack.decode(raw, type=RecommenderConfig))

    def on_warm_up(self, _: msgspec.Raw) -> None:
        self._core.warm_up()

    def on_announce(self, raw: msgspec.Raw) -> None:
        self._core.announce(msgspec.msgpack.decode(raw, type=list[Item]))

    def on_withdraw(self, raw: msgspec.Raw) -> None:
        self._core.withdraw(msgspec.msgpack.decode(raw, type=list[str]))

    def on_absent(self, raw: msgspec.Raw) -> list[str]:
        return self._core.absent(msgspec.msgpack.decode(raw, type=list[str]))

    def on_restore(self, raw: msgspec.Raw) -> None:
        self._core.restore(msgspec.msgpack.decode(raw, type=Histories))

    def on_step(self, raw: msgspec.Raw) -> Stepped:
        batch, now_ms = msgspec.msgpack.decode(raw, type=tuple[list[Delivery], int])
        step = self._core.step(batch, now_ms)
        place = {id(d): n for n, d in enumerate(batch)}
        return Stepped(
            [place[id(d)] for d in step.accepted],
            [(place[id(r.delivery)], r.reason) for r in step.rejects],
            step.duplicates,
            step.slates,
            step.metrics,
        )

    def on_recommend(self, raw: msgspec.Raw) -> tuple[Recommendation, ...]:
        user_id, now_ms, k = msgspec.msgpack.decode(raw, type=tuple[str, int, int | None])
        return self._core.recommend(user_id, now_ms, k)

    def on_quality(self, _: msgspec.Raw) -> dict[str, Any]:
        return self._core.quality()


def serve() -> None:
    """Answer calls from stdin until it ends. Whatever prints goes to stderr."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the worker decides when we end
        signal.signal(number, signal.SIG_IGN)
    os.nice(BELOW_WORKER)
    into = os.fdopen(os.dup(0), "rb")
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    server = _Server()
    while (call := _receive(into, Call)) is not None:
        _send(out, server.answer(call))


if __name__ == "__main__":
    serve()
