"""`connect(url)`: the warehouse that a setting names, embedded or a ClickHouse server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from infra.address import ENCODE, unreadable_credentials, without_password
from infra.warehouse_types import (
    Answer,
    SchemaTooNew,
    Warehouse,
    WarehouseError,
    WarehouseLocked,
    WarehouseUnavailable,
)

__all__ = [
    "Answer",
    "SchemaTooNew",
    "Warehouse",
    "WarehouseError",
    "WarehouseLocked",
    "WarehouseUnavailable",
    "connect",
    "without_password",
]

_FORMS = "chdb:///folder or clickhouse://user:password@host:9000/database?secure=true"


def connect(url: str, broker_id: str = "") -> Warehouse:
    """Open the warehouse at `url`; no connection to a server is made before the first query.

    Raises WarehouseError, naming the setting, its value and the cure.
    """
    shown = f"FRESHREC_WAREHOUSE={without_password(url)!r}"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its words may hold a part of the password
        raise WarehouseError(f"{shown}: host or port cannot be read: use {_FORMS}") from None
    if unreadable_credentials(url):
        raise WarehouseError(f"{shown}: {ENCODE}")
    if parts.scheme == "chdb":
        return _embedded(parts, shown, broker_id)
    if parts.scheme in ("clickhouse", "clickhouses"):
        from infra.clickhouse_warehouse import ClickhouseWarehouse

        return ClickhouseWarehouse(url, broker_id)
    raise WarehouseError(f"{shown}: unknown kind {parts.scheme!r}: use {_FORMS}")


def _embedded(parts: SplitResult, shown: str, broker_id: str) -> Warehouse:
    from infra.chdb_warehouse import ChdbWarehouse

    if parts.netloc or not parts.path.strip("/") or parts.query:
        raise WarehouseError(f"{shown}: name a folder by its absolute path, as in chdb:///var/shop")
    return ChdbWarehouse(Path(parts.path), broker_id)
