"""A connection to the embedded engine that strangers may use: limited, then read-only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from infra import native
from infra.chdb_connection import ChdbConnection
from infra.sql_guard import Checked, Guard, check_format

_LIMITS = {
    "max_threads": 1,  # the learner needs the other cores more
    "max_execution_time": 10,  # seconds
    "max_memory_usage": 256 << 20,
    "max_result_rows": 1_000_000,
    "max_result_bytes": 128 << 20,
    "result_overflow_mode": "'throw'",
    "max_bytes_before_external_group_by": 0,  # nothing is spilled to the disk
    "max_bytes_before_external_sort": 0,
    "max_rows_in_set": 10_000_000,
    "allow_introspection_functions": 0,
    "allow_ddl": 0,
    "log_queries": 0,
    "session_timezone": "'UTC'",
}
DEFAULT_FORMAT = "TabSeparated"


class GuardedReader:
    """Answers single SELECTs in any of ClickHouse's formats; one at a time, from any thread."""

    def __init__(self, connect: Callable[[Sequence[str]], ChdbConnection]) -> None:
        limits = ", ".join(f"{name} = {value}" for name, value in _LIMITS.items())
        self._connection = connect([f"SET {limits}", "SET readonly = 1"])
        self._lock = threading.Lock()
        self._guard = Guard(self._text)

    def answer(
        self, sql: str, parameters: Mapping[str, str], default_format: str = DEFAULT_FORMAT
    ) -> tuple[str, bytes]:
        """(format, bytes). `parameters` are for {name:Type}, escaped as in TSV.

        Raises WarehouseError when the query is refused, fails, or exceeds a limit.
        """
        check_format(default_format)
        with self._lock:
            checked = self._guard.check(sql, parameters)
            form = checked.format or default_format
            return form, self._bytes(checked, form, parameters)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _bytes(self, checked: Checked, form: str, parameters: Mapping[str, str]) -> bytes:
        found = self._connection.run(checked.sql, form, parameters)
        if form != "Native" or found:
            return found
        meta = self._connection.run(checked.sql, "JSONCompact", parameters)
        return native.header(native.columns_of(meta))

    def _text(self, sql: str, parameters: Mapping[str, str]) -> str:
        return self._connection.run(sql, "TSVRaw", parameters).decode("utf-8", "replace")
