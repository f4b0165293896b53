"""The embedded warehouse: ClickHouse's engine inside this process, on a directory of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from infra import native, reading, schema
from infra.binding import bind, columns_of
from infra.chdb_connection import ChdbConnection
from infra.warehouse_types import Answer, WarehouseError, WarehouseLocked
from online.events import Item
from online.step import PastEvent

_COLUMNS = "SELECT name, type FROM system.columns WHERE database = 'default' AND table = %(table)s"
WRITERS = 2  # inserts at a time
# One thread for each statement: small inserts take 8 ms instead of 16, and the other processor is
# the core's. Files are read by that thread itself: histories take half as long as through a pool.
OWN_SETUP = (
    "SET max_threads = 1",
    "SET max_insert_threads = 1",
    "SET local_filesystem_read_method = 'pread'",
)
_NAME = re.compile(r"[A-Za-z_]\w*")


def lock(directory: Path) -> IO[str]:
    """Own `directory` until the returned file is closed or the process ends, however it ends."""
    path = directory / "freshrec.lock"
    file = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise WarehouseLocked(
            f"{directory} is in use by another process (pid {owner}), and the embedded warehouse "
            "allows one: query that worker's HTTP endpoint, stop it, or name another directory"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


class ChdbWarehouse:
    """`Warehouse` over chdb. Two connections write, another reads, so none waits for the others.

    Raises WarehouseLocked when another process has `directory` open.
    """

    def __init__(self, directory: str | Path, broker_id: str = "") -> None:
        self.broker_id = broker_id
        self.directory = Path(directory).absolute()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise WarehouseError(
                f"cannot make the warehouse's directory {self.directory}: {fault.strerror}: "
                "name one that this user may write"
            ) from None
        self._lock_file = lock(self.directory)
        try:
            self._writers = queue.SimpleQueue[ChdbConnection]()
            for _ in range(WRITERS):
                self._writers.put(self.connection(OWN_SETUP))
            self._reader = self.connection(OWN_SETUP)
        except BaseException:
            self._lock_file.close()
            raise
        self._reading = threading.Lock()
        self._types: dict[str, dict[str, str]] = {}
        self._closed = False

    def connection(self, setup: Sequence[str] = ()) -> ChdbConnection:
        """A further connection to the same directory, with settings of its own."""
        return ChdbConnection(str(self.directory), setup)

    def migrate(self) -> list[str]:
        with self._writer() as writer:
            self._types.clear()
            return schema.migrate(
                lambda sql, parameters=None: self._run(writer, bind(sql, parameters)),
                f"the warehouse in {self.directory}",
            )

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if not rows:
            return
        with self._writer() as writer:
            types = self._types_of(table)
            unknown = [c for c in columns if c not in types]
            if unknown:
                raise WarehouseError(f"table {table} has no columns {unknown}: run the migrations")
            values = columns_of(table, columns, rows)
            try:
                block = native.encode([(c, types[c]) for c in columns], values)
            except Exception as fault:
                raise WarehouseError(f"rows for {table} do not fit its columns: {fault}") from None
            writer.insert(f"INSERT INTO {table} ({', '.join(columns)})", block)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        bound = bind(sql, parameters)
        with self._reading:
            self._open()
            answer = self._run(self._reader, bound)
            if answer.columns or not re.match(r"\s*(select|with)\b", sql, re.IGNORECASE):
                return answer
            columns = native.columns_of(self._reader.run(bound, "JSONCompact"))
            return Answer([name for name, _ in columns], [])

    def read(
        self, users: list[str], before: dict[tuple[str, int], int], limit: int
    ) -> dict[str, list[PastEvent]]:
        return reading.histories(self._select, self.broker_id, users, before, limit)

    def catalogue(self) -> list[Item]:
        return reading.catalogue(self._select)

    def close(self) -> None:
        with self._reading:
            if self._closed:
                return
            self._closed = True
            for _ in range(WRITERS):  # those that still write give theirs back first
                self._writers.get().close()
            self._reader.close()
            self._lock_file.close()

    def _open(self) -> None:
        if self._closed:
            raise WarehouseError(f"the warehouse in {self.directory} is closed")

    def _select(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        with self._reading:
            self._open()
            return self._run(self._reader, bind(sql, parameters))

    @contextlib.contextmanager
    def _writer(self) -> Iterator[ChdbConnection]:
        """A connection to write through: the caller's alone until it is given back."""
        self._open()
        writer = self._writers.get()
        try:
            self._open()
            yield writer
        finally:
            self._writers.put(writer)

    def _run(self, connection: ChdbConnection, sql: str) -> Answer:
        columns, rows = native.decode(connection.run(sql, "Native"))
        return Answer([name for name, _ in columns], rows)

    def _types_of(self, table: str) -> dict[str, str]:
        if table not in self._types:
            found = dict(self._select(_COLUMNS, {"table": table}).rows)
            if not found or not _NAME.fullmatch(table):
                raise WarehouseError(f"no table {table!r} here: run the migrations")
            self._types[table] = found
        return self._types[table]
