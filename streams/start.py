"""How a worker's core begins: from its newest state that is whole and the journal after it, from
the journal alone, or from nothing. Never silently from less than there is."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from infra.checkpoints import About, Checkpoints, about_state
from infra.erasures import Erasures
from infra.log import get_log
from infra.rows import SHARD_MASK, BatchId
from infra.settings import Settings
from infra.tensors import Damaged
from infra.warehouse_types import Warehouse
from online.core import RecommenderConfig
from online.step import Step
from streams.core_process import CoreProcess, CoreRaised
from streams.erasing import release_forgotten
from streams.keeping import Origin, Position, keep_first
from streams.learning import Learned
from streams.process import StateError
from streams.recovery import Entry, Recovery, claim, owner
from streams.sharing import Speaker
from streams.status import Status
from streams.writing import LATER, SOON, Group, Work, Writer

log = get_log("worker")

AT_ONCE = 20  # batches that are written together


@dataclass
class Started:
    """A core that is ready for the next event."""

    core: CoreProcess
    at: Position
    events: int  # that the core has learned
    released: int  # users who were in the state, and had been forgotten since


class Start:
    """Blocks; to be called in a thread. `stopping` ends it early."""

    def __init__(
        self, settings: Settings, config: RecommenderConfig, make: Callable[..., CoreProcess],
        warehouse: Warehouse, checkpoints: Checkpoints, status: Status, writer: Writer,
        speaker: Speaker | None, stopping: Callable[[], bool], erasures: Erasures,
        fresh: bool = False, model: str = "",
    ) -> None:  # fmt: skip
        """make: of a core from its configuration; fresh: take the shard from who had it; model:
        whose vectors of texts count."""
        self._model = model
        self._fresh = fresh
        self._writer = writer
        self._speaker = speaker
        self._settings = settings
        self._config = config
        self._make = make
        self._warehouse = warehouse
        self._checkpoints = checkpoints
        self._status = status
        self._stopping = stopping
        self._erasures = erasures
        self._released = 0  # users who were in a state and had been forgotten since

    def begin(self) -> Started:
        """Raises StateError when there are checkpoints, and none can be used; WarehouseError."""
        self._claim()
        self._erasures.refresh()
        core, about = self._resumed()
        try:
            return self._caught_up(core, about)
        except BaseException:
            core.close()
            raise

    def _claim(self) -> None:
        """Workers with checkpoints of their own must not take others' batches for theirs."""
        shard, lineage = self._checkpoints.shard, self._checkpoints.lineage
        known = owner(self._warehouse, shard)
        if known not in ("", lineage) and not self._fresh:
            raise StateError(
                f"the warehouse's shard {shard} belongs to other checkpoints than those in "
                f"{self._checkpoints.folder}: let all workers of the group share one folder "
                "(FRESHREC_CHECKPOINTS); or, if those others are gone for good, start once with "
                "--fresh"
            )
        if not known and self._events_of_a_state() and self._empty():
            raise StateError(
                f"the warehouse holds no events, and the checkpoints in {self._checkpoints.folder} "
                "were learned from some, which would be taken for known: put that warehouse back "
                "(in place of the empty one that this start made); or start once with --fresh: "
                "then they are set aside"
            )
        claim(self._warehouse, shard, lineage)

    def _events_of_a_state(self) -> int:
        """How many the newest state that can be read has learned."""
        for folder in self._checkpoints.states():
            with contextlib.suppress(Damaged):
                return about_state(folder).events
        return 0

    def _empty(self) -> bool:
        """Were there never any events? Those of who was forgotten are gone."""
        rows = "SELECT 1 FROM {} LIMIT 1".format
        return not any(self._warehouse.query(rows(t)).rows for t in ("events", "erasures"))

    # -- the newest state --------------------------------------------------------------------

    def _resumed(self) -> tuple[CoreProcess, About | None]:
        passed_over: dict[Path, str] = {}
        for folder in self._checkpoints.states():
            try:
                about = about_state(folder)
                core = self._resume(folder, about)
            except (Damaged, CoreRaised) as fault:
                passed_over[folder] = str(fault)
                log.warning("state_passed_over", state=folder.name, why=str(fault))
                continue
            for damaged in passed_over:
                self._checkpoints.put_by(damaged)
            return core, about
        if self._checkpoints.used:
            why = "; ".join(passed_over.values()) or "there is a mark, and no state"
            raise StateError(
                f"the checkpoints in {self._checkpoints.folder} cannot be used ({why}): put back a "
                "copy of that folder; or start once with --fresh: then they are set aside, and "
                f"the newest {self._settings.recover_events} journalled events are learned again "
                "(FRESHREC_RECOVER_EVENTS)"
            )
        return self._new(), None

    def _new(self) -> CoreProcess:
        self._status.detail = "compiling"
        core = self._make(self._config)
        try:
            core.warm_up()
        except BaseException:
            core.close()
            raise
        return core

    def _resume(self, folder: Path, about: About) -> CoreProcess:
        core = self._new()
        self._status.detail = f"reading the checkpoint {folder.name}"
        try:
            whole = core.resume(folder, about.parts["core"])
            self._released = release_forgotten(core, self._erasures)
        except BaseException:
            core.close()
            raise
        log.info("state_restored", state=folder.name, events=about.events, by=about.version)
        if not whole:
            log.warning("encoder_begins_anew", why="it was off, or of another shape, in that state")
        if about.broker_id != self._warehouse.broker_id:
            log.warning("offsets_dropped", why="the broker has another log than the checkpoint",
                        then=about.broker_id, now=self._warehouse.broker_id)  # fmt: skip
        return core

    # -- the journal after it ----------------------------------------------------------------

    def _caught_up(self, core: CoreProcess, about: About | None) -> Started:
        def progress(done: int, total: int) -> None:
            self._status.detail = f"learning the journal again: {done} of {total} events"

        recovery = Recovery(
            core, self._warehouse, self._stopping, progress, self._erasures, self._model
        )
        if about is None:
            self._announce(core)
            recovery.newest(self._settings.recover_events)
            if recovery.events:
                why = "none was ever written here: the newest journalled events were learned again"
                log.warning("no_checkpoint", why=why, events=recovery.events)
        else:
            self._tail(recovery, about)
        started = Started(core, self._position(recovery, about), recovery.events, self._released)
        if about is not None:
            started.events += about.events
        elif not self._stopping():
            if recovery.events:
                core.join()
            self._status.detail = "writing the first checkpoint"
            made = origin(self._settings, self._config, self._warehouse.broker_id)
            keep_first(core, self._checkpoints, made, started.at, started.events)
        return started

    def _position(self, recovery: Recovery, about: About | None) -> Position:
        last = recovery.last_batch() & ~SHARD_MASK | self._checkpoints.shard
        if about is None:  # the journal told what all have learned
            return Position(last, {}, recovery.newest_of_shards() if recovery.events else {}, {})
        same = about.broker_id == self._warehouse.broker_id
        return Position(
            last, about.offsets if same else {}, about.heard, about.updates if same else {}
        )

    def _announce(self, core: CoreProcess) -> None:
        self._status.detail = "reading the catalogue"
        items = self._warehouse.catalogue()
        core.announce(items)
        log.info("catalogue_announced", items=len(items))

    def _tail(self, recovery: Recovery, about: About) -> None:
        mark = self._checkpoints.marked()
        if mark is None:
            log.warning("no_mark", cure="none needed: rows since the state are written again")
        unmarked = max(mark.batch if mark else 0, about.batch)
        works: list[Work] = []

        def write(entry: Entry, step: Step) -> None:
            step = replace(step, turns=entry.turns)
            works.append(Work(Learned(step=step), BatchId(entry.broker_id, entry.number), []))
            if len(works) >= AT_ONCE:
                flush()

        def flush() -> None:
            if works:
                self._writer.write(Group(list(works), (*SOON, *LATER)))
                if self._speaker is not None:
                    self._speaker.tell(works)
                works.clear()

        recovery.tail(about.shard, about.batch, unmarked, write)
        flush()


def origin(settings: Settings, config: RecommenderConfig, broker_id: str) -> Origin:
    """What stands in every state: who made it, and with which settings."""
    version = importlib.metadata.version("freshrec")
    memory = asdict(config.memory)
    made = {"slate": settings.slate, "seed": settings.seed, "exclude_seen": settings.exclude_seen,
            "encoder": settings.encoder, "memory": memory}  # fmt: skip
    return Origin(version, broker_id, made)
