"""One connection to chdb that is right again after an error.

chdb 26.9 hands out what a failed query had already produced together with the answer of the next
query on that connection. So a connection that saw an error is thrown away; a new one costs 1 ms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import chdb.session

from infra.warehouse_types import WarehouseError

_CODE = re.compile(r"Code: (\d+)")
_ASIDE = re.compile(r": In scope SELECT formatQuerySingleLine\(.*\)\. \((?=[A-Z_]+\)\Z)", re.DOTALL)


def refusal(fault: Exception) -> WarehouseError:
    """The engine's exception as ours, with its code."""
    text = _ASIDE.sub(". (", str(fault).strip())
    code = _CODE.search(text)
    return WarehouseError(text, int(code[1]) if code else 0)


class ChdbConnection:
    """A session on `directory` in which `setup` has been run. Not for several threads at once.

    Every method raises WarehouseError with ClickHouse's code.
    """

    def __init__(self, directory: str, setup: Sequence[str] = ()) -> None:
        self._directory = directory
        self._setup = tuple(setup)
        self._session = self._opened()

    def run(self, sql: str, form: str, parameters: Mapping[str, str] | None = None) -> bytes:
        """The answer in format `form`; `parameters` are for {name:Type}, escaped as in TSV."""
        try:
            answer = self._session.query(sql, form, params=dict(parameters or {}))
            return bytes(answer.bytes())
        except Exception as fault:
            self._renew()
            raise refusal(fault) from None

    def insert(self, statement: str, block: bytes) -> None:
        """Append a block in the Native format."""
        try:
            with self._session.send_insert(statement, "Native") as stream:
                stream.append(block)
                stream.finish()
        except Exception as fault:
            self._renew()
            raise refusal(fault) from None

    def close(self) -> None:
        self._session.close()

    def _renew(self) -> None:
        """The new session first: the engine ends with its last session."""
        spoiled, self._session = self._session, self._opened()
        spoiled.close()

    def _opened(self) -> Any:
        try:
            session = chdb.session.Session(self._directory)
            for statement in self._setup:
                session.query(statement)
        except Exception as fault:
            raise WarehouseError(f"chdb cannot open {self._directory}: {fault}") from None
        return session
