"""Reads a worker's warehouse over HTTP, as any ClickHouse client would."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any


class SqlError(RuntimeError):
    """The query was refused, or nobody answers."""


class SqlClient:
    """Queries at `url` (http://host:port). Values are ClickHouse's own parameters.

    `{name:Type}` in the SQL stands for the value of the argument `name`: a number, a string or a
    sequence of strings.
    """

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        self._url = url
        self._timeout_s = timeout_s

    def rows(self, sql: str, **parameters: Any) -> list[list[Any]]:
        """The answer as lists of plain values. Raises SqlError."""
        answer: list[list[Any]] = json.loads(self.text(sql, "JSONCompact", **parameters))["data"]
        return answer

    def text(self, sql: str, form: str, **parameters: Any) -> bytes:
        """The answer in one of ClickHouse's formats. Raises SqlError."""
        options = {"default_format": form, "output_format_json_quote_64bit_integers": "0"}
        options |= {f"param_{name}": literal(value) for name, value in parameters.items()}
        request = urllib.request.Request(
            f"{self._url}/?{urllib.parse.urlencode(options)}", data=sql.encode(), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                body: bytes = response.read()
                return body
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace").strip()
            raise SqlError(f"{said[:500]} (in: {' '.join(sql.split())})") from None
        except OSError as error:
            raise SqlError(f"no answer from {self._url}: {error}") from None


def literal(value: int | float | str | Sequence[str]) -> str:
    """A parameter's value as ClickHouse reads it.

    >>> literal(["it's", "b"])
    "['it\\\\'s','b']"
    """
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
    if isinstance(value, int | float):
        return str(value)
    quoted = (text.replace("\\", "\\\\").replace("'", "\\'") for text in value)
    return "[" + ",".join(f"'{text}'" for text in quoted) + "]"
