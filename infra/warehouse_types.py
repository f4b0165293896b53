"""What every warehouse has in common: its protocol, its answer and its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from online.events import Item
from online.step import PastEvent


class WarehouseError(Exception):
    """The warehouse refused or failed. `code` is ClickHouse's error code, 0 when it has none."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class WarehouseUnavailable(WarehouseError):
    """No answer from the warehouse: worth another try later."""


class WarehouseLocked(WarehouseError):
    """Another process owns the directory of the embedded warehouse."""


class SchemaTooNew(WarehouseError):
    """The warehouse was migrated by a newer version of freshrec."""


class Answer(NamedTuple):
    """The result of a query: names of the columns, and rows of Python values."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


class Warehouse(Protocol):
    """Where rows go and histories come from. Safe to use from several threads.

    Every method raises WarehouseError, and WarehouseUnavailable when it is worth trying again.
    """

    broker_id: str  # of the broker that this process reads: `read` applies `before` to its events

    def migrate(self) -> list[str]:
        """Apply pending migrations and return their names. Raises SchemaTooNew."""
        ...

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Append `rows` (each as long as `columns`) in one block: all of them or none."""
        ...

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        """Run `sql`; `%(name)s` in it stands for a value of `parameters` (then % is %%)."""
        ...

    def read(
        self, users: list[str], before: dict[tuple[str, int], int], limit: int
    ) -> dict[str, list[PastEvent]]:
        """Histories of `users`: see `online.step.History`."""
        ...

    def catalogue(self) -> list[Item]:
        """Every item that is announced and not withdrawn, in the order of announcement."""
        ...

    def close(self) -> None:
        """Give everything back. Closing twice is harmless."""
        ...
