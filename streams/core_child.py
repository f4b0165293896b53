"""The core's process: `python -m streams.core_child MODULE:CORE R W` answers calls from stdin.

R, W: descriptors of questions and their answers, which are given between two calls, and where
one pauses.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from infra.children import leave_signals_to_the_parent
from infra.parts import read_part
from online.core import RecommenderConfig
from online.events import Delivery, Item
from online.state import State
from online.step import Core, Histories, Recommendation, Step, Turn
from online.texts import TextVector
from online.told import Rankers, Told, Weights
from streams.ahead import change_each, step_if_known
from streams.core_protocol import (
    IN_LINE,
    UNANSWERED,
    Ahead,
    Answer,
    Call,
    Outcome,
    Stepped,
    decode,
    encode,
    send,
)
from streams.keeping_child import CORE, TRAINER, Keeping
from streams.line import Line
from streams.process import spare_garbage_collection
from streams.trainer_process import TrainerLost

Searched = tuple[TextVector, str, dict[str, float], str, int, int | None, bool]
BELOW_WORKER = 10  # niceness: what hands rows on must not wait behind what computes


class Hosted(Core, Protocol):
    """What a core must have to live in this process: `online.core.Recommender` has it."""

    pause: Callable[[], None]

    def warm_up(self) -> None: ...
    def absent(self, users: Iterable[str]) -> list[str]: ...
    def recommend(
        self, user_id: str, now_ms: int, k: int | None = None
    ) -> tuple[Recommendation, ...]: ...
    def state(self) -> State: ...
    def save_trainer(self, place: str) -> bool: ...
    def resume(self, state: State, place: str) -> bool: ...
    def follow(self, turns: Iterable[Turn]) -> None: ...
    def held(self) -> list[str]: ...
    def release(self, users: Iterable[str]) -> None: ...
    def close(self) -> None: ...
    def hear(self, events: list[Told]) -> None: ...
    def heard_rankers(self, source: int, said: Rankers) -> None: ...
    def adopt(self, said: Weights) -> None: ...
    def drop_users(self) -> None: ...
    def join(self) -> None: ...
    def put_texts(self, vectors: Iterable[TextVector]) -> None: ...
    def without_text(self) -> list[str]: ...
    def search(
        self, query: TextVector, text: str, lexical: Mapping[str, float], user_id: str,
        now_ms: int, k: int | None = None, personal: bool = True,
    ) -> tuple[Recommendation, ...]: ...  # fmt: skip
    def similar(
        self, item_id: str, by: str, now_ms: int, k: int | None = None
    ) -> tuple[Recommendation, ...]: ...


class Refused(Exception):
    """A batch that was sent ahead and cannot be stepped; nothing of it was learned."""


class CoreServer:
    """One method for each call of `streams.core_protocol`; `configure` comes first."""

    _core: Hosted

    def __init__(
        self, make: Callable[[RecommenderConfig], Hosted], pause: Callable[[], None] = lambda: None
    ) -> None:
        """pause: what the core does in the middle of a call, when nothing is half done."""
        self._make = make
        self._pause = pause
        self._refusing = False
        self._keeping = Keeping()

    def answer(self, call: Call) -> Answer | None:
        """What the core says to a call; nothing to what it is only told.

        After MemoryError or TrainerLost the process must end.
        """
        if call.method in UNANSWERED:
            self._listen(call)
            return None
        try:
            method: Callable[[msgspec.Raw], Any] = getattr(self, f"on_{call.method}")
            if call.method not in IN_LINE:
                self._refusing = False
            return Answer(Outcome.DONE, msgspec.Raw(encode(method(call.arguments))))
        except Refused:
            self._refusing = True
            return Answer(Outcome.REFUSED)
        except (MemoryError, TrainerLost):
            raise  # no event's fault: were it answered, good events would become dead letters
        except Exception as error:
            self._refusing = True
            said = f"{type(error).__name__}: {error}"
            return Answer(Outcome.RAISED, msgspec.Raw(encode(said)))

    def reply(self, question: Call) -> Answer:
        """What the core says to a question, which changes nothing: while nothing is half done."""
        try:
            method: Callable[[msgspec.Raw], Any] = getattr(self, f"on_{question.method}")
            return Answer(Outcome.DONE, msgspec.Raw(encode(method(question.arguments))))
        except MemoryError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            return Answer(Outcome.RAISED, msgspec.Raw(encode(said)))

    def _listen(self, call: Call) -> None:
        """What other workers say must not end this one."""
        try:
            getattr(self, f"on_{call.method}")(call.arguments)
        except (MemoryError, TrainerLost):
            raise
        except Exception as error:
            print(f"{call.method}: {type(error).__name__}: {error}", file=sys.stderr)

    def on_hear(self, raw: msgspec.Raw) -> None:
        self._core.hear(decode(raw, type=list[Told]))

    def on_heard_rankers(self, raw: msgspec.Raw) -> None:
        self._core.heard_rankers(*decode(raw, type=tuple[int, Rankers]))

    def on_adopt(self, raw: msgspec.Raw) -> None:
        self._core.adopt(decode(raw, type=Weights))

    def on_heard_items(self, raw: msgspec.Raw) -> None:
        items, withdrawn = decode(raw, type=tuple[list[Item], list[str]])
        for fault in filter(None, change_each(self._core, [*items, *withdrawn], self._pause)):
            print(f"heard_items: {fault}", file=sys.stderr)

    def on_change(self, raw: msgspec.Raw) -> list[str]:
        return change_each(self._core, decode(raw, type=list[Item | str]), self._pause)

    def on_put_texts(self, raw: msgspec.Raw) -> None:
        self._core.put_texts(decode(raw, type=list[TextVector]))

    def on_search(self, raw: msgspec.Raw) -> tuple[Recommendation, ...]:
        return self._core.search(*decode(raw, type=Searched))

    def on_similar(self, raw: msgspec.Raw) -> tuple[Recommendation, ...]:
        return self._core.similar(*decode(raw, type=tuple[str, str, int, int | None]))

    def on_without_text(self, _: msgspec.Raw) -> list[str]:
        return self._core.without_text()

    def on_drop_users(self, _: msgspec.Raw) -> None:
        self._core.drop_users()

    def on_join(self, _: msgspec.Raw) -> None:
        self._core.join()

    def on_ahead(self, raw: msgspec.Raw) -> Stepped:
        if self._refusing:
            raise Refused
        batch, histories, now_ms, queries = decode(raw, type=Ahead)
        step = step_if_known(self._core, batch, histories, now_ms, queries)
        if step is None:
            raise Refused
        return self._stepped(batch, step)

    def on_step(self, raw: msgspec.Raw) -> Stepped:
        batch, now_ms = decode(raw, type=tuple[list[Delivery], int])
        return self._stepped(batch, self._core.step(batch, now_ms))

    def _stepped(self, batch: list[Delivery], step: Step) -> Stepped:
        place = {id(d): n for n, d in enumerate(batch)}
        return Stepped(
            [place[id(d)] for d in step.accepted],
            [(place[id(r.delivery)], r.reason) for r in step.rejects],
            step.duplicates,
            step.slates,
            step.metrics,
            step.vectors,
            step.turns,
            step.rankers,
            step.weights,
            self._core.quality(),
        )

    def on_configure(self, raw: msgspec.Raw) -> None:
        self._core = self._make(decode(raw, type=RecommenderConfig))
        self._core.pause = self._pause

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

    def on_keep(self, raw: msgspec.Raw) -> list[str]:
        """Begin to write the state, as it is now, into a folder; the names of its parts.

        [] while the one before is still being written. See `streams.keeping_child`.
        """
        return self._keeping.begin(self._core, Path(decode(raw, type=str)))

    def on_resume(self, raw: msgspec.Raw) -> bool:
        folder, digest = decode(raw, type=tuple[str, str])
        state = read_part(Path(folder) / CORE, digest)
        return self._core.resume(state, str(Path(folder) / TRAINER))

    def on_follow(self, raw: msgspec.Raw) -> None:
        self._core.follow(decode(raw, type=list[Turn]))

    def on_held(self, _: msgspec.Raw) -> list[str]:
        return self._core.held()

    def on_release(self, raw: msgspec.Raw) -> None:
        self._core.release(decode(raw, type=list[str]))

    def on_quality(self, _: msgspec.Raw) -> dict[str, Any]:
        return self._core.quality()


def serve(make: Callable[[RecommenderConfig], Hosted], asked: int, answered: int) -> None:
    """Answer calls until the pipes end. Whatever prints goes to stderr."""
    leave_signals_to_the_parent()
    os.nice(BELOW_WORKER)
    into = os.fdopen(os.dup(0), "rb")
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions, answers = os.fdopen(asked, "rb"), os.fdopen(answered, "wb")
    line = Line()

    def reply(question: Call) -> None:
        with contextlib.suppress(BrokenPipeError), line.questions.spending():
            send(answers, server.reply(question))  # broken: nobody wants to know any more

    def pause() -> None:
        while (question := line.question()) is not None:
            reply(question)

    server = CoreServer(make, pause)
    spare_garbage_collection()
    for read, pipe in ((line.read_calls, into), (line.read_questions, questions)):
        threading.Thread(target=read, args=(pipe,), name="read", daemon=True).start()
    with contextlib.suppress(BrokenPipeError), out:  # nobody wants the answer any more
        while True:
            is_call, call = line.next()
            if call is None:
                break
            try:
                if not is_call:
                    reply(call)
                elif (answer := server.answer(call)) is not None:
                    send(out, answer)
            except TrainerLost as error:
                sys.exit(str(error))


if __name__ == "__main__":
    serve(pkgutil.resolve_name(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
