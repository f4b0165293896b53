"""Structured logging: an event name and keys, as text for people or JSON for machines.

    log = get_log("broker")
    log.info("broker_started", port=9092, cluster_id="…")

Values are for operators: never pass a password, a URL with credentials or a record's content.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

ROOT = "freshrec"
MAX_VALUE = 2000  # characters of one value
LIBRARY_PAUSE_S = 10.0  # a library's message is shown once in this time


class Log:
    """A named logger whose methods take an event name and keys."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{ROOT}.{name}")

    def debug(self, event: str, **keys: Any) -> None:
        self._write(logging.DEBUG, event, keys)

    def info(self, event: str, **keys: Any) -> None:
        self._write(logging.INFO, event, keys)

    def warning(self, event: str, **keys: Any) -> None:
        self._write(logging.WARNING, event, keys)

    def error(self, event: str, **keys: Any) -> None:
        self._write(logging.ERROR, event, keys)

    def _write(self, level: int, event: str, keys: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"keys": keys})


def get_log(name: str) -> Log:
    return Log(name)


def configure(level: str = "info", form: str = "text", stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (stderr) at `level`; libraries only from warnings up."""
    target = logging.StreamHandler(stream or sys.stderr)
    target.setFormatter(JsonLines() if form == "json" else TextLines())
    target.addFilter(Sparing())
    root = logging.getLogger()
    root.handlers[:] = [target]
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level.upper())
    # kafka-python reports every attempt to connect as an error; our own errors say it once
    logging.getLogger("kafka").setLevel("WARNING" if level == "debug" else "CRITICAL")


class Sparing(logging.Filter):
    """Lets a library repeat itself only every so often: clients of a broker that is away shout."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith(ROOT):
            return True
        what = (record.name, str(record.msg)[:200])
        if record.created - self._shown.get(what, 0.0) < LIBRARY_PAUSE_S:
            return False
        if len(self._shown) >= 1000:
            self._shown.clear()
        self._shown[what] = record.created
        return True


class TextLines(logging.Formatter):
    """`12:00:00 INFO broker broker_started port=9092`"""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        name = record.name.removeprefix(f"{ROOT}.")
        keys = "".join(f" {k}={_text(v)}" for k, v in _keys(record).items())
        return f"{clock} {record.levelname} {name} {record.getMessage()[:MAX_VALUE]}{keys}"


class JsonLines(logging.Formatter):
    """One JSON object a line: ts (epoch ms), level, logger, event and the event's keys."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": int(record.created * 1000),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix(f"{ROOT}."),
            "event": record.getMessage()[:MAX_VALUE],
        }
        line.update({k: v for k, v in _keys(record).items() if k not in line})
        return json.dumps(line, default=lambda value: str(value)[:MAX_VALUE])


def _keys(record: logging.LogRecord) -> dict[str, Any]:
    keys = dict(getattr(record, "keys", {}))
    if record.exc_info and record.exc_info[1] is not None:
        keys["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        keys["trace"] = logging.Formatter().formatException(record.exc_info)[-MAX_VALUE:]
    return keys


def _text(value: Any) -> str:
    text = str(value)[:MAX_VALUE]
    return json.dumps(text) if not text or any(c.isspace() or c == '"' for c in text) else text
