"""Who answers SQL for the commands: the worker that runs, or the warehouse itself.

The embedded warehouse belongs to one process, so while a worker has it the worker is asked over
HTTP. Values travel as parameters: `{name:Type}` in the SQL, as ClickHouse writes it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from infra.settings import Settings
from infra.warehouse import Answer, Warehouse, WarehouseError, connect
from streams.sql_client import SqlClient, SqlError, literal
from streams.status import Running

_PARAMETER = re.compile(r"\{(\w+):[\w()]+\}")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_READS = {"select", "with", "show", "describe", "desc", "exists", "explain"}


class Reader(Protocol):
    """Answers queries. Raises SqlError or WarehouseError."""

    def answer(self, sql: str, **parameters: Any) -> Answer:
        """Columns and rows of Python values."""
        ...

    def text(self, sql: str, form: str) -> bytes:
        """The answer in a format of ClickHouse."""
        ...

    def close(self) -> None: ...


def open_reader(settings: Settings) -> Reader:
    """A reader of the warehouse that `settings` name; close it.

    Raises WarehouseError if there is none yet.
    """
    url = _existing(settings)
    running = Running.load(settings.state)
    if running is not None and url.startswith("chdb:"):
        return HttpReader(running.http_url, settings.http_token)
    warehouse = connect(url)
    if url.startswith("chdb:"):
        return EmbeddedReader(warehouse)
    return ServerReader(warehouse)


def _existing(settings: Settings) -> str:
    """Reading must not make an empty warehouse where somebody mistyped a folder."""
    url = settings.warehouse_url
    folder = Path(urlsplit(url).path)
    if url.startswith("chdb:") and not folder.is_dir():
        raise WarehouseError(
            f"there is no warehouse in {folder}: start freshrec demo or freshrec up, or set"
            " FRESHREC_STATE (or FRESHREC_WAREHOUSE) to where one is"
        )
    return url


class HttpReader:
    """Asks a running worker."""

    def __init__(self, url: str, token: str = "") -> None:
        self._client = SqlClient(url, timeout_s=60.0, token=token)

    def answer(self, sql: str, **parameters: Any) -> Answer:
        return _read_compact(self._client.text(sql, "JSONCompact", **parameters))

    def text(self, sql: str, form: str) -> bytes:
        return self._client.text(sql, form)

    def close(self) -> None:
        """Nothing is kept open."""


class EmbeddedReader:
    """Opens the embedded warehouse in this process, as guarded and limited as over HTTP."""

    def __init__(self, warehouse: Warehouse) -> None:
        from infra.chdb_reader import GuardedReader
        from infra.chdb_warehouse import ChdbWarehouse

        assert isinstance(warehouse, ChdbWarehouse)
        self._warehouse = warehouse
        self._reader = GuardedReader(warehouse.connection)

    def answer(self, sql: str, **parameters: Any) -> Answer:
        values = {name: literal(value) for name, value in parameters.items()}
        return _read_compact(self._reader.answer(sql, values, "JSONCompact")[1])

    def text(self, sql: str, form: str) -> bytes:
        return self._reader.answer(sql, {}, form)[1]

    def close(self) -> None:
        self._reader.close()
        self._warehouse.close()


def _read_compact(text: bytes) -> Answer:
    found = json.loads(text)
    columns = [column["name"] for column in found["meta"]]
    return Answer(columns, [tuple(row) for row in found["data"]])


class ServerReader:
    """Asks a ClickHouse server through its driver; formats are written here."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def answer(self, sql: str, **parameters: Any) -> Answer:
        _refuse_writes(sql)
        bound = _PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%")) if parameters else sql
        return self._warehouse.query(bound, parameters or None)

    def text(self, sql: str, form: str) -> bytes:
        write = _FORMATS.get(form.lower())
        if write is None:
            raise SqlError(
                f"--format {form}: of a ClickHouse server {', '.join(sorted(_NAMES))} are known"
                " here; its own clickhouse-client and HTTP interface have all"
            )
        return write(self.answer(sql)).encode()

    def close(self) -> None:
        self._warehouse.close()


def _refuse_writes(sql: str) -> None:
    """Guards against accidents: whoever runs the command may change the warehouse anyway."""
    words = _COMMENT.sub(" ", sql).replace("(", " ").split()
    if not words or words[0].lower() not in _READS:
        raise SqlError(
            f"{' '.join(words)[:60]!r}: only reading is allowed here (SELECT, WITH, SHOW,"
            " DESCRIBE, EXISTS, EXPLAIN)"
        )


def _separated(delimiter: str, header: bool) -> Callable[[Answer], str]:
    def write(answer: Answer) -> str:
        out = io.StringIO()
        writer = csv.writer(
            out,
            delimiter=delimiter,
            lineterminator="\n",
            quoting=csv.QUOTE_NONNUMERIC if delimiter == "," else csv.QUOTE_MINIMAL,
        )
        if header:
            writer.writerow(answer.columns)
        writer.writerows(["\\N" if v is None else v for v in row] for row in answer.rows)
        return out.getvalue()

    return write


def _objects(answer: Answer) -> Iterable[dict[str, Any]]:
    return (dict(zip(answer.columns, row, strict=True)) for row in answer.rows)


def _json(answer: Answer) -> str:
    page = {
        "meta": [{"name": name} for name in answer.columns],
        "data": list(_objects(answer)),
        "rows": len(answer.rows),
    }
    return json.dumps(page, indent=2, ensure_ascii=False, default=str) + "\n"


def _json_lines(answer: Answer) -> str:
    lines = (json.dumps(o, ensure_ascii=False, default=str) for o in _objects(answer))
    return "".join(line + "\n" for line in lines)


_NAMES: dict[str, Callable[[Answer], str]] = {
    "JSON": _json,
    "JSONEachRow": _json_lines,
    "CSV": _separated(",", header=False),
    "CSVWithNames": _separated(",", header=True),
    "TSV": _separated("\t", header=False),
    "TSVWithNames": _separated("\t", header=True),
    "TabSeparated": _separated("\t", header=False),
    "TabSeparatedWithNames": _separated("\t", header=True),
}
_FORMATS = {name.lower(): write for name, write in _NAMES.items()}
