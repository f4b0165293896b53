"""The warehouse on a ClickHouse server, through clickhouse-driver."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from clickhouse_driver import Client, errors

from infra import reading, schema
from infra.address import WAREHOUSE_OPTIONS, without_password
from infra.binding import bind, columns_of
from infra.pool import Pool
from infra.warehouse_types import Answer, WarehouseError, WarehouseUnavailable
from online.events import Item
from online.step import PastEvent

# The driver logs every failed connection with a traceback; we raise an error that says it all.
logging.getLogger("clickhouse_driver.connection").setLevel(logging.CRITICAL)

WRITERS = 2  # inserts at a time, as in the embedded warehouse
_DATABASE = re.compile(r"[A-Za-z_]\w{0,63}")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_FORM = "use clickhouse://user:password@host:9000/database?secure=true"
_STALE = (
    EOFError,
    errors.NetworkError,
    errors.SocketTimeoutError,
    errors.PartiallyConsumedQueryError,
    errors.UnexpectedPacketFromServerError,
    errors.UnknownPacketFromServerError,
)
# Answers of a server that is there but cannot serve now: full, starting, read-only, overloaded.
_LATER = frozenset({159, 202, 203, 209, 210, 241, 242, 243, 252, 319, 335, 425, 439, 999})


def options(url: str, shown: str) -> dict[str, Any]:
    """Arguments of `clickhouse_driver.Client` for `url`; `shown` names the setting in errors."""
    parts = urlsplit(url)
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = sorted(set(given) - set(WAREHOUSE_OPTIONS))
    if unknown:
        raise WarehouseError(
            f"{shown}: unknown options {unknown}: known are {list(WAREHOUSE_OPTIONS)}"
        )
    if not parts.hostname:
        raise WarehouseError(f"{shown}: it names no host: {_FORM}")
    database = unquote(parts.path.strip("/")) or "default"
    if not _DATABASE.fullmatch(database):
        raise WarehouseError(
            f"{shown}: database {database!r}: letters, digits and _ are allowed, up to 64"
        )
    authority = given.get("ca_certs")
    if authority is not None and not Path(authority).is_file():
        raise WarehouseError(f"{shown}: ca_certs={authority!r} is no file: name a PEM file")
    secure = _flag(given, "secure", parts.scheme == "clickhouses", shown)
    return {
        "host": parts.hostname,
        "port": parts.port or (9440 if secure else 9000),
        "user": unquote(parts.username or "default"),
        "password": unquote(parts.password or ""),
        "database": database,
        "secure": secure,
        "verify": _flag(given, "verify", True, shown),
        "ca_certs": authority,
        "server_hostname": given.get("server_hostname"),
        "connect_timeout": _seconds(given, "connect_timeout", 10.0, shown),
        "send_receive_timeout": _seconds(given, "timeout", 60.0, shown),
    }


def _flag(given: Mapping[str, str], name: str, default: bool, shown: str) -> bool:
    value = given.get(name)
    if value is None:
        return default
    if value.lower() not in _FLAGS:
        raise WarehouseError(f"{shown}: {name}={value!r}: true or false is allowed")
    return _FLAGS[value.lower()]


def _seconds(given: Mapping[str, str], name: str, default: float, shown: str) -> float:
    try:
        seconds = float(given.get(name, default))
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 3600:
        raise WarehouseError(f"{shown}: {name}={given[name]!r}: seconds up to 3600 are allowed")
    return seconds


class _Line:
    """One connection; it connects when it is first used, and again after a fault.

    Not for several threads at once.
    """

    def __init__(self, arguments: Mapping[str, Any], where: str) -> None:
        self._arguments = arguments
        self._where = where
        self._client: Client | None = None

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        with self._faults():
            if self._client is None:
                self._client = Client(**self._arguments)
            yield self._client

    def close(self) -> None:
        """Disconnect. The next use connects again."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.disconnect()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except errors.ServerException as fault:
            text = _first_line(fault)
            kind = WarehouseUnavailable if fault.code in _LATER else WarehouseError
            raise kind(f"{self._where}: {text}", fault.code) from None
        except (*_STALE, OSError) as fault:
            self.close()
            text = _first_line(fault)
            raise WarehouseUnavailable(
                f"{self._where} does not answer: {text}: {_cure(text)}"
            ) from None
        except (errors.Error, ValueError, TypeError, AttributeError, OverflowError) as fault:
            self.close()
            raise WarehouseError(f"{self._where}: {_first_line(fault)}") from None
        except BaseException:
            self.close()
            raise


def _cure(text: str) -> str:
    """The driver tells faults of TLS as text only."""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "its certificate is not trusted for this name: set ca_certs=/path/of/ca.pem (and "
            "server_hostname, if the certificate is made out to another name) in FRESHREC_WAREHOUSE"
        )
    if "WRONG_VERSION_NUMBER" in text:
        return "this port speaks no TLS: name the secure port (mostly 9440), or leave secure out"
    return "check that the server runs and that host, port and secure are right"


def _first_line(fault: BaseException) -> str:
    message = getattr(fault, "message", None) or str(fault) or type(fault).__name__
    return str(message).split("Stack trace:")[0].strip().split("\n")[0]


class ClickhouseWarehouse:
    """`Warehouse` over a server. Two connections write, another reads; each connects when needed.

    So an insert that takes long, or hangs until `timeout`, delays neither another one nor a query.
    """

    def __init__(self, url: str, broker_id: str = "") -> None:
        self.broker_id = broker_id
        self._arguments = options(url, f"FRESHREC_WAREHOUSE={without_password(url)!r}")
        self._where = "clickhouse://{host}:{port}/{database}".format(**self._arguments)
        closed = f"the connection to {self._where} is closed"
        self._writers = Pool([self._line() for _ in range(WRITERS)], closed)
        self._readers = Pool([self._line()], closed)

    def migrate(self) -> list[str]:
        with self._writers.borrowed() as line:
            self._create_database(line)
            return schema.migrate(partial(self._run, line), f"the warehouse at {self._where}")

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if not rows:
            return
        values = columns_of(table, columns, rows)
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES"
        with self._writers.borrowed() as line, line.client() as client:
            client.execute(statement, values, columnar=True)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        return self._select(sql, parameters)

    def read(
        self, users: list[str], before: dict[tuple[str, int], int], limit: int
    ) -> dict[str, list[PastEvent]]:
        return reading.histories(self._select, self.broker_id, users, before, limit)

    def catalogue(self) -> list[Item]:
        return reading.catalogue(self._select)

    def close(self) -> None:
        self._writers.close()
        self._readers.close()

    def _line(self, database: str | None = None) -> _Line:
        chosen = {} if database is None else {"database": database}
        return _Line({**self._arguments, **chosen}, self._where)

    def _select(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        with self._readers.borrowed() as line:
            return self._run(line, sql, parameters)

    def _run(self, line: _Line, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        bound = bind(sql, parameters)
        with line.client() as client:
            answer = client.execute(bound, with_column_types=True)
        if not isinstance(answer, tuple):  # statements that answer nothing
            return Answer([], [])
        rows, columns = answer
        return Answer([name for name, _ in columns], list(rows))

    def _create_database(self, line: _Line) -> None:
        """A server refuses a connection that names a database that is not there yet."""
        try:
            self._run(line, "SELECT 1")
        except WarehouseError as fault:
            if fault.code != errors.ErrorCodes.UNKNOWN_DATABASE:
                raise
            line.close()
            with contextlib.closing(self._line("default")) as elsewhere:
                database = self._arguments["database"]
                self._run(elsewhere, f"CREATE DATABASE IF NOT EXISTS {database}")
