"""The targets of a backtest as a file: who, what, when, the rank, and what came before.

`freshrec compare` joins two such files. What came before is counted here, from the accepted
events of every step, so that it does not depend on what the core keeps or evicts.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from online.events import Delivery, Event
from online.step import Step
from streams.logformat import LogError
from streams.ranks import Ranks

SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("ts", pa.int64()),  # event time, epoch ms
        ("offset", pa.int64()),  # place in the replay
        ("rank", pa.float64()),  # from 1; inf for an item that was not known
        ("user_events", pa.int64()),  # accepted events of that user before it, of any type
        ("item_events", pa.int64()),  # accepted events of that item before it, of any type
        ("gap_ms", pa.int64()),  # since the user's event before; -1: there was none
        ("same_time", pa.bool_()),  # has the user's event before the same ts?
    ]
)
COUNTS = ("ts", "offset", "user_events", "item_events", "gap_ms")


class Targets(Ranks):
    """Every target with its rank and its circumstances, in the order of the replay."""

    def __init__(self) -> None:
        super().__init__()
        self._users: list[str] = []
        self._items: list[str] = []
        self._counts = {name: array("q") for name in COUNTS}
        self._of_user: dict[str, tuple[int, int]] = {}  # events so far, ts of the last one
        self._of_item: dict[str, int] = {}

    def add(self, step: Step) -> None:
        """Take over a batch. Ranks and accepted events are both in the order of offsets."""
        super().add(step)
        accepted, at = step.accepted, 0
        for target, _ in step.ranks:
            while at < len(accepted) and accepted[at].offset < target.offset:
                self._count(accepted[at].event)
                at += 1
            self._note(target)
        for later in accepted[at:]:
            self._count(later.event)

    def _note(self, target: Delivery) -> None:
        event = target.event
        events, last = self._of_user.get(event.user_id, (0, -1))
        self._users.append(event.user_id)
        self._items.append(event.item_id)
        gap = event.ts - last if events else -1
        known = self._of_item.get(event.item_id, 0)
        values = (event.ts, target.offset, events, known, gap)
        for column, value in zip(self._counts.values(), values, strict=True):
            column.append(value)

    def _count(self, event: Event) -> None:
        events, _ = self._of_user.get(event.user_id, (0, -1))
        self._of_user[event.user_id] = (events + 1, event.ts)
        if event.item_id:
            self._of_item[event.item_id] = self._of_item.get(event.item_id, 0) + 1

    def write(self, path: Path) -> None:
        """Replaced in one go, so that a reader never sees half a file."""
        columns = {name: np.asarray(column) for name, column in self._counts.items()}
        columns |= {"rank": np.asarray(self.ranks), "same_time": columns["gap_ms"] == 0}
        texts = {"event_id": self.events, "user_id": self._users, "item_id": self._items}
        part = path.with_name(path.name + ".part")
        pq.write_table(pa.table({**texts, **columns}, schema=SCHEMA), part)
        os.replace(part, path)


def read_targets(path: Path) -> pa.Table:
    """The targets in a file, as `SCHEMA` has them. Raises LogError if there are none."""
    cure = f"write it with freshrec backtest LOG --ranks {path}"
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
            if missing:
                raise LogError(f"{path} lacks the columns {', '.join(missing)}: {cure}")
            table = file.read(columns=SCHEMA.names).select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, OSError) as e:
        said = (str(e).splitlines() or [type(e).__name__])[0]
        raise LogError(f"{path} holds no ranks ({said}): {cure}") from e
    if any(column.null_count for column in table.columns):
        raise LogError(f"{path} has empty cells: {cure}")
    if not (table.column("rank").to_numpy() >= 1).all():
        raise LogError(f"{path} has ranks below 1: {cure}")
    if not table.num_rows:
        raise LogError(f"{path} has no targets: {cure}, with --targets that are in LOG")
    return table
