"""What a running worker says about itself: health, Prometheus metrics, and where it runs."""

from __future__ import annotations

import collections
import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from infra.address import BrokerAddress
from infra.settings import Settings

if TYPE_CHECKING:  # at run time it would bring the whole model into every small command
    from streams.learning import Learned

FRESHNESS_OF = 10_000  # newest rows whose freshness is kept
RATE_OVER_S = 5.0
RUNNING_FILE = "running.json"


class Status:
    """Counts and states of one worker; written and read on its event loop only."""

    def __init__(self) -> None:
        self.state = "starting"  # starting | ok | stopping
        self.detail = ""  # what it is doing while it starts or stops
        self.broker: dict[str, Any] = {"status": "ok"}
        self.warehouse: dict[str, Any] = {"status": "ok"}
        self.checkpoints: dict[str, Any] = {"status": "ok"}
        self._kept_at: float | None = None
        self.lag: Callable[[], dict[str, int]] = dict
        self.quality: Callable[[], dict[str, Any]] = dict
        self.sharing: Callable[[], dict[str, Any]] = dict
        self.texts: Callable[[], dict[str, int]] = dict
        self.taken = self.events = self.duplicates = self.rejects = self.items = 0
        self.slates = self.batches = self.other_keys = self.redelivered = 0
        self.erasures = {"pending": 0, "done": 0}
        self._freshness: collections.deque[int] = collections.deque(maxlen=FRESHNESS_OF)
        self._recent: collections.deque[tuple[float, int]] = collections.deque(maxlen=5000)
        self._last_batch: float | None = None
        self._stages: dict[str, collections.deque[float]] = {}

    def took(self, messages: int) -> None:
        """Messages came from Kafka."""
        self.taken += messages

    def spent(self, stage: str, seconds: float) -> None:
        """How long a batch spent in a stage.

        `arrive`: from produced to taken; `prepare`: decoding, reading histories; `learn`: waiting
        for the core, which may have begun before; `write`: journal and slates; `write_later`.
        """
        self._stages.setdefault(stage, collections.deque(maxlen=1000)).append(seconds)

    def wrote(self, learned: Learned, now_ms: int) -> None:
        """All rows of a batch became readable at `now_ms` (epoch milliseconds)."""
        step = learned.step
        self.batches += 1
        self.events += len(step.accepted)
        self.slates += len(step.slates)
        self.duplicates += step.duplicates + learned.repeated
        self.rejects += len(learned.letters)
        self.items += len(learned.announcements)
        self.other_keys += learned.other_keys
        self._freshness.extend(
            max(0, now_ms - d.produced_ms) for d in step.accepted if d.produced_ms > 0
        )
        self._last_batch = time.monotonic()
        self._recent.append((self._last_batch, len(step.accepted)))

    def fails(self, part: str, error: str, attempt: int) -> None:
        """The warehouse, or the checkpoints, cannot be written."""
        about: dict[str, Any] = getattr(self, part)
        since = about.get("since_ms") or int(time.time() * 1000)
        about.update(status="away", error=error, attempts=attempt, since_ms=since)

    def works(self, part: str) -> None:
        about: dict[str, Any] = getattr(self, part)
        for name in ("error", "attempts", "since_ms"):
            about.pop(name, None)
        about["status"] = "ok"

    def kept(self, batch: int, seconds: float, size: int) -> None:
        """A state of the core is in the checkpoints."""
        self.checkpoints |= {
            "batch": batch,
            "seconds": round(seconds, 2),
            "mb": round(size / 2**20),
        }
        self._kept_at = time.monotonic()

    def events_per_second(self) -> float:
        """Events written per second, over the last five."""
        horizon = time.monotonic() - RATE_OVER_S
        return sum(count for at, count in self._recent if at > horizon) / RATE_OVER_S

    def freshness_ms(self) -> dict[str, float | None]:
        """Produced to readable, of the newest rows: median and 99th percentile, milliseconds."""
        newest = self._freshness
        return {"p50": _share(newest, 50), "p99": _share(newest, 99), "count": len(newest)}

    def health(self) -> dict[str, Any]:
        """The answer of GET /health. `status`: starting, ok, degraded or stopping."""
        parts = (self.broker, self.warehouse, self.checkpoints)
        away = any(part["status"] == "away" for part in parts)
        return {
            "status": "degraded" if away and self.state == "ok" else self.state,
            "detail": self.detail,
            "broker": self.broker,
            "warehouse": self.warehouse,
            "checkpoints": self.checkpoints | {"age_s": _age(self._kept_at)},
            "lag": self.lag(),
            "last_batch_age_s": _age(self._last_batch),
            "events_total": self.events,
            "events_per_second": round(self.events_per_second(), 1),
            "messages_taken": self.taken,
            "batches": self.batches,
            "slates": self.slates,
            "items": self.items,
            "rejects": self.rejects,
            "duplicates": self.duplicates,
            "redelivered": self.redelivered,
            "other_keys": self.other_keys,
            "erasures": self.erasures,
            "freshness_ms": self.freshness_ms(),
            "stages_ms": {
                name: {"p50": _share(spent, 50, 1e3), "p99": _share(spent, 99, 1e3)}
                for name, spent in self._stages.items()
            },
            "texts": self.texts(),
            "sharing": self.sharing(),
            "quality": self.quality(),
        }


def _share(values: Collection[float], percent: int, times: float = 1) -> float | None:
    """The percentile of `values`, times `times`; None without values."""
    if not values:
        return None
    array = np.fromiter(values, np.float64, len(values))
    at = min(len(array) - 1, len(array) * percent // 100)
    return round(float(np.partition(array, at)[at]) * times, 1)


def _age(since: float | None) -> float | None:
    return None if since is None else round(time.monotonic() - since, 3)


class Prometheus:
    """The same as Prometheus metrics, computed when they are asked for."""

    COUNTERS = {
        "events": "events written",
        "duplicates": "events dropped as duplicates",
        "redelivered": "events that were delivered again and had been learned",
        "rejects": "messages sent to dead letters",
        "slates": "slates written",
        "items": "announcements and withdrawals of items written",
        "batches": "batches written",
    }

    def __init__(self, status: Status) -> None:
        self._status = status
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def page(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        status, health = self._status, self._status.health()
        for name, meaning in self.COUNTERS.items():
            yield CounterMetricFamily(f"freshrec_{name}", meaning, value=getattr(status, name))
        up = float(health["status"] == "ok")
        yield GaugeMetricFamily("freshrec_healthy", "1 when everything works", value=up)
        away = GaugeMetricFamily("freshrec_away", "1 while it does not answer", labels=["part"])
        for part in ("broker", "warehouse", "checkpoints"):
            away.add_metric([part], float(health[part]["status"] == "away"))
        yield away
        rate = health["events_per_second"]
        yield GaugeMetricFamily("freshrec_events_per_second", "events written a second", value=rate)
        lag = GaugeMetricFamily(
            "freshrec_lag", "messages not learned", labels=["topic", "partition"]
        )
        for place, behind in health["lag"].items():
            lag.add_metric(place.rsplit("/", 1), behind)
        yield lag
        fresh = GaugeMetricFamily(
            "freshrec_freshness_seconds", "produced to readable", labels=["quantile"]
        )
        for quantile, key in (("0.5", "p50"), ("0.99", "p99")):
            if health["freshness_ms"][key] is not None:
                fresh.add_metric([quantile], health["freshness_ms"][key] / 1000)
        yield fresh
        quality = GaugeMetricFamily("freshrec_quality", "prequential quality", labels=["metric"])
        for name, value in health["quality"].items():
            if isinstance(value, int | float):
                quality.add_metric([name], value)
        yield quality


@dataclass(frozen=True, slots=True)
class Running:
    """A running worker, for other commands: a small file in its state folder."""

    pid: int
    broker: str  # host:port, or as FRESHREC_BROKER shows it
    http: str  # host:port
    cluster_id: str
    embedded: bool

    @property
    def http_url(self) -> str:
        return f"http://{self.http}"

    def save(self, state: Path) -> None:
        """Write the file at once: a reader sees all of it or nothing."""
        draft = state / f"{RUNNING_FILE}.{os.getpid()}"
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(state / RUNNING_FILE)

    @classmethod
    def load(cls, state: Path) -> Running | None:
        """The worker that runs with this state folder; None if none does."""
        try:
            running = cls(**json.loads((state / RUNNING_FILE).read_text()))
            os.kill(running.pid, 0)
        except PermissionError:
            return running  # alive, and another user's
        except (OSError, ValueError, TypeError):
            return None
        return running

    @staticmethod
    def forget(state: Path) -> None:
        (state / RUNNING_FILE).unlink(missing_ok=True)


def reachable_broker(settings: Settings) -> BrokerAddress | None:
    """Where clients find the broker; None when it is embedded and nothing runs."""
    if not settings.broker.embedded:
        return settings.broker
    running = Running.load(settings.state)
    return BrokerAddress.at(running.broker) if running and running.embedded else None
