"""Reads a worker's warehouse over HTTP, as any ClickHouse client would."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

# Never through a proxy of the environment: what we ask, and the token, are for the worker alone.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class SqlError(RuntimeError):
    """The query was refused, or nobody answers."""


class SqlClient:
    """Queries at `url` (http://host:port). Values are ClickHouse's own parameters.

    `{name:Type}` in the SQL stands for the value of the argument `name`: a number, a string or a
    sequence of strings.
    """

    def __init__(self, url: str, timeout_s: float = 10.0, token: str = "") -> None:
        """token: FRESHREC_HTTP_TOKEN of the worker, if it has one."""
        self._url = url
        self._timeout_s = timeout_s
        self._headers = bearer(token)

    def rows(self, sql: str, **parameters: Any) -> list[list[Any]]:
        """The answer as lists of plain values. Raises SqlError."""
        answer: list[list[Any]] = json.loads(self.text(sql, "JSONCompact", **parameters))["data"]
        return answer

    def text(self, sql: str, form: str, **parameters: Any) -> bytes:
        """The answer in one of ClickHouse's formats. Raises SqlError."""
        options = {"default_format": form, "output_format_json_quote_64bit_integers": "0"}
        options |= {f"param_{name}": literal(value) for name, value in parameters.items()}
        request = urllib.request.Request(
            f"{self._url}/?{urllib.parse.urlencode(options)}",
            data=sql.encode(),
            headers=self._headers,
            method="POST",
        )
        try:
            with _DIRECT.open(request, timeout=self._timeout_s) as response:
                body: bytes = response.read()
                return body
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise SqlError(
                    f"{self._url} wants the worker's token: set FRESHREC_HTTP_TOKEN (or "
                    "FRESHREC_HTTP_TOKEN_FILE) to what the worker has"
                ) from None
            said = error.read().decode(errors="replace").strip()
            raise SqlError(f"{said[:500]} (in: {' '.join(sql.split())})") from None
        except OSError as error:
            raise SqlError(f"no answer from {self._url}: {error}") from None


def bearer(token: str) -> dict[str, str]:
    """Headers that show the token, if there is one."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def ask_worker(url: str, path: str, token: str, timeout_s: float = 10.0, **asked: Any) -> Any:
    """A worker's answer to a question in JSON, such as /search. Raises SqlError."""
    request = urllib.request.Request(
        f"{url}{path}?{urllib.parse.urlencode(asked)}", headers=bearer(token)
    )
    try:
        with _DIRECT.open(request, timeout=timeout_s) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace").strip()
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(said)["error"]
        raise SqlError(f"{url}{path}: {said[:500]}") from None
    except (OSError, ValueError) as error:
        raise SqlError(f"no answer from {url}: {error}") from None


def worker_health(url: str, token: str, timeout_s: float = 5.0) -> dict[str, Any]:
    """A worker's /health, whatever its state; empty while nobody answers."""
    request = urllib.request.Request(f"{url}/health", headers=bearer(token))
    try:
        with _DIRECT.open(request, timeout=timeout_s) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:  # 503: it says what it is doing
        with contextlib.suppress(ValueError):
            return dict(json.load(error))
    except (OSError, ValueError):
        pass
    return {}


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
