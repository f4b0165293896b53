"""Values into SQL, the one way: clickhouse-driver's `%(name)s` and escaping, for both engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clickhouse_driver.util.escape import escape_params

from infra.warehouse_types import WarehouseError

_SCALARS = (str, int, float, type(None))


def checked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`parameters`, once every value is known to be of a type that escaping is exact for."""
    for name, value in parameters.items():
        for one in value if isinstance(value, list | tuple) else (value,):
            if not isinstance(one, _SCALARS):
                raise WarehouseError(
                    f"parameter {name} is of type {type(one).__name__}: "
                    "str, int, float, bool, None, and lists and tuples of them are allowed"
                )
            if isinstance(one, str) and any("\ud800" <= c <= "\udfff" for c in one):
                raise WarehouseError(f"parameter {name} is no text: it has lone surrogates")
    return {n: _plain(v) for n, v in parameters.items()}


def _plain(value: Any) -> Any:
    """Booleans as 0 and 1, which every server knows; an empty tuple cannot be written in SQL."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list | tuple):
        return type(value)(_plain(one) for one in value)
    return value


def bind(sql: str, parameters: Mapping[str, Any] | None) -> str:
    """`sql` with each %(name)s replaced by a literal.

    >>> bind("SELECT %(who)s, %(n)s", {"who": "O'Neil\\\\", "n": [1, None]})
    "SELECT 'O\\\\'Neil\\\\\\\\', [1, NULL]"
    """
    if not parameters:
        return sql
    try:
        return sql % escape_params(checked(parameters), None)
    except KeyError as missing:
        raise WarehouseError(f"the query names {missing}, which has no value") from None
    except (TypeError, ValueError) as fault:
        raise WarehouseError(f"the query's % are not %(name)s or %%: {fault}") from None


def columns_of(
    table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> list[list[Any]]:
    """`rows` turned over: the values of each of `columns`, as the codecs take them."""
    if any(len(row) != len(columns) for row in rows):
        raise WarehouseError(f"rows for {table} are not all of {len(columns)} values")
    return [list(values) for values in zip(*rows, strict=True)]
