"""What `freshrec check` looks at, one finding at a time. Nothing is changed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from infra.broker import BrokerError, find_binary
from infra.keys import read_by_others
from infra.schema import migrations
from infra.settings import Settings, SettingsError
from infra.warehouse import Warehouse, WarehouseError, connect, without_password
from streams.sql_client import SqlClient, SqlError
from streams.status import Running, reachable_broker
from streams.topics import TOPICS, BrokerUnreachable, connect_admin

LEAST_MB = 200  # less free disk than this is a fault
LITTLE_MB = 2_000  # … and less than this worth a note


class Finding(NamedTuple):
    state: str  # ok | note | fault
    part: str
    text: str


def findings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Findings in the order in which a start would meet them; settings that fail end it."""
    try:
        settings = Settings.from_env(environ)
    except SettingsError as e:
        yield from (Finding("fault", "settings", fault) for fault in e.faults)
        return
    for said in settings.unknown:
        yield Finding("note", "settings", said)
    yield Finding("ok", "settings", "read from FRESHREC_… and .env")
    yield from _state(settings)
    running = Running.load(settings.state)
    yield _worker(settings, running)
    yield from _broker(settings)
    yield _warehouse(settings, running)
    yield from _encoder(settings)
    yield from _text(settings)
    yield from _pseudonyms(settings)


def _state(settings: Settings) -> Iterator[Finding]:
    folder = settings.state.absolute()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as e:
        cure = "set FRESHREC_STATE to a folder that you may write to"
        yield Finding("fault", "state", f"{existing} cannot be written ({e.strerror}): {cure}")
        return
    free_mb = shutil.disk_usage(existing).free // 2**20
    if free_mb < LEAST_MB:
        cure = "free some, or set FRESHREC_STATE to another disk"
        yield Finding("fault", "state", f"{folder} has {free_mb} MB of free disk: {cure}")
    elif free_mb < LITTLE_MB:
        yield Finding("note", "state", f"{folder} has only {free_mb} MB of free disk")
    else:
        made = "" if folder.exists() else " (made at the first start)"
        yield Finding("ok", "state", f"{folder}{made}, {free_mb:,} MB of free disk")


def _worker(settings: Settings, running: Running | None) -> Finding:
    if running is None:
        return Finding("note", "worker", "none runs with this state folder: freshrec up starts one")
    return Finding("ok", "worker", f"pid {running.pid}, {running.http_url}")


def _broker(settings: Settings) -> Iterator[Finding]:
    broker = reachable_broker(settings)
    if broker is None:
        try:
            find_binary()
        except BrokerError as e:
            yield Finding("fault", "broker", str(e))
            return
        yield Finding("ok", "broker", "embedded: it starts with freshrec up")
        return
    try:
        admin = connect_admin(broker)
        try:
            existing = set(admin.list_topics())
        finally:
            admin.close()
    except BrokerUnreachable as e:
        yield Finding("fault", "broker", str(e))
        return
    except Exception as e:  # kafka-python: refused, not authorised, gone in between
        yield Finding("fault", "broker", f"{broker} does not list its topics: {e}")
        return
    yield Finding("ok", "broker", f"{broker} answers")
    absent = [name for name in TOPICS if name not in existing]
    if absent:
        text = f"{', '.join(absent)} do not exist yet: a worker makes them, if its user may"
        yield Finding("note", "topics", text)
    else:
        yield Finding("ok", "topics", ", ".join(TOPICS))


def _encoder(settings: Settings) -> Iterator[Finding]:
    """Its device and the checkpoint that it starts from, shape and all."""
    if not settings.encoder:
        yield Finding("ok", "encoder", "off (FRESHREC_ENCODER)")
        return
    from encoders.devices import Device, DeviceError
    from infra.checkpoint import CheckpointError, read_checkpoint
    from online.teaching import EncoderConfig
    from streams.assembly import checkpoint_items

    try:
        device = Device.named(settings.device)
    except DeviceError as e:
        yield Finding("fault", "encoder", str(e))
        return
    yield Finding("ok", "encoder", f"learns on {device.torch.type}, {settings.encoder_share:.0%}")
    if settings.encoder_from is None:
        return
    try:
        read_checkpoint(settings.encoder_from)  # all of it: is it whole?
        items = checkpoint_items(EncoderConfig(start=str(settings.encoder_from)))
    except CheckpointError as e:
        yield Finding("fault", "checkpoint", str(e))
        return
    yield Finding("ok", "checkpoint", f"{settings.encoder_from}, {len(items):,} items")


def _text(settings: Settings) -> Iterator[Finding]:
    """The language model: can it be loaded?"""
    if not settings.text:
        yield Finding("ok", "text", "off (FRESHREC_TEXT)")
        return
    from streams.core_config import text_config
    from streams.text_process import TextLost, TextProcess, TextRefused

    try:
        with TextProcess(text_config(settings)) as model:
            yield Finding("ok", "text", f"{model.name}, {model.width} numbers a text")
    except (TextLost, TextRefused) as e:
        yield Finding("fault", "text", str(e))


def _pseudonyms(settings: Settings) -> Iterator[Finding]:
    path = settings.pseudonym_key_file
    if path is None:
        return
    if read_by_others(path):
        text = f"{path} can be read by other users of this machine: chmod 600 {path}"
        yield Finding("note", "pseudonyms", text)
    else:
        yield Finding("ok", "pseudonyms", f"ids are replaced, with the key in {path}")


def _warehouse(settings: Settings, running: Running | None) -> Finding:
    url = settings.warehouse_url
    shown = without_password(url)
    if running is not None and url.startswith("chdb:"):
        try:
            client = SqlClient(running.http_url, token=settings.http_token)
            version = client.rows("SELECT version()")[0][0]
        except (SqlError, ValueError, LookupError) as e:
            return Finding("fault", "warehouse", f"{shown}: the worker does not answer SQL: {e}")
        return Finding("ok", "warehouse", f"{shown}, ClickHouse {version}, held by the worker")
    if url.startswith("chdb:") and not Path(urlsplit(url).path).is_dir():
        return Finding("ok", "warehouse", f"{shown}: it is made at the first start")
    try:
        warehouse = connect(url)
        try:
            return _schema(shown, warehouse)
        finally:
            warehouse.close()
    except WarehouseError as e:
        return Finding("fault", "warehouse", str(e))


def _schema(shown: str, warehouse: Warehouse) -> Finding:
    version = warehouse.query("SELECT version()").rows[0][0]
    tables = {name for (name,) in warehouse.query("SHOW TABLES").rows}
    applied: set[int] = set()
    if "schema_migrations" in tables:
        rows = warehouse.query("SELECT DISTINCT number FROM schema_migrations").rows
        applied = {int(number) for (number,) in rows}
    known = {m.number: m.name for m in migrations()}
    if applied - set(known):
        text = f"{shown} has a newer schema ({max(applied)}): update freshrec"
        return Finding("fault", "warehouse", text)
    pending = [name for number, name in known.items() if number not in applied]
    if pending:
        text = f"{shown}, ClickHouse {version}: freshrec migrate (or a worker) applies "
        return Finding("note", "warehouse", text + ", ".join(pending))
    return Finding("ok", "warehouse", f"{shown}, ClickHouse {version}, schema {max(known)}")
