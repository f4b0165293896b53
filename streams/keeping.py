"""Checkpoints while the worker runs: marks every few seconds, states of the core now and then.

A batch is acknowledged when all its rows are in the warehouse and a mark says so. Its events are
then in a checkpoint: in a state, or in the journal after it. A state costs a few milliseconds of
the core's time and about a second of a processor's, so the next one is begun when enough came to
make going on from the journal slow, and never so soon that states cost more than a 33rd of the
time.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from infra.checkpoints import FORMAT, About, Checkpoints, CheckpointsError, Mark
from infra.log import get_log
from infra.parts import Note, note_of
from streams.patience import Patience
from streams.status import Status

log = get_log("checkpoints")

LONGEST_S = 3600.0  # that it may be old, when anything came since
SPARING = 33.0  # times its cost that lie between two states
AFTER_A_FAULT_S = 30.0
LOOK_S = 0.1
FIRST_S = 120.0
ASKED_SPARING = 5.0  # the same for states that are asked for, to forget somebody
ABANDONED_S = 600.0  # a state that is not finished by then never will be
MOST_HELD = 100_000  # messages that are written, and not acknowledged


class Keeps(Protocol):
    """A core whose state can be kept: `streams.core_process.CoreProcess`."""

    def keep(self, folder: Path) -> list[str]: ...


class Position(NamedTuple):
    """Where a worker is."""

    batch: int  # the newest in the journal
    offsets: dict[str, int]  # by topic/partition of what it reads, the next one
    heard: dict[int, int]  # by shard, the newest batch that it heard of
    updates: dict[int, int]  # by partition of `model-updates`, the next offset


@dataclass(frozen=True)
class Origin:
    """What stands in every state of this worker."""

    version: str
    broker_id: str
    settings: dict[str, Any]

    def about(self, shard: int, at: Position, events: int) -> About:
        return About(FORMAT, self.version, shard, at.batch, self.broker_id, at.offsets, events,
                     {}, self.settings, at.heard, at.updates)  # fmt: skip


@dataclass(slots=True)
class Held:
    """A batch whose rows are all in the warehouse, and that no mark covers yet."""

    batch: int
    offsets: dict[str, int]
    messages: int
    acknowledge: Callable[[], None]


@dataclass(slots=True)
class Growing:
    """A state on its way to the disk."""

    about: About
    folder: Path
    parts: list[str]
    pause_s: float
    began: float = field(default_factory=time.monotonic)
    committing: bool = False


def notes_of(folder: Path, parts: list[str]) -> dict[str, Note]:
    """The notes of a state's parts; none as long as one is being written.

    Raises CheckpointsError when one could not be written.
    """
    notes = {name: note_of(folder / name) for name in parts}
    errors = [note.error for note in notes.values() if note is not None and note.error]
    if errors:
        raise CheckpointsError(
            f"a checkpoint cannot be written ({'; '.join(errors)}): make room, or name another "
            "folder in FRESHREC_CHECKPOINTS"
        )
    whole = {name: note for name, note in notes.items() if note is not None}
    return whole if len(whole) == len(notes) else {}


def keep_first(
    core: Keeps, checkpoints: Checkpoints, origin: Origin, at: Position, events: int
) -> None:
    """Keep a state before anything is taken: marks mean nothing without one. Waits for it.

    Raises CheckpointsError.
    """
    folder = checkpoints.begin()
    parts = core.keep(folder)
    deadline = time.monotonic() + FIRST_S
    while not (notes := notes_of(folder, parts)):
        if time.monotonic() > deadline:
            raise CheckpointsError(f"the checkpoint {folder} was not written in {FIRST_S:g} s")
        time.sleep(0.02)
    about = origin.about(checkpoints.shard, at, events)
    about.parts = {name: note.digest for name, note in notes.items()}
    checkpoints.commit(folder, about)


class Keeper:
    """Marks, states and acknowledgements of one worker. Use from one event loop.

    Without `checkpoints` (tests, benchmarks) batches are acknowledged at once.
    """

    def __init__(
        self, checkpoints: Checkpoints | None, core: Keeps | None, status: Status, origin: Origin,
        every_s: float, every_events: int = 15_000, events: int = 0, batch: int = 0,
    ) -> None:  # fmt: skip
        """every_s: between marks; every_events: between states; events: learned before, up to that
        batch, all of which is written."""
        self._checkpoints = checkpoints
        self._core = core
        self._status = status
        self._origin = origin
        self._every_s, self._every_events = every_s, every_events
        self._thread = ThreadPoolExecutor(1, "keep")
        self._patience = Patience(status, "checkpoints")
        self._held: collections.deque[Held] = collections.deque()
        self._waiting = 0  # messages of these
        self._room = asyncio.Event()
        self._room.set()
        self._hurry = asyncio.Event()
        self._offsets: dict[str, int] = {}
        self._written = batch  # number of the newest batch whose rows are all there
        self._events, self._since = events, 0  # learned in all, and since the newest state
        self._growing: Growing | None = None
        self._not_before = self._asked_not_before = 0.0
        self._asked = False
        self._begun = self._committed = 0  # states: how many, and the newest of them that is there
        self.before_state: Callable[[], None] = lambda: None  # called in the core's thread
        self._newest = time.monotonic()

    # -- marks -------------------------------------------------------------------------------

    async def wrote(self, held: Held) -> None:
        """All rows of a batch are there; waits while too much is not acknowledged."""
        self._written = held.batch
        if self._checkpoints is None:
            held.acknowledge()
            return
        await self._room.wait()
        self._held.append(held)
        self._waiting += held.messages
        if self._waiting > MOST_HELD:
            self._room.clear()

    def hurry(self, on: bool = True) -> None:
        """Mark as soon as there is something to mark, not every few seconds."""
        if on:
            self._hurry.set()
        else:
            self._hurry.clear()

    async def run(self) -> None:
        """Mark and acknowledge, and finish states, until cancelled."""
        marked = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            due = self._hurry.is_set() or not self._room.is_set()
            if self._held and (due or time.monotonic() - marked >= self._every_s):
                await self.mark()
                marked = time.monotonic()
            await self._finish()

    async def mark(self) -> None:
        """Mark what is written, and acknowledge it."""
        held, self._held = self._held, collections.deque()
        for one in held:
            self._offsets |= one.offsets
        if self._checkpoints is not None and held:
            mark = Mark(held[-1].batch, self._origin.broker_id, dict(self._offsets))
            call = partial(self._checkpoints.mark, mark)
            await self._patience.until_answered("mark", call, self._thread)
        for one in held:
            one.acknowledge()
            self._waiting -= one.messages
        self._room.set()

    # -- states ------------------------------------------------------------------------------

    def learned(self, events: int) -> None:
        self._events += events
        self._since += events

    def heard(self, events: int) -> None:
        """So many events of other workers count in the core's state."""
        self._since += events

    def due(self) -> bool:
        """Should the core's state be kept now? If so, call `begin` between two batches."""
        now = time.monotonic()
        if self._checkpoints is None or self._growing is not None:
            return False
        if self._asked and now >= self._asked_not_before:
            return True
        if now < self._not_before:
            return False
        old = now - self._newest > LONGEST_S and self._since > 0
        return self._since >= self._every_events or old

    def begin(self, at: Position) -> None:
        """Have the core's state kept, which is that at this position. Nothing may be under way.

        Blocks: to be called in a thread.
        """
        assert self._checkpoints is not None and self._core is not None
        try:
            folder = self._checkpoints.begin()
        except CheckpointsError as fault:
            self._failed(str(fault), None)
            return
        started = time.monotonic()
        self.before_state()
        parts = self._core.keep(folder)
        pause_s = time.monotonic() - started
        if not parts:
            self._checkpoints.abandon(folder)
            return
        about = self._origin.about(self._checkpoints.shard, at, self._events)
        self._since, self._asked, self._begun = 0, False, self._begun + 1
        self._growing = Growing(about, folder, parts, pause_s)

    async def renew(self, batch: int, wake: Callable[[], Awaitable[None]]) -> None:
        """Have a state begun from now on, that has learned `batch`, be the only one there is.

        All rows of what was learned before are in the warehouse then. `wake()` lets the core's
        thread look at `due`.
        """
        wanted = self._begun + 1
        while self._written < batch or (self._checkpoints and self._committed < wanted):
            if self._growing is None:
                self._asked = self._checkpoints is not None
                await wake()
            await asyncio.sleep(LOOK_S)
        if self._checkpoints is not None:
            call = self._checkpoints.drop_older
            dropped = await self._patience.until_answered("drop_older", call, self._thread)
            log.info("older_states_dropped", states=",".join(dropped) or "none")

    async def _finish(self) -> None:
        """Make the growing state visible once it is whole, and what it learned is written."""
        growing = self._growing
        if growing is None or growing.committing or self._written < growing.about.batch:
            return
        try:
            notes = notes_of(growing.folder, growing.parts)
        except CheckpointsError as fault:
            self._failed(str(fault), growing.folder)
            return
        if notes:
            await self._commit(growing, notes)
        elif time.monotonic() - growing.began > ABANDONED_S:  # whoever wrote it is gone
            self._failed(f"{growing.folder} was never finished", growing.folder)

    async def _commit(self, growing: Growing, notes: dict[str, Note]) -> None:
        assert self._checkpoints is not None
        growing.about.parts = {name: note.digest for name, note in notes.items()}
        commit = partial(self._checkpoints.commit, growing.folder, growing.about)
        growing.committing = True  # and it stays the growing one: the next would take its folder
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, commit)
        except CheckpointsError as fault:
            self._failed(str(fault), growing.folder)
            return
        self._growing = None
        cost = growing.pause_s + sum(note.seconds for note in notes.values())
        self._committed = self._begun
        self._newest = time.monotonic()
        self._not_before = self._newest + SPARING * cost
        self._asked_not_before = self._newest + ASKED_SPARING * cost
        size = sum(note.size for note in notes.values())
        self._status.kept(growing.about.batch, self._newest - growing.began, size)
        self._status.works("checkpoints")
        log.info("state_kept", batch=growing.about.batch, events=growing.about.events,
                 mb=round(size / 2**20, 1), cost_s=round(cost, 2))  # fmt: skip

    def _failed(self, error: str, folder: Path | None) -> None:
        """Nothing is lost: the journal reaches back to the newest state that is whole."""
        self._growing = None
        self._not_before = self._asked_not_before = time.monotonic() + AFTER_A_FAULT_S
        self._since = max(self._since, self._every_events)
        log.warning("state_not_kept", error=error, cure="make room; the state before stays")
        self._status.fails("checkpoints", error, 1)
        if folder is not None and self._checkpoints is not None:
            self._checkpoints.abandon(folder)

    async def last(self, at: Position, within_s: float) -> None:
        """Keep one more state, if anything was learned since the newest; then nothing more.

        Call when everything is written and acknowledged.
        """
        if self._checkpoints is None or self._core is None:
            return
        deadline = time.monotonic() + within_s
        begun = not self._since
        while time.monotonic() < deadline:
            await self._finish()
            if self._growing is None:
                if begun:
                    return
                begun = True
                await asyncio.get_running_loop().run_in_executor(self._thread, self.begin, at)
            await asyncio.sleep(0.02)
        log.warning("last_state_not_kept", cure="the next start goes on from the journal")

    def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
