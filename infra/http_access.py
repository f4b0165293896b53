"""The gate before every route of the worker's HTTP server.

Without a token it listens on 127.0.0.1 only, and asks that requests name this machine, so that no
web page reaches us by rebinding its name. With a token, every request but those of OPEN shows it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from infra.access import shows
from infra.log import get_log

log = get_log("http")

OPEN = ("/ping", "/health")  # without the token /health says one word: see `is_trusted`
PAUSE_S = 10.0  # between two lines about requests that were refused
ACCESS_DENIED, AUTHENTICATION_FAILED = 497, 516  # ClickHouse's codes

_TRUSTED = web.RequestKey("trusted", bool)
Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_trusted(request: web.Request) -> bool:
    """Whether the request may be told everything."""
    return request.get(_TRUSTED, False)


class Gate:
    """Lets through what may be answered: `Application(middlewares=[Gate(token).middleware()])`."""

    def __init__(self, token: str = "") -> None:
        self._token = token
        self._refused = 0
        self._said = -PAUSE_S

    def middleware(self) -> Middleware:
        @web.middleware
        async def gate(
            request: web.Request,
            handler: Serve,  # aiohttp's own word
        ) -> web.StreamResponse:
            return await self._pass(request, handler)

        return gate

    async def _pass(self, request: web.Request, serve: Serve) -> web.StreamResponse:
        request[_TRUSTED] = trusted = not self._token or shows(self._token, request.headers)
        if request.path in OPEN:
            return await serve(request)
        if not trusted:
            self._count(request)
            return _unauthorized()
        stranger = None if self._token else _foreign_name(request.host)
        if stranger is not None:
            text = f"Host {stranger!r} is not served: ask by IP address or localhost."
            return refusal(403, ACCESS_DENIED, f"{text} (ACCESS_DENIED)")
        return await serve(request)

    def _count(self, request: web.Request) -> None:
        """Somebody guesses, or has an old token: said now and then, without what was shown."""
        self._refused += 1
        if time.monotonic() - self._said >= PAUSE_S:
            self._said = time.monotonic()
            log.warning("http_refused", remote=request.remote, requests=self._refused)


def refusal(status: int, code: int, text: str) -> web.Response:
    """An error as ClickHouse's clients read it."""
    return web.Response(
        status=status,
        text=f"Code: {code}. DB::Exception: {text}\n",
        headers={"X-ClickHouse-Exception-Code": str(code)},
    )


def _unauthorized() -> web.Response:
    response = refusal(
        401,
        AUTHENTICATION_FAILED,
        "the worker's token (FRESHREC_HTTP_TOKEN) is needed: send it as Authorization: Bearer …, "
        "as X-ClickHouse-Key, or as the password of any user. (AUTHENTICATION_FAILED)",
    )
    response.headers.add("WWW-Authenticate", 'Basic realm="freshrec"')
    return response


def _foreign_name(host: str) -> str | None:
    """The name in the header Host, unless it is an address or this machine's own name."""
    has_port = re.search(r":\d+$", host) and not host.endswith("]")
    name = host.rpartition(":")[0] if has_port else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None if name.lower() in ("localhost", socket.gethostname().lower()) else name
    return None
