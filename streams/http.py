"""The worker's HTTP server: /health, /metrics and read-only SQL, on the worker's event loop."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from infra.access import from_here, place
from infra.http_access import Gate, is_trusted
from infra.log import get_log
from streams.status import Prometheus, Status

log = get_log("http")


class HttpError(RuntimeError):
    """The HTTP address cannot be used; the message says what to do."""


class HttpServer:
    """Serves from `start` to `stop`. `add_sql(app)` adds the warehouse's own routes.

    With a token, whoever asks must show it.
    """

    def __init__(
        self,
        status: Status,
        add_sql: Callable[[web.Application], None] | None,
        token: str = "",
    ) -> None:
        self._status = status
        self._prometheus = Prometheus(status)
        app = web.Application(client_max_size=1 << 20, middlewares=[Gate(token).middleware()])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        if add_sql is not None:
            add_sql(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, host: str, port: int) -> str:
        """Listen; return `host:port` for clients here (port 0 takes a free one).

        Raises HttpError.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise HttpError(
                f"FRESHREC_HTTP={place(host, port)} cannot be used ({error.strerror}): stop what "
                "listens there, or set another port (0: a free one)"
            ) from None
        bound = self._runner.addresses[0]
        log.info("http_started", url=f"http://{place(bound[0], bound[1])}")
        return place(from_here(bound[0]), bound[1])

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        health = self._status.health()
        if not is_trusted(request):  # probes of containers carry no token, and need one word
            health = {"status": health["status"]}
        return web.json_response(health, status=200 if health["status"] == "ok" else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._prometheus.page(), content_type="text/plain")
