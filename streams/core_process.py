"""The core in a process of its own, so that learning and Faust do not share an interpreter lock.

In one process, with two busy threads, the core reached little more than half of the speed that the
same code has in a backtest; the rest was waiting for the lock. `CoreProcess` has the methods of
`online.core.Recommender` and asks a child (`streams.core_child`) for each, one call at a time; and
`send` and `receive`, which keep the child busy: without them it waited for 15 % of its time.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from online.core import RecommenderConfig
from online.events import Delivery, Item
from online.step import PastEvent, Recommendation, Reject, Step, Turn
from online.texts import TextVector
from online.told import Rankers, Told, Weights
from streams.child import Child, ChildGone
from streams.core_protocol import AHEAD, MOST_TOLD, UNANSWERED, Changes, Outcome, Stepped, decode
from streams.questions import Questions, Unanswered

ITEMS_AT_ONCE = 5_000
TEXTS_AT_ONCE = 64
RECOMMENDER = "streams.assembly:make_core"

T = TypeVar("T")


class CoreRaised(Exception):
    """The core raised on a call; it is there for the next one."""


class CoreLost(Exception):
    """The core's process is gone, and what it had learned with it: start the worker again."""


class CoreProcess:
    """`Recommender` in a child process. Raises CoreRaised when the core does, else CoreLost.

    What was sent must be received before any other call. Arguments that cannot be put into bytes
    (an integer of more than 64 bits) raise before anything is sent. `core` is MODULE:NAME of what
    makes the core from its configuration: benchmarks and tests have others.
    """

    ahead = AHEAD

    def __init__(self, config: RecommenderConfig, core: str = RECOMMENDER) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._sent: collections.deque[list[Delivery]] = collections.deque()
        self._behind: collections.deque[int] = collections.deque()  # of each call whose answer is
        # not here yet: how often the core was told something after it
        self._quality: dict[str, Any] = {}
        self._questions = Questions()
        theirs = self._questions.theirs
        self._child = Child("streams.core_child", core, *map(str, theirs), leave=theirs)
        self._questions.begin()
        try:
            self._ask("configure", type(None), config)
        except CoreRaised as fault:  # a setting of the encoder's, such as its checkpoint
            self.close()
            raise CoreLost(f"the core cannot start: {fault}") from None
        except CoreLost:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """How the child ended (a signal is negative); None while it lives."""
        return self._child.exit_code

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
        return self._step(batch, self._ask("step", Stepped, (batch, now_ms)))

    def send(
        self, batch: list[Delivery], histories: Mapping[str, list[PastEvent]], now_ms: int,
        queries: Sequence[TextVector] = (),
    ) -> None:  # fmt: skip
        """Have the core step this after what was sent before; `receive` gives the outcome.

        `histories` are those that it may lack; users that it holds keep what it holds. At most
        AHEAD batches may be under way.
        """
        with self._lock:
            assert len(self._sent) < AHEAD, "receive first"
            self._send("ahead", (batch, histories, now_ms, list(queries)))
            self._sent.append(batch)

    def receive(self) -> Step | None:
        """The step of the oldest batch that was sent; None: refused, and nothing was learned.

        It is refused when it needs more histories, and when that, or CoreRaised, was the outcome
        of one before it.
        """
        with self._lock:
            batch = self._sent.popleft()
            done = self._answer("ahead", Stepped)
        return None if done is None else self._step(batch, done)

    def send_changes(self, changes: Changes) -> None:
        """Have the core change its catalogue after what was sent before; then `receive_changes`.

        At most AHEAD of these may be under way. What was sent first is received first, be it a
        batch or changes.
        """
        with self._lock:
            assert len(self._behind) - len(self._sent) < AHEAD, "receive first"
            self._send("change", changes)

    def receive_changes(self) -> list[str]:
        """For each of the changes that were sent: what the core raised on it, "" for nothing."""
        with self._lock:
            faults = self._answer("change", list[str])
        assert faults is not None, "changes are never refused"
        return faults

    def recommend(
        self, user_id: str, now_ms: int, k: int | None = None
    ) -> tuple[Recommendation, ...]:
        return self._ask("recommend", tuple[Recommendation, ...], (user_id, now_ms, k))

    def hear(self, events: list[Told]) -> None:
        self._tell("hear", events)

    def heard_rankers(self, source: int, said: Rankers) -> None:
        self._tell("heard_rankers", (source, said))

    def adopt(self, said: Weights) -> None:
        self._tell("adopt", said)

    def heard_items(self, items: list[Item], withdrawn: list[str]) -> None:
        self._tell("heard_items", (items, withdrawn))

    def put_texts(self, vectors: Iterable[TextVector]) -> None:
        """What texts say, from the next batch that is sent on."""
        every = list(vectors)
        for at in range(0, len(every), TEXTS_AT_ONCE):
            self._tell("put_texts", every[at : at + TEXTS_AT_ONCE])

    def search(
        self, query: TextVector, text: str, lexical: Mapping[str, float], user_id: str,
        now_ms: int, k: int | None = None, personal: bool = True,
    ) -> tuple[Recommendation, ...]:  # fmt: skip
        """May be asked at any time, from any thread: it is answered before the next call."""
        return self._question("search", (query, text, dict(lexical), user_id, now_ms, k, personal))

    def similar(
        self, item_id: str, by: str, now_ms: int, k: int | None = None
    ) -> tuple[Recommendation, ...]:
        """As `search`."""
        return self._question("similar", (item_id, by, now_ms, k))

    def _question(self, method: str, arguments: Any) -> tuple[Recommendation, ...]:
        try:
            answer = self._questions.ask(method, arguments)
        except Unanswered:
            raise CoreLost(f"the core's process {self.pid} is gone at {method!r}") from None
        if answer.outcome is not Outcome.DONE:
            raise CoreRaised(decode(answer.value, type=str))
        return decode(answer.value, type=tuple[Recommendation, ...])

    def without_text(self) -> list[str]:
        """Items of the catalogue of whose texts nothing is known."""
        return self._ask("without_text", list[str])

    def join(self) -> None:
        """What others had learned is learned, from the journal: only what is new counts."""
        self._ask("join", type(None))

    def drop_users(self) -> None:
        """Hold nobody any more: others may have served them since."""
        self._ask("drop_users", type(None))

    @property
    def attentive(self) -> bool:
        """May the core be told some more, before it has answered something?

        What it was told before the oldest unanswered call it has taken off the pipe by the time
        that it answers; what lies behind must leave room for the calls that follow.
        """
        return sum(self._behind) <= MOST_TOLD // 2

    def _tell(self, method: str, arguments: Any) -> None:
        """Say something that has no answer; batches may be under way."""
        with self._lock:
            self._send(method, arguments)

    def keep(self, folder: Path) -> list[str]:
        """Have the state, as it is now, written into a folder; the parts to come.

        Does not wait for them: their notes say when they are there. [] while the one before is
        still being written.
        """
        return self._ask("keep", list[str], str(folder))

    def resume(self, folder: Path, digest: str) -> bool:
        """Be as when the state was kept there; before any step. False: the encoder begins anew.

        Raises CoreRaised when a part is damaged; this core is of no use then.
        """
        return self._ask("resume", bool, (str(folder), digest))

    def follow(self, turns: Iterable[Turn]) -> None:
        """Let the encoder's coming turns go as these did."""
        self._ask("follow", type(None), list(turns))

    def held(self) -> list[str]:
        """The users who are held."""
        return self._ask("held", list[str])

    def release(self, users: Iterable[str]) -> None:
        """Hold these no longer."""
        self._ask("release", type(None), list(users))

    def quality(self) -> dict[str, Any]:
        """As it was after the newest step."""
        if not self._quality:
            self._quality = self._ask("quality", dict[str, Any])
        return self._quality

    def close(self) -> None:
        """End the child; it is given a few seconds. One that ended before is fine."""
        self._questions.close()
        self._child.close()

    def _step(self, batch: list[Delivery], done: Stepped) -> Step:
        self._quality = done.quality
        return Step(
            accepted=[batch[n] for n in done.accepted],
            slates=done.slates,
            rejects=[Reject(batch[n], reason) for n, reason in done.rejects],
            duplicates=done.duplicates,
            metrics=done.metrics,
            vectors=done.vectors,
            turns=done.turns,
            rankers=done.rankers,
            weights=done.weights,
        )

    def _ask(self, method: str, kind: type[T], arguments: Any = None) -> T:
        with self._lock:
            assert not self._behind, f"{method!r} while others are under way: receive them first"
            self._send(method, arguments)
            value = self._answer(method, kind)
            assert value is not None or kind is type(None)
            return value  # type: ignore[return-value]

    def _send(self, method: str, arguments: Any) -> None:
        try:
            self._child.send(method, arguments)  # if it raises another error, nothing was sent
        except ChildGone as gone:
            raise self._lost(method, gone) from None
        if method not in UNANSWERED:
            self._behind.append(0)
        elif self._behind:
            self._behind[-1] += 1

    def _answer(self, method: str, kind: type[T]) -> T | None:
        """What the core answers; None when it refuses."""
        try:
            answer = self._child.receive()
            self._behind.popleft()
            if answer.outcome is Outcome.RAISED:
                raise CoreRaised(decode(answer.value, type=str))
            return None if answer.outcome is Outcome.REFUSED else decode(answer.value, type=kind)
        except msgspec.MsgspecError as error:
            said = f"the core's process {self.pid} answered {method!r} with what is no answer"
            raise CoreLost(f"{said}: {error}") from error
        except ChildGone as gone:
            raise self._lost(method, gone) from None

    def _lost(self, method: str, gone: ChildGone) -> CoreLost:
        return CoreLost(f"the core's process {self.pid} {gone} at {method!r}")
