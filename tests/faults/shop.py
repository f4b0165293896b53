"""A shop under test: a broker, a ClickHouse server and workers, each a process of its own.

What faults do to it is compared with an undisturbed run over the journal that it left.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from infra.checkpoints import Checkpoints, about_state
from infra.parts import note_of, read_part
from infra.settings import Settings
from infra.warehouse import Warehouse, connect
from online.core import RecommenderConfig
from online.events import Event
from online.state import State, differences
from online.step import Step
from streams.core_config import config_of
from streams.core_process import CoreProcess
from streams.producer import EventProducer
from streams.recovery import Entry, Recovery
from streams.topics import ensure_topics, log_of
from tests.clickhouse_server import ClickhouseServer
from tests.faults.worker import command
from tests.streams.worker_process import WorkerProcess

TS = 1_700_000_000_000


def events(count: int, seed: int, users: int = 400, items: int = 300) -> Iterator[Event]:
    """Clicks and purchases of users who stay near what they had before."""
    rng = random.Random(seed)
    last: dict[int, int] = {}
    for n in range(count):
        user = int(rng.paretovariate(0.6)) % users
        item = (last.get(user, user) + rng.choice((1, 1, 2, 3, 50))) % items
        last[user] = item
        yield Event(
            event_id=f"e{n}", type=rng.choice(("click", "click", "cart", "purchase")),
            user_id=f"u{user}", item_id=f"i{item}", ts=TS + 1000 * n, price=float(item % 40 + 1),
            session_id=f"s{user}-{n // 2000}",
        )  # fmt: skip


@dataclass
class Shop:
    folder: Path
    broker: EmbeddedBroker
    server: ClickhouseServer
    database: str
    partitions: int = 1
    workers: list[WorkerProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server.run(f"CREATE DATABASE {self.database}")
        ensure_topics(self.address, self.partitions, 1, 1_000_000)

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress.at(self.broker.address)

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    def settings(self, **changes: str) -> dict[str, str]:
        return {
            "broker": f"kafka://{self.broker.address}",
            "warehouse": self.url,
            "partitions": str(self.partitions),
            "checkpoints": str(self.folder / "checkpoints"),
            "checkpoint_s": "1",
            **changes,
        }

    def worker(self, name: str = "worker", kind: str = "", **changes: str) -> WorkerProcess:
        """A worker that is not started yet; of which kind, see `tests.faults.worker`."""
        made = WorkerProcess(self.folder / name, **self.settings(**changes))
        made.command = command(kind)
        self.workers.append(made)
        return made

    def produce(self, some: Iterable[Event]) -> int:
        producer = EventProducer(self.address)
        sent = 0
        for event in some:
            producer.send(event)
            sent += 1
        delivered = producer.flush()
        assert delivered.ok, delivered
        producer.close()
        return sent

    def warehouse(self) -> Warehouse:
        return connect(self.url, log_of(self.address).id)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()


@dataclass
class Undisturbed:
    """What one core makes of the whole journal of a shard."""

    state: dict[str, State]
    slates: dict[str, tuple[str, list[str]]]  # by user: the id of the last slate, and its items
    quality: dict[str, Any]


def undisturbed(shop: Shop, shard: int = 0, **changes: str) -> Undisturbed:
    """Step the journal from its beginning, as a worker would that nothing ever happened to."""
    environ = {f"FRESHREC_{k.upper()}": v for k, v in shop.settings(**changes).items()}
    config: RecommenderConfig = config_of(
        Settings.from_env(environ, dotenv=None), shard, shares=True
    )
    core = CoreProcess(config)
    warehouse = shop.warehouse()
    slates: dict[str, tuple[str, list[str]]] = {}

    def note(entry: Entry, step: Step) -> None:
        for s in step.slates:
            slates[s.user_id] = s.slate_id, [r.item_id for r in s.recommendations]

    try:
        core.warm_up()
        Recovery(core, warehouse).tail(shard, -1, -1, note)
        return Undisturbed(kept(core, shop.folder / "undisturbed"), slates, core.quality())
    finally:
        core.close()
        warehouse.close()


def kept(core: CoreProcess, folder: Path) -> dict[str, State]:
    """The core's state, by part."""
    import time

    folder.mkdir()
    parts = core.keep(folder)
    deadline = time.monotonic() + 60
    while any(note_of(folder / part) is None for part in parts):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return {part: part_of(folder, part) for part in parts}


def part_of(folder: Path, part: str) -> State:
    """A part of a state, whole."""
    note = note_of(folder / part)
    assert note is not None and not note.error, note
    return read_part(folder / part, note.digest)


def newest_state(shop: Shop) -> tuple[dict[str, State], int]:
    """What a stopped worker kept last, by part; and the number of its last batch."""
    checkpoints = Checkpoints(shop.folder / "checkpoints")
    try:
        folder = checkpoints.states()[0]
        about = about_state(folder)
        return {part: part_of(folder, part) for part in about.parts}, about.batch
    finally:
        checkpoints.close()


def unlike(one: dict[str, State], other: dict[str, State]) -> list[str]:
    """Where two states differ; empty when they are the same bit by bit."""
    if one.keys() != other.keys():
        return [f"parts: {sorted(one)} and {sorted(other)}"]
    return [f"{part}: {path}" for part in one for path in differences(one[part], other[part])]
