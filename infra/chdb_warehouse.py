"""The embedded warehouse: ClickHouse's engine inside this process, on a directory of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from infra import native, reading, schema
from infra.binding import bind, columns_of
from infra.chdb_connection import ChdbConnection
from infra.locks import owned
from infra.pool import Pool
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
    try:
        file = owned(path)
    except OSError as fault:
        raise WarehouseError(
            f"{path} cannot be used ({fault.strerror}): name a directory that this user may write"
        ) from None
    if file is None:
        owner = path.read_text(encoding="ascii").strip() or "unknown"
        raise WarehouseLocked(
            f"{directory} is in use by another process (pid {owner}), and the embedded warehouse "
            "allows one: query that worker's HTTP endpoint, stop it, or name another directory"
        )
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
            closed = f"the warehouse in {self.directory} is closed"
            self._writers = Pool([self.connection(OWN_SETUP) for _ in range(WRITERS)], closed)
            self._readers = Pool([self.connection(OWN_SETUP)], closed)
        except BaseException:
            self._lock_file.close()
            raise
        self._types: dict[str, dict[str, str]] = {}

    def connection(self, setup: Sequence[str] = ()) -> ChdbConnection:
        """A further connection to the same directory, with settings of its own."""
        return ChdbConnection(str(self.directory), setup)

    def migrate(self) -> list[str]:
        with self._writers.borrowed() as writer:
            self._types.clear()
            return schema.migrate(
                lambda sql, parameters=None: self._run(writer, bind(sql, parameters)),
                f"the warehouse in {self.directory}",
            )

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if not rows:
            return
        with self._writers.borrowed() as writer:
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
        with self._readers.borrowed() as reader:
            answer = self._run(reader, bound)
            if answer.columns or not re.match(r"\s*(select|with)\b", sql, re.IGNORECASE):
                return answer
            columns = native.columns_of(reader.run(bound, "JSONCompact"))
            return Answer([name for name, _ in columns], [])

    def read(
        self, users: list[str], before: dict[tuple[str, int], int], limit: int
    ) -> dict[str, list[PastEvent]]:
        return reading.histories(self._select, self.broker_id, users, before, limit)

    def catalogue(self) -> list[Item]:
        return reading.catalogue(self._select)

    def close(self) -> None:
        self._writers.close()  # first: an insert may still have to read its table's types
        self._readers.close()
        self._lock_file.close()

    def _select(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        with self._readers.borrowed() as reader:
            return self._run(reader, bind(sql, parameters))

    def _run(self, connection: ChdbConnection, sql: str) -> Answer:
        columns, rows = native.decode(connection.run(sql, "Native"))
        return Answer([name for name, _ in columns], rows)

    def _types_of(self, table: str) -> dict[str, str]:
        types = self._types.get(table)  # asked once: `migrate` may forget them meanwhile
        if types is None:
            types = dict(self._select(_COLUMNS, {"table": table}).rows)
            if not types or not _NAME.fullmatch(table):
                raise WarehouseError(f"no table {table!r} here: run the migrations")
            self._types[table] = types
        return types
