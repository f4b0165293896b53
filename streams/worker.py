"""The composition root: settings in, a running worker out.

freshrec up       →  run_up(settings)       the parts that are embedded, and a worker
freshrec worker   →  run_worker(settings)   a worker against your own broker
python -m streams.worker                    either, by what FRESHREC_BROKER says
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import uvloop

from infra.address import BrokerAddress
from infra.broker import BrokerError, EmbeddedBroker
from infra.checkpoints import Checkpoints, CheckpointsError
from infra.children import lower_threads
from infra.erasures import Erasures, erasure_key
from infra.log import configure, get_log
from infra.settings import Settings, SettingsError
from infra.sql_http import add_routes
from infra.warehouse import Warehouse, WarehouseError, WarehouseUnavailable, connect
from online.texts import TextConfig
from streams.agents import Intake, add_agents
from streams.app import make_app
from streams.core_config import config_of, text_config
from streams.core_process import CoreLost, CoreProcess
from streams.desk import Desk
from streams.erasing import Eraser
from streams.http import HttpError, HttpServer
from streams.keeping import Keeper
from streams.learning import Learner
from streams.pipeline import Pipeline
from streams.process import Ending, StateError, begin_again, claimed, spare_garbage_collection
from streams.producer import Producer
from streams.recovery import journalled
from streams.sharing import Heard, Listener, Sharing, Speaker
from streams.start import Start, Started, origin
from streams.status import Running, Status
from streams.text_process import TextLost, TextProcess, TextRefused
from streams.text_service import TextService
from streams.texts import text_of
from streams.topics import (
    DEAD_LETTERS,
    MODEL_UPDATES,
    RECOMMENDATIONS,
    BrokerRefusal,
    BrokerUnreachable,
    Log,
    ensure_topics,
    log_of,
)
from streams.updates import Who
from streams.watching import BrokerWatch
from streams.writing import Writer

log = get_log("worker")
# Threads of the embedded engine that merge parts: a fifth of a processor at 500 events/s, for which
# nobody waits but `forget`, which has a minute.
MERGES = frozenset({"MergeMutate"})
BELOW = 15  # their niceness: below the core, above what nobody ever waits for

PATIENCE_S = 60.0  # how long a start waits for a warehouse that does not answer
CHECK_S = 0.2
SWITCH_S = 0.0005  # Faust, learning and writing take turns: not 5 ms in line each time
AGAIN = -1  # an exit code that only `run_up` sees

T = TypeVar("T")
EXPECTED = (StateError, BrokerError, BrokerUnreachable, CoreLost, WarehouseError, HttpError,
            CheckpointsError, TextLost, TextRefused)  # fmt: skip


def run_up(settings: Settings, fresh: bool = False) -> int:
    """Run a worker, and the embedded broker if that is configured, until SIGINT or SIGTERM.

    fresh: set checkpoints aside, and begin from the journal.

    Returns the exit code: 0 after a graceful stop, 1 after a failure, which is logged.
    """
    configure(settings.log_level, settings.log_format)
    for said in settings.unknown:
        log.warning("unknown_setting", said=said)
    try:
        with claimed(settings.state), _broker(settings) as (address, broker):
            sys.setswitchinterval(SWITCH_S)
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # Faust's threads too
            code = asyncio.run(Worker(settings, address, broker, fresh).run())
        if code == AGAIN:
            begin_again()
        return code
    except EXPECTED as error:
        log.error("worker_ended", error=str(error))
    except Exception as error:
        trace = traceback.format_exc()[-2000:]
        said = f"{type(error).__name__}: {error}"
        log.error("worker_crashed", error=said, trace=trace, cure="report this: it is a bug")
    return 1


def run_worker(settings: Settings, fresh: bool = False) -> int:
    """Run a worker against the configured broker, which must not be the embedded one."""
    if settings.broker.embedded:
        configure(settings.log_level, settings.log_format)
        log.error("worker_ended", error="FRESHREC_BROKER=embedded belongs to one process: use "
                  "`freshrec up`, or set FRESHREC_BROKER=kafka://host:port")  # fmt: skip
        return 1
    return run_up(settings, fresh)


class Worker:
    """One worker process: start, run until told to stop, stop without losing anything."""

    def __init__(
        self, settings: Settings, address: BrokerAddress, broker: EmbeddedBroker | None,
        fresh: bool = False,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._fresh = fresh
        self._address = address
        self._broker = broker
        self._ending = Ending(settings.shutdown_s)
        self._status = Status()
        self._log = Log("", {})
        self._desk = Desk(settings.pseudonyms)
        self._status.broker |= {"address": str(address), "embedded": broker is not None}

    async def run(self) -> int:
        """Everything from connecting to the last commit. Returns the exit code."""
        self._ending.heed_signals()
        async with contextlib.AsyncExitStack() as stack:
            reading = asyncio.create_task(self._model(stack))  # takes a while: beside the rest
            warehouse = await self._open_warehouse(stack)
            stack.callback(self._desk.close)

            def routes(app: Any) -> None:
                add_routes(app, warehouse=warehouse)
                self._desk.add_routes(app)

            http = HttpServer(self._status, routes, self._settings.http_token)
            where = await http.start(self._settings.http_host, self._settings.http_port)
            stack.push_async_callback(http.stop)
            self._save_running(where, warehouse.broker_id, stack)
            return await self._serve(warehouse, stack, reading)

    async def _serve(
        self, warehouse: Warehouse, stack: contextlib.AsyncExitStack,
        reading: asyncio.Task[TextProcess | None],
    ) -> int:  # fmt: skip
        settings, status = self._settings, self._status
        checkpoints = self._checkpoints(stack)
        erasures = Erasures(warehouse, erasure_key(checkpoints.root))
        shard, shares = checkpoints.shard, settings.sharing and self._broker is None
        status.detail = "reading the language model"
        model = await reading
        text = TextConfig(model.width, model.name) if model else TextConfig()
        config = config_of(settings, shard, shares, text)
        texts = TextService(model, warehouse) if model else None
        with self._producers(shares) as (letters, slates, updates):
            writer = Writer(warehouse, letters, slates)
            speaker = Speaker(updates, Who(settings.group, shard)) if updates is not None else None
            start = Start(settings, config, CoreProcess, warehouse, checkpoints, status, writer,
                          speaker, self._ending.asked.is_set, erasures, self._fresh,
                          text.model)  # fmt: skip
            started = await asyncio.to_thread(start.begin)
            core = started.core
            stack.callback(core.close)
            if self._ending.asked.is_set():
                return 0
            learner = Learner(core, warehouse, settings.max_record_bytes, erasures,
                              settings.pseudonyms, texts)  # fmt: skip
            status.quality = lambda: learner.quality
            keeper = Keeper(
                checkpoints, core, status, origin(settings, config, warehouse.broker_id),
                settings.checkpoint_s, settings.checkpoint_events, started.events,
                started.at.batch,
            )  # fmt: skip
            pipeline = Pipeline(
                learner, writer, status, keeper, warehouse.broker_id, settings.batch,
                started.at.batch, self._sharing(speaker, shard, started),
            )  # fmt: skip
            eraser = Eraser(
                warehouse, erasures, core, keeper, pipeline.wake, status, started.at.batch,
                started.released > 0, slates,
            )  # fmt: skip
            status.texts = pipeline.texts
            pipeline.journalled = eraser.journalled
            self._desk.open(core, pipeline, texts)
            await self._catch_up(core, warehouse, pipeline, texts)
            app = make_app(settings, self._address)
            learned = partial(journalled, warehouse, shard)
            intake = add_agents(app, settings, pipeline, status, learned)
            watch = BrokerWatch(self._address, status, self._log)
            intake.same_log = watch.same_log
            status.detail = "joining the consumer group"
            app.finalize()
            pipeline.start()
            spare_garbage_collection()
            await app.start()
            status.lag = intake.lag
            watching = asyncio.create_task(watch.run(intake.look_ahead))
            erasing = asyncio.create_task(eraser.run(), name="erase")
            erasing.add_done_callback(partial(_ended, pipeline))
            code = 1
            try:
                code = await self._watch(app, pipeline, intake, core, watch, model)
                status.state = "stopping"
                if code == 0 and self._broker is not None:  # its log dies with us
                    await intake.read_out(settings.shutdown_s * 0.4)
            finally:
                watching.cancel()
                erasing.cancel()
                await self._stop_app(app, pipeline, code)
        log.info("worker_stopped", events=status.events, rejects=status.rejects,
                 duplicates=status.duplicates)  # fmt: skip
        return code

    async def _model(self, stack: contextlib.AsyncExitStack) -> TextProcess | None:
        """The language model, if texts are to be understood."""
        s = self._settings
        if not s.text:
            return None
        model = await asyncio.to_thread(TextProcess, text_config(s))
        stack.callback(model.close)
        log.info("language_model", name=model.name, width=model.width)
        return model

    async def _catch_up(
        self, core: CoreProcess, warehouse: Warehouse, pipeline: Pipeline,
        texts: TextService | None,
    ) -> None:  # fmt: skip
        """Have search know the catalogue, and texts read that no state knows."""
        items = await asyncio.to_thread(warehouse.catalogue)
        self._desk.change(items, [])
        if texts is not None:  # after a change of the model this is all: what counts most first
            by_id = {item.item_id: item for item in items}
            silent = (by_id.get(name) for name in await asyncio.to_thread(core.without_text))
            pipeline.read(item for item in silent if item and text_of(item))
            pipeline.read(await asyncio.to_thread(texts.unread, items))

    async def _watch(
        self, app: Any, pipeline: Pipeline, intake: Intake, core: CoreProcess, watch: BrokerWatch,
        model: TextProcess | None = None,
    ) -> int:  # fmt: skip
        """Until a signal (0), or until something fails (1), or until the log is another (AGAIN)."""
        status = self._status
        while not self._ending.asked.is_set():
            if status.state == "starting" and intake.owned.is_set():
                await intake.look_ahead()  # so that the first lag is true
                status.state, status.detail = "ok", ""
                log.info("worker_ready", broker=str(self._address))
            if pipeline.failed.done():
                status.detail = str(pipeline.failed.result())
                return 1
            if core.exit_code is not None:
                status.detail = f"the core's process ended (exit {core.exit_code})"
                log.error("core_died", error=status.detail, cure="start again: it learns the "
                          "journal again; if it was killed, lower FRESHREC_MEMORY_MB")  # fmt: skip
                return 1
            if app.crashed or app.should_stop:
                log.error("faust_stopped", reason=str(getattr(app, "_crash_reason", "")))
                return 1
            if model is not None and model.exit_code is not None:
                status.detail = f"the language model's process ended (exit {model.exit_code})"
                log.error("language_model_died", error=status.detail, cure="start again; if it was "
                          "killed, raise FRESHREC_MEMORY_MB, or set FRESHREC_TEXT=off")  # fmt: skip
                return 1
            if self._broker is not None and not self._broker.alive():
                log.error("broker_died", cure="start again; events not in the warehouse are gone")
                return 1
            if watch.gone:
                app.consumer.sealed = True
                cure = "start again" if self._broker else "none needed: it begins again"
                log.error("log_gone", why=watch.gone, cure=cure)
                return 1 if self._broker else AGAIN
            await asyncio.sleep(CHECK_S)
        return 0

    async def _stop_app(self, app: Any, pipeline: Pipeline, code: int) -> None:
        self._ending.bound()
        await app.stop()
        if code != 1:
            await pipeline.keep_last(self._settings.shutdown_s * 0.3)
        await pipeline.stop()

    def _checkpoints(self, stack: contextlib.AsyncExitStack) -> Checkpoints:
        checkpoints = Checkpoints(self._settings.checkpoints_folder)
        stack.callback(checkpoints.close)
        if self._fresh:
            aside = checkpoints.set_aside()
            log.warning("fresh_start", set_aside=str(aside or "nothing was there"))
        return checkpoints

    async def _open_warehouse(self, stack: contextlib.AsyncExitStack) -> Warehouse:
        """Topics and warehouse, each waited for a while: in a cluster all start at once."""
        s = self._settings
        found = await self._patiently(
            lambda: ensure_topics(self._address, s.partitions, s.replication, s.max_record_bytes)
        )
        self._status.broker["partitions"] = found
        self._log = await self._patiently(lambda: log_of(self._address))
        self._status.broker["cluster_id"] = self._log.id
        warehouse = connect(s.warehouse_url, self._log.id)
        stack.callback(warehouse.close)
        applied = await self._patiently(warehouse.migrate)
        if applied:
            log.info("migrated", migrations=",".join(applied))
        lower_threads(MERGES, BELOW)  # of an embedded warehouse: they are there now
        return warehouse

    async def _patiently(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + (0 if self._broker else PATIENCE_S)
        while True:
            try:
                return await asyncio.to_thread(call)
            except (WarehouseUnavailable, BrokerUnreachable) as error:
                refused = isinstance(error, BrokerRefusal)
                if refused or time.monotonic() > deadline or self._ending.asked.is_set():
                    raise
                log.warning("not_there_yet", error=str(error))
                await asyncio.sleep(1.0)

    def _sharing(self, speaker: Speaker | None, shard: int, started: Started) -> Sharing | None:
        if speaker is None:
            return None
        heard = Heard(Who(self._settings.group, shard), started.at.heard, started.at.updates)
        self._status.sharing = heard.figures
        return Sharing(speaker, Listener(self._address, heard), heard)

    @contextlib.contextmanager
    def _producers(
        self, shares: bool
    ) -> Iterator[tuple[Producer, Producer | None, Producer | None]]:
        room = {"max_request_size": max(2 * self._settings.max_record_bytes, 2_000_000)}
        with contextlib.ExitStack() as stack:
            letters = Producer(self._address, DEAD_LETTERS, **room)
            stack.callback(letters.close, 1.0)
            slates = None
            if self._settings.publish:
                slates = Producer(self._address, RECOMMENDATIONS, **room)
                stack.callback(slates.close, 1.0)
            updates = None
            if shares:
                updates = Producer(self._address, MODEL_UPDATES, **room)
                stack.callback(updates.close, 1.0)
            yield letters, slates, updates

    def _save_running(self, where: str, broker_id: str, stack: contextlib.AsyncExitStack) -> None:
        embedded = self._broker is not None
        broker = self._broker.address if self._broker else str(self._address)
        Running(os.getpid(), broker, where, broker_id, embedded).save(self._settings.state)
        stack.callback(Running.forget, self._settings.state)


def _ended(pipeline: Pipeline, erasing: asyncio.Task[None]) -> None:
    """Whoever asked to be forgotten must not wait for ever, unnoticed."""
    if not erasing.cancelled() and (error := erasing.exception()) is not None:
        pipeline.fail(error)


@contextlib.contextmanager
def _broker(settings: Settings) -> Iterator[tuple[BrokerAddress, EmbeddedBroker | None]]:
    if not settings.broker.embedded:
        yield settings.broker, None
        return
    broker = EmbeddedBroker()
    broker.start(settings.broker.port)
    try:
        yield BrokerAddress.at(broker.address), broker
    finally:
        broker.stop()


def main() -> None:
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    sys.exit(run_up(settings))


if __name__ == "__main__":
    main()
