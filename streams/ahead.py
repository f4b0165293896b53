"""Batches that the core is given before it is done with those before, and when it refuses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from online.events import Delivery, Item
from online.step import Core, PastEvent, Step
from online.texts import TextVector
from streams.core_protocol import Changes

Histories = Mapping[str, list[PastEvent]]


@runtime_checkable
class TakesAhead(Protocol):
    """A core that takes the next batch while it works on the one before: `CoreProcess`."""

    ahead: int  # batches that may be under way

    def send(
        self, batch: list[Delivery], histories: Histories, now_ms: int,
        queries: Sequence[TextVector] = (),
    ) -> None: ...  # fmt: skip
    def receive(self) -> Step | None: ...
    def send_changes(self, changes: Changes) -> None: ...
    def receive_changes(self) -> list[str]: ...


class AtOnce:
    """The same for a core in this process: it steps a batch when the outcome is asked for."""

    ahead = 1

    def __init__(self, core: Core) -> None:
        self._core = core
        self._sent: tuple[list[Delivery], Histories, int, Sequence[TextVector]] | None = None
        self._changes: Changes = ()

    def send(
        self, batch: list[Delivery], histories: Histories, now_ms: int,
        queries: Sequence[TextVector] = (),
    ) -> None:  # fmt: skip
        self._sent = batch, histories, now_ms, queries

    def receive(self) -> Step | None:
        assert self._sent is not None
        return step_if_known(self._core, *self._sent)

    def send_changes(self, changes: Changes) -> None:
        self._changes = changes

    def receive_changes(self) -> list[str]:
        return change_each(self._core, self._changes)


def change_each(
    core: Core, changes: Changes, pause: Callable[[], None] = lambda: None
) -> list[str]:
    """Apply each; what the core raised on it, "" for nothing. pause: called after each."""
    faults = []
    for one in changes:
        faults.append(_change(core, one))
        pause()
    return faults


def _change(core: Core, one: Item | str) -> str:
    try:
        if isinstance(one, str):
            core.withdraw([one])
        else:
            core.announce([one])
    except MemoryError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def step_if_known(
    core: Core, batch: list[Delivery], histories: Histories, now_ms: int,
    queries: Sequence[TextVector] = (),
) -> Step | None:  # fmt: skip
    """Step a batch with the `histories` that the core may lack; None when it lacks others.

    Nothing was learned then. Users that the core holds keep what it holds. queries: what is
    searched for in the batch.
    """
    missing = core.missing(batch)  # the others count as used: restoring these evicts none of them
    if not all(user in histories for user in missing):
        return None
    if missing:
        core.restore({user: histories[user] for user in missing})
        if core.missing(batch):  # their histories are too long to be held together
            return None
    if queries:
        cast(Any, core).put_texts(queries)
    return core.step(batch, now_ms)
