"""ClickHouse's HTTP interface over the embedded warehouse: read-only, for any ClickHouse client.

    GET|POST /?query=…&param_x=…&default_format=…&database=default    (the body continues query)
    GET /ping

Queries are examined by `infra.sql_guard` and run on limited, read-only connections in threads.
Settings that a client sends are ignored: the limits hold for everybody.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from infra.chdb_reader import DEFAULT_FORMAT, GuardedReader
from infra.chdb_warehouse import ChdbWarehouse
from infra.http_access import Gate
from infra.warehouse_types import Warehouse, WarehouseError

READERS = 2  # queries at the same time
WAITING = 32  # queries that may wait for a reader; more are refused
MAX_BODY = 1 << 20  # bytes of a request, unpacked
BODY_S = 30.0  # for a request to arrive
WAIT_S = 30.0  # for a reader
ANSWER_S = 20.0  # for an answer; the engine stops most queries after 10 s, between two blocks

_TOO_MANY_QUERIES, _UNKNOWN_DATABASE, _TIMEOUT = 202, 81, 159
_NOT_FOUND = frozenset({46, 47, 50, 56, 60, 73, 81, 115})
_FORBIDDEN = frozenset({164, 497})
_OVERLOADED = frozenset({_TOO_MANY_QUERIES})
_FAILED = frozenset({49, 76, 107, 173, 241, 243, 396})
_CHARSETS = {
    "JSON": "application/json; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "Markdown": "text/markdown; charset=UTF-8",
    "Pretty": "text/plain; charset=UTF-8",
    "Vertical": "text/plain; charset=UTF-8",
    "Values": "text/plain; charset=UTF-8",
    "SQLInsert": "text/plain; charset=UTF-8",
}
_BINARY = "application/octet-stream"
_ID = re.compile(r"[\w.:-]{1,100}")


def status_of(code: int) -> int:
    """The HTTP status that ClickHouse gives for one of its error codes."""
    if code in _NOT_FOUND:
        return 404
    if code in _FORBIDDEN:
        return 403
    if code in _OVERLOADED:
        return 503
    if code == _TIMEOUT:
        return 408
    if code == 0 or code in _FAILED:
        return 500
    return 400


def content_type(form: str) -> str:
    if form.endswith("EachRow") and form.startswith("JSON"):
        return "application/x-ndjson; charset=UTF-8"
    return next((v for k, v in _CHARSETS.items() if form.startswith(k)), _BINARY)


class SqlEndpoint:
    """The route `/`, with its readers and their threads. `close` it when the server has stopped."""

    def __init__(self, warehouse: ChdbWarehouse) -> None:
        self._warehouse = warehouse
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="sql")
        self._idle: asyncio.LifoQueue[GuardedReader | None] = asyncio.LifoQueue(READERS)
        self._readers: list[GuardedReader] = []
        self._waiting = 0
        for _ in range(READERS):
            self._idle.put_nowait(None)  # made when first needed

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Run the query of `request`; errors come as ClickHouse words them."""
        query_id = request.query.get("query_id", "")
        said = query_id if _ID.fullmatch(query_id) else str(uuid.uuid4())
        headers = {
            "X-ClickHouse-Server-Display-Name": "freshrec",
            "X-ClickHouse-Query-Id": said,
            "X-ClickHouse-Timezone": "UTC",
        }
        try:
            form, found = await self._ask(request)
        except WarehouseError as fault:
            return _refusal(fault, headers)
        headers |= {"X-ClickHouse-Format": form, "Content-Type": content_type(form)}
        response = web.Response(body=found, headers=headers)
        if request.query.get("enable_http_compression") == "1":
            response.enable_compression()
        return response

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        for reader in self._readers:
            reader.close()
        self._readers.clear()

    async def _ask(self, request: web.Request) -> tuple[str, bytes]:
        sql = await _text(request)
        given = request.query
        if given.get("database", "default") not in ("", "default"):
            raise WarehouseError(
                f"Database {given['database']!r} does not exist: use default. (UNKNOWN_DATABASE)",
                _UNKNOWN_DATABASE,
            )
        form = (
            request.headers.get("X-ClickHouse-Format")
            or given.get("default_format")
            or DEFAULT_FORMAT
        )
        parameters = {
            name.removeprefix("param_"): value
            for name, value in given.items()
            if name.startswith("param_")
        }
        return await self._run(lambda reader: reader.answer(sql, parameters, form))

    async def _run(self, job: Callable[[GuardedReader], tuple[str, bytes]]) -> tuple[str, bytes]:
        reader = await self._reader()
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._work, reader, job)
        work.add_done_callback(lambda done: self._give_back(done, reader))
        try:  # shielded: neither a client that leaves nor its impatience frees the reader
            _, answer = await asyncio.wait_for(asyncio.shield(work), ANSWER_S)
        except TimeoutError:
            raise WarehouseError(
                f"No answer within {ANSWER_S:g} s: ask for less. (TIMEOUT_EXCEEDED)", _TIMEOUT
            ) from None
        if isinstance(answer, WarehouseError):
            raise answer
        return answer

    async def _reader(self) -> GuardedReader | None:
        if self._waiting >= WAITING:
            raise WarehouseError(
                f"Too many queries wait here already ({WAITING}). (TOO_MANY_SIMULTANEOUS_QUERIES)",
                _TOO_MANY_QUERIES,
            )
        self._waiting += 1
        try:
            return await asyncio.wait_for(self._idle.get(), WAIT_S)
        except TimeoutError:
            raise WarehouseError(
                f"No reader was free within {WAIT_S:g} s. (TOO_MANY_SIMULTANEOUS_QUERIES)",
                _TOO_MANY_QUERIES,
            ) from None
        finally:
            self._waiting -= 1

    def _work(
        self, reader: GuardedReader | None, job: Callable[[GuardedReader], tuple[str, bytes]]
    ) -> tuple[GuardedReader | None, tuple[str, bytes] | WarehouseError]:
        """In a thread: make the reader if there is none, and ask it."""
        try:
            if reader is None:
                reader = GuardedReader(self._warehouse.connection)
                self._readers.append(reader)
            return reader, job(reader)
        except WarehouseError as fault:
            return reader, fault

    def _give_back(
        self,
        done: asyncio.Future[tuple[GuardedReader | None, tuple[str, bytes] | WarehouseError]],
        reader: GuardedReader | None,
    ) -> None:
        failed = done.cancelled() or done.exception() is not None
        self._idle.put_nowait(reader if failed else done.result()[0])


async def _text(request: web.Request) -> str:
    """The query: what the URL says, continued by the body."""
    try:
        async with asyncio.timeout(BODY_S):
            body = (await request.read()).decode() if request.can_read_body else ""
    except TimeoutError:
        raise WarehouseError(
            f"The query did not arrive within {BODY_S:g} s. (TIMEOUT_EXCEEDED)", _TIMEOUT
        ) from None
    except UnicodeDecodeError:
        raise WarehouseError("The query is not UTF-8. (SYNTAX_ERROR)", 62) from None
    return "\n".join(part for part in (request.query.get("query", ""), body) if part)


def _refusal(fault: WarehouseError, headers: dict[str, str]) -> web.Response:
    text = str(fault)
    if not text.startswith("Code: "):
        text = f"Code: {fault.code}. DB::Exception: {text}"
    return web.Response(
        status=status_of(fault.code),
        text=text + "\n",
        headers={**headers, "X-ClickHouse-Exception-Code": str(fault.code)},
    )


async def ping(_: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")


def add_routes(app: web.Application, warehouse: Warehouse) -> None:
    """Add `/ping`, and over an embedded warehouse `/`, to `app`, before it starts.

    A ClickHouse server answers SQL itself: then `/` says so.
    """
    app.router.add_get("/ping", ping)
    if not isinstance(warehouse, ChdbWarehouse):
        app.router.add_route("*", "/", _elsewhere)
        return
    endpoint = SqlEndpoint(warehouse)
    app.router.add_get("/", _greeted(endpoint))
    app.router.add_post("/", endpoint.answer)

    async def close(_: web.Application) -> None:
        await asyncio.to_thread(endpoint.close)

    app.on_cleanup.append(close)


def _greeted(
    endpoint: SqlEndpoint,
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        if not request.query_string:  # what a browser or a health check of a server asks
            return web.Response(text="Ok.\n")
        return await endpoint.answer(request)

    return answer


async def _elsewhere(_: web.Request) -> web.Response:
    text = "Code: 48. DB::Exception: SQL is answered by the ClickHouse server itself: ask it.\n"
    return web.Response(status=501, text=text, headers={"X-ClickHouse-Exception-Code": "48"})


def make_app(warehouse: Warehouse, token: str = "") -> web.Application:
    """An application with the routes of `add_routes` behind the gate."""
    app = web.Application(client_max_size=MAX_BODY, middlewares=[Gate(token).middleware()])
    add_routes(app, warehouse)
    return app


async def serve(warehouse: Warehouse, host: str, port: int, token: str = "") -> web.AppRunner:
    """Listen on host and port (0: any free one). `await runner.cleanup()` ends it."""
    runner = web.AppRunner(make_app(warehouse, token), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as fault:
        await runner.cleanup()
        raise WarehouseError(
            f"FRESHREC_HTTP={host}:{port}: {fault.strerror}: name another address or stop "
            "what listens there"
        ) from None
    return runner
