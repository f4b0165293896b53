"""Questions to the live core over HTTP: search, and items like one.

    GET /search?q=warm+gift&user=ann&k=10      what fits, in the order for this shopper
    GET /similar?item=85123A&by=both&k=10      by text, behaviour, or both

Answers change nothing: send the event `search` for a query to count.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from encoders.lexicon import Lexicon
from encoders.wording import plain
from infra.log import get_log
from infra.pseudonyms import Pseudonyms
from online.events import MAX_TEXT, Item, id_fault
from online.similarity import WAYS
from online.step import Recommendation
from online.texts import TextVector, query_name
from streams.core_process import CoreProcess
from streams.pipeline import Pipeline
from streams.text_service import TextService
from streams.texts import text_of

log = get_log("desk")

MOST = 100  # recommendations of an answer
WAITING = 64  # questions at the same time; more are refused
ANSWER_S = 5.0
AT_ONCE = 500  # items that are added to the words together
REST_S = 0.2  # after a few


class Desk:
    """Answers once `open` was called; until then everybody is asked to come back."""

    def __init__(self, pseudonyms: Pseudonyms | None = None) -> None:
        self._pseudonyms = pseudonyms
        self._core: CoreProcess | None = None
        self._texts: TextService | None = None
        self._words = Lexicon()
        self._titles: dict[str, str] = {}
        self._changes: dict[str, Item | None] = {}  # that the words lack; None: it is gone
        self._indexed = True
        self._changing = threading.Lock()
        self._indexing = ThreadPoolExecutor(1, "words")
        self._asking = ThreadPoolExecutor(8, "search")
        self._here = 0  # questions

    def open(self, core: CoreProcess, pipeline: Pipeline, texts: TextService | None) -> None:
        self._core, self._texts = core, texts
        pipeline.catalogue_changed = self.change

    def close(self) -> None:
        for threads in (self._indexing, self._asking):
            threads.shutdown(wait=False, cancel_futures=True)

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/search", self._serve_search)
        app.router.add_get("/similar", self._serve_similar)

    # -- the catalogue -----------------------------------------------------------------------

    def change(self, items: Sequence[Item], gone: Sequence[str]) -> None:
        """These are items now, as they are here; those are gone. Does not wait."""
        with self._changing:
            self._changes.update({item.item_id: item for item in items})
            self._changes.update(dict.fromkeys(gone))
            idle, self._indexed = self._indexed, False
        if idle:
            self._indexing.submit(self._index).add_done_callback(_logged)

    def _index(self) -> None:
        """Bring the words up to date. A commit costs 16 ms, however little it brings: so there is
        a pause after a small one."""
        while some := self._next_changes():
            try:
                self._index_some(some)
            except BaseException:
                with self._changing:  # with the next change; what came meanwhile is newer
                    self._changes = {**some, **self._changes}
                    self._indexed = True
                raise
            if len(some) < AT_ONCE:
                time.sleep(REST_S)

    def _index_some(self, some: dict[str, Item | None]) -> None:
        items = [item for item in some.values() if item is not None]
        gone = [item_id for item_id, item in some.items() if item is None]
        self._titles.update({item.item_id: item.title for item in items})
        for item_id in gone:
            self._titles.pop(item_id, None)
        self._words.change([(item.item_id, text_of(item)) for item in items], gone)

    def _next_changes(self) -> dict[str, Item | None]:
        with self._changing:
            some = dict(itertools.islice(self._changes.items(), AT_ONCE))
            for item_id in some:
                del self._changes[item_id]
            self._indexed = not some
        return some

    # -- questions ---------------------------------------------------------------------------

    async def search(
        self, text: str, user: str, k: int, personal: bool = True
    ) -> list[dict[str, Any]]:
        """The k that fit `text` best; user: "" nobody's."""
        assert self._core is not None
        loop = asyncio.get_running_loop()
        read = loop.run_in_executor(self._asking, partial(self._read, text))
        words = loop.run_in_executor(self._asking, partial(self._words.search, text))
        query, lexical = await asyncio.gather(read, words)
        if user and self._pseudonyms is not None:
            user = self._pseudonyms.user(user)
        now_ms = time.time_ns() // 1_000_000
        call = partial(self._core.search, query, plain(text), lexical, user, now_ms, k, personal)
        return self._shown(await loop.run_in_executor(self._asking, call))

    async def similar(self, item_id: str, by: str, k: int) -> list[dict[str, Any]]:
        assert self._core is not None
        loop, now_ms = asyncio.get_running_loop(), time.time_ns() // 1_000_000
        call = partial(self._core.similar, item_id, by, now_ms, k)
        return self._shown(await loop.run_in_executor(self._asking, call))

    def _read(self, text: str) -> TextVector:
        if self._texts is not None:
            for vector in self._texts.look_at([text]):
                return vector
        return TextVector(query_name(text), b"")

    def _shown(self, found: Sequence[Recommendation]) -> list[dict[str, Any]]:
        return [
            {
                "position": n,
                "item_id": one.item_id,
                "title": self._titles.get(one.item_id, ""),
                "score": round(one.score, 4),
                "reason": one.reason,
                "source": one.source,
            }
            for n, one in enumerate(found, start=1)
        ]

    # -- HTTP --------------------------------------------------------------------------------

    async def _serve_search(self, request: web.Request) -> web.Response:
        text = request.query.get("q", "")
        if not text.strip() or len(text) > MAX_TEXT:
            return _fault(400, f"q has {len(text)} characters: 1 to {MAX_TEXT} are allowed")
        k = _count(request)
        if k is None:
            return _fault(400, f"k={request.query['k']!r}: 1 to {MOST} are allowed")
        personal = request.query.get("personal", "true").lower() not in ("false", "0", "no")
        user = request.query.get("user", "")
        if user and (fault := id_fault("user", user)):
            return _fault(400, fault)
        return await self._answer("/search", self.search, text, user, k, personal)

    async def _serve_similar(self, request: web.Request) -> web.Response:
        item, by, k = (
            request.query.get("item", ""),
            request.query.get("by", "both"),
            _count(request),
        )
        if fault := id_fault("item", item):
            return _fault(400, fault)
        if by not in WAYS:
            return _fault(400, f"by={by!r}: use one of {', '.join(WAYS)}")
        if k is None:
            return _fault(400, f"k={request.query['k']!r}: 1 to {MOST} are allowed")
        return await self._answer("/similar", self.similar, item, by, k)

    async def _answer(self, path: str, ask: Any, *arguments: Any) -> web.Response:
        if self._core is None:
            return _fault(503, "the worker is starting: ask again in a moment")
        if self._here >= WAITING:
            return _fault(503, f"{WAITING} questions are being answered: ask again in a moment")
        self._here += 1
        try:
            found = await asyncio.wait_for(ask(*arguments), ANSWER_S)
        except TimeoutError:
            return _fault(503, f"no answer within {ANSWER_S:g} s: the worker is busy")
        except Exception as error:
            log.warning("question_failed", path=path, error=f"{type(error).__name__}: {error}")
            return _fault(500, "the question could not be answered: the worker's log says why")
        finally:
            self._here -= 1
        body = msgspec.json.encode({"results": found})
        return web.Response(body=body, content_type="application/json")


def _logged(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.error("words_not_indexed", error=f"{type(error).__name__}: {error}")


def _count(request: web.Request) -> int | None:
    text = request.query.get("k", "10")
    whole = text.isascii() and text.isdigit() and len(text) <= 4
    return int(text) if whole and 1 <= int(text) <= MOST else None


def _fault(status: int, said: str) -> web.Response:
    return web.json_response({"error": said}, status=status)
